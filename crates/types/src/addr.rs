//! Addresses and page-frame numbers.

use core::fmt;

/// log2 of the page size.
pub const PAGE_SHIFT: u32 = 12;
/// Bytes in a page.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Address zero.
            pub const ZERO: Self = Self(0);

            /// Wraps a raw address.
            pub const fn new(raw: u64) -> Self {
                Self(raw)
            }
            /// The raw address.
            pub const fn as_u64(self) -> u64 {
                self.0
            }
            /// The start of the page that holds this address.
            pub const fn page_down(self) -> Self {
                Self(self.0 & !(PAGE_SIZE - 1))
            }
            /// The first page boundary at or above this address; `None` past the last page.
            pub const fn page_up(self) -> Option<Self> {
                match self.0.checked_add(PAGE_SIZE - 1) {
                    Some(raw) => Some(Self(raw & !(PAGE_SIZE - 1))),
                    None => None,
                }
            }
            /// Rounds down to `align`, a power of two.
            pub const fn align_down(self, align: u64) -> Self {
                Self(self.0 & !(align - 1))
            }
            /// Bytes into its page.
            pub const fn page_offset(self) -> u64 {
                self.0 & (PAGE_SIZE - 1)
            }
            /// The number of the page that holds this address.
            pub const fn page_number(self) -> u64 {
                self.0 >> PAGE_SHIFT
            }
            /// True on a page boundary.
            pub const fn is_page_aligned(self) -> bool {
                self.page_offset() == 0
            }
            /// This address plus `bytes`, or `None` on overflow.
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(raw) => Some(Self(raw)),
                    None => None,
                }
            }
            /// This address minus `bytes`, or `None` below zero.
            pub const fn checked_sub(self, bytes: u64) -> Option<Self> {
                match self.0.checked_sub(bytes) {
                    Some(raw) => Some(Self(raw)),
                    None => None,
                }
            }
        }

        impl core::ops::Add<u64> for $name {
            type Output = Self;
            /// # Panics
            /// On overflow, in debug builds.
            fn add(self, bytes: u64) -> Self {
                Self(self.0 + bytes)
            }
        }

        impl core::ops::Sub for $name {
            type Output = u64;
            /// The distance in bytes.
            ///
            /// # Panics
            /// If `other` is above, in debug builds.
            fn sub(self, other: Self) -> u64 {
                self.0 - other.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{:#x}"), self.0)
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

address!(
    /// A physical address: a byte of the machine's RAM or a hole in it.
    PhysAddr,
    "p:"
);
address!(
    /// A virtual address of some address space.
    VirtAddr,
    "v:"
);

impl VirtAddr {
    /// Starts a page number's address; the inverse of [`VirtAddr::page_number`].
    pub const fn from_page_number(number: u64) -> Self {
        Self(number << PAGE_SHIFT)
    }
}

/// A page-frame number: a physical address divided by the page size.
///
/// 32 bits of it are enough for 16 TiB, which lets `struct Page` link by frame number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Pfn(u32);

impl Pfn {
    /// Frame zero.
    pub const ZERO: Self = Self(0);
    /// The largest frame number; used as "none" by linked lists, never a real frame.
    pub const NONE: Self = Self(u32::MAX);

    /// Wraps a raw frame number.
    pub const fn new(raw: u32) -> Self {
        Self(raw)
    }
    /// The frame that holds `addr`, or `None` above 16 TiB.
    pub const fn containing(addr: PhysAddr) -> Option<Self> {
        let raw = addr.0 >> PAGE_SHIFT;
        if raw < u32::MAX as u64 {
            Some(Self(raw as u32))
        } else {
            None
        }
    }
    /// The raw frame number.
    pub const fn as_u32(self) -> u32 {
        self.0
    }
    /// The frame number as an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
    /// The first byte of the frame.
    pub const fn addr(self) -> PhysAddr {
        PhysAddr((self.0 as u64) << PAGE_SHIFT)
    }
    /// The frame `pages` after this one, or `None` on overflow.
    pub const fn checked_add(self, pages: u32) -> Option<Self> {
        match self.0.checked_add(pages) {
            Some(raw) => Some(Self(raw)),
            None => None,
        }
    }
}

impl core::ops::Add<u32> for Pfn {
    type Output = Self;
    /// # Panics
    /// On overflow, in debug builds.
    fn add(self, pages: u32) -> Self {
        Self(self.0 + pages)
    }
}

impl core::ops::Sub for Pfn {
    type Output = u32;
    /// The distance in pages.
    ///
    /// # Panics
    /// If `other` is above, in debug builds.
    fn sub(self, other: Self) -> u32 {
        self.0 - other.0
    }
}

impl fmt::Debug for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pfn:{:#x}", self.0)
    }
}
