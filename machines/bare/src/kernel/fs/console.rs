//! The console: the first serial port, line by line.

use super::open::interrupted;
use super::{EAGAIN, Result};
use crate::serial;
use crate::sync::Lock;
use crate::sys::user;
use crate::wait::WaitQueue;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

struct Input {
    typed: VecDeque<u8>,
    /// End of input was typed.
    ended: bool,
}

static INPUT: Lock<Input> = Lock::new(Input {
    typed: VecDeque::new(),
    ended: false,
});
pub(crate) static TYPED: WaitQueue = WaitQueue::new();

/// Bytes typed ahead at most.
const TYPE_AHEAD: usize = 65536;

/// Takes what was typed since the last tick. The end of input is ^D.
pub(crate) fn poll() {
    let mut any = false;
    let mut input = INPUT.lock();
    while input.typed.len() < TYPE_AHEAD {
        let Some(byte) = serial::read() else { break };
        any = true;
        match byte {
            4 => input.ended = true,
            b'\r' => input.typed.push_back(b'\n'),
            _ => input.typed.push_back(byte),
        }
    }
    drop(input);
    if any {
        TYPED.wake();
    }
}

pub(crate) fn has_input() -> bool {
    let input = INPUT.lock();
    !input.typed.is_empty() || input.ended
}

pub(crate) fn read(to: u64, len: u64, nonblocking: bool) -> Result<u64> {
    let take = || {
        let mut input = INPUT.lock();
        if input.typed.is_empty() {
            return core::mem::take(&mut input.ended).then(Vec::new);
        }
        let line = input
            .typed
            .iter()
            .position(|b| *b == b'\n')
            .map_or(input.typed.len(), |at| at + 1);
        let n = line.min(len as usize);
        Some(input.typed.drain(..n).collect::<Vec<u8>>())
    };
    let bytes = match take() {
        Some(bytes) => bytes,
        None if nonblocking => return Err(EAGAIN),
        None => TYPED.wait(None, take).map_err(interrupted)?,
    };
    user::put(to, &bytes)?;
    Ok(bytes.len() as u64)
}

pub(crate) fn write(from: u64, len: u64) -> Result<u64> {
    let mut chunk = [0; 512];
    let mut done = 0;
    while done < len {
        let n = chunk.len().min((len - done) as usize);
        match user::get(from + done, &mut chunk[..n]) {
            Ok(()) => serial::write(&chunk[..n]),
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno),
        }
        done += n as u64;
    }
    Ok(done)
}
