//! What a machine must do.

use crate::{Cpus, DirectMap};
use vellum_types::{
    NodeId, Order, Pfn, PfnRange, PhysAddr, PhysRange, Prot, SpaceId, VirtAddr, VirtRange,
};

/// What the firmware says about a stretch of physical memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemoryKind {
    /// RAM that the core may use.
    Usable,
    /// RAM or device memory that it must leave alone.
    Reserved,
}

/// One line of the firmware's memory map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryRegion {
    /// The bytes.
    pub range: PhysRange,
    /// The node they belong to.
    pub node: NodeId,
    /// May they be used?
    pub kind: MemoryKind,
}

/// One translation for a machine's TLB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fill {
    /// The frame.
    pub pfn: Pfn,
    /// What may be done without a fault. Never more than the page table allows.
    pub prot: Prot,
}

/// Constants of a machine that shape the core's choices.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    /// CPUs.
    pub nr_cpus: u16,
    /// The MMU sets accessed and dirty bits in page tables. If not, the core installs clean pages
    /// read-only and learns of the first write by a fault.
    pub hw_access_dirty: bool,
    /// Pages that a file fault maps around itself when they are cached, Linux's
    /// `fault_around_bytes`. A power of two.
    pub fault_around_pages: u32,
    /// The largest order that an anonymous fault may fill at once.
    pub anon_order_max: Order,
}

/// The machine under a virtual-memory system.
///
/// The hooks are Linux's; see the crate's picture. They are called with the address space's lock
/// held and must not call back into the core.
pub trait Machine {
    /// The firmware's memory map, in any order, perhaps overlapping.
    fn memory_map(&self) -> &[MemoryRegion];

    /// RAM.
    fn direct_map(&self) -> DirectMap<'_>;

    /// Constants.
    fn features(&self) -> Features;

    /// Its CPUs.
    fn cpus(&self) -> Cpus<'_>;

    /// How far apart two nodes are, as in ACPI's SLIT: 10 is here.
    fn node_distance(&self, from: NodeId, to: NodeId) -> u8 {
        if from == to { 10 } else { 20 }
    }

    /// Nanoseconds since some fixed moment.
    fn now_ns(&self) -> u64;

    /// Zeroes frames that are about to be given to a program. A machine that knows them to be zero
    /// already may skip the work.
    fn zero_pages(&self, frames: PfnRange) {
        self.direct_map()
            .fill_pages(frames.start(), frames.len(), 0);
    }

    /// The shared zero page was chosen; called once at boot.
    fn set_zero_page(&self, pfn: Pfn) {
        let _ = pfn;
    }

    /// Entries for consecutive pages from `start` were written, or a fault hit entries that are
    /// already right. The machine may load them.
    fn update_mmu_cache_range(&self, space: SpaceId, start: VirtAddr, fills: &[Fill]);

    /// Entries in `range` were removed or changed: drop all of them.
    fn flush_tlb_range(&self, space: SpaceId, range: VirtRange);

    /// Drop every entry of `space`.
    fn flush_tlb_mm(&self, space: SpaceId);

    /// Entries in `range` lost their write permission.
    fn wrprotect_range(&self, space: SpaceId, range: VirtRange);

    /// Returns when all earlier flushes and write-protections of `space` are in force on all CPUs.
    fn flush_wait(&self, space: SpaceId);

    /// Kernel translations in `range` were removed: on return, no CPU has them any more. Called with
    /// canonical addresses. A machine that maps no kernel half has none to drop.
    fn flush_tlb_kernel_range(&self, range: VirtRange) {
        let _ = range;
    }

    /// As [`Machine::flush_tlb_kernel_range`], of translations that only this CPU used. Linux's
    /// `flush_tlb_one_kernel`.
    fn flush_tlb_kernel_local(&self, range: VirtRange) {
        self.flush_tlb_kernel_range(range);
    }

    /// Loads bytes that the kernel's page tables map: at `va`, which leads to `phys`; they do not
    /// cross a page. A machine whose MMU maps the kernel half loads from `va`; one that has none, as
    /// by default, goes to `phys`, and needs its own way there if that lies above the direct map.
    fn read_kernel(&self, va: VirtAddr, phys: PhysAddr, out: &mut [u8]) {
        let _ = va;
        self.direct_map().read_bytes(phys, out);
    }

    /// Stores bytes that the kernel's page tables map; see [`Machine::read_kernel`].
    fn write_kernel(&self, va: VirtAddr, phys: PhysAddr, bytes: &[u8]) {
        let _ = va;
        self.direct_map().write_bytes(phys, bytes);
    }

    /// True if the page at `page` is the target of I/O that runs at this moment, so that its frame
    /// must neither move nor lose its write permission. Linux's `page_maybe_dma_pinned`.
    fn is_pinned(&self, space: SpaceId, page: VirtAddr) -> bool {
        let _ = (space, page);
        false
    }

    /// True if reclaim must not take the translation of `page` at this moment: somebody who cannot fault
    /// may use it. Pinned pages are such.
    fn must_stay(&self, space: SpaceId, page: VirtAddr) -> bool {
        self.is_pinned(space, page)
    }
}
