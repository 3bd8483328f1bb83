//! Orders of the buddy system.

use crate::{PAGE_SIZE, Pfn};

/// log2 of a block's pages: order 0 is one page, order 10 is 4 MiB.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Order(u8);

impl Order {
    /// One page.
    pub const ZERO: Self = Self(0);
    /// The largest order, Linux's `MAX_PAGE_ORDER`.
    pub const MAX: Self = Self(10);
    /// How many orders there are, Linux's `NR_PAGE_ORDERS`.
    pub const COUNT: usize = Self::MAX.0 as usize + 1;

    /// Checks that `raw` is an order.
    pub const fn new(raw: u8) -> Option<Self> {
        if raw <= Self::MAX.0 {
            Some(Self(raw))
        } else {
            None
        }
    }
    /// The smallest order that holds `bytes`; `None` if none does or `bytes` is zero.
    pub const fn for_bytes(bytes: u64) -> Option<Self> {
        if bytes == 0 {
            return None;
        }
        Self::for_pages(bytes.div_ceil(PAGE_SIZE))
    }
    /// The smallest order that holds `pages`; `None` if none does or `pages` is zero.
    pub const fn for_pages(pages: u64) -> Option<Self> {
        if pages == 0 || pages > 1 << Self::MAX.0 {
            return None;
        }
        Some(Self(pages.next_power_of_two().trailing_zeros() as u8))
    }
    /// The raw order.
    pub const fn as_u8(self) -> u8 {
        self.0
    }
    /// The order as an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
    /// Pages in a block of this order.
    pub const fn pages(self) -> u32 {
        1 << self.0
    }
    /// Bytes in a block of this order.
    pub const fn bytes(self) -> u64 {
        PAGE_SIZE << self.0
    }
    /// One order up, or `None` at the top.
    pub const fn up(self) -> Option<Self> {
        Self::new(self.0 + 1)
    }
    /// One order down, or `None` at zero.
    pub const fn down(self) -> Option<Self> {
        match self.0.checked_sub(1) {
            Some(raw) => Some(Self(raw)),
            None => None,
        }
    }
    /// The buddy of the block of this order that starts at `pfn`.
    pub const fn buddy_of(self, pfn: Pfn) -> Pfn {
        Pfn::new(pfn.as_u32() ^ self.pages())
    }
    /// True if a block of this order may start at `pfn`.
    pub const fn is_aligned(self, pfn: Pfn) -> bool {
        pfn.as_u32() & (self.pages() - 1) == 0
    }
    /// All orders, smallest first.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> {
        (0..=Self::MAX.0).map(Self)
    }
}
