//! What lies behind the cache.

use core::fmt;
use vellum_machine::DirectMap;
pub use vellum_types::IoError;
use vellum_types::{FileId, OutOfMemory, Pfn, SwapEntry};

/// Why a page could not be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CacheError {
    /// No frame for the page or no memory for a tree node.
    OutOfMemory,
    /// The store failed, with this positive Linux errno.
    Io(i32),
    /// The page lies wholly past the end of the file: SIGBUS for a program that touched it.
    BeyondEof,
    /// A page of shared memory that is in swap. The caller lets go of its locks, reads it into the
    /// swap cache (`Swap::swapin`), and begins again: the next attempt finds it there.
    Swapped(SwapEntry),
}

impl From<OutOfMemory> for CacheError {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

impl From<IoError> for CacheError {
    fn from(error: IoError) -> Self {
        Self::Io(error.errno)
    }
}

impl fmt::Display for CacheError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory => f.write_str("out of memory"),
            Self::Io(errno) => write!(f, "I/O error {errno}"),
            Self::BeyondEof => f.write_str("beyond the end of the file"),
            Self::Swapped(entry) => write!(f, "swapped out to {entry:?}"),
        }
    }
}

impl core::error::Error for CacheError {}

/// The files behind the page cache, Linux's `address_space_operations` and a little of the inode.
///
/// Implemented by the machine: host files in `um`, scripted ones in `sim`. No method is called with
/// a spin lock held, so each may take its time; none may call back into the cache.
pub trait BackingStore: Sync {
    /// Reads up to `frames.len()` pages from byte `offset`, page aligned, into `frames`, which
    /// need not be contiguous. Returns the bytes read; short at the end of the file. The caller
    /// zeroes the rest.
    ///
    /// # Errors
    /// The transfer failed; the frames may hold anything.
    fn read(
        &self,
        file: FileId,
        offset: u64,
        frames: &[Pfn],
        ram: DirectMap<'_>,
    ) -> Result<u64, IoError>;

    /// Writes `bytes` bytes from consecutive `frames` at byte `offset`, page aligned; extends the
    /// file if need be.
    ///
    /// # Errors
    /// The transfer failed, perhaps half-way.
    fn write(
        &self,
        file: FileId,
        offset: u64,
        frames: &[Pfn],
        bytes: u64,
        ram: DirectMap<'_>,
    ) -> Result<(), IoError>;

    /// Returns when earlier writes are safe.
    ///
    /// # Errors
    /// They are not.
    fn sync(&self, file: FileId) -> Result<(), IoError>;

    /// True for a file whose pages exist nowhere but in the cache, and in swap: shared memory.
    fn swap_backed(&self, file: FileId) -> bool {
        let _ = file;
        false
    }

    /// Bytes in the file.
    fn size(&self, file: FileId) -> u64;

    /// Writes the path, as `/proc/PID/maps` shows it.
    ///
    /// # Errors
    /// Those of `out`.
    fn name(&self, file: FileId, out: &mut dyn fmt::Write) -> fmt::Result;

    /// Major and minor number of the device, and the inode number.
    fn dev_ino(&self, file: FileId) -> (u32, u32, u64);

    /// The mapping is gone; the store may close its handle.
    fn release(&self, file: FileId);
}
