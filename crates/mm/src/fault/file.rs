//! Faults on pages of a file.

use super::{Fault, FaultOutcome};
use crate::MmError;
use crate::backing::is_shmem;
use crate::context::MmContext;
use crate::mm::{Mm, MmInner, RssKind};
use vellum_machine::{Machine, VmEvent};
use vellum_page_cache::{CacheError, MappingRef, Readahead};
use vellum_page_table::PteFlags;
use vellum_types::{PAGE_SIZE, Pfn, VirtAddr, VirtRange, VmFlags};

impl<'m, M: Machine> MmContext<'m, M> {
    /// Finds or reads the page of the file under a fault. The reference is the caller's.
    fn file_page(
        &self,
        fault: &Fault<'m>,
        mapping: &MappingRef<'m>,
    ) -> Result<(Pfn, FaultOutcome), MmError> {
        let hint = if fault.flags.contains(VmFlags::RAND_READ) {
            Readahead::Random
        } else if fault.flags.contains(VmFlags::SEQ_READ) {
            Readahead::Sequential
        } else {
            Readahead::Normal
        };
        match mapping.read_page(&self.cache, fault.index, hint) {
            Ok((pfn, true)) => Ok((pfn, FaultOutcome::Major)),
            Ok((pfn, false)) => Ok((pfn, FaultOutcome::Minor)),
            Err(CacheError::OutOfMemory) => Err(MmError::NoFrames),
            Err(CacheError::Io(errno)) => Err(MmError::Io(errno)),
            Err(CacheError::BeyondEof) => Err(MmError::Fault),
            Err(CacheError::Swapped(entry)) => Err(MmError::Swapped(entry)),
        }
    }

    /// `do_read_fault`: the page itself, and around it whatever is cached.
    pub(super) fn do_read_fault(
        &self,
        mm: &Mm<'m>,
        inner: &mut MmInner<'m>,
        fault: &Fault<'m>,
        mapping: &MappingRef<'m>,
    ) -> Result<FaultOutcome, MmError> {
        let (pfn, outcome) = self.file_page(fault, mapping)?;
        self.map_file_page(inner, fault, fault.page, pfn, mapping);
        self.map_around(mm, inner, fault, mapping);
        Ok(outcome)
    }

    /// Installs a read-only entry; the caller's reference becomes the entry's.
    fn map_file_page(
        &self,
        inner: &mut MmInner<'m>,
        fault: &Fault<'m>,
        va: VirtAddr,
        pfn: Pfn,
        mapping: &MappingRef<'m>,
    ) {
        self.rmap_add(pfn);
        fault.leaf.set(va, Self::entry(pfn, fault.flags));
        let shmem = is_shmem(mapping.file());
        inner.rss_add(if shmem { RssKind::Shmem } else { RssKind::File });
    }

    /// `do_shared_fault`: the page becomes dirty before it becomes writable.
    pub(super) fn do_shared_fault(
        &self,
        mm: &Mm<'m>,
        inner: &mut MmInner<'m>,
        fault: &Fault<'m>,
        mapping: &MappingRef<'m>,
    ) -> Result<FaultOutcome, MmError> {
        let (pfn, outcome) = self.file_page(fault, mapping)?;
        mapping.mark_dirty(&self.cache, fault.index);
        self.map_file_page(inner, fault, fault.page, pfn, mapping);
        let pte = fault.leaf.get(fault.page);
        fault
            .leaf
            .set(fault.page, pte.with(PteFlags::WRITE | PteFlags::DIRTY));
        self.update_mmu(&fault.leaf, mm.space(), fault.page, 1);
        Ok(outcome)
    }

    /// `do_cow_fault`: a private copy at once. The file's pages around it are mapped too, since
    /// reads follow.
    pub(super) fn do_cow_fault(
        &self,
        mm: &Mm<'m>,
        inner: &mut MmInner<'m>,
        fault: &Fault<'m>,
        mapping: &MappingRef<'m>,
    ) -> Result<FaultOutcome, MmError> {
        // As Linux even before it is known that there is such a page: it decides what merges.
        self.anon_vma_prepare(mm.space(), inner, fault.page)?;
        let (pfn, outcome) = self.file_page(fault, mapping)?;
        self.map_file_page(inner, fault, fault.page, pfn, mapping);
        let window = self.map_cached(inner, fault, mapping);
        let copied = self.copy_shared(mm, inner, fault);
        self.update_mmu(&fault.leaf, mm.space(), window.start(), window.nr_pages());
        copied?;
        Ok(outcome)
    }

    /// `do_fault_around`: maps, read-only, what is cached around a page that was just mapped, and
    /// tells the machine of all of it.
    fn map_around(
        &self,
        mm: &Mm<'m>,
        inner: &mut MmInner<'m>,
        fault: &Fault<'m>,
        mapping: &MappingRef<'m>,
    ) {
        let window = self.map_cached(inner, fault, mapping);
        self.update_mmu(&fault.leaf, mm.space(), window.start(), window.nr_pages());
    }

    /// Maps, read-only, what is cached in the window around a fault and not mapped yet.
    fn map_cached(
        &self,
        inner: &mut MmInner<'m>,
        fault: &Fault<'m>,
        mapping: &MappingRef<'m>,
    ) -> VirtRange {
        let window = fault.window(u64::from(self.machine.features().fault_around_pages));
        let first = fault.index_of(window.start());
        let last = first + window.nr_pages() - 1;
        let mut around = 0;
        mapping.find_get_range(first, last, &mut |index, pfn| {
            let va = window.start() + (index - first) * PAGE_SIZE;
            if fault.leaf.get(va).is_none() {
                self.map_file_page(inner, fault, va, pfn, mapping);
                around += 1;
            } else {
                // Never the last: the cache holds one too.
                let last = self.page(pfn).put();
                debug_assert!(!last, "the cache lost its reference");
            }
        });
        self.vmstat.count_many(VmEvent::FaultAround, around);
        window
    }
}
