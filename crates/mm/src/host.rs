//! What reclaim asks of us: `mm`, the page cache and swap together know what a page holds. Linux:
//! `shrink_folio_list`, `pageout`, `__remove_mapping`.

use crate::context::{MmContext, is_zero_entry};
use crate::file_map::clear_bits;
use crate::mm::MmInner;
use crate::walk::Unmapped;
use vellum_machine::{Machine, VmItem};
use vellum_page::{PageFlags, PageState};
use vellum_page_cache::MappingRef;
use vellum_page_table::PteFlags;
use vellum_reclaim::{MayDo, Outcome, ReclaimHost, Referenced};
use vellum_types::{IoError, PAGE_SIZE, Pfn, SpaceId, SwapEntry, VirtRange};

/// Who gives memory back that is on no list of pages: caches of objects, sets of free pages.
pub trait Shrinker: Sync {
    /// Gives back up to about `target` pages; returns how many it was.
    fn shrink(&self, target: u64) -> u64;
}

impl<'m, M: Machine> MmContext<'m, M> {
    /// Writes an anonymous page to its slot, which it gets if it has none, and takes it out of all
    /// tables. It is clean and in the swap cache afterwards. The caller holds the page lock and a
    /// reference.
    fn swap_out(&self, pfn: Pfn, may: MayDo) -> Result<(), Outcome> {
        let page = self.page(pfn);
        let entry = match self.swap.entry_of(pfn) {
            Some(entry) => entry,
            None => {
                // Without entries somebody else is about to free it; with other references, somebody
                // uses it at this moment.
                let others = page.refcount().saturating_sub(page.mapcount());
                if !may.swap || page.mapcount() == 0 || others != 1 {
                    return Err(Outcome::Busy);
                }
                self.swap.add_to_swap(pfn).ok_or(Outcome::NoSwap)?
            }
        };
        let out = self.unmap_and_write(pfn, entry, may);
        if out.is_err() {
            // If no entry refers to the slot, the page does not need it.
            self.swap.try_to_free_swap(pfn);
        }
        out
    }

    fn unmap_and_write(&self, pfn: Pfn, entry: SwapEntry, may: MayDo) -> Result<(), Outcome> {
        self.unmap(pfn, Some(entry), may)?;
        if !self.page(pfn).flags().contains(PageFlags::DIRTY) {
            return Ok(());
        }
        if !may.write {
            return Err(Outcome::Busy);
        }
        let mut result = Ok(());
        self.swap.write(&[pfn], &mut |_, written| result = written);
        result.map_err(|error| match error {
            IoError::ENOSPC => Outcome::NoSwap,
            _ => Outcome::IoError,
        })
    }

    fn unmap(&self, pfn: Pfn, swap: Option<SwapEntry>, may: MayDo) -> Result<(), Outcome> {
        if self.page(pfn).mapcount() == 0 {
            return Ok(());
        }
        if !may.unmap {
            return Err(Outcome::Busy);
        }
        match self.try_to_unmap(pfn, swap) {
            Unmapped::Done => Ok(()),
            Unmapped::Mlocked => Err(Outcome::Unevictable),
            Unmapped::Held => Err(Outcome::Busy),
        }
    }

    /// Frees an anonymous page that the caller locked and holds a reference to.
    fn reclaim_anon(&self, pfn: Pfn, may: MayDo) -> Outcome {
        if self.page(pfn).flags().contains(PageFlags::LAZYFREE) {
            return self.drop_lazyfree(pfn);
        }
        if let Err(outcome) = self.swap_out(pfn, may) {
            return outcome;
        }
        let shadow = self.reclaim.shadow_for(pfn);
        if !self.swap.remove_for_reclaim(pfn, Some(shadow)) {
            // Somebody found it in the swap cache meanwhile.
            return Outcome::Activated;
        }
        self.source.free_pages(pfn);
        Outcome::Freed
    }

    /// Writes a page of a file if it is dirty, together with its neighbours.
    fn clean_file_page(
        &self,
        mapping: &MappingRef<'m>,
        pfn: Pfn,
        may: MayDo,
    ) -> Result<(), Outcome> {
        let page = self.page(pfn);
        if page.flags().contains(PageFlags::WRITEBACK) {
            return Err(Outcome::Busy);
        }
        if !page.flags().contains(PageFlags::DIRTY) {
            return Ok(());
        }
        if !may.write {
            return Err(Outcome::Busy);
        }
        // A failure is remembered for those who sync the file.
        let _ = mapping.writeback_around(&self.cache, pfn, &mut |first, frames| {
            self.mkclean(mapping, first, frames);
        });
        if page.flags().contains(PageFlags::DIRTY) {
            return Err(Outcome::IoError);
        }
        Ok(())
    }

    /// Frees a page of a file that the caller locked and holds a reference to.
    fn reclaim_file(&self, pfn: Pfn, may: MayDo) -> Outcome {
        let Some(mapping) = self.cache.mapping_of(pfn) else {
            return Outcome::Busy;
        };
        if mapping.swap_backed() {
            return self.reclaim_shmem(&mapping, pfn, may);
        }
        let clean = self
            .unmap(pfn, None, may)
            .and_then(|()| self.clean_file_page(&mapping, pfn, may));
        if let Err(outcome) = clean {
            return outcome;
        }
        let shadow = self.reclaim.shadow_for(pfn);
        if mapping.remove_for_reclaim(&self.cache, pfn, Some(shadow)) {
            self.source.free_pages(pfn);
            return Outcome::Freed;
        }
        Outcome::Activated
    }

