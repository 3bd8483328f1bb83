//! futex(2): waiting for a word of memory, by address space and address.

use super::user;
use crate::fs::{EAGAIN, EINVAL, ENOSYS, ERESTARTSYS, ETIMEDOUT, Result};
use crate::sync::Lock;
use crate::task::{self, Task};
use crate::wait::Woken;
use crate::{clock, sched};
use alloc::sync::Arc;
use alloc::vec::Vec;

const WAIT: u32 = 0;
const WAKE: u32 = 1;
const REQUEUE: u32 = 3;
const CMP_REQUEUE: u32 = 4;
const WAIT_BITSET: u32 = 9;
const WAKE_BITSET: u32 = 10;
const CLOCK_REALTIME: u32 = 256;

struct Waiter {
    key: (u32, u64),
    task: Arc<Task>,
}

/// Everybody who waits. Short: programs here have few threads.
static WAITERS: Lock<Vec<Waiter>> = Lock::new(Vec::new());

/// A word is known by address space and address, so words shared between processes are not joined.
fn key(address: u64) -> (u32, u64) {
    (
        task::current()
            .space
            .load(core::sync::atomic::Ordering::Relaxed),
        address,
    )
}

pub(super) fn futex(
    address: u64,
    operation: u32,
    value: u32,
    timeout: u64,
    second: u64,
    third: u32,
) -> Result<u64> {
    if !address.is_multiple_of(4) {
        return Err(EINVAL);
    }
    match operation & 0x7f {
        WAIT | WAIT_BITSET => {
            let deadline = match timeout {
                0 => None,
                at => Some(deadline(operation, user::timespec(at)?)),
            };
            wait(address, value, deadline)
        }
        WAKE | WAKE_BITSET => Ok(wake(address, value)),
        REQUEUE | CMP_REQUEUE => {
            if operation & 0x7f == CMP_REQUEUE && user::half(address)? != third {
                return Err(EAGAIN);
            }
            let woken = wake(address, value);
            let (from, to) = (key(address), key(second));
            let mut moved = 0;
            for waiter in WAITERS
                .lock()
                .iter_mut()
                .filter(|w| w.key == from)
                .take(timeout as usize)
            {
                waiter.key = to;
                moved += 1;
            }
            Ok(woken + moved)
        }
        _ => Err(ENOSYS),
    }
}

fn deadline(operation: u32, ns: u64) -> u64 {
    let now = clock::now_ns();
    match operation & 0x7f {
        WAIT => now + ns,
        _ if operation & CLOCK_REALTIME != 0 => now + ns.saturating_sub(clock::wall_ns()),
        _ => ns,
    }
}

fn wait(address: u64, value: u32, deadline: Option<u64>) -> Result<u64> {
    // The page is there before the list is locked; what the word says is read again under the lock.
    user::half(address)?;
    let me = task::current_arc();
    let mut waiters = WAITERS.lock();
    if user::half(address)? != value {
        return Err(EAGAIN);
    }
    waiters.push(Waiter {
        key: key(address),
        task: me.clone(),
    });
    drop(waiters);
    let waiting = || WAITERS.lock().iter().any(|w| Arc::ptr_eq(&w.task, &me));
    let never = crate::wait::WaitQueue::new();
    let result = never.wait(deadline, || (!waiting()).then_some(()));
    WAITERS.lock().retain(|w| !Arc::ptr_eq(&w.task, &me));
    match result {
        Ok(()) => Ok(0),
        Err(Woken::Timeout) => Err(ETIMEDOUT),
        Err(Woken::Signal) => Err(ERESTARTSYS),
    }
}

/// Wakes up to `count` who wait for the word; returns how many.
pub(crate) fn wake(address: u64, count: u32) -> u64 {
    let key = key(address);
    let mut woken = Vec::new();
    let mut waiters = WAITERS.lock();
    let mut at = 0;
    while at < waiters.len() && (woken.len() as u32) < count {
        if waiters[at].key == key {
            woken.push(waiters.remove(at).task);
        } else {
            at += 1;
        }
    }
    drop(waiters);
    woken.iter().for_each(sched::wake);
    woken.len() as u64
}
