//! What kind of machine to build.

use vellum_machine::{MemoryKind, MemoryRegion};
use vellum_system::ZoneProfile;
use vellum_types::{NodeId, Order, Pfn, PhysAddr, PhysRange};

/// When a flush reaches the other CPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlushMode {
    /// At once.
    Immediate,
    /// As late as the contract allows: on the calling CPU at once, on the others at `flush_wait`.
    Deferred,
}

/// Who fills the TLB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refill {
    /// A walker reads the page tables on a miss, as x86 does. Hints of `update_mmu_cache_range`
    /// are ignored.
    Walker,
    /// The walker, and hints are loaded as well.
    WalkerAndHints,
    /// Hints only: each miss is a fault, even on a present entry, as under `um`.
    HintsOnly,
}

/// The shape of a [`SimMachine`](crate::SimMachine).
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// The firmware's memory map; holes are whatever it does not name.
    pub regions: Vec<MemoryRegion>,
    /// CPUs, 1 to 64.
    pub nr_cpus: u16,
    /// Does the walker set accessed and dirty bits?
    pub hw_access_dirty: bool,
    /// Entries of each CPU's TLB, at least 1.
    pub tlb_entries: usize,
    /// When flushes arrive.
    pub flush: FlushMode,
    /// Who fills the TLB.
    pub refill: Refill,
    /// Pages that a file fault maps around itself.
    pub fault_around_pages: u32,
    /// The largest order of an anonymous fault.
    pub anon_order_max: Order,
    /// Nodes, 1 to 8; CPU n is near node n modulo their number. See [`SimConfig::nodes`].
    pub nr_nodes: u8,
    /// How far apart two nodes are, as in ACPI's SLIT: 10 is here.
    pub distance: fn(NodeId, NodeId) -> u8,
    /// Which frames belong to which kind of zone.
    pub zones: ZoneProfile,
    /// Where the direct map ends; the core reaches what lies above by kernel mappings alone.
    pub low_end: PhysAddr,
}

impl SimConfig {
    /// One CPU and `bytes` of RAM from address zero, of which the first page is reserved, as on a PC.
    ///
    /// # Panics
    /// If `bytes` is not more than one page.
    pub fn with_ram(bytes: u64) -> Self {
        let region = |start, end, kind| MemoryRegion {
            range: PhysRange::new(PhysAddr::new(start), PhysAddr::new(end))
                .expect("an empty region"),
            node: NodeId(0),
            kind,
        };
        Self {
            regions: vec![
                region(0, 0x1000, MemoryKind::Reserved),
                region(0x1000, bytes, MemoryKind::Usable),
            ],
            nr_cpus: 1,
            hw_access_dirty: true,
            tlb_entries: 64,
            flush: FlushMode::Deferred,
            refill: Refill::Walker,
            fault_around_pages: 16,
            anon_order_max: Order::ZERO,
            nr_nodes: 1,
            distance: |from, to| if from == to { 10 } else { 20 },
            zones: ZoneProfile::X86_64,
            low_end: PhysAddr::new(u64::MAX),
        }
    }

    /// RAM in several pieces with holes and firmware data between them, about `bytes` in all.
    ///
    /// # Panics
    /// If `bytes` is below 4 MiB.
    pub fn with_holes(bytes: u64) -> Self {
        assert!(bytes >= 4 << 20, "too small to have holes");
        let quarter = (bytes / 4) & !0xfff;
        let region = |start, len, kind| MemoryRegion {
            range: PhysRange::from_len(PhysAddr::new(start), len).expect("an empty region"),
            node: NodeId(0),
            kind,
        };
        Self {
            regions: vec![
                // Out of order, overlapping, and one end is not on a page boundary.
                region(3 * quarter, 2 * quarter, MemoryKind::Usable),
                region(0x1000, 0x9_ec00 - 0x1000, MemoryKind::Usable),
                region(0x9_ec00, 0x6_1400, MemoryKind::Reserved),
                region(0x10_0000, 2 * quarter - 0x10_0000, MemoryKind::Usable),
                region(4 * quarter, 0x3000, MemoryKind::Reserved),
            ],
            ..Self::with_ram(bytes)
        }
    }

    /// The same with its memory split evenly over `n` nodes, in blocks of 4 MiB.
    ///
    /// # Panics
    /// If `n` is not 1 to 8, or there is less than 4 MiB for each.
    pub fn nodes(self, n: u8) -> Self {
        const BLOCK: u64 = 4 << 20;
        assert!((1..=8).contains(&n), "1 to 8 nodes");
        let end = self.regions.iter().map(|r| r.range.end().as_u64()).max();
        let share = end.unwrap_or(0) / u64::from(n) / BLOCK * BLOCK;
        assert!(share > 0, "too little memory for so many nodes");
        let mut regions = Vec::new();
        for node in 0..n {
            let start = PhysAddr::new(share * u64::from(node));
            let end = match node + 1 {
                last if last == n => PhysAddr::new(u64::MAX),
                next => PhysAddr::new(share * u64::from(next)),
            };
            let here = PhysRange::new(start, end).expect("an empty node");
            let inside = |region: &MemoryRegion| {
                let range = region.range.intersect(&here)?;
                let node = NodeId(node);
                Some(MemoryRegion {
                    range,
                    node,
                    ..*region
                })
            };
            regions.extend(self.regions.iter().filter_map(inside));
        }
        Self {
            regions,
            nr_nodes: n,
            ..self
        }
    }
    /// The same with these distances between nodes.
    pub fn distance(self, distance: fn(NodeId, NodeId) -> u8) -> Self {
        Self { distance, ..self }
    }
    /// The same with these zones, for example those of a 32-bit kernel.
    pub fn zones(self, zones: ZoneProfile) -> Self {
        Self { zones, ..self }
    }
    /// The same with `bytes` of RAM in the direct map; what lies above is HIGHMEM.
    ///
    /// # Panics
    /// If that is no whole number of blocks of the largest order, 4 MiB.
    pub fn low_memory(self, bytes: u64) -> Self {
        let low_end = PhysAddr::new(bytes);
        let normal_end = Pfn::containing(low_end).expect("an address of RAM");
        // Zones end where the largest block does. A small machine has no ZONE_DMA.
        let largest = Order::MAX.pages();
        assert!(
            normal_end.as_u32().is_multiple_of(largest),
            "part of a block"
        );
        let quarter = Pfn::new(normal_end.as_u32() / 4 / largest * largest);
        let dma_end = ZoneProfile::X86_32.dma_end.min(quarter);
        let zones = ZoneProfile {
            dma_end,
            dma32_end: dma_end,
            normal_end,
            ..ZoneProfile::X86_32
        };
        Self {
            low_end,
            zones,
            ..self
        }
    }
    /// The same with `n` CPUs.
    pub fn cpus(self, n: u16) -> Self {
        Self { nr_cpus: n, ..self }
    }
    /// The same with a TLB of `n` entries for each CPU.
    pub fn tlb(self, n: usize) -> Self {
        Self {
            tlb_entries: n,
            ..self
        }
    }
    /// The same with accessed and dirty bits set by the walker, or not.
    pub fn access_dirty(self, by_hardware: bool) -> Self {
        Self {
            hw_access_dirty: by_hardware,
            ..self
        }
    }
    /// The same with this way of filling TLBs.
    pub fn refill(self, refill: Refill) -> Self {
        Self { refill, ..self }
    }
    /// The same with this way of flushing.
    pub fn flush(self, flush: FlushMode) -> Self {
        Self { flush, ..self }
    }
}
