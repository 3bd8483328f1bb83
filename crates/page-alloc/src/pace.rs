//! How many pages a list moves and keeps: a batch and marks that follow what is asked for.

use crate::pcp::TYPES;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};
use vellum_types::Order;

/// How often a batch may double. Linux: `CONFIG_PCP_BATCH_SCALE_MAX`.
const MAX_SCALE: u8 = 5;

/// Marks and batch of one list, from the size of its zone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tuning {
    /// Pages moved at once between a list and its zone, at rest.
    pub(crate) batch: u32,
    /// At this length a list is relieved, at rest.
    pub(crate) high_min: u32,
    /// The same after a long run of allocations.
    pub(crate) high_max: u32,
}

impl Tuning {
    /// For the lists of single pages of a zone with `managed` pages, whose low mark is `low`, of a
    /// machine with `nr_cpus`.
    ///
    /// Linux: `zone_batchsize`, `zone_highsize`. Linux's marks are for all lists of a zone and CPU
    /// together, these for one.
    pub(crate) fn new(managed: u64, low: u64, nr_cpus: u16) -> Self {
        let quarter = ((managed >> 10).min(256) / 4).max(1);
        let sum = quarter + quarter / 2;
        let batch = ((1 << sum.ilog2()) - 1_u64).max(1);
        let share = |pages: u64| pages / u64::from(nr_cpus) / TYPES as u64;
        let high_min = share(low).max(batch * 4);
        let high_max = share(managed / 8).max(high_min);
        let narrow = |pages: u64| u32::try_from(pages).unwrap_or(u32::MAX / 2);
        Self {
            batch: narrow(batch),
            high_min: narrow(high_min),
            high_max: narrow(high_max),
        }
    }
}

impl Tuning {
    /// The same amount of memory in blocks of `order`. A list whose blocks are large for its zone
    /// keeps none.
    pub(crate) fn of_order(self, order: Order) -> Self {
        let shrink = |pages: u32| (pages >> order.as_u8()).max(1);
        Self {
            batch: shrink(self.batch),
            high_min: shrink(self.high_min),
            high_max: shrink(self.high_max),
        }
    }
}

/// How many pages a list moves and keeps at present.
pub(crate) struct Pace {
    tuning: Tuning,
    pub(crate) high: AtomicU32,
    alloc_scale: AtomicU8,
    free_scale: AtomicU8,
    /// Of the pages ever put, those that came from the zone; of those ever taken, those that went
    /// there. The rest are frees and allocations.
    pub(crate) filled: AtomicU64,
    pub(crate) drained: AtomicU64,
}

impl Pace {
    pub(crate) fn new(tuning: Tuning) -> Self {
        Self {
            tuning,
            high: AtomicU32::new(tuning.high_min),
            alloc_scale: AtomicU8::new(0),
            free_scale: AtomicU8::new(0),
            filled: AtomicU64::new(0),
            drained: AtomicU64::new(0),
        }
    }

    /// How many pages to fetch. Runs of allocations fetch more and more, and may keep more.
    pub(crate) fn next_fill(&self) -> u32 {
        let Tuning {
            batch, high_max, ..
        } = self.tuning;
        let scale = self.alloc_scale.load(Relaxed);
        self.alloc_scale.store((scale + 1).min(MAX_SCALE), Relaxed);
        self.free_scale
            .store(self.free_scale.load(Relaxed) / 2, Relaxed);
        let high = self.high.load(Relaxed);
        self.high.store((high + batch).min(high_max), Relaxed);
        (batch << scale).min((high / 2).max(batch))
    }

    /// How many of `count` pages to keep when too many were freed. Runs of frees give back more and
    /// more.
    pub(crate) fn next_keep(&self, count: u32) -> u32 {
        let batch = self.tuning.batch;
        let scale = self.free_scale.load(Relaxed);
        self.free_scale.store((scale + 1).min(MAX_SCALE), Relaxed);
        self.alloc_scale
            .store(self.alloc_scale.load(Relaxed) / 2, Relaxed);
        let most = (self.high.load(Relaxed) - batch).max(batch);
        count.saturating_sub((batch << scale).clamp(batch, most))
    }

    /// Back to the marks at rest.
    pub(crate) fn calm(&self) {
        self.high.store(self.tuning.high_min, Relaxed);
        self.alloc_scale.store(0, Relaxed);
        self.free_scale.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_linux_numbers() {
        // zone_batchsize of 16 MiB, 128 MiB, 512 MiB, 1 GiB and 16 GiB.
        let batch = |mib: u64| Tuning::new(mib << 8, 0, 1).batch;
        assert_eq!([16, 128, 512, 1024, 16384].map(batch), [1, 7, 31, 63, 63]);
    }

    #[test]
    fn marks_are_shared_by_the_cpus() {
        let of = |cpus| Tuning::new(1 << 18, 12_000, cpus);
        assert_eq!((of(1).high_min, of(1).high_max), (4000, 10_922));
        assert_eq!((of(4).high_min, of(4).high_max), (1000, 2730));
        assert_eq!(of(64).high_min, 63 * 4);
    }

    #[test]
    fn batches_grow_in_runs_and_shrink_back() {
        let pace = Pace::new(Tuning {
            batch: 4,
            high_min: 32,
            high_max: 64,
        });
        let fills: std::vec::Vec<u32> = (0..6).map(|_| pace.next_fill()).collect();
        assert_eq!(fills, [4, 8, 16, 22, 24, 26]);
        let kept: std::vec::Vec<u32> = (0..5).map(|_| pace.next_keep(64)).collect();
        assert_eq!(kept, [60, 56, 48, 32, 12], "counted from 64 each time");
        assert_eq!(
            pace.next_fill(),
            4,
            "a run of frees ends a run of allocations"
        );
        pace.calm();
        assert_eq!((pace.next_keep(64), pace.high.load(Relaxed)), (60, 32));
    }
}
