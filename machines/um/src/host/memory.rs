//! Memory files and their mappings in the supervisor.

use super::{check, last_error};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

/// A file that lives in memory, of `bytes` bytes of zero. Executable if the host allows it.
pub(crate) fn memfd(name: &CStr, bytes: u64) -> io::Result<OwnedFd> {
    const MFD_EXEC: libc::c_uint = 0x10;
    let create = |flags| {
        // SAFETY: `name` is a NUL-terminated string.
        unsafe { libc::memfd_create(name.as_ptr(), flags) }
    };
    let mut fd = create(libc::MFD_CLOEXEC | MFD_EXEC);
    if fd < 0 {
        // Hosts before 6.3 do not know the flag and make every memory file executable.
        fd = create(libc::MFD_CLOEXEC);
    }
    check(fd.into())?;
    // SAFETY: a fresh descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: plain call on a descriptor that we own.
    check(unsafe { libc::ftruncate(fd.as_raw_fd(), bytes as i64) }.into())?;
    Ok(fd)
}

/// A shared, writable mapping of a memory file; unmapped on drop.
#[derive(Debug)]
pub(crate) struct SharedMap {
    base: NonNull<u8>,
    len: usize,
}

impl SharedMap {
    /// Maps the first `len` bytes of `fd`.
    pub(crate) fn new(fd: &OwnedFd, len: u64) -> io::Result<Self> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address that the host chooses overlaps nothing of ours.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len as usize,
                prot,
                libc::MAP_SHARED | libc::MAP_NORESERVE,
                fd.as_raw_fd(),
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(last_error());
        }
        let base = NonNull::new(at.cast()).ok_or_else(last_error)?;
        let map = Self {
            base,
            len: len as usize,
        };
        // Advice only: a core dump of the supervisor should not hold the machine's RAM.
        // SAFETY: the range is our mapping.
        unsafe { libc::madvise(at, map.len, libc::MADV_DONTDUMP) };
        Ok(map)
    }

    /// First byte.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Makes the host give memory to `len` bytes from `offset` at once. Failure is no error: the
    /// bytes are then faulted in one by one.
    pub(crate) fn populate(&self, offset: usize, len: usize) {
        assert!(
            offset <= self.len && len <= self.len - offset,
            "outside the mapping"
        );
        // SAFETY: `offset` is inside the mapping, as just checked.
        let at = unsafe { self.base.add(offset) };
        // SAFETY: the range is inside our mapping; populating changes no byte.
        unsafe { libc::madvise(at.as_ptr().cast(), len, libc::MADV_POPULATE_WRITE) };
    }
}

impl Drop for SharedMap {
    fn drop(&mut self) {
        // SAFETY: our own mapping, and nobody can reach it after this.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
