//! Advice about memory that is to go: MADV_FREE, MADV_COLD, MADV_PAGEOUT. Linux: `mm/madvise.c`, and
//! `try_to_unmap_one` for pages that MADV_FREE gave up.

use crate::context::{MmContext, has_frame, is_zero_entry};
use crate::file_map::clear_bits;
use crate::mm::{Mm, MmInner, RssKind};
use vellum_machine::{Machine, VmEvent};
use vellum_page::{PageFlags, PageState};
use vellum_page_table::{Pte, PteFlags};
use vellum_reclaim::{MayDo, Outcome, ReclaimHost};
use vellum_types::{PAGE_SIZE, Pfn, VirtAddr, VirtRange};

/// Pages looked up at once.
const BATCH: usize = 32;

impl<'m, M: Machine> MmContext<'m, M> {
    /// The private pages of a range may be dropped from now on, until they are written to again: their
    /// entries become clean, so that a store is seen. Pages that others share stay as they are;
    /// what is in swap goes at once.
    pub(crate) fn give_up_range(&self, mm: &Mm<'m>, inner: &mut MmInner<'m>, range: VirtRange) {
        let mut gather = self.gather(mm.space());
        let mut bits = PteFlags::DIRTY | PteFlags::ACCESSED;
        if !self.machine.features().hw_access_dirty {
            // Only a fault tells of the next store.
            bits |= PteFlags::WRITE;
        }
        for (leaf, part) in inner.table.leaves(range) {
            for va in part.pages() {
                let pte = leaf.get(va);
                if let Some(entry) = pte.swap_entry() {
                    leaf.set(va, Pte::NONE);
                    inner.swap_entries -= 1;
                    self.swap.free(entry);
                    continue;
                }
                if !has_frame(pte) || is_zero_entry(pte) || self.machine.must_stay(mm.space(), va) {
                    continue;
                }
                let page = self.page(pte.pfn());
                if page.state() != PageState::Anon || page.mapcount() != 1 {
                    continue;
                }
                let cached = page.flags().contains(PageFlags::SWAPCACHE);
                if cached && !self.swap.try_to_free_swap(pte.pfn()) {
                    continue;
                }
                clear_bits(&leaf, va, bits);
                if let Some(page) = VirtRange::from_len(va, PAGE_SIZE) {
                    gather.note_flush(page);
                }
                page.replace_flags(
                    PageFlags::DIRTY | PageFlags::REFERENCED,
                    PageFlags::LAZYFREE,
                );
                self.relist(pte.pfn());
                self.vmstat.count(VmEvent::PgLazyFree);
            }
        }
    }

    /// Puts a page on the list where new ones of its kind go. The caller has an entry of it locked.
    fn relist(&self, pfn: Pfn) {
        if self.source.isolate_page(pfn) {
            self.source.lru_add(pfn);
            let last = self.page(pfn).put();
            debug_assert!(!last, "an entry holds a reference");
        }
    }

    /// Drops a page that its owner gave up, unless it was written to since. The caller holds the page lock
    /// and a reference.
    pub(crate) fn drop_lazyfree(&self, pfn: Pfn) -> Outcome {
        let page = self.page(pfn);
        let mut kept = false;
        self.for_each_entry(pfn, &mut |inner, found| {
            if self.machine.must_stay(found.space, found.va) {
                kept = true;
                return false;
            }
            let old = found.leaf.replace(found.va, Pte::NONE);
            self.flush_page(found);
            // Each entry has a reference, and the caller.
            if old.is_dirty() || page.refcount() > page.mapcount() + 1 {
                found.leaf.set(found.va, old);
                kept = true;
                return false;
            }
            inner.rss_sub(RssKind::Anon);
            self.rmap_remove(pfn);
            let last = page.put();
            debug_assert!(!last, "the caller holds a reference");
            true
        });
        if !kept && page.mapcount() == 0 && page.freeze(1) {
            self.vmstat.count(VmEvent::PgLazyFreed);
            self.source.free_pages(pfn);
            return Outcome::Freed;
        }
        page.replace_flags(
            PageFlags::LAZYFREE,
            PageFlags::DIRTY | PageFlags::SWAPBACKED,
        );
        Outcome::Activated
    }

    /// Nobody needs the pages of a range soon: they look unused from now on. Linux: MADV_COLD.
    pub(crate) fn cool_range(&self, mm: &Mm<'m>, inner: &MmInner<'m>, range: VirtRange) {
        let mut gather = self.gather(mm.space());
        for (leaf, part) in inner.table.leaves(range) {
            for va in part.pages() {
                let pte = leaf.get(va);
                if !has_frame(pte) || is_zero_entry(pte) || self.machine.must_stay(mm.space(), va) {
                    continue;
                }
                if self.page(pte.pfn()).mapcount() != 1 {
                    continue;
                }
                clear_bits(&leaf, va, PteFlags::ACCESSED);
                if let Some(page) = VirtRange::from_len(va, PAGE_SIZE) {
                    gather.note_flush(page);
                }
                self.page(pte.pfn()).clear_flags(PageFlags::REFERENCED);
                self.relist(pte.pfn());
            }
        }
    }

    /// Reclaims the pages of a range that only this address space maps, as far as that is possible now. No
    /// lock is held. Linux: MADV_PAGEOUT.
    pub(crate) fn page_out(&self, mm: &Mm<'m>, range: VirtRange) {
        let mut rest = Some(range);
        while let Some(range) = rest.take() {
            let mut pages = [Pfn::NONE; BATCH];
            let mut found = 0;
            let mut next: Option<VirtAddr> = None;
            let inner = mm.lock();
            'tables: for (leaf, part) in inner.table.leaves(range) {
                for va in part.pages() {
                    let pte = leaf.get(va);
                    let ours = has_frame(pte)
                        && !is_zero_entry(pte)
                        && self.page(pte.pfn()).mapcount() == 1;
                    if ours {
                        pages[found] = pte.pfn();
                        found += 1;
                        if found == BATCH {
                            next = Some(va + PAGE_SIZE);
                            break 'tables;
                        }
                    }
                }
            }
            drop(inner);
            rest = next.and_then(|at| VirtRange::new(at, range.end()));
            for &pfn in &pages[..found] {
                // What was freed meanwhile is on no list, or is somebody else's, who loses nothing.
                if !self.source.isolate_page(pfn) {
                    continue;
                }
                if self.reclaim_page(pfn, MayDo::ALL) != Outcome::Freed {
                    self.source.lru_add(pfn);
                    self.swap.put_page(pfn);
                }
            }
        }
    }
}
