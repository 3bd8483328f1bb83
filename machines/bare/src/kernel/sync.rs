//! The kernel's own locks. Interrupts are off in the kernel, so a plain spin lock suffices; whoever
//! holds one does not sleep.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering};

/// A spin lock.
pub(crate) struct Lock<T> {
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached by one holder at a time.
unsafe impl<T: Send> Sync for Lock<T> {}

/// Proof that the lock is held.
pub(crate) struct Guard<'a, T>(&'a Lock<T>);

impl<T> Lock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self {
            taken: AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }
    }

    #[inline]
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        self.raw_lock();
        Guard(self)
    }

    /// Takes the lock with no guard: `raw_unlock` gives it back, perhaps on another stack.
    #[inline]
    pub(crate) fn raw_lock(&self) {
        while self.taken.swap(true, Ordering::Acquire) {
            while self.taken.load(Ordering::Relaxed) {
                core::hint::spin_loop();
            }
        }
    }

    /// Undoes `raw_lock`.
    #[inline]
    pub(crate) fn raw_unlock(&self) {
        self.taken.store(false, Ordering::Release);
    }

    /// The value, while the lock is held by `raw_lock`.
    ///
    /// # Safety
    /// The caller holds the lock and has no other reference to the value.
    #[expect(clippy::mut_from_ref, reason = "the lock is held")]
    pub(crate) unsafe fn raw_value(&self) -> &mut T {
        // SAFETY: exclusive by this function's contract.
        unsafe { &mut *self.value.get() }
    }
}

impl<T: core::fmt::Display> core::fmt::Display for Guard<'_, T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        (**self).fmt(f)
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the lock is held.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the lock is held, and the guard is borrowed exclusively.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.0.raw_unlock();
    }
}

/// A value that is set once, at boot.
pub(crate) struct Once<T> {
    set: AtomicBool,
    value: UnsafeCell<Option<T>>,
}

// SAFETY: written once before `set`, only read afterwards; boot runs on one CPU.
unsafe impl<T> Sync for Once<T> {}

impl<T> Once<T> {
    pub(crate) const fn new() -> Self {
        Self {
            set: AtomicBool::new(false),
            value: UnsafeCell::new(None),
        }
    }

    /// Sets the value; the one call happens at boot.
    pub(crate) fn set(&self, value: T) -> &T {
        assert!(!self.set.load(Ordering::Acquire), "set twice");
        // SAFETY: not set, so nobody reads; boot runs on one CPU.
        unsafe { *self.value.get() = Some(value) };
        self.set.store(true, Ordering::Release);
        self.get()
    }

    #[inline]
    pub(crate) fn get(&self) -> &T {
        match self.try_get() {
            Some(value) => value,
            None => panic!("used before it was set up"),
        }
    }

    #[inline]
    pub(crate) fn try_get(&self) -> Option<&T> {
        if !self.set.load(Ordering::Acquire) {
            return None;
        }
        // SAFETY: set, so nobody writes any more.
        unsafe { (*self.value.get()).as_ref() }
    }
}
