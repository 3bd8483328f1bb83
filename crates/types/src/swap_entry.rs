//! Where a page is while it is not in memory.

use core::fmt;

const SLOT_BITS: u32 = 27;

/// A slot of a swap area: 5 bits of area, 27 bits of slot. Linux's `swp_entry_t`.
///
/// Zero is [`SwapEntry::NONE`]: slot 0 of an area is its header and never used, so that no real entry
/// is zero, and zeroed memory holds none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct SwapEntry(u32);

impl SwapEntry {
    /// No entry.
    pub const NONE: Self = Self(0);
    /// How many areas there can be.
    pub const AREAS: u8 = 1 << (u32::BITS - SLOT_BITS);
    /// How many slots an area can have, 512 GiB of them; slot 0 is not usable.
    pub const SLOTS: u32 = 1 << SLOT_BITS;

    /// Slot `slot` of area `area`; `None` if either is out of range or the slot is 0.
    #[inline]
    pub const fn new(area: u8, slot: u32) -> Option<Self> {
        if area < Self::AREAS && slot != 0 && slot < Self::SLOTS {
            Some(Self((area as u32) << SLOT_BITS | slot))
        } else {
            None
        }
    }
    /// The inverse of [`SwapEntry::raw`]. Any value is an entry, if perhaps not one in use.
    #[inline]
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }
    /// 32 bits, for a page-table entry.
    #[inline]
    pub const fn raw(self) -> u32 {
        self.0
    }
    /// True for [`SwapEntry::NONE`].
    #[inline]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
    /// The area. Linux's `swp_type`.
    #[inline]
    pub const fn area(self) -> u8 {
        (self.0 >> SLOT_BITS) as u8
    }
    /// The slot. Linux's `swp_offset`.
    #[inline]
    pub const fn slot(self) -> u32 {
        self.0 & (Self::SLOTS - 1)
    }
}

impl fmt::Debug for SwapEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            return f.write_str("swap:none");
        }
        write!(f, "swap:{}/{:#x}", self.area(), self.slot())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn area_and_slot_come_back() {
        for area in 0..SwapEntry::AREAS {
            for slot in [1, 2, 255, 0x12_3456, SwapEntry::SLOTS - 1] {
                let entry = SwapEntry::new(area, slot).unwrap();
                assert_eq!((entry.area(), entry.slot()), (area, slot));
                assert_eq!(SwapEntry::from_raw(entry.raw()), entry);
                assert!(!entry.is_none());
            }
        }
    }

    #[test]
    fn what_is_out_of_range_is_no_entry() {
        assert_eq!(SwapEntry::new(0, 0), None);
        assert_eq!(SwapEntry::new(31, 0), None);
        assert_eq!(SwapEntry::new(32, 1), None);
        assert_eq!(SwapEntry::new(0, SwapEntry::SLOTS), None);
        assert!(SwapEntry::NONE.is_none());
    }
}
