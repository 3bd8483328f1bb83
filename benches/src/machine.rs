//! A machine whose hooks cost nothing.

use core::ptr::NonNull;
use vellum_machine::{Cpus, DirectMap, Features, Fill, Machine, MemoryKind, MemoryRegion};
use vellum_page_cache::{BackingStore, IoError};
use vellum_types::{
    FileId, NodeId, Order, Pfn, PfnRange, PhysAddr, PhysRange, SpaceId, VirtAddr, VirtRange,
};

/// RAM from the host's allocator, no TLB, no zeroing.
pub(crate) struct BenchMachine {
    ram: Vec<u64>,
    map: [MemoryRegion; 1],
}

impl BenchMachine {
    pub(crate) fn new(bytes: usize) -> Self {
        let range = PhysRange::from_len(PhysAddr::ZERO, bytes as u64).expect("not empty");
        let map = [MemoryRegion {
            range,
            node: NodeId(0),
            kind: MemoryKind::Usable,
        }];
        // A page more, to begin on a page boundary. Zeroed vectors cost nothing until touched.
        Self {
            ram: vec![0; bytes / 8 + 512],
            map,
        }
    }
}

impl Machine for BenchMachine {
    fn memory_map(&self) -> &[MemoryRegion] {
        &self.map
    }
    fn direct_map(&self) -> DirectMap<'_> {
        let start = self.ram.as_ptr().cast::<u8>();
        let aligned = start.wrapping_add(start.align_offset(4096)).cast_mut();
        let base = NonNull::new(aligned).expect("a vector's memory");
        // SAFETY: the vector holds a page more than the range, lives as long as self, and nobody
        // else refers to its content.
        unsafe { DirectMap::new(base, self.map[0].range) }
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
        // SAFETY: the benchmark has one thread.
        unsafe { Cpus::single() }
    }

    fn now_ns(&self) -> u64 {
        0
    }
    fn zero_pages(&self, _: PfnRange) {}
    fn update_mmu_cache_range(&self, _: SpaceId, _: VirtAddr, fills: &[Fill]) {
        std::hint::black_box(fills);
    }
    fn flush_tlb_range(&self, _: SpaceId, range: VirtRange) {
        std::hint::black_box(range);
    }
    fn flush_tlb_mm(&self, _: SpaceId) {}
    fn wrprotect_range(&self, _: SpaceId, range: VirtRange) {
        std::hint::black_box(range);
    }
    fn flush_wait(&self, _: SpaceId) {}
}

/// Files of 64 MiB full of nothing.
pub(crate) struct BenchStore;

impl BackingStore for BenchStore {
    fn read(&self, _: FileId, _: u64, frames: &[Pfn], _: DirectMap<'_>) -> Result<u64, IoError> {
        Ok(frames.len() as u64 * 4096)
    }
    fn write(&self, _: FileId, _: u64, _: &[Pfn], _: u64, _: DirectMap<'_>) -> Result<(), IoError> {
        Ok(())
    }
    fn sync(&self, _: FileId) -> Result<(), IoError> {
        Ok(())
    }
    fn size(&self, _: FileId) -> u64 {
        64 << 20
    }
    fn name(&self, _: FileId, out: &mut dyn core::fmt::Write) -> core::fmt::Result {
        out.write_str("bench")
    }
    fn dev_ino(&self, file: FileId) -> (u32, u32, u64) {
        (0, 0, file.0)
    }
    fn release(&self, _: FileId) {}
}
