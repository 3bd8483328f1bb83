//! How deep an allocation may dip. Linux: `__setup_per_zone_wmarks`, `__zone_watermark_ok`.

use vellum_types::{GfpFlags, Order, ZoneType};

/// The levels of a zone's free pages, in pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Watermarks {
    /// Below this only those may allocate who have a right to the reserve.
    pub min: u64,
    /// Below this kswapd is to be woken, and other zones are preferred.
    pub low: u64,
    /// Here kswapd may sleep again.
    pub high: u64,
}

impl Watermarks {
    /// The share of `min_free_pages` that falls to a zone of `managed` pages of a machine with
    /// `lowmem` pages.
    pub(crate) fn new(min_free_pages: u64, managed: u64, lowmem: u64) -> Self {
        let min = min_free_pages
            .saturating_mul(managed)
            .checked_div(lowmem)
            .unwrap_or(0);
        Self::above(min, managed)
    }

    /// Of a zone that only programs use, so that the kernel's reserve must not lie in it.
    pub(crate) fn of_highmem(managed: u64) -> Self {
        const SWAP_CLUSTER_MAX: u64 = 32;
        let min = (managed / 1024)
            .clamp(SWAP_CLUSTER_MAX, 128)
            .min(managed / 2);
        Self::above(min, managed)
    }

    /// The marks over `min`. `watermark_scale_factor` is Linux's default of 10 in 10 000.
    fn above(min: u64, managed: u64) -> Self {
        const SCALE_FACTOR: u64 = 10;
        let distance = (min / 4).max(managed * SCALE_FACTOR / 10_000);
        Self {
            min,
            low: min + distance,
            high: min + 2 * distance,
        }
    }
}

/// Linux's default of `vm.min_free_kbytes`: 4 * sqrt(kilobytes of low memory), 128 KiB to 256 MiB.
pub(crate) fn default_min_free_kbytes(lowmem_kbytes: u64) -> u64 {
    lowmem_kbytes.saturating_mul(16).isqrt().clamp(128, 262_144)
}

/// `lowmem_reserve`: pages of zone `zone` that an allocation which could have used zone `highest`
/// must leave. So a flood of user pages leaves memory for those who can use no other.
///
/// `managed` are the managed pages of all zones. The ratios are Linux's defaults.
pub(crate) fn lowmem_reserves(
    zone: ZoneType,
    managed: &[u64; ZoneType::COUNT],
) -> [u64; ZoneType::COUNT] {
    let ratio = match zone {
        ZoneType::Dma | ZoneType::Dma32 => 256,
        ZoneType::Normal => 32,
        ZoneType::HighMem | ZoneType::Movable => 0,
    };
    let mut reserves = [0; ZoneType::COUNT];
    if managed[zone.index()] == 0 {
        return reserves;
    }
    let mut above = 0_u64;
    for upper in zone.index() + 1..ZoneType::COUNT {
        above += managed[upper];
        reserves[upper] = above.checked_div(ratio).unwrap_or(0);
    }
    reserves
}

/// Which level an attempt must leave untouched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Level {
    /// The first attempt: stay above `low`, rather try the next zone.
    Low,
    /// The second: down to `min`, or deeper for those with a right to the reserve.
    Min,
}

/// An allocation's rights to the reserves, from its gfp flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reserves {
    /// None.
    No,
    /// Half of what lies below `min`: `__GFP_HIGH`.
    Half,
    /// Five eighths of it: `__GFP_HIGH` and cannot wait, that is `GFP_ATOMIC`.
    Atomic,
    /// All: `__GFP_MEMALLOC`.
    All,
}

impl Reserves {
    pub(crate) const fn of(gfp: GfpFlags) -> Self {
        if gfp.contains(GfpFlags::MEMALLOC) && !gfp.contains(GfpFlags::NOMEMALLOC) {
            Self::All
        } else if !gfp.contains(GfpFlags::HIGH) {
            Self::No
        } else if gfp.contains(GfpFlags::DIRECT_RECLAIM) || gfp.contains(GfpFlags::NOMEMALLOC) {
            Self::Half
        } else {
            Self::Atomic
        }
    }

    /// What is left of `min` for somebody with these rights.
    const fn lower(self, min: u64) -> u64 {
        match self {
            Self::No => min,
            Self::Half => min - min / 2,
            Self::Atomic => {
                let half = min - min / 2;
                half - half / 4
            }
            Self::All => 0,
        }
    }
}

