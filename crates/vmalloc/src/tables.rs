//! The kernel's page tables, as vmalloc changes them.

use vellum_machine::{Machine, Trace};
use vellum_page::PageSource;
use vellum_page_table::{Format, LeafTable, MapHugeError, PageTable, Pte, PteFlags, TlbGather};
use vellum_types::{OutOfMemory, PAGE_SIZE, Pfn, SpaceId, VirtAddr, VirtRange};

/// Linux's `PAGE_KERNEL`. Entries are global: they are the same in every address space.
pub(crate) const PAGE_KERNEL: PteFlags = PteFlags::PRESENT
    .union(PteFlags::WRITE)
    .union(PteFlags::ACCESSED)
    .union(PteFlags::DIRTY)
    .union(PteFlags::GLOBAL)
    .union(PteFlags::NX);

/// The kernel's tables, and the leaf table used last. Addresses are without sign extension.
pub(crate) struct KernelTables<'m, F: Format> {
    pub(crate) table: PageTable<'m, F>,
    /// Leaf tables stay until a huge entry takes their place, which is done here.
    leaf: Option<LeafTable<'m, F>>,
}

impl<'m, F: Format> KernelTables<'m, F> {
    /// The level of the huge entries that are used, if the format has such. Never that of the root,
    /// whose entries are copied and must not change.
    const HUGE_LEVEL: Option<u8> = if F::LEVELS > 2 && F::MAX_HUGE_LEVEL >= 1 {
        Some(1)
    } else {
        None
    };

    pub(crate) fn new(table: PageTable<'m, F>) -> Self {
        Self { table, leaf: None }
    }

    /// Bytes of a huge entry, if there are any.
    pub(crate) fn huge_bytes() -> Option<u64> {
        Self::HUGE_LEVEL.map(F::span)
    }

    #[inline]
    fn leaf(&mut self, va: VirtAddr) -> Result<LeafTable<'m, F>, OutOfMemory> {
        match self.leaf {
            Some(leaf) if leaf.covers(va) => Ok(leaf),
            _ => self.other_leaf(va),
        }
    }

    #[inline(never)]
    fn other_leaf(&mut self, va: VirtAddr) -> Result<LeafTable<'m, F>, OutOfMemory> {
        let leaf = self.table.leaf_or_alloc(va)?;
        self.leaf = Some(leaf);
        Ok(leaf)
    }

    /// Maps `pages` consecutive frames from `first` at `va`. After an error, some are mapped.
    #[inline]
    pub(crate) fn map(
        &mut self,
        mut va: VirtAddr,
        mut first: Pfn,
        mut pages: u32,
    ) -> Result<(), OutOfMemory> {
        while pages > 0 {
            let leaf = self.leaf(va)?;
            let run = pages.min(room(leaf, va));
            leaf.set_run(va, first, run, PAGE_KERNEL);
            va = va + u64::from(run) * PAGE_SIZE;
            first = first + run;
            pages -= run;
        }
        Ok(())
    }

    /// As `map`, by huge entries where address and frames are aligned. True if there was one.
    pub(crate) fn map_huge<M: Machine>(
        &mut self,
        va: VirtAddr,
        first: Pfn,
        pages: u32,
        machine: &M,
        source: &'m dyn PageSource,
    ) -> Result<bool, OutOfMemory> {
        let Some(bytes) = Self::huge_bytes() else {
            return self.map(va, first, pages).map(|()| false);
        };
        let each = (bytes / PAGE_SIZE) as u32;
        let mut huge = false;
        let mut done = 0;
        while done < pages {
            let (at, frame) = (va + u64::from(done) * PAGE_SIZE, first + done);
            let fits = pages - done >= each
                && at.as_u64().is_multiple_of(bytes)
                && frame.as_u32().is_multiple_of(each);
            let run = if fits {
                each
            } else {
                let to_boundary = (bytes - at.as_u64() % bytes) / PAGE_SIZE;
                (pages - done).min(to_boundary as u32)
            };
            if fits && self.map_one_huge(at, frame, machine, source)? {
                huge = true;
            } else {
                self.map(at, frame, run)?;
            }
            done += run;
        }
        Ok(huge)
    }

    /// False if something stands in the way.
    fn map_one_huge<M: Machine>(
        &mut self,
        va: VirtAddr,
        frame: Pfn,
        machine: &M,
        source: &'m dyn PageSource,
    ) -> Result<bool, OutOfMemory> {
        let pte = Pte::new(frame, PAGE_KERNEL);
        match self.table.map_huge(va, pte, 1) {
            Ok(()) => return Ok(true),
            Err(MapHugeError::OutOfMemory) => return Err(OutOfMemory),
            Err(MapHugeError::Unsupported) => return Ok(false),
            Err(MapHugeError::Occupied) => {}
        }
        // An empty leaf table of an earlier area. A processor may remember it: it goes first, with a
        // flush, then comes the huge entry. Linux: pmd_free_pte_page.
        let Some(range) = VirtRange::from_len(va, F::span(1)) else {
            return Ok(false);
        };
        self.leaf = None;
        let mut gather = TlbGather::new(machine, source, SpaceId::KERNEL, Trace::OFF);
        self.table
            .free_tables(range, range.start(), range.end(), &mut gather);
        drop(gather);
        Ok(self.table.map_huge(va, pte, 1).is_ok())
    }

    /// Clears all entries of `pages` pages from `va`, where there are any. The flush is the caller's duty.
    pub(crate) fn unmap(&mut self, mut va: VirtAddr, pages: u64) {
        let mut left = pages;
        while left > 0 {
            let run = self.unmap_some(va, left.min(u64::from(u32::MAX)) as u32);
            va = va + u64::from(run) * PAGE_SIZE;
            left -= u64::from(run);
        }
    }

    /// Clears entries in one table; returns how many pages that was.
    #[inline]
    fn unmap_some(&mut self, va: VirtAddr, left: u32) -> u32 {
        let leaf = match self.leaf {
            Some(leaf) if leaf.covers(va) => Some(leaf),
            _ => self.table.leaf(va),
        };
        if let Some(leaf) = leaf {
            self.leaf = Some(leaf);
            let run = left.min(room(leaf, va));
            leaf.clear_run(va, run);
            return run;
        }
        // A huge entry, or nothing.
        self.table.clear_huge(va);
        let end = va.align_down(F::span(1)) + F::span(1);
        left.min(((end - va) / PAGE_SIZE) as u32)
    }

    /// The frame that is mapped at `va`.
    pub(crate) fn frame(&self, va: VirtAddr) -> Option<Pfn> {
        let (pte, level) = self.table.walk(va)?;
        let into = (va.as_u64() & (F::span(level) - 1)) / PAGE_SIZE;
        pte.is_present().then(|| pte.pfn() + into as u32)
    }
}

/// How many entries `leaf` has from `va` on.
#[inline]
fn room<F: Format>(leaf: LeafTable<'_, F>, va: VirtAddr) -> u32 {
    ((LeafTable::<F>::SPAN - (va - leaf.base())) / PAGE_SIZE) as u32
}
