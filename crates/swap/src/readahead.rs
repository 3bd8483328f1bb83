//! Which slots to read when one is needed. Linux: `swap_cluster_readahead` in `mm/swap_state.c`.

use core::ops::RangeInclusive;
use core::sync::atomic::{AtomicU32, Ordering};

/// Pages that went out together lie together, so their neighbours are worth reading: the more, the more
/// of those read before were asked for.
///
/// All numbers are Relaxed: a lost update makes a window too small or too large, no more.
#[derive(Debug)]
pub struct SwapReadahead {
    /// Pages read ahead that were asked for since the last window.
    hits: AtomicU32,
    /// Pages of the last window.
    last: AtomicU32,
    /// The slot of the last miss without hits.
    prev: AtomicU32,
    /// log2 of the longest window.
    page_cluster: AtomicU32,
}

impl SwapReadahead {
    /// Linux's default of `vm.page-cluster`.
    pub const PAGE_CLUSTER: u32 = 3;

    pub(crate) const fn new() -> Self {
        Self {
            // As Linux: the first window is worth four pages.
            hits: AtomicU32::new(4),
            last: AtomicU32::new(0),
            prev: AtomicU32::new(0),
            page_cluster: AtomicU32::new(Self::PAGE_CLUSTER),
        }
    }

    /// Sets the longest window to `1 << page_cluster` pages, at most 32; 0 reads nothing ahead.
    pub fn set_page_cluster(&self, page_cluster: u32) {
        self.page_cluster
            .store(page_cluster.min(5), Ordering::Relaxed);
    }

    /// A page that was read ahead was asked for.
    pub(crate) fn hit(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    /// The slots to read when `slot` is missing, in an area of `nr_slots`: an aligned window around it.
    /// Slot 0 is never in it.
    pub fn window(&self, slot: u32, nr_slots: u32) -> RangeInclusive<u32> {
        let pages = self.pages(slot);
        let start = (slot & !(pages - 1)).max(1);
        let end = (slot | (pages - 1)).min(nr_slots.saturating_sub(1));
        start..=end.max(slot)
    }

    /// How many pages the window has: a power of two. Linux's `swapin_nr_pages`.
    fn pages(&self, slot: u32) -> u32 {
        let max = 1 << self.page_cluster.load(Ordering::Relaxed);
        if max == 1 {
            return 1;
        }
        let hits = self.hits.swap(0, Ordering::Relaxed);
        let prev = self.prev.load(Ordering::Relaxed);
        let wish = if hits == 0 {
            self.prev.store(slot, Ordering::Relaxed);
            // No hits: go on only if the misses themselves are neighbours.
            if slot.abs_diff(prev) == 1 { 2 } else { 1 }
        } else {
            (hits.saturating_add(2)).next_power_of_two().max(4)
        };
        // Not less than half of the last one: one bad guess is forgiven.
        let floor = self.last.load(Ordering::Relaxed) / 2;
        let pages = wish.min(max).max(floor);
        self.last.store(pages, Ordering::Relaxed);
        pages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_grow_with_hits_and_shrink_without() {
        let ra = SwapReadahead::new();
        assert_eq!(ra.window(100, 1000), 96..=103);
        assert_eq!(ra.window(300, 1000), 300..=303, "half of the last");
        assert_eq!(ra.window(601, 1000), 600..=601);
        assert_eq!(ra.window(700, 1000), 700..=700);
        assert_eq!(ra.window(701, 1000), 700..=701, "neighbours");
        ra.hit();
        assert_eq!(ra.window(709, 1000), 708..=711);
        for _ in 0..100 {
            ra.hit();
        }
        assert_eq!(ra.window(17, 1000), 16..=23);
    }

    #[test]
    fn windows_stay_inside_the_area() {
        let ra = SwapReadahead::new();
        assert_eq!(ra.window(2, 1000), 1..=7);
        for _ in 0..8 {
            ra.hit();
        }
        assert_eq!(ra.window(1001, 1003), 1000..=1002);
    }

    #[test]
    fn page_cluster_zero_reads_one_page() {
        let ra = SwapReadahead::new();
        ra.set_page_cluster(0);
        for _ in 0..9 {
            ra.hit();
        }
        assert_eq!(ra.window(5, 1000), 5..=5);
        ra.set_page_cluster(99);
        assert_eq!(ra.window(40, 1000), 32..=47);
    }
}
