//! Allocation failures on demand. Linux: `fail_page_alloc`.

use core::sync::atomic::{AtomicI64, Ordering};

/// A countdown to failure.
pub(crate) struct FailSwitch(AtomicI64);

const OFF: i64 = -1;

impl FailSwitch {
    pub(crate) const fn off() -> Self {
        Self(AtomicI64::new(OFF))
    }

    pub(crate) fn set(&self, successes: Option<u64>) {
        let raw = successes.map_or(OFF, |n| i64::try_from(n).unwrap_or(i64::MAX));
        self.0.store(raw, Ordering::Relaxed);
    }

    /// True if the allocation that asks must fail.
    #[inline]
    pub(crate) fn trips(&self) -> bool {
        // Relaxed: the count alone matters.
        self.0.load(Ordering::Relaxed) != OFF && self.count_down()
    }

    #[cold]
    fn count_down(&self) -> bool {
        let step = |left: i64| (left > 0).then(|| left - 1);
        match self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, step)
        {
            Ok(_) => false,
            Err(left) => left == 0,
        }
    }
}
