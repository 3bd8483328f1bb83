//! A small machine of host memory.

use std::alloc::Layout;
use std::cell::Cell;
use std::ptr::NonNull;
use vellum_machine::{Cpus, DirectMap, Features, Fill, Machine, MemoryRegion, Trace, VmStat};
use vellum_memblock::MemBlock;
use vellum_page_alloc::PageAllocator;
use vellum_types::{
    NodeId, Order, PAGE_SIZE, PfnRange, PhysAddr, PhysRange, SpaceId, VirtAddr, VirtRange,
};

/// RAM and counters; the RAM goes with it.
pub(crate) struct Host {
    memory: NonNull<u8>,
    layout: Layout,
    span: PhysRange,
    pub(crate) vmstat: VmStat,
    pub(crate) flushes: Cell<u64>,
}

impl Host {
    /// Physical bytes `start..end`, page aligned.
    pub(crate) fn new(start: u64, end: u64) -> Self {
        let span = PhysRange::new(PhysAddr::new(start), PhysAddr::new(end)).expect("not empty");
        let layout =
            Layout::from_size_align(span.len() as usize, PAGE_SIZE as usize).expect("whole pages");
        // SAFETY: the layout is not of size zero.
        let memory = unsafe { std::alloc::alloc_zeroed(layout) };
        Self {
            memory: NonNull::new(memory).expect("host memory"),
            layout,
            span,
            vmstat: VmStat::new(),
            flushes: Cell::new(0),
        }
    }

    /// All of it, as page frames.
    pub(crate) fn boot(&self) -> &PageAllocator<'_> {
        let mut memblock = MemBlock::new();
        memblock.add(self.span, NodeId(0)).expect("one region");
        let (ram, cpus) = (self.direct_map(), one_cpu());
        PageAllocator::boot(ram, memblock, cpus, &self.vmstat, Trace::OFF).expect("enough memory")
    }
}

/// One flow of control.
pub(crate) fn one_cpu<'m>() -> Cpus<'m> {
    // SAFETY: an input is run by one thread.
    unsafe { Cpus::single() }
}

impl Drop for Host {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; all borrows have ended.
        unsafe { std::alloc::dealloc(self.memory.as_ptr(), self.layout) };
    }
}

// SAFETY: an input is run by one thread.
unsafe impl Sync for Host {}

impl Machine for Host {
    fn memory_map(&self) -> &[MemoryRegion] {
        &[]
    }
    fn direct_map(&self) -> DirectMap<'_> {
        // SAFETY: the memory lives as long as `self`, is page aligned like the span, and no Rust
        // reference to it is made here.
        unsafe { DirectMap::new(self.memory, self.span) }
    }
    fn features(&self) -> Features {
        Features {
            nr_cpus: 1,
            hw_access_dirty: true,
            fault_around_pages: 1,
            anon_order_max: Order::ZERO,
        }
    }
    fn cpus(&self) -> Cpus<'_> {
        one_cpu()
    }
    fn now_ns(&self) -> u64 {
        0
    }
    fn zero_pages(&self, frames: PfnRange) {
        self.direct_map()
            .fill_pages(frames.start(), frames.len(), 0);
    }
    fn update_mmu_cache_range(&self, _: SpaceId, _: VirtAddr, _: &[Fill]) {}
    fn flush_tlb_range(&self, _: SpaceId, _: VirtRange) {}
    fn flush_tlb_mm(&self, _: SpaceId) {}
    fn wrprotect_range(&self, _: SpaceId, _: VirtRange) {}
    fn flush_wait(&self, _: SpaceId) {}
    fn flush_tlb_kernel_range(&self, _: VirtRange) {
        self.flushes.set(self.flushes.get() + 1);
    }
    fn flush_tlb_kernel_local(&self, _: VirtRange) {}
    fn read_kernel(&self, _: VirtAddr, phys: PhysAddr, out: &mut [u8]) {
        self.direct_map().read_bytes(phys, out);
    }
    fn write_kernel(&self, _: VirtAddr, phys: PhysAddr, bytes: &[u8]) {
        self.direct_map().write_bytes(phys, bytes);
    }
}
