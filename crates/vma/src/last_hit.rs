//! Where the last search ended.

use core::sync::atomic::{AtomicU64, Ordering};

/// Bits per level of a path; a slot number of either kind of node fits.
const SLOT_BITS: usize = 6;

/// How often a search was answered by the area that the search before it had found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CacheStats {
    /// Searches that needed no descent by comparison.
    pub hits: u64,
    /// All others.
    pub misses: u64,
}

/// The way to the area last found, as slot numbers from the root down.
///
/// It is a hint: whoever follows it checks that the area at its end contains the address, so that a
/// change of the tree does not have to reset it. All accesses are Relaxed for that reason.
#[derive(Debug, Default)]
pub(crate) struct LastHit {
    path: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// Slot numbers from the root down, packed, first in the lowest bits.
#[derive(Clone, Copy, Default)]
pub(crate) struct Path {
    packed: u64,
    bits: usize,
}

impl Path {
    #[inline]
    pub(crate) fn push(&mut self, slot: usize) {
        self.packed |= (slot as u64) << self.bits;
        self.bits += SLOT_BITS;
    }
}

/// The slots of a path, one after the other.
pub(crate) struct Steps(u64);

impl Steps {
    #[inline]
    pub(crate) fn next(&mut self) -> usize {
        let slot = self.0 as usize & ((1 << SLOT_BITS) - 1);
        self.0 >>= SLOT_BITS;
        slot
    }
}

impl LastHit {
    #[inline]
    pub(crate) fn steps(&self) -> Steps {
        Steps(self.path.load(Ordering::Relaxed))
    }

    #[inline]
    pub(crate) fn store(&self, path: Path) {
        self.path.store(path.packed, Ordering::Relaxed);
    }

    /// Counts without a locked instruction: concurrent searches may lose a count.
    #[inline]
    pub(crate) fn count(&self, hit: bool) {
        let counter = if hit { &self.hits } else { &self.misses };
        counter.store(
            counter.load(Ordering::Relaxed).wrapping_add(1),
            Ordering::Relaxed,
        );
    }

    pub(crate) fn stats(&self) -> CacheStats {
        CacheStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
        }
    }
}
