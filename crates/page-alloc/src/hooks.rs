//! What is switched on beside plain allocation, in one word: one load tells the common case apart.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Something that must see each allocation and free.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Hook {
    /// Somebody listens to events.
    Trace = 1 << 0,
    /// Failures on demand.
    Fail = 1 << 1,
    /// Pages are filled when freed.
    Poison = 1 << 2,
    /// There are several CPUs: which one this is must be asked for.
    Cpus = 1 << 3,
    /// Some free pages were filled, and are looked at when allocated.
    Poisoned = 1 << 4,
}

/// Which are on. Relaxed throughout: who switches one synchronises with those it concerns.
pub(crate) struct Hooks(AtomicU32);

impl Hooks {
    pub(crate) const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    pub(crate) fn set(&self, hook: Hook, on: bool) {
        if on {
            self.0.fetch_or(hook as u32, Relaxed);
        } else {
            self.0.fetch_and(!(hook as u32), Relaxed);
        }
    }

    pub(crate) fn has(&self, hook: Hook) -> bool {
        self.0.load(Relaxed) & hook as u32 != 0
    }

    /// True if nothing is on but, perhaps, several CPUs.
    #[inline(always)]
    pub(crate) fn plain(&self) -> bool {
        self.0.load(Relaxed) & !(Hook::Cpus as u32) == 0
    }

    #[inline(always)]
    pub(crate) fn none(&self) -> bool {
        self.0.load(Relaxed) == 0
    }

    #[inline(always)]
    pub(crate) fn any(&self) -> bool {
        !self.none()
    }
}
