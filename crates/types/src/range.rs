//! Non-empty half-open ranges.

use crate::{PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use core::fmt;

macro_rules! range {
    ($(#[$doc:meta])* $name:ident, $point:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name {
            start: $point,
            end: $point,
        }

        impl $name {
            /// `start..end`, or `None` if that is empty.
            pub fn new(start: $point, end: $point) -> Option<Self> {
                (start < end).then_some(Self { start, end })
            }
            /// The first point.
            pub const fn start(&self) -> $point {
                self.start
            }
            /// One past the last point.
            pub const fn end(&self) -> $point {
                self.end
            }
            /// True if `point` lies inside.
            pub fn contains(&self, point: $point) -> bool {
                self.start <= point && point < self.end
            }
            /// True if `other` lies wholly inside.
            pub fn contains_range(&self, other: &Self) -> bool {
                self.start <= other.start && other.end <= self.end
            }
            /// True if the two share a point.
            pub fn overlaps(&self, other: &Self) -> bool {
                self.start < other.end && other.start < self.end
            }
            /// What the two share.
            pub fn intersect(&self, other: &Self) -> Option<Self> {
                Self::new(self.start.max(other.start), self.end.min(other.end))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}..{:?}", self.start, self.end)
            }
        }
    };
}

range!(
    /// Bytes of physical memory.
    PhysRange,
    PhysAddr
);
range!(
    /// Page frames.
    PfnRange,
    Pfn
);
range!(
    /// Bytes of an address space. Usually page aligned; [`VirtRange::pages`] widens to pages.
    VirtRange,
    VirtAddr
);

impl PhysRange {
    /// `len` bytes from `start`; `None` if empty or past the end of the address space.
    pub fn from_len(start: PhysAddr, len: u64) -> Option<Self> {
        Self::new(start, start.checked_add(len)?)
    }
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.end - self.start
    }
    /// Never true; here for the convention.
    pub const fn is_empty(&self) -> bool {
        false
    }
    /// The whole frames inside this range: partial frames at the ends do not count.
    pub fn whole_frames(&self) -> Option<PfnRange> {
        let start = Pfn::containing(self.start.page_up()?)?;
        let end = Pfn::containing(self.end.page_down())?;
        PfnRange::new(start, end)
    }
}

impl PfnRange {
    /// `pages` frames from `start`; `None` if empty or out of range.
    pub fn from_len(start: Pfn, pages: u32) -> Option<Self> {
        Self::new(start, start.checked_add(pages)?)
    }
    /// Length in pages.
    pub fn len(&self) -> u32 {
        self.end - self.start
    }
    /// Never true; here for the convention.
    pub const fn is_empty(&self) -> bool {
        false
    }
    /// The frames, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Pfn> + use<> {
        (self.start.as_u32()..self.end.as_u32()).map(Pfn::new)
    }
    /// The same memory in bytes.
    pub fn to_phys(&self) -> PhysRange {
        PhysRange {
            start: self.start.addr(),
            end: self.end.addr(),
        }
    }
}

impl VirtRange {
    /// `len` bytes from `start`; `None` if empty or past the end of the address space.
    pub fn from_len(start: VirtAddr, len: u64) -> Option<Self> {
        Self::new(start, start.checked_add(len)?)
    }
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.end - self.start
    }
    /// Never true; here for the convention.
    pub const fn is_empty(&self) -> bool {
        false
    }
    /// Widened to page boundaries; `None` if the end would wrap.
    pub fn to_pages(&self) -> Option<Self> {
        Self::new(self.start.page_down(), self.end.page_up()?)
    }
    /// True if both ends lie on page boundaries.
    pub const fn is_page_aligned(&self) -> bool {
        self.start.is_page_aligned() && self.end.is_page_aligned()
    }
    /// Length in pages, of an aligned range.
    pub fn nr_pages(&self) -> u64 {
        self.len() / PAGE_SIZE
    }
    /// The address of each page, in order.
    pub fn pages(&self) -> impl Iterator<Item = VirtAddr> + use<> {
        (self.start.page_number()..self.end.as_u64().div_ceil(PAGE_SIZE))
            .map(VirtAddr::from_page_number)
    }
}
