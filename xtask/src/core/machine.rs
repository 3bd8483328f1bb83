//! A machine whose hooks do nothing and whose frames need no zeroing: what is left is the core.

use std::alloc::Layout;
use std::ptr::NonNull;
use std::time::Instant;
use vellum_machine::{DirectMap, Features, Fill, Machine, MemoryKind, MemoryRegion};
use vellum_page_cache::{BackingStore, IoError};
use vellum_types::{
    FileId, NodeId, Order, Pfn, PfnRange, PhysAddr, PhysRange, SpaceId, VirtAddr, VirtRange,
};

/// RAM that lives as long as the process, and no TLB.
pub(crate) struct BareMachine {
    ram: DirectMap<'static>,
    map: [MemoryRegion; 1],
    boot: Instant,
}

impl BareMachine {
    /// A machine with `bytes` of RAM, a multiple of 4096.
    pub(crate) fn new(bytes: u64) -> Self {
        let size = usize::try_from(bytes).expect("a 64-bit host");
        let layout =
            Layout::from_size_align(size, 2 << 20).expect("a size below the address space");
        // SAFETY: the size is not zero.
        let base = unsafe { std::alloc::alloc_zeroed(layout) };
        let base = NonNull::new(base).expect("the host has the memory");
        let span =
            PhysRange::from_len(PhysAddr::new(1 << 20), bytes).expect("the range is not empty");
        // SAFETY: the bytes are mapped, aligned and never freed, and nothing else uses them.
        let ram = unsafe { DirectMap::new(base, span) };
        let map = [MemoryRegion {
            range: span,
            node: NodeId(0),
            kind: MemoryKind::Usable,
        }];
        Self {
            ram,
            map,
            boot: Instant::now(),
        }
    }
}

impl Machine for BareMachine {
    fn memory_map(&self) -> &[MemoryRegion] {
        &self.map
    }

    fn direct_map(&self) -> DirectMap<'_> {
        self.ram
    }

    fn features(&self) -> Features {
        Features {
            nr_cpus: 1,
            hw_access_dirty: true,
            fault_around_pages: 16,
            anon_order_max: Order::new(0).expect("zero is an order"),
        }
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.boot.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn zero_pages(&self, _frames: PfnRange) {}

    fn update_mmu_cache_range(&self, _space: SpaceId, _start: VirtAddr, _fills: &[Fill]) {}

    fn flush_tlb_range(&self, _space: SpaceId, _range: VirtRange) {}

    fn flush_tlb_mm(&self, _space: SpaceId) {}

    fn wrprotect_range(&self, _space: SpaceId, _range: VirtRange) {}

    fn flush_wait(&self, _space: SpaceId) {}
}

/// One file of any length, full of zeros.
pub(crate) struct NoFiles;

impl BackingStore for NoFiles {
    fn read(
        &self,
        _file: FileId,
        _offset: u64,
        frames: &[Pfn],
        _ram: DirectMap<'_>,
    ) -> Result<u64, IoError> {
        Ok(frames.len() as u64 * 4096)
    }

    fn write(
        &self,
        _file: FileId,
        _offset: u64,
        _frames: &[Pfn],
        _bytes: u64,
        _ram: DirectMap<'_>,
    ) -> Result<(), IoError> {
        Ok(())
    }

    fn sync(&self, _file: FileId) -> Result<(), IoError> {
        Ok(())
    }

    fn size(&self, _file: FileId) -> u64 {
        1 << 30
    }

    fn name(&self, _file: FileId, out: &mut dyn std::fmt::Write) -> std::fmt::Result {
        out.write_str("/zeros")
    }

    fn dev_ino(&self, file: FileId) -> (u32, u32, u64) {
        (0, 1, file.0)
    }

    fn release(&self, _file: FileId) {}
}
