//! munmap(2), and taking pages out of address spaces in general.

use super::page_align;
use crate::MmError;
use crate::backing::{Object, VmBacking, is_shmem};
use crate::context::{MmContext, has_frame, is_zero_entry};
use crate::mm::{Mm, MmInner, RssKind};
use vellum_machine::Machine;
use vellum_page::{PageFlags, PageState};
use vellum_page_cache::MappingRef;
use vellum_page_table::{Pte, TlbGather};
use vellum_types::{PAGE_SIZE, VirtAddr, VirtRange, VmFlags};

impl<'m, M: Machine> MmContext<'m, M> {
    /// Unmaps `[addr, addr + len)`; holes are fine.
    ///
    /// # Errors
    /// As munmap(2): Inval; NoMem if a split would exceed the map count or memory ended, and then
    /// nothing has changed.
    pub fn munmap(&self, mm: &Mm<'m>, addr: u64, len: u64) -> Result<(), MmError> {
        self.with_room(|| {
            let mut inner = mm.lock();
            let range = Self::munmap_range(&inner, addr, len)?;
            self.unmap_range(mm, &mut inner, range)
        })
    }

    fn munmap_range(inner: &MmInner<'m>, addr: u64, len: u64) -> Result<VirtRange, MmError> {
        let task_size = inner.layout.task_size;
        if !addr.is_multiple_of(PAGE_SIZE) || addr > task_size || len > task_size - addr {
            return Err(MmError::Inval);
        }
        VirtRange::from_len(VirtAddr::new(addr), page_align(len)).ok_or(MmError::Inval)
    }

    /// Removes every area and page of an aligned range: Linux's four fix-up cases are two splits
    /// and the removal of what lies wholly inside.
    pub(crate) fn unmap_range(
        &self,
        mm: &Mm<'m>,
        inner: &mut MmInner<'m>,
        range: VirtRange,
    ) -> Result<(), MmError> {
        let Some(first) = inner.areas.overlapping(range).next() else {
            return Ok(());
        };
        if first.start() < range.start()
            && first.end() > range.end()
            && inner.areas.len() >= self.max_map_count
        {
            return Err(MmError::NoMem);
        }
        inner.areas.isolate(range)?;
        let mut gather = self.gather(mm.space());
        while let Some(area) = inner.areas.overlapping(range).next() {
            let part = area.range();
            self.zap(inner, part, &mut gather);
            if let Some(area) = inner.areas.remove(part.start()) {
                if area.flags.contains(VmFlags::LOCKED) {
                    inner.locked_vm = inner.locked_vm.saturating_sub(part.nr_pages());
                }
                self.area_gone(area.into_value());
            }
        }
        self.free_tables(inner, range, &mut gather);
        Ok(())
    }

    /// Frees the tables that a removed range leaves empty, up to the areas on either side.
    fn free_tables(
        &self,
        inner: &mut MmInner<'m>,
        range: VirtRange,
        gather: &mut TlbGather<'_, M>,
    ) {
        let (prev, next) = inner.areas.find_prev(range.start());
        let floor = prev.map_or(VirtAddr::ZERO, |area| area.end());
        // Above the last area nothing is mapped, to the end of the last table, which is past user space.
        let ceiling = next.map_or(VirtAddr::new(u64::MAX), |area| area.start());
        inner.table.free_tables(range, floor, ceiling, gather);
    }

    /// An area is gone for good: write back what it alone could have dirtied, and free shared
    /// memory that nobody maps any more.
    pub(crate) fn area_gone(&self, area: crate::mm::Area<'m>) {
        let flags = area.flags;
        // Its place among the mappers goes with the rest of it, and the handle in that.
        let VmBacking { object, shown, .. } = area.backing;
        drop(shown);
        let Object::File(mapping) = object else {
            return;
        };
        if self.cache.users(&mapping) > 1 {
            return;
        }
        if is_shmem(mapping.file()) {
            let file = mapping.file();
            mapping.truncate(&self.cache, 0, &mut |_, _| {});
            drop(mapping);
            self.cache.drop_mapping(file);
        } else if flags.contains(VmFlags::SHARED) && mapping.nr_dirty() > 0 {
            // munmap cannot report an error; the mapping remembers it for the next fsync.
            let _ = self.writeback_unmapped(&mapping);
        }
    }

    fn writeback_unmapped(&self, mapping: &MappingRef<'m>) -> Result<(), MmError> {
        mapping.writeback(&self.cache, 0, u64::MAX, &mut |_, _| {})?;
        Ok(())
    }

    /// Takes every entry of a range out of the tables. The frames go back after the gather's flush.
    /// The range lies in one area.
    pub(crate) fn zap(
        &self,
        inner: &mut MmInner<'m>,
        range: VirtRange,
        gather: &mut TlbGather<'_, M>,
    ) {
        let area = inner.areas.find_containing(range.start());
        let locked = area.is_some_and(|area| area.flags.contains(VmFlags::LOCKED));
        let shmem = area
            .and_then(|area| area.backing.mapping())
            .is_some_and(|mapping| is_shmem(mapping.file()));
        let (mut anon, mut other) = (0, 0);
        for (leaf, part) in inner.table.leaves(range) {
            for va in part.pages() {
                let pte = leaf.get(va);
                if !has_frame(pte) {
                    if let Some(entry) = pte.swap_entry() {
                        leaf.set(va, Pte::NONE);
                        inner.swap_entries -= 1;
                        self.swap.free(entry);
                    }
                    continue;
                }
                leaf.set(va, Pte::NONE);
                if is_zero_entry(pte) {
                    if let Some(page) = VirtRange::from_len(va, PAGE_SIZE) {
                        gather.note_flush(page);
                    }
                    continue;
                }
                if self.page(pte.pfn()).state() == PageState::File {
                    other += 1;
                } else {
                    anon += 1;
                }
                self.rmap_remove(pte.pfn());
                if locked {
                    self.munlock_page(pte.pfn());
                }
                if self.page(pte.pfn()).flags().contains(PageFlags::SWAPCACHE) {
                    // With the last reference from a table the slot goes too, as there is no use for it.
                    self.swap.try_to_free_swap(pte.pfn());
                }
                gather.remove(va, pte.pfn());
            }
        }
        for _ in 0..anon {
            inner.rss_sub(RssKind::Anon);
        }
        for _ in 0..other {
            inner.rss_sub(if shmem { RssKind::Shmem } else { RssKind::File });
        }
    }
}
