//! Small names: CPUs, nodes, zones, address spaces, files.

/// A CPU of the machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct CpuId(pub u16);

/// A NUMA node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct NodeId(pub u8);

/// An address space, as the machine knows it. Never reused while a machine may hold entries of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SpaceId(pub u32);

impl SpaceId {
    /// The kernel's own: the owner of the tables that every address space shares. Linux's `init_mm`.
    pub const KERNEL: Self = Self(u32::MAX);
}

/// A file, as the backing store knows it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileId(pub u64);

/// Kinds of zone, lowest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum ZoneType {
    /// Below 16 MiB.
    Dma,
    /// Below 4 GiB.
    Dma32,
    /// In the direct map.
    Normal,
    /// Above the direct map.
    HighMem,
    /// Only movable pages.
    Movable,
}

impl ZoneType {
    /// How many kinds there are.
    pub const COUNT: usize = 5;
    /// All kinds, lowest first.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Dma,
        Self::Dma32,
        Self::Normal,
        Self::HighMem,
        Self::Movable,
    ];

    /// As an index.
    pub const fn index(self) -> usize {
        self as usize
    }
    /// Linux's name, as in `/proc/zoneinfo`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dma => "DMA",
            Self::Dma32 => "DMA32",
            Self::Normal => "Normal",
            Self::HighMem => "HighMem",
            Self::Movable => "Movable",
        }
    }
}

/// How well the pages of a pageblock can be moved.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum MigrateType {
    /// Kernel memory that stays.
    Unmovable,
    /// User pages.
    Movable,
    /// Caches with a shrinker.
    Reclaimable,
    /// A reserve for atomic high-order allocations.
    HighAtomic,
}

impl MigrateType {
    /// How many kinds there are.
    pub const COUNT: usize = 4;
    /// All kinds.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Unmovable,
        Self::Movable,
        Self::Reclaimable,
        Self::HighAtomic,
    ];

    /// As an index.
    pub const fn index(self) -> usize {
        self as usize
    }
    /// Linux's name, as in `/proc/pagetypeinfo`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unmovable => "Unmovable",
            Self::Movable => "Movable",
            Self::Reclaimable => "Reclaimable",
            Self::HighAtomic => "HighAtomic",
        }
    }
}
