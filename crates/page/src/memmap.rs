//! The descriptors of all frames.

use crate::runs::{RunTable, block_number};
use crate::{Page, Pageblock};
use vellum_machine::DirectMap;
use vellum_types::{PAGE_SIZE, Pfn, PfnRange, PhysAddr};

/// `mem_map`: a [`Page`] for each frame of memory. A handle: copy it.
///
/// The largest run of memory is looked up without a detour, as if there were no other; the rest goes
/// through a [`RunTable`].
#[derive(Clone, Copy, Debug)]
pub struct Memmap<'m> {
    pages: &'m [Page],
    blocks: &'m [Pageblock],
    start: Pfn,
    first_block: u32,
    table: Option<&'m RunTable<'m>>,
}

impl<'m> Memmap<'m> {
    /// Bytes of RAM that a memmap of one run of `pages` frames needs, in whole pages.
    pub const fn bytes_for(pages: u32) -> u64 {
        (pages as u64 * size_of::<Page>() as u64).next_multiple_of(PAGE_SIZE)
    }

    /// Lays the memmap of one run, `span`, at `storage`, all frames Reserved. It has no pageblocks:
    /// for owners of memory that are simpler than the page allocator.
    ///
    /// # Safety
    /// `bytes_for(span.len())` bytes at `storage` belong to the caller, who gives them up for `'m`.
    ///
    /// # Panics
    /// If `storage` is not page aligned or not inside the direct map.
    pub unsafe fn init(ram: DirectMap<'m>, storage: PhysAddr, span: PfnRange) -> Self {
        assert!(storage.is_page_aligned());
        let bytes = Self::bytes_for(span.len());
        let start = ram.ptr(storage, bytes);
        // SAFETY: mapped, by `ptr`, and the caller's to give, by this function's contract.
        unsafe { start.write_bytes(0, bytes as usize) };
        let pages = core::ptr::NonNull::slice_from_raw_parts(start.cast(), span.len() as usize);
        // SAFETY: zero is a valid Page (all fields are integers; state 0 is Reserved), a page is
        // aligned enough, and the bytes are given up for 'm.
        let pages = unsafe { pages.as_ref() };
        Self {
            pages,
            blocks: &[],
            start: span.start(),
            first_block: block_number(span.start()),
            table: None,
        }
    }

    /// The descriptors that `table` lists. Runs that are added to it later are seen too.
    ///
    /// # Panics
    /// If the table is empty.
    pub fn of(table: &'m RunTable<'m>) -> Self {
        let (span, pages, blocks) = table.largest().expect("a run of memory");
        Self {
            pages,
            blocks,
            start: span.start(),
            first_block: block_number(span.start()),
            table: Some(table),
        }
    }

    /// From the first frame with a descriptor to the last. There may be holes between:
    /// [`Memmap::runs`] leaves them out.
    #[inline]
    pub fn span(&self) -> PfnRange {
        match self.table {
            None => self.largest_run(),
            Some(_) => self.span_of_runs(),
        }
    }

    #[cold]
    fn span_of_runs(&self) -> PfnRange {
        let mut runs = self.runs();
        let first = runs.next().unwrap_or_else(|| self.largest_run());
        let last = runs.last().unwrap_or(first);
        PfnRange::new(first.start(), last.end()).unwrap_or(first)
    }

    /// The runs of frames that have descriptors, ascending.
    pub fn runs(&self) -> impl Iterator<Item = PfnRange> + use<'m> {
        let one = self.table.is_none().then(|| self.largest_run());
        let many = self.table.map(RunTable::runs);
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// The run that holds `pfn`. A block of the buddy system never crosses its ends.
    #[inline]
    pub fn run_around(&self, pfn: Pfn) -> Option<PfnRange> {
        let at = pfn.as_u32().wrapping_sub(self.start.as_u32());
        if (at as usize) < self.pages.len() {
            return Some(self.largest_run());
        }
        self.table?.run_around(pfn)
    }

    /// How many frames have descriptors.
    pub fn nr_frames(&self) -> u64 {
        self.table
            .map_or(self.pages.len() as u64, RunTable::nr_frames)
    }

    /// The largest run, of those that were there when the first handle was made.
    pub fn largest_run(&self) -> PfnRange {
        PfnRange::from_len(self.start, self.pages.len() as u32).expect("a run is not empty")
    }

    /// The descriptor of `pfn`.
    ///
    /// # Panics
    /// If `pfn` has none: a hole.
    #[inline]
    pub fn page(&self, pfn: Pfn) -> &'m Page {
        match self.try_page(pfn) {
            Some(page) => page,
            None => no_descriptor(pfn),
        }
    }

    /// The descriptor of `pfn`, or `None` in a hole and outside memory.
    #[inline]
    pub fn try_page(&self, pfn: Pfn) -> Option<&'m Page> {
        let at = pfn.as_u32().wrapping_sub(self.start.as_u32());
        match self.pages.get(at as usize) {
            Some(page) => Some(page),
            None => elsewhere(self.table, pfn),
        }
    }

    /// As [`Memmap::try_page`], of the [largest run](Memmap::largest_run) alone: for whoever has a slow
    /// way for all else. No call is made, so that the caller needs no stack.
    #[inline(always)]
    pub fn in_largest_run(&self, pfn: Pfn) -> Option<&'m Page> {
        let at = pfn.as_u32().wrapping_sub(self.start.as_u32());
        self.pages.get(at as usize)
    }

    /// As [`Memmap::pageblock`], of the largest run alone.
    #[inline(always)]
    pub fn pageblock_in_largest_run(&self, pfn: Pfn) -> Option<&'m Pageblock> {
        let at = block_number(pfn).wrapping_sub(self.first_block);
        self.blocks.get(at as usize)
    }

    /// The descriptor of the `index`th frame of the [largest run](Memmap::largest_run), or `None` behind
    /// its end.
    #[inline]
    pub fn nth(&self, index: usize) -> Option<&'m Page> {
        self.pages.get(index)
    }

    /// What the page allocator notes about the pageblock around `pfn`, or `None` in a hole.
    #[inline]
    pub fn pageblock(&self, pfn: Pfn) -> Option<&'m Pageblock> {
        let at = block_number(pfn).wrapping_sub(self.first_block);
        match self.blocks.get(at as usize) {
            Some(block) => Some(block),
            None => pageblock_elsewhere(self.table, pfn),
        }
    }
}

/// The descriptor of a frame outside the largest run. A function of two words, so that no caller lays
/// its handle out in memory for the call.
#[inline(never)]
fn elsewhere<'m>(table: Option<&'m RunTable<'m>>, pfn: Pfn) -> Option<&'m Page> {
    table?.page(pfn)
}

/// The same for a pageblock.
#[inline(never)]
fn pageblock_elsewhere<'m>(table: Option<&'m RunTable<'m>>, pfn: Pfn) -> Option<&'m Pageblock> {
    table?.pageblock(pfn)
}

#[cold]
#[inline(never)]
fn no_descriptor(pfn: Pfn) -> ! {
    panic!("{pfn:?} is not memory")
}
