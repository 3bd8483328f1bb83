//! Broken promises of the core, as the machine sees them.

use std::fmt;
use vellum_types::{Access, CpuId, Pfn, Prot, SpaceId, VirtAddr};

/// The core broke its contract with the machine. A correct core never causes one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// An access hit a TLB entry that the page tables no longer allow, and no flush was asked for.
    MissingFlush {
        /// On which CPU.
        cpu: CpuId,
        /// In which address space.
        space: SpaceId,
        /// At which page.
        page: VirtAddr,
        /// The frame of the stale entry.
        cached: Pfn,
        /// What the stale entry allows.
        cached_prot: Prot,
        /// What the tables say now.
        walked: Option<(Pfn, Prot)>,
    },
    /// An access hit a stale entry whose flush was asked for but never waited for.
    FlushNotAwaited {
        /// On which CPU.
        cpu: CpuId,
        /// In which address space.
        space: SpaceId,
        /// At which page.
        page: VirtAddr,
        /// The frame of the stale entry.
        cached: Pfn,
    },
    /// A frame went back to the allocator while some TLB still translated to it.
    FreedWhileCached {
        /// On which CPU.
        cpu: CpuId,
        /// In which address space.
        space: SpaceId,
        /// At which page.
        page: VirtAddr,
        /// The frame.
        pfn: Pfn,
    },
    /// A page of a page table went back to the allocator while an address space still uses it as
    /// its root.
    FreedRoot {
        /// The address space.
        space: SpaceId,
        /// The frame.
        pfn: Pfn,
    },
    /// `update_mmu_cache_range` offered more than the tables allow.
    BadFill {
        /// In which address space.
        space: SpaceId,
        /// At which page.
        page: VirtAddr,
        /// The frame offered.
        pfn: Pfn,
        /// What was offered.
        prot: Prot,
        /// What the tables say.
        walked: Option<(Pfn, Prot)>,
    },
    /// A store went through a writable entry without the dirty bit on a machine that does not set
    /// it: the store would be forgotten.
    CleanWritable {
        /// In which address space.
        space: SpaceId,
        /// At which page.
        page: VirtAddr,
        /// The entry.
        entry: u64,
    },
    /// An entry points to a frame outside the RAM.
    BadTable {
        /// In which address space.
        space: SpaceId,
        /// For which page.
        page: VirtAddr,
        /// The entry.
        entry: u64,
    },
    /// The same access faulted again and again although each fault was said to be served.
    NoProgress {
        /// In which address space.
        space: SpaceId,
        /// At which address.
        addr: VirtAddr,
        /// By doing what.
        access: Access,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
