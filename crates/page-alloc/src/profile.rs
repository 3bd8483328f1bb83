//! Which frames belong to which kind of zone: the part of a zone's definition that a machine chooses.

use vellum_types::{NodeId, Order, Pfn, ZoneType};

/// How much of memory is kept for what can be moved. Linux's `kernelcore=`, `movablecore=` and
/// `movable_node`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MovableShare {
    /// No ZONE_MOVABLE.
    #[default]
    None,
    /// So many pages for everybody, spread evenly over the nodes; what is above is movable.
    KernelCore(u64),
    /// So many pages are movable, spread evenly.
    MovableCore(u64),
    /// All memory of these nodes, one bit each, but what lies in lower zones: nodes that are to be
    /// removable.
    Nodes(u8),
}

/// The borders of zones on a machine.
///
/// ```text
///   x86-64   ├ DMA ┤├──── DMA32 ────┤├───── Normal ─────···┤├─ Movable ─┤
///            0   16 MiB           4 GiB              the end of each node
///   x86-32   ├ DMA ┤├─ Normal ─┤├──── HighMem ────···┤├─ Movable ─┤
///            0   16 MiB      896 MiB
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ZoneProfile {
    /// Frames below this are ZONE_DMA.
    pub dma_end: Pfn,
    /// Frames from there to this are ZONE_DMA32.
    pub dma32_end: Pfn,
    /// Frames from there to this are ZONE_NORMAL, those above ZONE_HIGHMEM.
    pub normal_end: Pfn,
    /// How much of the end of each node is ZONE_MOVABLE.
    pub movable: MovableShare,
    /// Nodes, one bit each, that exist although they have no memory at boot: it may be added.
    pub possible_nodes: u8,
}

/// 16 MiB, what an ISA device reaches.
const ISA: Pfn = Pfn::new(16 << 8);

impl ZoneProfile {
    /// DMA below 16 MiB, DMA32 below 4 GiB, Normal above; all of it in the direct map.
    pub const X86_64: Self = Self {
        dma_end: ISA,
        dma32_end: Pfn::new(4 << 18),
        normal_end: Pfn::NONE,
        movable: MovableShare::None,
        possible_nodes: 0,
    };

    /// DMA below 16 MiB, Normal below 896 MiB, where the direct map of a kernel with 1 GiB of
    /// addresses ends, HighMem above.
    pub const X86_32: Self = Self {
        dma_end: ISA,
        dma32_end: ISA,
        normal_end: Pfn::new(896 << 8),
        movable: MovableShare::None,
        possible_nodes: 0,
    };

    /// The same with a share for movable pages.
    pub const fn movable(self, movable: MovableShare) -> Self {
        Self { movable, ..self }
    }

    /// The same with room for memory of `node`.
    ///
    /// # Panics
    /// If there is no such node: they are 0 to 7.
    pub const fn possible(mut self, node: NodeId) -> Self {
        self.possible_nodes |= 1 << node.0;
        self
    }

    /// The zone of a frame, if it is not in ZONE_MOVABLE.
    pub(crate) fn zone_type_of(&self, pfn: Pfn) -> ZoneType {
        if pfn < self.dma_end {
            ZoneType::Dma
        } else if pfn < self.dma32_end {
            ZoneType::Dma32
        } else if pfn < self.normal_end {
            ZoneType::Normal
        } else {
            ZoneType::HighMem
        }
    }

    /// The lowest frame of a zone.
    pub(crate) fn zone_start(&self, zone_type: ZoneType) -> Pfn {
        match zone_type {
            ZoneType::Dma => Pfn::ZERO,
            ZoneType::Dma32 => self.dma_end,
            ZoneType::Normal => self.dma32_end,
            ZoneType::HighMem | ZoneType::Movable => self.normal_end,
        }
    }

    /// A block never crosses a zone's border, so that one lock is enough to merge.
    pub(crate) fn is_valid(&self) -> bool {
        let whole = |pfn: Pfn| pfn == Pfn::NONE || Order::MAX.is_aligned(pfn);
        whole(self.dma_end)
            && whole(self.dma32_end)
            && whole(self.normal_end)
            && self.dma_end <= self.dma32_end
            && self.dma32_end <= self.normal_end
    }
}

impl Default for ZoneProfile {
    fn default() -> Self {
        Self::X86_64
    }
}
