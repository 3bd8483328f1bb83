//! Descriptors of the traced programs, borrowed.

use super::fd::owned;
use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};

type Result<T> = core::result::Result<T, i32>;

/// Of Linux 6.9: a thread that is not the leader.
const PIDFD_THREAD: i32 = libc::O_EXCL;

/// Descriptors of other processes.
#[derive(Debug, Default)]
pub(super) struct Descriptors {
    processes: HashMap<i32, OwnedFd>,
}

impl Descriptors {
    /// A duplicate of descriptor `fd` of thread `tid` of process `tgid`: same open file
    /// description.
    ///
    /// # Errors
    /// EBADF if it has none.
    pub(super) fn get(&mut self, tgid: i32, tid: i32, fd: i32) -> Result<OwnedFd> {
        if fd < 0 {
            return Err(libc::EBADF);
        }
        match self.get_from_leader(tgid, fd) {
            // The leader may have ended, or have a table of its own.
            Err(libc::EBADF | libc::ESRCH) if tid != tgid => {
                // SAFETY: takes no pointer.
                let thread =
                    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, tid, PIDFD_THREAD) });
                get_from(&thread.map_err(|_| libc::EBADF)?, fd)
            }
            result => result,
        }
    }

    fn get_from_leader(&mut self, tgid: i32, fd: i32) -> Result<OwnedFd> {
        if let Some(process) = self.processes.get(&tgid) {
            match get_from(process, fd) {
                // The id was given to a new process.
                Err(libc::ESRCH) => {}
                result => return result,
            }
        }
        // SAFETY: takes no pointer.
        let process = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, tgid, 0) })?;
        let result = get_from(&process, fd);
        self.processes.insert(tgid, process);
        result
    }

    /// The process is gone.
    pub(super) fn forget(&mut self, tgid: i32) {
        self.processes.remove(&tgid);
    }
}

fn get_from(process: &OwnedFd, fd: i32) -> Result<OwnedFd> {
    // SAFETY: takes no pointer.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::fd::{memory_file, reopen, seek, stat};

    #[test]
    fn descriptors_of_a_process() {
        let mut descriptors = Descriptors::default();
        let file = memory_file("x", b"hello").unwrap();
        let pid = std::process::id() as i32;
        let twin = descriptors.get(pid, pid, file.as_raw_fd()).unwrap();
        assert_eq!(stat(&file), stat(&twin));
        assert_eq!(seek(&twin, 3, libc::SEEK_SET), Ok(3));
        assert_eq!(
            seek(&file, 0, libc::SEEK_CUR),
            Ok(3),
            "one open file description"
        );
        assert_eq!(descriptors.get(pid, pid, 1 << 20).err(), Some(libc::EBADF));
        assert_eq!(descriptors.get(pid, pid, -1).err(), Some(libc::EBADF));
        let anew = reopen(&file, libc::O_RDONLY).unwrap();
        assert_eq!(seek(&anew, 0, libc::SEEK_CUR), Ok(0));
    }
}
