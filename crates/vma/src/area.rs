//! One area and what it maps.

use core::fmt;
use vellum_types::{OutOfMemory, VirtAddr, VirtRange, VmFlags};

/// What an area maps: nothing in particular (anonymous memory), a file, a device.
///
/// A clone stands for the same object; it is made when an area is split.
pub trait Backing: Clone {
    /// True if an area that maps `self` and one that maps `other` may become one area, given that
    /// their flags are equal and, for linear backings, their offsets meet. Must be symmetric.
    fn can_merge(&self, other: &Self) -> bool;

    /// True if page offsets must be contiguous across a merge: files, and anonymous memory, whose
    /// offset is an address. False where the offset has no meaning.
    fn is_linear(&self) -> bool;

    /// Called on the backing of the area that stays when `other`'s area is merged into it, to take
    /// over what `self` does not have yet, as Linux's `dup_anon_vma` does. Does nothing by default.
    fn absorb(&mut self, other: &Self) {
        let _ = other;
    }
}

/// A virtual memory area: pages of one object with one set of flags. Linux: `vm_area_struct`.
///
/// The bounds of an area in a set change only through the set. Do not move another area into the
/// place of one that [`VmaSet::find_mut`](crate::VmaSet::find_mut) lends.
#[derive(Clone)]
pub struct Vma<B> {
    start: VirtAddr,
    end: VirtAddr,
    pgoff: u64,
    /// Permissions and properties.
    pub flags: VmFlags,
    /// What is mapped.
    pub backing: B,
}

impl<B> Vma<B> {
    /// An area that is in no set yet. `pgoff` is the offset of its first page in its object, in
    /// pages; for anonymous private memory the page number of its first address.
    ///
    /// # Panics
    /// If `range` is not page aligned.
    pub fn new(range: VirtRange, flags: VmFlags, pgoff: u64, backing: B) -> Self {
        assert!(range.is_page_aligned(), "an area of part of a page");
        Self {
            start: range.start(),
            end: range.end(),
            pgoff,
            flags,
            backing,
        }
    }

    /// The first address.
    #[inline]
    pub const fn start(&self) -> VirtAddr {
        self.start
    }

    /// One past the last address.
    #[inline]
    pub const fn end(&self) -> VirtAddr {
        self.end
    }

    /// All addresses.
    pub fn range(&self) -> VirtRange {
        VirtRange::new(self.start, self.end).expect("an area is never empty")
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Never true; here for the convention.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Length in pages.
    pub fn nr_pages(&self) -> u64 {
        self.end.page_number() - self.start.page_number()
    }

    /// Offset of the first page in the object, in pages. Linux: `vm_pgoff`.
    #[inline]
    pub const fn pgoff(&self) -> u64 {
        self.pgoff
    }

    /// Offset in the object of the page that holds `addr`, in pages. Linux: `linear_page_index`.
    ///
    /// Wraps for an address below the area.
    #[inline]
    pub const fn page_index(&self, addr: VirtAddr) -> u64 {
        self.pgoff
            .wrapping_add(addr.page_number())
            .wrapping_sub(self.start.page_number())
    }

    /// True if `addr` lies inside.
    #[inline]
    pub fn contains(&self, addr: VirtAddr) -> bool {
        self.start <= addr && addr < self.end
    }

    pub(crate) fn set_end(&mut self, end: VirtAddr) {
        self.end = end;
    }

    pub(crate) fn set_bounds(&mut self, range: VirtRange, pgoff: u64) {
        (self.start, self.end, self.pgoff) = (range.start(), range.end(), pgoff);
    }
}

impl<B: Backing> Vma<B> {
    /// True if this area and `next` may become one. Linux: `can_vma_merge_after`.
    pub fn can_merge(&self, next: &Self) -> bool {
        self.end == next.start
            && self.flags == next.flags
            && (!self.backing.is_linear() || self.page_index(next.start) == next.pgoff)
            && self.backing.can_merge(&next.backing)
    }

    /// Makes `upper`, which touches this area, part of it.
    pub(crate) fn extend(&mut self, upper: &Self) {
        self.end = upper.end;
        self.backing.absorb(&upper.backing);
    }
}

impl<B: fmt::Debug> fmt::Debug for Vma<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vma")
            .field("start", &self.start)
            .field("end", &self.end)
            .field("pgoff", &self.pgoff)
            .field("flags", &self.flags)
            .field("backing", &self.backing)
            .finish()
    }
}

/// Why a change of the set was refused. The set is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmaError {
    /// Another area is in the way.
    Overlap,
    /// No memory for an area or a node.
    OutOfMemory,
    /// No area starts there.
    NotFound,
    /// Not page aligned, or the area would begin before offset zero of its object.
    InvalidRange,
}

impl From<OutOfMemory> for VmaError {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

impl fmt::Display for VmaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Overlap => "another area is in the way",
            Self::OutOfMemory => "out of memory",
            Self::NotFound => "no such area",
            Self::InvalidRange => "invalid range",
        })
    }
}

impl core::error::Error for VmaError {}
