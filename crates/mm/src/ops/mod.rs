//! The memory system calls, one verb a file.

mod brk;
mod exit;
mod fork;
mod madvise;
mod mincore;
mod mlock;
mod mmap;
mod mprotect;
mod mremap;
mod msync;
mod munmap;
mod populate;

pub use mmap::{FileRef, MmapRequest};

use crate::MmError;
use vellum_types::{PAGE_SIZE, VirtAddr, VirtRange};

/// `PAGE_ALIGN`: rounds up to whole pages; zero if that overflows, as Linux's macro does.
pub(crate) fn page_align(len: u64) -> u64 {
    len.wrapping_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1)
}

/// The pages of `[start, start + len)` for the calls that take an aligned start and any length:
/// `None` for an empty range.
///
/// # Errors
/// Inval for an unaligned start; `overflow` if the end wraps.
pub(crate) fn page_range(
    start: u64,
    len: u64,
    overflow: MmError,
) -> Result<Option<VirtRange>, MmError> {
    if !start.is_multiple_of(PAGE_SIZE) {
        return Err(MmError::Inval);
    }
    let aligned = page_align(len);
    if aligned == 0 && len != 0 {
        return Err(overflow);
    }
    let end = start.checked_add(aligned).ok_or(overflow)?;
    Ok(VirtRange::new(VirtAddr::new(start), VirtAddr::new(end)))
}
