//! A machine of host memory.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::alloc::Layout;
use std::cell::Cell;
use std::ptr::NonNull;
use vellum_machine::{CpuLocal, Cpus, DirectMap, Trace, VmStat};
use vellum_memblock::MemBlock;
use vellum_page::{AllocRequest, PageSource};
use vellum_page_alloc::{BootParts, PageAllocator};
use vellum_types::{
    CpuId, GfpFlags, NodeId, Order, OutOfMemory, PAGE_SIZE, Pfn, PfnRange, PhysAddr, PhysRange,
    ZoneType,
};

pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;

pub fn order(raw: u8) -> Order {
    Order::new(raw).unwrap()
}

pub fn bytes(start: u64, end: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), PhysAddr::new(end)).unwrap()
}

std::thread_local! {
    static CPU: Cell<u16> = const { Cell::new(0) };
}

/// Threads as CPUs: each says once which it is.
pub struct Threads;

impl Threads {
    /// This thread is CPU `cpu` from now on.
    pub fn set(cpu: u16) {
        CPU.set(cpu);
    }
}

// SAFETY: each thread of a test sets a number of its own before it does anything.
unsafe impl CpuLocal for Threads {
    fn pin(&self) -> CpuId {
        CpuId(CPU.get())
    }
    fn unpin(&self, _: CpuId) {}
}

/// One CPU.
pub fn one_cpu() -> Cpus<'static> {
    Cpus::new(1, &Threads)
}

/// Physical memory and its counters.
pub struct Machine {
    memory: NonNull<u8>,
    layout: Layout,
    span: PhysRange,
    pub vmstat: VmStat,
}

impl Machine {
    /// Physical bytes `start..end`, page aligned.
    pub fn new(start: u64, end: u64) -> Self {
        let span = bytes(start, end);
        let layout = Layout::from_size_align(span.len() as usize, PAGE_SIZE as usize).unwrap();
        // SAFETY: the layout is not empty.
        let memory = unsafe { std::alloc::alloc_zeroed(layout) };
        Self {
            memory: NonNull::new(memory).unwrap(),
            layout,
            span,
            vmstat: VmStat::new(),
        }
    }

    pub fn ram(&self) -> DirectMap<'_> {
        // SAFETY: the memory lives as long as `self`, is page aligned like the span, and no Rust
        // reference to it is ever made here.
        unsafe { DirectMap::new(self.memory, self.span) }
    }

    /// All of it is memory.
    pub fn memblock(&self) -> MemBlock {
        let mut memblock = MemBlock::new();
        memblock.add(self.span, NodeId(0)).unwrap();
        memblock
    }

    /// As the ranges say, each with its node.
    pub fn memblock_of(&self, memory: &[(u64, u64, u8)]) -> MemBlock {
        let mut memblock = MemBlock::new();
        for (start, end, node) in memory {
            memblock.add(bytes(*start, *end), NodeId(*node)).unwrap();
        }
        memblock
    }

    pub fn parts(&self, memblock: MemBlock) -> BootParts<'_, 'static> {
        BootParts::new(self.ram(), memblock, one_cpu(), &self.vmstat, Trace::OFF)
    }

    pub fn boot_from<'m>(&'m self, parts: BootParts<'m, '_>) -> &'m PageAllocator<'m> {
        let allocator = PageAllocator::boot_from(parts).unwrap();
        allocator.validate().unwrap();
        allocator
    }

    pub fn boot(&self) -> &PageAllocator<'_> {
        self.boot_with(self.memblock(), Trace::OFF)
    }

    pub fn boot_with<'m>(&'m self, memblock: MemBlock, trace: Trace<'m>) -> &'m PageAllocator<'m> {
        self.boot_cpus(memblock, one_cpu(), trace)
    }

    pub fn boot_cpus<'m>(
        &'m self,
        memblock: MemBlock,
        cpus: Cpus<'m>,
        trace: Trace<'m>,
    ) -> &'m PageAllocator<'m> {
        let boot = PageAllocator::boot(self.ram(), memblock, cpus, &self.vmstat, trace);
        let allocator = boot.unwrap();
        allocator.validate().unwrap();
        allocator
    }

    /// An allocator whose only free memory is `start..end`: its tables lie in the 1 MiB before the
    /// end of the machine.
    pub fn boot_only(&self, start: u64, end: u64) -> &PageAllocator<'_> {
        let mut memblock = MemBlock::new();
        let tables = self.span.end().as_u64() - MIB;
        memblock.add(bytes(start, end), NodeId(0)).unwrap();
        memblock
            .add(bytes(tables, tables + MIB), NodeId(0))
            .unwrap();
        let need = PageAllocator::boot_bytes(self.ram(), &memblock, one_cpu());
        memblock
            .reserve(bytes(tables + need, tables + MIB))
            .unwrap();
        let allocator = self.boot_with(memblock, Trace::OFF);
        assert_eq!(allocator.nr_free_pages(), (end - start) / PAGE_SIZE);
        allocator
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and all borrows have ended.
        unsafe { std::alloc::dealloc(self.memory.as_ptr(), self.layout) };
    }
}

pub fn alloc(source: &dyn PageSource, raw: u8, gfp: GfpFlags) -> Result<Pfn, OutOfMemory> {
    source.alloc_pages(AllocRequest::new(order(raw), gfp))
}

pub fn frames(pfn: Pfn, order: Order) -> PfnRange {
    PfnRange::from_len(pfn, order.pages()).unwrap()
}

/// Sizes in KiB of all free blocks, ascending.
pub fn free_kib(allocator: &PageAllocator<'_>) -> Vec<u64> {
    let mut sizes = Vec::new();
    for order in Order::all() {
        let blocks: u64 = allocator
            .zones()
            .map(|zone| zone.free_area[order.index()])
            .sum();
        sizes.extend((0..blocks).map(|_| order.bytes() / 1024));
    }
    sizes
}

pub fn zone_of(pfn: Pfn) -> ZoneType {
    match pfn.addr().as_u64() {
        at if at < 16 * MIB => ZoneType::Dma,
        at if at < 4 * GIB => ZoneType::Dma32,
        _ => ZoneType::Normal,
    }
}

/// A xorshift generator: the same numbers every time.
pub struct Rng(pub u64);

impl Rng {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}
