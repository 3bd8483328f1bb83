//! Pipes: a ring of 64 KiB, as Linux's default.

use super::open::interrupted;
use super::{EAGAIN, EFAULT, EPIPE, Result};
use crate::machine::system;
use crate::signal;
use crate::sync::Lock;
use crate::task;
use crate::wait::WaitQueue;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use vellum_types::VirtAddr;

const CAPACITY: usize = 65536;
/// Writes up to this many bytes are not torn.
const PIPE_BUF: usize = 4096;
/// Bytes copied at once.
const CHUNK: usize = 512;

struct State {
    bytes: VecDeque<u8>,
    readers: u32,
    writers: u32,
}

/// The ring between two ends.
pub(crate) struct Pipe {
    state: Lock<State>,
    pub(crate) changed: WaitQueue,
}

impl Pipe {
    /// A pipe with one end of each kind.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Lock::new(State {
                bytes: VecDeque::new(),
                readers: 1,
                writers: 1,
            }),
            changed: WaitQueue::new(),
        })
    }

    pub(crate) fn close(&self, reader: bool) {
        let mut state = self.state.lock();
        if reader {
            state.readers -= 1;
        } else {
            state.writers -= 1;
        }
        drop(state);
        self.changed.wake();
    }

    pub(crate) fn readiness(&self, reader: bool) -> u32 {
        let state = self.state.lock();
        if reader {
            u32::from(!state.bytes.is_empty()) | if state.writers == 0 { 16 } else { 0 }
        } else {
            let room = CAPACITY - state.bytes.len() >= PIPE_BUF;
            (if room { 4 } else { 0 }) | if state.readers == 0 { 8 } else { 0 }
        }
    }

    pub(crate) fn read(&self, to: u64, len: u64, nonblocking: bool) -> Result<u64> {
        if len == 0 {
            return Ok(0);
        }
        let mut done = 0;
        let mut chunk = [0; CHUNK];
        loop {
            let take = |chunk: &mut [u8]| {
                let mut state = self.state.lock();
                if state.bytes.is_empty() {
                    return (state.writers == 0).then_some(0);
                }
                let n = chunk.len().min(state.bytes.len());
                for (slot, byte) in chunk.iter_mut().zip(state.bytes.drain(..n)) {
                    *slot = byte;
                }
                Some(n)
            };
            let want = CHUNK.min((len - done) as usize);
            let n = match take(&mut chunk[..want]) {
                Some(n) => n,
                None if done > 0 => break,
                None if nonblocking => return Err(EAGAIN),
                None => self
                    .changed
                    .wait(None, || take(&mut chunk[..want]))
                    .map_err(interrupted)?,
            };
            if n == 0 {
                break;
            }
            let mm = task::current().memory();
            if system()
                .copy_to_user(mm, VirtAddr::new(to + done), &chunk[..n])
                .is_err()
            {
                return Err(EFAULT);
            }
            done += n as u64;
            if done == len {
                break;
            }
        }
        if done > 0 {
            self.changed.wake();
        }
        Ok(done)
    }

    pub(crate) fn write(&self, from: u64, len: u64, nonblocking: bool) -> Result<u64> {
        let mut done = 0;
        let mut chunk = [0; CHUNK];
        let atomic = len as usize <= PIPE_BUF;
        while done < len {
            let n = CHUNK.min((len - done) as usize);
            let mm = task::current().memory();
            if system()
                .copy_from_user(mm, VirtAddr::new(from + done), &mut chunk[..n])
                .is_err()
            {
                return if done > 0 { Ok(done) } else { Err(EFAULT) };
            }
            // A small write goes in whole or waits, so its first part asks for room for all of it.
            let need = if atomic && done == 0 { len as usize } else { n };
            let put = || {
                let mut state = self.state.lock();
                if state.readers == 0 {
                    return Some(false);
                }
                (CAPACITY - state.bytes.len() >= need).then(|| {
                    state.bytes.extend(&chunk[..n]);
                    true
                })
            };
            let alive = match put() {
                Some(alive) => alive,
                None if nonblocking => return if done > 0 { Ok(done) } else { Err(EAGAIN) },
                None => match self.changed.wait(None, put) {
                    Ok(alive) => alive,
                    Err(_) if done > 0 => return Ok(done),
                    Err(woken) => return Err(interrupted(woken)),
                },
            };
            if !alive {
                signal::send_task(task::current(), signal::SIGPIPE, 0);
                return if done > 0 { Ok(done) } else { Err(EPIPE) };
            }
            done += n as u64;
            self.changed.wake();
        }
        Ok(done)
    }
}