/// True if a zone with `free` pages may give a block of `order`. `reserve` is the zone's
/// `lowmem_reserve` against this allocation.
#[inline]
pub(crate) fn allows(
    marks: &Watermarks,
    level: Level,
    reserves: Reserves,
    reserve: u64,
    free: u64,
    order: Order,
) -> bool {
    let mark = match (level, reserves) {
        (Level::Low, _) => marks.low,
        (Level::Min, Reserves::All) => return true,
        (Level::Min, _) => reserves.lower(marks.min),
    };
    free > mark + reserve + u64::from(order.pages() - 1)
}

/// How many single pages such a zone may give away at once to those without rights to the reserves,
/// on a first attempt.
pub(crate) fn room(marks: &Watermarks, reserve: u64, free: u64) -> u32 {
    let room = free.saturating_sub(marks.low + reserve);
    u32::try_from(room).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn min_free_kbytes_is_linux_table() {
        // The table above init_per_zone_wmark_min in mm/page_alloc.c.
        let table = [
            (16, 512),
            (32, 724),
            (64, 1024),
            (128, 1448),
            (256, 2048),
            (512, 2896),
            (1024, 4096),
            (2048, 5792),
            (4096, 8192),
            (8192, 11584),
            (16384, 16384),
        ];
        for (megabytes, kilobytes) in table {
            let ours = default_min_free_kbytes(megabytes << 10);
            assert!(ours.abs_diff(kilobytes) <= 1, "{megabytes} MB: {ours}");
        }
        assert_eq!(default_min_free_kbytes(0), 128);
        assert_eq!(default_min_free_kbytes(u64::MAX), 262_144);
    }

    #[test]
    fn marks_rise_by_a_quarter_of_min() {
        assert_eq!(
            Watermarks::new(1000, 500, 1000),
            Watermarks {
                min: 500,
                low: 625,
                high: 750
            }
        );
        let large = Watermarks::new(1000, 10_000_000, 10_000_000);
        assert_eq!(
            large,
            Watermarks {
                min: 1000,
                low: 11_000,
                high: 21_000
            }
        );
        assert_eq!(Watermarks::new(1000, 0, 0), Watermarks::default());
    }

    #[test]
    fn reserve_grows_with_the_memory_above() {
        let managed = [4000, 250_000, 1_000_000, 0, 0];
        assert_eq!(
            lowmem_reserves(ZoneType::Dma, &managed),
            [0, 976, 4882, 4882, 4882],
        );
        assert_eq!(
            lowmem_reserves(ZoneType::Dma32, &managed),
            [0, 0, 3906, 3906, 3906]
        );
        assert_eq!(lowmem_reserves(ZoneType::Normal, &managed), [0; 5]);
        assert_eq!(lowmem_reserves(ZoneType::HighMem, &managed), [0; 5]);
    }

    #[test]
    fn rights_follow_the_flags() {
        assert_eq!(Reserves::of(GfpFlags::KERNEL), Reserves::No);
        assert_eq!(Reserves::of(GfpFlags::NOWAIT), Reserves::No);
        assert_eq!(
            Reserves::of(GfpFlags::KERNEL | GfpFlags::HIGH),
            Reserves::Half
        );
        assert_eq!(Reserves::of(GfpFlags::ATOMIC), Reserves::Atomic);
        assert_eq!(
            Reserves::of(GfpFlags::ATOMIC | GfpFlags::NOMEMALLOC),
            Reserves::Half
        );
        assert_eq!(Reserves::of(GfpFlags::MEMALLOC), Reserves::All);
        assert_eq!(
            Reserves::of(GfpFlags::MEMALLOC | GfpFlags::NOMEMALLOC),
            Reserves::No
        );
        let marks = Watermarks {
            min: 80,
            low: 100,
            high: 120,
        };
        let lowest = |level, reserves, order| {
            let order = Order::new(order).unwrap();
            (0..300).find(|free| allows(&marks, level, reserves, 7, *free, order))
        };
        assert_eq!(lowest(Level::Low, Reserves::All, 0), Some(108));
        assert_eq!(lowest(Level::Min, Reserves::No, 0), Some(88));
        assert_eq!(lowest(Level::Min, Reserves::No, 3), Some(95));
        assert_eq!(lowest(Level::Min, Reserves::Half, 0), Some(48));
        assert_eq!(lowest(Level::Min, Reserves::Atomic, 0), Some(38));
        assert_eq!(lowest(Level::Min, Reserves::All, 0), Some(0));
    }
}
