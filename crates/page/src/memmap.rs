//! The array of all `Page`s.

use crate::Page;
use vellum_machine::DirectMap;
use vellum_types::{PAGE_SIZE, Pfn, PfnRange, PhysAddr};

/// `mem_map`: one [`Page`] for each frame of a span.
#[derive(Clone, Copy, Debug)]
pub struct Memmap<'m> {
    pages: &'m [Page],
    span: PfnRange,
}

impl<'m> Memmap<'m> {
    /// Bytes of RAM that a memmap of `pages` frames needs, in whole pages.
    pub const fn bytes_for(pages: u32) -> u64 {
        (pages as u64 * size_of::<Page>() as u64).next_multiple_of(PAGE_SIZE)
    }

    /// Lays the memmap of `span` at `storage`, all frames Reserved.
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
        Self { pages, span }
    }

    /// The frames described.
    pub const fn span(&self) -> PfnRange {
        self.span
    }

    /// The descriptor of `pfn`.
    ///
    /// # Panics
    /// If `pfn` is outside the span.
    #[inline]
    pub fn page(&self, pfn: Pfn) -> &'m Page {
        &self.pages[(pfn.as_u32().wrapping_sub(self.span.start().as_u32())) as usize]
    }

    /// The descriptor of `pfn`, or `None` outside the span.
    #[inline]
    pub fn try_page(&self, pfn: Pfn) -> Option<&'m Page> {
        // A frame below the span wraps to one far above.
        self.pages
            .get(pfn.as_u32().wrapping_sub(self.span.start().as_u32()) as usize)
    }

    /// The descriptor of the `index`th frame of the span, or `None` behind its end.
    #[inline]
    pub fn nth(&self, index: usize) -> Option<&'m Page> {
        self.pages.get(index)
    }
}
