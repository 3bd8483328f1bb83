//! Where the last search ended.

use crate::path::{Path, Steps};
use core::sync::atomic::{AtomicU64, Ordering};

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

impl LastHit {
    #[inline]
    pub(crate) fn steps(&self) -> Steps {
        Steps::from_packed(self.path.load(Ordering::Relaxed))
    }

    #[inline]
    pub(crate) fn store(&self, path: Path) {
        self.path.store(path.packed(), Ordering::Relaxed);
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
