//! Thin wrappers of the host's system calls, so that the rest of the machine is ordinary code.

pub(crate) mod affinity;
pub(crate) mod memory;
pub(crate) mod notify;
pub(crate) mod ptrace;
pub(crate) mod seccomp;
pub(crate) mod wait;

use std::io;

/// The last error of a libc call.
pub(crate) fn last_error() -> io::Error {
    io::Error::last_os_error()
}

/// Turns libc's -1 into the error.
pub(crate) fn check(result: i64) -> io::Result<i64> {
    if result == -1 {
        Err(last_error())
    } else {
        Ok(result)
    }
}
