//! What a memory call can answer.

use vellum_page_cache::{CacheError, IoError};
use vellum_types::{OutOfMemory, SwapEntry};
use vellum_vma::VmaError;

/// Why a memory call failed. Each is one Linux errno; the manual page of the call says when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MmError {
    /// EPERM.
    Perm,
    /// EIO or another code of the backing store.
    Io(i32),
    /// EBADF.
    BadFd,
    /// EAGAIN.
    Again,
    /// ENOMEM: a limit, or address space, or what no memory in the world would mend.
    NoMem,
    /// ENOMEM for want of a frame. Inside this crate it takes an operation back to its beginning,
    /// where no lock is held and memory can be reclaimed; callers see [`MmError::NoMem`].
    NoFrames,
    /// Not an errno: the page is in this slot of swap. Like [`MmError::NoFrames`] it takes an operation
    /// back to its beginning, where the page can be read; callers never see it.
    Swapped(SwapEntry),
    /// EACCES.
    Access,
    /// EFAULT.
    Fault,
    /// EBUSY.
    Busy,
    /// EEXIST.
    Exist,
    /// ENODEV.
    NoDev,
    /// EINVAL.
    Inval,
    /// EOVERFLOW.
    Overflow,
    /// EOPNOTSUPP.
    NotSupported,
}

impl MmError {
    /// Linux's number for x86-64, positive. Source: `include/uapi/asm-generic/errno*.h`.
    pub const fn errno(self) -> i32 {
        match self {
            Self::Perm => 1,
            Self::Io(errno) => errno,
            Self::BadFd => 9,
            Self::Again => 11,
            Self::NoMem | Self::NoFrames | Self::Swapped(_) => 12,
            Self::Access => 13,
            Self::Fault => 14,
            Self::Busy => 16,
            Self::Exist => 17,
            Self::NoDev => 19,
            Self::Inval => 22,
            Self::Overflow => 75,
            Self::NotSupported => 95,
        }
    }
}

impl core::fmt::Display for MmError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{self:?} (errno {})", self.errno())
    }
}

impl core::error::Error for MmError {}

impl From<OutOfMemory> for MmError {
    fn from(_: OutOfMemory) -> Self {
        Self::NoFrames
    }
}

impl From<VmaError> for MmError {
    fn from(error: VmaError) -> Self {
        match error {
            VmaError::OutOfMemory => Self::NoFrames,
            // The callers clear the way first; whoever does not means "there is no room".
            VmaError::Overlap => Self::NoMem,
            VmaError::NotFound => Self::Fault,
            VmaError::InvalidRange => Self::Inval,
        }
    }
}

impl From<IoError> for MmError {
    fn from(error: IoError) -> Self {
        Self::Io(error.errno)
    }
}

impl From<CacheError> for MmError {
    fn from(error: CacheError) -> Self {
        match error {
            CacheError::OutOfMemory => Self::NoFrames,
            CacheError::Io(errno) => Self::Io(errno),
            CacheError::BeyondEof => Self::Inval,
            CacheError::Swapped(entry) => Self::Swapped(entry),
        }
    }
}
