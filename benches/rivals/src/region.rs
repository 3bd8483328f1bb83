//! Memory for a heap.

use core::ptr::{NonNull, null_mut};

/// Bytes from the host, aligned to 2 MiB, that cost nothing until they are touched.
pub struct Region {
    whole: NonNull<u8>,
    mapped: usize,
    start: NonNull<u8>,
    bytes: usize,
}

/// The alignment of a region: that of the largest page of any of the heaps.
pub const ALIGN: usize = 2 << 20;

impl Region {
    /// `bytes` of zeroes.
    ///
    /// # Panics
    /// If the host has no address space for it.
    pub fn new(bytes: usize) -> Self {
        let mapped = bytes + ALIGN;
        let (prot, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
        );
        // SAFETY: a new mapping touches nothing that exists.
        let at = unsafe { libc::mmap(null_mut(), mapped, prot, flags, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED, "no room for {mapped} bytes");
        let whole = NonNull::new(at.cast::<u8>()).expect("mmap does not return null");
        let skew = whole.as_ptr().align_offset(ALIGN);
        // SAFETY: the mapping is larger by ALIGN.
        let start = unsafe { whole.add(skew) };
        Self {
            whole,
            mapped,
            start,
            bytes,
        }
    }

    /// Where it begins.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// How long it is.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`; whoever used it is gone.
        unsafe { libc::munmap(self.whole.as_ptr().cast(), self.mapped) };
    }
}
