//! What an allocation may do and where its memory may come from.

use crate::{MigrateType, ZoneType};

bitflags::bitflags! {
    /// `gfp_t`: modifiers of an allocation. Linux: `include/linux/gfp_types.h`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
    pub struct GfpFlags: u32 {
        /// Memory below 16 MiB.
        const DMA = 1 << 0;
        /// Memory above the direct map is fine.
        const HIGHMEM = 1 << 1;
        /// Memory below 4 GiB.
        const DMA32 = 1 << 2;
        /// The pages can be moved or reclaimed; ZONE_MOVABLE is fine.
        const MOVABLE = 1 << 3;
        /// The pages belong to a cache that a shrinker can empty.
        const RECLAIMABLE = 1 << 4;
        /// High priority: may dip into half of the reserve.
        const HIGH = 1 << 5;
        /// May start physical I/O.
        const IO = 1 << 6;
        /// May call into file systems.
        const FS = 1 << 7;
        /// Zero the pages.
        const ZERO = 1 << 8;
        /// May reclaim directly, that is, wait.
        const DIRECT_RECLAIM = 1 << 9;
        /// May wake kswapd.
        const KSWAPD_RECLAIM = 1 << 10;
        /// No warning on failure.
        const NOWARN = 1 << 11;
        /// Try, but not hard; fail before the OOM killer.
        const NORETRY = 1 << 12;
        /// Try hard, yet fail before the OOM killer.
        const RETRY_MAYFAIL = 1 << 13;
        /// Must not fail.
        const NOFAIL = 1 << 14;
        /// The caller frees memory soon: ignore the watermarks.
        const MEMALLOC = 1 << 15;
        /// Never use the reserves, even if MEMALLOC is set elsewhere.
        const NOMEMALLOC = 1 << 16;
        /// Charge to the caller's group.
        const ACCOUNT = 1 << 17;
        /// This node only.
        const THISNODE = 1 << 18;
        /// A compound page.
        const COMP = 1 << 19;

        /// May wait.
        const RECLAIM = Self::DIRECT_RECLAIM.bits() | Self::KSWAPD_RECLAIM.bits();
        /// Cannot wait and must succeed if at all possible.
        const ATOMIC = Self::HIGH.bits() | Self::KSWAPD_RECLAIM.bits();
        /// The ordinary kernel allocation.
        const KERNEL = Self::RECLAIM.bits() | Self::IO.bits() | Self::FS.bits();
        /// Cannot wait.
        const NOWAIT = Self::KSWAPD_RECLAIM.bits() | Self::NOWARN.bits();
        /// May wait, must not do I/O.
        const NOIO = Self::RECLAIM.bits();
        /// May wait and do I/O, must not enter file systems.
        const NOFS = Self::RECLAIM.bits() | Self::IO.bits();
        /// For user space, yet directly addressable.
        const USER = Self::RECLAIM.bits() | Self::IO.bits() | Self::FS.bits();
        /// For user space; the kernel needs no address for it.
        const HIGHUSER = Self::USER.bits() | Self::HIGHMEM.bits();
        /// For user space, movable.
        const HIGHUSER_MOVABLE = Self::HIGHUSER.bits() | Self::MOVABLE.bits();
    }
}

impl GfpFlags {
    /// The highest zone these flags allow, Linux's `gfp_zone`.
    pub const fn highest_zone(self) -> ZoneType {
        if self.contains(Self::DMA) {
            ZoneType::Dma
        } else if self.contains(Self::DMA32) {
            ZoneType::Dma32
        } else if self.contains(Self::HIGHMEM) {
            if self.contains(Self::MOVABLE) {
                ZoneType::Movable
            } else {
                ZoneType::HighMem
            }
        } else {
            ZoneType::Normal
        }
    }
    /// The mobility these flags ask for, Linux's `gfp_migratetype`.
    pub const fn migrate_type(self) -> MigrateType {
        if self.contains(Self::MOVABLE) {
            MigrateType::Movable
        } else if self.contains(Self::RECLAIMABLE) {
            MigrateType::Reclaimable
        } else {
            MigrateType::Unmovable
        }
    }
}
