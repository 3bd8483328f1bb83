//! References from table entries.

use crate::area::Area;
use crate::word::SlotWord;
use crate::{Swap, TooManyReferences};
use vellum_machine::VmItem;
use vellum_page::PageFlags;
use vellum_types::{Pfn, SwapEntry};

/// What is left to do, without the lock, after a slot lost its last user.
#[derive(Clone, Copy)]
pub(crate) enum After {
    Nothing,
    /// Tell the device, then give the slot back.
    Discard,
}

impl<'m> Swap<'m> {
    /// One more table entry refers to `entry`: fork copied one, or a page that has the entry is being
    /// unmapped. Linux's `swap_duplicate`.
    ///
    /// # Errors
    /// There are 16 million of them already.
    ///
    /// # Panics
    /// If the slot is not in use: the caller has no reference to it.
    #[inline]
    pub fn dup(&self, entry: SwapEntry) -> Result<(), TooManyReferences> {
        self.with_slot(entry, |area, slot| {
            let word = area.word(slot);
            assert!(word.in_use(), "{entry:?} is not in use");
            let more = word.dup().ok_or(TooManyReferences)?;
            area.set_word(slot, more);
            Ok(())
        })
        .unwrap_or_else(|| panic!("{entry:?} does not exist"))
    }

    /// A table entry that referred to `entry` is gone. With the last one the slot is free, and its page
    /// too, if nobody but the swap cache has it. Linux's `free_swap_and_cache`.
    ///
    /// # Panics
    /// If nobody refers to it.
    #[inline]
    pub fn free(&self, entry: SwapEntry) {
        let (after, frame) = self
            .with_slot(entry, |area, slot| {
                let Some(word) = area.word(slot).undup() else {
                    panic!("{entry:?} has no references")
                };
                area.set_word(slot, word);
                if word.count() != 0 {
                    return (After::Nothing, None);
                }
                match word.cached() {
                    None => (self.unuse(area, slot), None),
                    Some(pfn) if self.freeze_unused(pfn) => {
                        self.detach(area, slot, pfn, None);
                        (self.unuse(area, slot), Some(pfn))
                    }
                    Some(_) => (After::Nothing, None),
                }
            })
            .unwrap_or_else(|| panic!("{entry:?} does not exist"));
        self.finish(entry, after);
        if let Some(pfn) = frame {
            self.source.free_pages(pfn);
        }
    }

    /// Table entries that refer to `entry`. Linux's `swp_swapcount`.
    pub fn count(&self, entry: SwapEntry) -> u32 {
        self.with_slot(entry, |area, slot| area.word(slot).count())
            .unwrap_or(0)
    }

    /// True if the caller, who has the page table of one reference to `entry` locked and holds one
    /// reference to its cached page, is the only one who can get at the content: after he replaces
    /// his entry by the page he may map it writable. Linux's test for `exclusive` in `do_swap_page`.
    pub fn is_sole(&self, entry: SwapEntry) -> bool {
        self.with_slot(entry, |area, slot| {
            let word = area.word(slot);
            word.count() == 1
                && word.cached().is_some_and(|pfn| {
                    let page = self.page(pfn);
                    page.mapcount() == 0 && page.refcount() == 2
                })
        })
        .unwrap_or(false)
    }

    /// If nobody but the cache has the page: makes sure that nobody can get it any more.
    #[inline]
    pub(crate) fn freeze_unused(&self, pfn: Pfn) -> bool {
        self.page(pfn).freeze(1)
    }

    /// The page of a slot is not its page any more. The caller sees to the cache's reference.
    #[inline]
    pub(crate) fn detach(&self, area: &Area<'m>, slot: u32, pfn: Pfn, shadow: Option<u32>) {
        area.set_word(slot, area.word(slot).without_page(shadow));
        self.set_side(pfn, SwapEntry::NONE);
        self.page(pfn).clear_flags(PageFlags::SWAPCACHE);
        self.vmstat.sub(VmItem::NrSwapCached, 1);
    }

    /// The page of a slot is now its page.
    #[inline]
    pub(crate) fn attach(&self, entry: SwapEntry, pfn: Pfn) {
        self.set_side(pfn, entry);
        self.vmstat.add(VmItem::NrSwapCached, 1);
    }

    /// A slot that neither a page nor a table entry belongs to any more.
    #[inline]
    pub(crate) fn unuse(&self, area: &mut Area<'m>, slot: u32) -> After {
        if area.discards {
            area.set_word(slot, SlotWord::releasing(area.word(slot)));
            return After::Discard;
        }
        self.give_back(area, slot);
        After::Nothing
    }

    /// Does what is left to do.
    #[inline]
    pub(crate) fn finish(&self, entry: SwapEntry, after: After) {
        if matches!(after, After::Nothing) {
            return;
        }
        // The word is Releasing: neither the slot nor the area can go meanwhile.
        let device = self.with_slot(entry, |area, _| area.device);
        if let Some(device) = device {
            device.discard(entry.slot());
        }
        self.release(entry);
    }
}
