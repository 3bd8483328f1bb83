//! Spin locks with a rank.

use core::sync::atomic::{AtomicBool, Ordering};

/// Where a lock stands in the lock order. A CPU may take a lock only if its rank is higher than
/// that of every lock it holds. `docs/LOCKING.md` says what each protects.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum LockRank {
    /// The table of address spaces.
    Spaces = 10,
    /// `mmap_lock`: the areas, page tables and numbers of one address space.
    Mmap = 20,
    /// The table of files.
    Files = 30,
    /// `i_pages`: the pages of one file, their marks and its size in memory.
    Mapping = 40,
    /// `anon_vma` and the mappers of a file: who may have a page in their tables.
    Rmap = 45,
    /// A swap area's slots.
    Swap = 50,
    /// The arena of kernel mappings.
    Vmalloc = 52,
    /// The lists of pages that reclaim looks at.
    Lru = 55,
    /// One object cache.
    Slab = 60,
    /// One zone's free lists.
    Zone = 70,
}

/// The raw lock under [`SpinLock`].
pub struct RawSpin {
    locked: AtomicBool,
    rank: LockRank,
}

impl RawSpin {
    const fn new(rank: LockRank) -> Self {
        Self {
            locked: AtomicBool::new(false),
            rank,
        }
    }
}

// SAFETY: `locked` goes from false to true in one compare-exchange only, so that one holder exists
// at a time; Acquire there pairs with Release in unlock.
unsafe impl lock_api::RawMutex for RawSpin {
    const INIT: Self = Self::new(LockRank::Zone);
    type GuardMarker = lock_api::GuardNoSend;

    #[inline]
    fn lock(&self) {
        lockdep::acquire(self.rank);
        while self
            .locked
            .compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            // Relaxed: only a hint when to try again.
            while self.locked.load(Ordering::Relaxed) {
                core::hint::spin_loop();
            }
        }
    }

    #[inline]
    fn try_lock(&self) -> bool {
        let taken = self
            .locked
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_ok();
        if taken {
            lockdep::acquire(self.rank);
        }
        taken
    }

    #[inline]
    unsafe fn unlock(&self) {
        lockdep::release(self.rank);
        self.locked.store(false, Ordering::Release);
    }
}

/// A spin lock around `T`.
pub struct SpinLock<T>(lock_api::Mutex<RawSpin, T>);

/// Proof that the lock is held.
pub type SpinGuard<'a, T> = lock_api::MutexGuard<'a, RawSpin, T>;

impl<T> SpinLock<T> {
    /// A free lock of the given rank.
    pub const fn new(rank: LockRank, value: T) -> Self {
        Self(lock_api::Mutex::from_raw(RawSpin::new(rank), value))
    }
    /// Waits for the lock.
    ///
    /// # Panics
    /// With feature `lockdep` in a debug build, if a lock of this or a higher rank is held.
    #[inline]
    pub fn lock(&self) -> SpinGuard<'_, T> {
        self.0.lock()
    }
    /// The value, without locking: the exclusive borrow is proof enough.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }
    /// Unwraps the value.
    pub fn into_inner(self) -> T {
        self.0.into_inner()
    }
}

#[cfg(all(feature = "lockdep", debug_assertions))]
mod lockdep {
    use super::LockRank;
    use std::cell::RefCell;
    use std::vec::Vec;

    // A thread stands for a CPU here: hosted machines run each CPU of a test on one thread.
    std::thread_local! {
        static HELD: RefCell<Vec<LockRank>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn acquire(rank: LockRank) {
        HELD.with_borrow_mut(|held| {
            if let Some(top) = held.iter().max() {
                assert!(
                    *top < rank,
                    "lock order: {rank:?} taken while {top:?} is held"
                );
            }
            held.push(rank);
        });
    }

    pub(super) fn release(rank: LockRank) {
        HELD.with_borrow_mut(|held| {
            if let Some(at) = held.iter().rposition(|r| *r == rank) {
                held.remove(at);
            }
        });
    }
}

#[cfg(not(all(feature = "lockdep", debug_assertions)))]
mod lockdep {
    use super::LockRank;

    #[inline]
    pub(super) fn acquire(_: LockRank) {}
    #[inline]
    pub(super) fn release(_: LockRank) {}
}

#[cfg(all(test, feature = "lockdep", debug_assertions))]
mod tests {
    use super::*;

    #[test]
    fn ascending_ranks_are_allowed() {
        let outer = SpinLock::new(LockRank::Mmap, 1);
        let inner = SpinLock::new(LockRank::Zone, 2);
        let a = outer.lock();
        let b = inner.lock();
        assert_eq!(*a + *b, 3);
    }

    #[test]
    #[should_panic(expected = "lock order")]
    fn descending_ranks_are_caught() {
        let outer = SpinLock::new(LockRank::Mmap, 1);
        let inner = SpinLock::new(LockRank::Zone, 2);
        let _b = inner.lock();
        let _a = outer.lock();
    }
}
