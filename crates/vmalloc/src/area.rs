//! What is at a range of kernel addresses.

use core::fmt;
use core::panic::Location;
use vellum_types::{Pfn, VirtAddr, VirtRange};

/// How an area came to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AreaKind {
    /// By `vmalloc`: the frames are the area's. Linux's `VM_ALLOC`.
    Alloc,
    /// By `vmap`: the frames are the caller's. Linux's `VM_MAP`.
    Map,
}

/// What a node in use carries.
#[derive(Clone, Copy)]
pub(crate) struct Area {
    pub(crate) kind: AreaKind,
    /// May have huge entries.
    pub(crate) huge: bool,
    /// Pages, without the guard.
    pub(crate) pages: u32,
    /// The first of its blocks of frames, each linked to the next by its first page; or none.
    pub(crate) first: Pfn,
    /// Who asked for it.
    pub(crate) caller: Option<&'static Location<'static>>,
}

impl Area {
    pub(crate) const NONE: Self = Self {
        kind: AreaKind::Map,
        huge: false,
        pages: 0,
        first: Pfn::NONE,
        caller: None,
    };
}

/// A line of `/proc/vmallocinfo`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AreaInfo {
    /// Canonical addresses, with the guard page.
    pub range: VirtRange,
    /// How it came to be.
    pub kind: AreaKind,
    /// Mapped by huge entries where its frames allow it.
    pub huge: bool,
    /// Pages that are mapped.
    pub pages: u32,
    /// Who asked for it.
    pub caller: Option<&'static Location<'static>>,
    /// Freed, but its translations may still be in a TLB.
    pub unpurged: bool,
}

/// Why there is no kernel mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VmallocError {
    /// No bytes are asked for, or the alignment is no power of two of at least a page.
    Invalid,
    /// No frames, or no memory to keep books.
    OutOfMemory,
    /// The window of kernel addresses has no room, even after a purge.
    NoSpace,
    /// No area begins (or, for an access, is) there, or it is of the other kind.
    NotFound,
}

impl fmt::Display for VmallocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "invalid size or alignment",
            Self::OutOfMemory => "out of memory",
            Self::NoSpace => "the window of kernel addresses is full",
            Self::NotFound => "no such area",
        })
    }
}

impl core::error::Error for VmallocError {}

impl From<vellum_types::OutOfMemory> for VmallocError {
    fn from(_: vellum_types::OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

/// A request with all that can be chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VmallocRequest {
    /// Bytes, rounded up to pages.
    pub size: u64,
    /// Alignment of the address: a power of two, at least a page.
    pub align: u64,
    /// Where the frames may come from. With `ZERO` they are zeroed.
    pub gfp: vellum_types::GfpFlags,
    /// May use huge entries where frames happen to be contiguous. Linux's `VM_ALLOW_HUGE_VMAP`.
    pub huge: bool,
}

/// A use of an address range that is not mapped, for [`crate::Vmalloc::read`] and its kind.
pub(crate) fn range_of(addr: VirtAddr, len: usize) -> Option<(u64, u64)> {
    let start = addr.as_u64();
    Some((start, start.checked_add(len as u64)?))
}
