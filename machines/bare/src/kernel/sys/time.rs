//! Time, and waiting for it.

use super::user;
use crate::fs::{self, EINTR, EINVAL, Kind, Result};
use crate::wait::{WaitQueue, Woken, wait_on};
use crate::{apic, clock, signal, task};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

const REALTIME: u32 = 0;
pub(super) const MONOTONIC: u32 = 1;
const TIMER_ABSTIME: u32 = 1;
const POLLNVAL: u16 = 32;
/// POLLERR and POLLHUP come unasked.
const ALWAYS: u16 = 8 | 16;
const MAX_POLL: u64 = 1024;

fn now(which: u32) -> Result<u64> {
    match which {
        REALTIME | 5 | 11 => Ok(clock::wall_ns()),
        // CPU clocks run with the others: one program at a time is what they are used for here.
        MONOTONIC | 2..=4 | 6 | 7 => Ok(clock::now_ns()),
        _ => Err(EINVAL),
    }
}

pub(super) fn clock_gettime(which: u32, to: u64) -> Result<u64> {
    user::put_timespec(to, now(which)?).map(|()| 0)
}

pub(super) fn clock_getres(to: u64) -> Result<u64> {
    if to == 0 {
        Ok(0)
    } else {
        user::put_timespec(to, 1).map(|()| 0)
    }
}

pub(super) fn gettimeofday(to: u64) -> Result<u64> {
    let ns = clock::wall_ns();
    user::put_words(to, &[ns / 1_000_000_000, ns / 1000 % 1_000_000]).map(|()| 0)
}

pub(super) fn time(to: u64) -> Result<u64> {
    let seconds = clock::wall_ns() / 1_000_000_000;
    if to != 0 {
        user::put_words(to, &[seconds])?;
    }
    Ok(seconds)
}

/// clock_nanosleep(2); accurate to a tick.
pub(super) fn nanosleep(which: u32, flags: u32, want: u64, left: u64) -> Result<u64> {
    let ns = user::timespec(want)?;
    let absolute = flags & TIMER_ABSTIME != 0;
    let start = clock::now_ns();
    let deadline = match (absolute, which) {
        (false, _) => start + ns,
        (true, REALTIME) => start + ns.saturating_sub(clock::wall_ns()),
        (true, _) => ns,
    };
    let never = WaitQueue::new();
    match never.wait(Some(deadline), || None::<()>) {
        Err(Woken::Signal) => {
            if left != 0 && !absolute {
                user::put_timespec(left, deadline.saturating_sub(clock::now_ns()))?;
            }
            Err(EINTR)
        }
        _ => Ok(0),
    }
}

/// One line of poll(2): descriptor, and what is asked.
struct Asked {
    file: Option<Arc<fs::File>>,
    closed: bool,
    events: u16,
}

/// poll(2).
pub(super) fn poll(list: u64, count: u64, timeout: Option<u64>) -> Result<u64> {
    if count > MAX_POLL {
        return Err(EINVAL);
    }
    let mut asked = Vec::new();
    for n in 0..count {
        let word = user::word(list + n * 8)?;
        let file = fs::file(word as i32).ok();
        let closed = file.is_none() && word as i32 >= 0;
        let events = (word >> 32) as u16;
        asked.push(Asked {
            file,
            closed,
            events,
        });
    }
    let answers = || -> Vec<u16> {
        let ready = |asked: &Asked| match &asked.file {
            _ if asked.closed => POLLNVAL,
            Some(file) => file.readiness() as u16 & (asked.events | ALWAYS),
            None => 0,
        };
        asked.iter().map(ready).collect()
    };
    let look = || {
        let answers = answers();
        answers.iter().any(|events| *events != 0).then_some(answers)
    };
    let mut queues: Vec<&WaitQueue> = asked
        .iter()
        .filter_map(|asked| match &asked.file.as_ref()?.kind {
            Kind::PipeOut(pipe) | Kind::PipeIn(pipe) => Some(&pipe.changed),
            Kind::Device(fs::Device::Console) => Some(&fs::console::TYPED),
            _ => None,
        })
        .collect();
    let never = WaitQueue::new();
    queues.push(&never);
    let deadline = timeout.map(|ns| clock::now_ns() + ns);
    let found = match wait_on(&queues, deadline, true, look) {
        Ok(found) => found,
        Err(Woken::Timeout) => answers(),
        Err(Woken::Signal) => return Err(EINTR),
    };
    for (n, events) in found.iter().enumerate() {
        user::put(list + n as u64 * 8 + 6, &events.to_le_bytes())?;
    }
    Ok(found.iter().filter(|events| **events != 0).count() as u64)
}

/// ppoll(2).
pub(super) fn ppoll(list: u64, count: u64, timeout: u64, mask: u64) -> Result<u64> {
    let timeout = if timeout == 0 {
        None
    } else {
        Some(user::timespec(timeout)?)
    };
    if mask == 0 {
        return poll(list, count, timeout);
    }
    let task = task::current();
    let new = user::word(mask)?;
    let before = task.blocked.load(Ordering::Relaxed);
    signal::set_mask(task, new);
    task.attention
        .store(signal::pending_mask(task) & !new != 0, Ordering::SeqCst);
    let result = poll(list, count, timeout);
    if result == Err(EINTR) {
        *task.saved_mask.lock() = Some(before);
        task.attention.store(true, Ordering::Relaxed);
    } else {
        signal::set_mask(task, before);
    }
    result
}

/// Ticks of the clock in which times(2) counts.
pub(super) fn ticks() -> u64 {
    clock::now_ns() / (1_000_000_000 / 100)
}

const _: () = assert!(apic::HZ >= 100);
