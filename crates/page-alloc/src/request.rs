//! One CPU asks another for its pages, without an atomic read-modify-write on either side.
//!
//! The tests compile this file a second time, over the atomics of a model checker.

use super::sync::{AtomicBool, Ordering};

/// "Drain your lists": posted by any CPU, seen and taken by the one it belongs to.
pub(crate) struct DrainRequest(AtomicBool);

impl DrainRequest {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Asks. What the owner has on its lists now is drained when it looks next.
    pub(crate) fn post(&self) {
        // Release pairs with the Acquire of `take`: the owner sees why it was asked.
        self.0.store(true, Ordering::Release);
    }

    /// The owner looks: one plain load.
    pub(crate) fn is_posted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The owner takes a request, and drains *afterwards*. A request posted between the two is lost
    /// to nobody: what was on the lists then is drained by this very round.
    pub(crate) fn take(&self) -> bool {
        let posted = self.0.load(Ordering::Acquire);
        if posted {
            self.0.store(false, Ordering::Relaxed);
        }
        posted
    }
}
