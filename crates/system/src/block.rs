//! Large blocks of frames, for which memory may have to be rearranged.

use crate::System;
use vellum_machine::Machine;
use vellum_page::{AllocRequest, PageSource};
use vellum_page_alloc::ContigError;
use vellum_types::{OutOfMemory, Pfn, PfnRange};

impl<M: Machine> System<'_, M> {
    /// Takes a block; if there is none for want of neighbouring frames, and the request may wait, memory
    /// is compacted first. No lock is held.
    ///
    /// # Errors
    /// There is none, and none could be made.
    pub fn alloc_block(&self, request: AllocRequest) -> Result<Pfn, OutOfMemory> {
        self.pages().alloc_pages(request).or_else(|oom| {
            if self.compact(self.pages(), request.order, request.gfp) {
                self.pages().alloc_pages(request)
            } else {
                Err(oom)
            }
        })
    }

    /// Takes exactly these frames, each an allocated page of its own; what is in them moves elsewhere.
    ///
    /// # Errors
    /// The range cannot be isolated; or, as `Ok(Some)`, a frame that could not be emptied. Nothing
    /// was taken then.
    pub fn alloc_contig(&self, range: PfnRange) -> Result<Option<Pfn>, ContigError> {
        self.alloc_contig_range(self.pages(), range)
    }
}