    /// Frees a page of shared memory, which goes to a slot that the file refers to. As a page of the
    /// swap cache it is freed like a private one. Linux: `shmem_writeout`.
    fn reclaim_shmem(&self, mapping: &MappingRef<'m>, pfn: Pfn, may: MayDo) -> Outcome {
        if !may.swap {
            return Outcome::Busy;
        }
        if let Err(outcome) = self.unmap(pfn, None, may) {
            return outcome;
        }
        let cached = self.swap.entry_of(pfn);
        let Some(entry) = cached.or_else(|| self.swap.add_to_swap(pfn)) else {
            return Outcome::NoSwap;
        };
        let moved = self.swap.dup(entry).is_ok() && {
            let moved = mapping.swap_out(&self.cache, pfn, entry);
            if !moved {
                self.swap.free(entry);
            }
            moved
        };
        if !moved {
            self.swap.try_to_free_swap(pfn);
            return Outcome::Busy;
        }
        if !may.write {
            return Outcome::Busy;
        }
        let mut result = Ok(());
        self.swap.write(&[pfn], &mut |_, written| result = written);
        if result.is_err() {
            return Outcome::IoError;
        }
        let shadow = self.reclaim.shadow_for(pfn);
        if !self.swap.remove_for_reclaim(pfn, Some(shadow)) {
            return Outcome::Activated;
        }
        self.source.free_pages(pfn);
        Outcome::Freed
    }

    /// Clears the accessed bits of one space and reports the pages that had one.
    fn age_space(&self, space: SpaceId, inner: &mut MmInner<'m>, young: &mut dyn FnMut(Pfn)) {
        let by_hardware = self.machine.features().hw_access_dirty;
        // What the next flush drops. It may reach over pages that were not used, which have no
        // translation, but not over one that must stay: hence no gather, which may drop all.
        let mut stale: Option<VirtRange> = None;
        let flush = |stale: &mut Option<VirtRange>| {
            if let Some(range) = stale.take() {
                self.machine.flush_tlb_range(space, range);
            }
        };
        for (leaf, part) in inner.table.leaves(inner.user_range()) {
            for va in part.pages() {
                let pte = leaf.get(va);
                if !pte.is_present() {
                    continue;
                }
                let ages = pte.is_accessed() && !is_zero_entry(pte);
                if ages {
                    young(pte.pfn());
                }
                // What I/O uses at this moment must keep its translation.
                if !by_hardware && self.machine.must_stay(space, va) {
                    flush(&mut stale);
                    continue;
                }
                if !ages {
                    continue;
                }
                clear_bits(&leaf, va, PteFlags::ACCESSED);
                if !by_hardware {
                    let start = stale.map_or(va, |range| range.start());
                    stale = VirtRange::new(start, va + PAGE_SIZE);
                }
            }
        }
        if !by_hardware {
            flush(&mut stale);
            self.machine.flush_wait(space);
        }
    }
}

impl<M: Machine> ReclaimHost for MmContext<'_, M> {
    fn page_referenced(&self, pfn: Pfn) -> Referenced {
        MmContext::page_referenced(self, pfn)
    }

    fn reclaim_page(&self, pfn: Pfn, may: MayDo) -> Outcome {
        let page = self.page(pfn);
        if !page.try_lock() {
            return Outcome::Busy;
        }
        let outcome = match page.state() {
            PageState::Anon => self.reclaim_anon(pfn, may),
            PageState::File => self.reclaim_file(pfn, may),
            _ => Outcome::Busy,
        };
        // A frame that is free has lost its flags already.
        if outcome != Outcome::Freed {
            page.unlock();
        }
        outcome
    }

    fn launder_page(&self, pfn: Pfn) -> Outcome {
        let page = self.page(pfn);
        if !page.try_lock() {
            return Outcome::Busy;
        }
        let cleaned = match page.state() {
            PageState::Anon => self.swap_out(pfn, MayDo::ALL),
            PageState::File if !page.flags().contains(PageFlags::SWAPBACKED) => {
                match self.cache.mapping_of(pfn) {
                    Some(mapping) => self.clean_file_page(&mapping, pfn, MayDo::ALL),
                    None => Err(Outcome::Busy),
                }
            }
            _ => Err(Outcome::Busy),
        };
        page.unlock();
        match cleaned {
            Ok(()) => Outcome::Written,
            Err(outcome) => outcome,
        }
    }

    /// Pages of the swap cache have a slot already and can go without another.
    fn free_swap(&self) -> u64 {
        self.swap.free_slots() + self.vmstat.item(VmItem::NrSwapCached)
    }

    fn age_spaces(&self, young: &mut dyn FnMut(Pfn)) {
        self.for_each_mm(&mut |mm| {
            self.age_space(mm.space(), &mut mm.lock(), young);
            true
        });
    }

    fn shrink_caches(&self, target: u64) -> u64 {
        // Frames of vmalloc wait for a flush: now is the time.
        let purged = self.vmalloc.purge();
        let freed = purged + self.shrinker.shrink(target);
        freed + self.cache.shrink_shadows(target.saturating_sub(freed))
    }
}
