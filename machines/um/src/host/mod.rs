//! Thin wrappers of the host's system calls, so that the rest of the machine is ordinary code.

pub mod affinity;
pub mod memory;
pub mod ptrace;
pub mod seccomp;
pub mod wait;

use std::io;

/// The last error of a libc call.
pub fn last_error() -> io::Error {
    io::Error::last_os_error()
}

/// Turns libc's -1 into the error.
pub fn check(result: i64) -> io::Result<i64> {
    if result == -1 {
        Err(last_error())
    } else {
        Ok(result)
    }
}
