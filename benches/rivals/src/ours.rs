//! The core as an allocator of objects and of frames.

use crate::region::Region;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use core::ptr::{NonNull, null_mut};
use vellum_machine::{CpuLocal, Cpus, DirectMap, Trace, VmStat};
use vellum_memblock::MemBlock;
use vellum_page_alloc::PageAllocator;
use vellum_slab::{CacheFlags, KernelHeap, Kmalloc, KmemCache, SlabAllocator};
use vellum_types::{CpuId, NodeId, PhysAddr, PhysRange};

/// CPUs of the machine of a benchmark.
pub const CPUS: u16 = 2;

std::thread_local! {
    static CPU: Cell<u16> = const { Cell::new(0) };
}

/// Each thread is a CPU.
pub struct Threads;

impl Threads {
    /// This thread is `cpu` from now on; the first one is 0.
    pub fn be(cpu: u16) {
        CPU.set(cpu);
    }
}

// SAFETY: each thread of a benchmark has a number of its own before it allocates.
unsafe impl CpuLocal for Threads {
    #[inline]
    fn pin(&self) -> CpuId {
        CpuId(CPU.get())
    }
    #[inline]
    fn unpin(&self, _: CpuId) {}
}

/// How many flows of control there are, as the core is told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Flows {
    /// One, on one CPU: nobody is asked which.
    One,
    /// A thread for each CPU.
    Threads,
}

/// Frames of a region.
///
/// # Panics
/// If the region is too small for its own descriptors.
pub fn pages<'m>(
    region: &'m Region,
    vmstat: &'m VmStat,
    flows: Flows,
) -> Option<&'m PageAllocator<'m>> {
    let span = PhysRange::from_len(PhysAddr::ZERO, region.bytes() as u64)?;
    let mut memblock = MemBlock::new();
    memblock.add(span, NodeId(0)).ok()?;
    // SAFETY: the region lives for 'm, is aligned, and nobody else refers to its bytes.
    let ram = unsafe { DirectMap::new(region.start(), span) };
    PageAllocator::boot(ram, memblock, cpus(flows), vmstat, Trace::OFF).ok()
}

fn cpus<'m>(flows: Flows) -> Cpus<'m> {
    match flows {
        // SAFETY: the benchmark says that there is one.
        Flows::One => unsafe { Cpus::single() },
        Flows::Threads => Cpus::new(CPUS, &Threads),
    }
}

/// What a kernel has after it has started.
pub struct Kernel<'m> {
    /// Frames.
    pub pages: &'m PageAllocator<'m>,
    /// Object caches.
    pub slab: &'m SlabAllocator<'m>,
    /// Any size.
    pub kmalloc: &'m Kmalloc<'m>,
}

impl<'m> Kernel<'m> {
    /// Starts in `region`; `None` if it is too small.
    pub fn boot(region: &'m Region, vmstat: &'m VmStat, flows: Flows) -> Option<Self> {
        let pages = pages(region, vmstat, flows)?;
        let slab = SlabAllocator::boot(pages, vmstat, cpus(flows)).ok()?;
        let kmalloc = Kmalloc::boot(slab).ok()?;
        Some(Self {
            pages,
            slab,
            kmalloc,
        })
    }

    /// Bytes that are not free: tables, slabs, what CPUs keep for themselves in caches.
    pub fn taken(&self) -> u64 {
        (self.pages.present_pages() - self.pages.nr_free_pages()) * 4096
    }
}

impl Kernel<'static> {
    /// The adapter for `#[global_allocator]`.
    pub fn heap(&self) -> KernelHeap {
        let heap = KernelHeap::new();
        heap.init(self.kmalloc);
        heap
    }
}

/// One cache as an allocator of one size.
pub struct OneSize<'m>(&'m KmemCache<'m>);

impl<'m> OneSize<'m> {
    /// Objects of `layout`.
    pub fn new(kernel: &Kernel<'m>, layout: Layout) -> Option<Self> {
        let flags = CacheFlags::empty();
        kernel
            .slab
            .create_cache("bench", layout, flags)
            .ok()
            .map(Self)
    }
}

// SAFETY: an object of the cache is of its layout and nobody else's until it is freed.
unsafe impl GlobalAlloc for OneSize<'_> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        debug_assert_eq!(layout, self.0.layout());
        self.0.alloc().map_or(null_mut(), NonNull::as_ptr)
    }
    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, _: Layout) {
        let Some(memory) = NonNull::new(memory) else {
            return;
        };
        // SAFETY: it came from `alloc`.
        unsafe { self.0.free(memory) };
    }
}
