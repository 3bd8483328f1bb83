//! What waitpid says.

use super::last_error;
use std::io;

/// News of a host task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Status {
    /// It ended with this code.
    Exited(i32),
    /// This signal ended it; `true` with a core dump.
    Killed(i32, bool),
    /// It is about to receive this signal.
    Signal(i32),
    /// A ptrace event: which, and the stop's signal number.
    Event(i32, i32),
    /// The exit of a system call.
    SyscallExit,
}

fn decode(status: i32) -> Status {
    if libc::WIFEXITED(status) {
        Status::Exited(libc::WEXITSTATUS(status))
    } else if libc::WIFSIGNALED(status) {
        Status::Killed(libc::WTERMSIG(status), libc::WCOREDUMP(status))
    } else {
        let signal = libc::WSTOPSIG(status);
        match status >> 16 {
            0 if signal == libc::SIGTRAP | 0x80 => Status::SyscallExit,
            0 => Status::Signal(signal),
            event => Status::Event(event, signal),
        }
    }
}

fn wait(tid: i32, flags: i32) -> io::Result<Option<(i32, Status)>> {
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    match unsafe { libc::waitpid(tid, &mut status, libc::__WALL | libc::__WNOTHREAD | flags) } {
        -1 => Err(last_error()),
        0 => Ok(None),
        tid => Ok(Some((tid, decode(status)))),
    }
}

/// Waits for news of any task. `None` if a signal handler ran meanwhile.
///
/// # Errors
/// ECHILD when no task is left.
pub(crate) fn any() -> io::Result<Option<(i32, Status)>> {
    match wait(-1, 0) {
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(None),
        other => other,
    }
}

/// News of any task, if there is any at this moment.
///
/// # Errors
/// ECHILD when no task is left.
pub(crate) fn any_now() -> io::Result<Option<(i32, Status)>> {
    wait(-1, libc::WNOHANG)
}

/// Waits for news of one task.
pub(crate) fn one(tid: i32) -> io::Result<Status> {
    loop {
        match wait(tid, 0) {
            Ok(Some((_, status))) => return Ok(status),
            Err(e) if e.kind() != io::ErrorKind::Interrupted => return Err(e),
            _ => {}
        }
    }
}

/// News of one task, if there is any at this moment.
pub(crate) fn poll(tid: i32) -> io::Result<Option<Status>> {
    Ok(wait(tid, libc::WNOHANG)?.map(|(_, status)| status))
}
