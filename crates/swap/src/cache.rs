//! The swap cache: pages that are in memory and have a slot.

use crate::Swap;
use crate::slots::After;
use crate::word::SlotWord;
use vellum_machine::VmEvent;
use vellum_page::PageFlags;
use vellum_types::{Pfn, SwapEntry};

impl Swap<'_> {
    /// Gives the page a slot and makes it a page of the swap cache, dirty. The cache takes a reference
    /// of its own. The caller holds one too and the page lock; he then replaces each table entry that
    /// maps the page, with [`Swap::dup`] for each. Linux's `folio_alloc_swap`.
    ///
    /// Returns `None` if no area has a slot.
    #[inline]
    pub fn add_to_swap(&self, pfn: Pfn) -> Option<SwapEntry> {
        let page = self.page(pfn);
        debug_assert!(
            !page.flags().contains(PageFlags::SWAPCACHE),
            "{pfn:?} has a slot"
        );
        page.get();
        let Some(entry) = self.take_slot(SlotWord::new_cached(pfn)) else {
            let last = page.put();
            debug_assert!(!last, "the caller holds a reference");
            return None;
        };
        // Nobody else knows the entry yet: the order of these does not matter.
        self.attach(entry, pfn);
        page.set_flags(PageFlags::SWAPCACHE | PageFlags::SWAPBACKED | PageFlags::DIRTY);
        Some(entry)
    }

    /// The cached page of `entry`, with a reference taken for the caller. The page may still be read
    /// into: it is right when it is UPTODATE. Linux's `swap_cache_get_folio`.
    #[inline]
    pub fn lookup(&self, entry: SwapEntry) -> Option<Pfn> {
        let (pfn, ahead) = self.with_slot(entry, |area, slot| {
            let word = area.word(slot);
            let pfn = word.cached()?;
            // A page in the cache has the cache's reference but while it is being taken out, which
            // is done under this lock.
            if !self.page(pfn).try_get() {
                return None;
            }
            if word.is_ahead() {
                area.set_word(slot, word.wanted());
            }
            Some((pfn, word.is_ahead()))
        })??;
        if ahead {
            self.vmstat.count(VmEvent::SwapRaHit);
            self.readahead.hit();
        }
        Some(pfn)
    }

    /// The slot of a page, if it is in the cache. To be relied upon by holders of the page lock, and
    /// of the table of an entry for it.
    #[inline]
    pub fn entry_of(&self, pfn: Pfn) -> Option<SwapEntry> {
        if !self.page(pfn).flags().contains(PageFlags::SWAPCACHE) {
            return None;
        }
        Some(self.side(pfn)).filter(|entry| !entry.is_none())
    }

    /// Takes the page out of the cache and frees its slot, if no table entry refers to the slot and the
    /// page is not being written; it is dirty then, for its content is nowhere else. The caller holds
    /// a reference. Linux's `folio_free_swap`.
    pub fn try_to_free_swap(&self, pfn: Pfn) -> bool {
        let page = self.page(pfn);
        let Some(entry) = self.entry_of(pfn) else {
            return false;
        };
        let after = self.with_slot(entry, |area, slot| {
            let word = area.word(slot);
            let busy = page.flags().contains(PageFlags::WRITEBACK);
            if word.cached() != Some(pfn) || word.count() != 0 || busy {
                return None;
            }
            page.set_flags(PageFlags::DIRTY);
            self.detach(area, slot, pfn, None);
            Some(self.unuse(area, slot))
        });
        let Some(after) = after.flatten() else {
            return false;
        };
        self.finish(entry, after);
        let last = page.put();
        debug_assert!(!last, "the caller holds a reference");
        true
    }

    /// Takes a page out of the cache for good: the slot keeps the content, and `shadow`, and the frame
    /// is the caller's alone, refcount 0, to be given to `free_pages`. Refused if the page is dirty
    /// (unless no table entry needs it any more) or being written, or if anybody else has a reference
    /// besides the cache and the caller. Linux's `__remove_mapping` for anonymous pages.
    #[inline]
    pub fn remove_for_reclaim(&self, pfn: Pfn, shadow: Option<u32>) -> bool {
        let page = self.page(pfn);
        let Some(entry) = self.entry_of(pfn) else {
            return false;
        };
        let after = self.with_slot(entry, |area, slot| {
            let word = area.word(slot);
            if word.cached() != Some(pfn) || !page.freeze(2) {
                return None;
            }
            // Looked at after the freeze: whoever dirtied it had a reference.
            let flags = page.flags();
            let needed = word.count() != 0 && flags.contains(PageFlags::DIRTY);
            if needed || flags.contains(PageFlags::WRITEBACK) {
                page.unfreeze(2);
                return None;
            }
            self.detach(area, slot, pfn, shadow);
            if word.count() == 0 {
                return Some(self.unuse(area, slot));
            }
            Some(After::Nothing)
        });
        let Some(after) = after.flatten() else {
            return false;
        };
        self.finish(entry, after);
        true
    }

    /// Gives back a reference to a page that may be in the swap cache. If only the cache has it then,
    /// and no table entry refers to its slot, both are freed. Linux's `free_page_and_swap_cache`.
    pub fn put_page(&self, pfn: Pfn) {
        let page = self.page(pfn);
        let put = self.entry_of(pfn).and_then(|entry| {
            self.with_slot(entry, |area, slot| {
                let word = area.word(slot);
                if word.cached() != Some(pfn) {
                    return None;
                }
                if word.count() == 0 && page.freeze(2) {
                    self.detach(area, slot, pfn, None);
                    return Some((entry, Some(self.unuse(area, slot))));
                }
                // Under the lock, so that of two who do this the later one finds the cache alone.
                let last = page.put();
                debug_assert!(!last, "the cache holds a reference");
                Some((entry, None))
            })
            .flatten()
        });
        match put {
            Some((_, None)) => {}
            Some((entry, Some(after))) => {
                self.finish(entry, after);
                self.source.free_pages(pfn);
            }
            None if page.put() => self.source.free_pages(pfn),
            None => {}
        }
    }
}
