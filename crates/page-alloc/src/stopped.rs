//! The lists of a CPU that does not run.

use crate::allocator::PageAllocator;
use vellum_types::CpuId;

impl PageAllocator<'_> {
    /// Gives the pages on the lists of a CPU that was stopped back to their zones. Linux:
    /// `page_alloc_cpu_dead`. A CPU that does not exist has none.
    ///
    /// # Safety
    /// No flow of control runs on `cpu` until this returns, and its earlier work is visible here.
    pub unsafe fn drain_stopped(&self, cpu: CpuId) {
        if let Some(set) = self.cpu_sets.get(usize::from(cpu.0)) {
            self.drain_own(set);
        }
    }
}
