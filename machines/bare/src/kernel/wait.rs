//! Sleeping until something is the case.

use crate::sync::Lock;
use crate::task::{self, Task};
use crate::{clock, sched};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Why a wait ended without what it waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Woken {
    /// A signal is to be delivered.
    Signal,
    /// The time is over.
    Timeout,
}

/// Tasks that wait for a change of something.
pub(crate) struct WaitQueue(Lock<Vec<Arc<Task>>>);

impl WaitQueue {
    pub(crate) const fn new() -> Self {
        Self(Lock::new(Vec::new()))
    }

    /// Waits until `ready` gives a value. Whoever makes it ready calls `wake` afterwards.
    pub(crate) fn wait<T>(
        &self,
        deadline: Option<u64>,
        ready: impl FnMut() -> Option<T>,
    ) -> Result<T, Woken> {
        wait_on(&[self], deadline, true, ready)
    }

    /// Wakes everybody.
    pub(crate) fn wake(&self) {
        let mut waiting = self.0.lock();
        // One by one, so that the list keeps its memory for the next who wait.
        while let Some(task) = waiting.pop() {
            sched::wake(&task);
        }
    }

    fn remove(&self, task: &Task) {
        self.0
            .lock()
            .retain(|other| !core::ptr::eq(&raw const **other, task));
    }
}

/// Waits on several queues at once.
pub(crate) fn wait_on<T>(
    queues: &[&WaitQueue],
    deadline: Option<u64>,
    by_signals: bool,
    mut ready: impl FnMut() -> Option<T>,
) -> Result<T, Woken> {
    if let Some(value) = ready() {
        return Ok(value);
    }
    let me = task::current_arc();
    loop {
        for queue in queues {
            queue.0.lock().push(me.clone());
        }
        sched::about_to_block();
        // Once more: who made it ready before we were in the queue did not wake us.
        let result = match ready() {
            Some(value) => Some(Ok(value)),
            None if by_signals && me.has_signal() => Some(Err(Woken::Signal)),
            None if deadline.is_some_and(|at| clock::now_ns() >= at) => Some(Err(Woken::Timeout)),
            None => None,
        };
        if result.is_none() {
            if let Some(at) = deadline {
                sched::add_timer(at, &me);
            }
            sched::schedule();
            if let Some(at) = deadline {
                sched::remove_timer(at, &me);
            }
        }
        sched::not_blocking();
        for queue in queues {
            queue.remove(&me);
        }
        if let Some(result) = result.or_else(|| ready().map(Ok)) {
            return result;
        }
    }
}
