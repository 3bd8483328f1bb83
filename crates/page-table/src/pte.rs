//! One entry.

use core::fmt;
use vellum_types::{PAGE_SHIFT, Pfn, SwapEntry};

bitflags::bitflags! {
    /// The bits of an entry besides the frame, at x86's positions.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
    pub struct PteFlags: u64 {
        /// The processor may use the entry.
        const PRESENT = 1 << 0;
        /// Writes are allowed.
        const WRITE = 1 << 1;
        /// Programs may use it, not only the kernel.
        const USER = 1 << 2;
        /// Write-through.
        const PWT = 1 << 3;
        /// Uncached.
        const PCD = 1 << 4;
        /// Was used since the bit was cleared.
        const ACCESSED = 1 << 5;
        /// Was written since the bit was cleared. Only in entries that map memory.
        const DIRTY = 1 << 6;
        /// Above level 0: maps memory instead of linking a table. Linux's `_PAGE_PSE`.
        const HUGE = 1 << 7;
        /// Survives a switch of address spaces.
        const GLOBAL = 1 << 8;
        /// The frame is not counted: the shared zero page, device memory. Linux's `_PAGE_SPECIAL`.
        const SPECIAL = 1 << 9;
        /// In an entry that is not present: it stands for a slot of swap. Else free for the owner of the
        /// table. Linux's `_PAGE_SOFTW2`.
        const SOFT1 = 1 << 10;
        /// Free for the owner of the table. Linux's `_PAGE_SOFTW3`.
        const SOFT2 = 1 << 11;
        /// No instruction fetches. Formats without it drop it.
        const NX = 1 << 63;
    }
}

/// Bits 12..52: a frame number times the page size.
const FRAME_MASK: u64 = ((1 << 52) - 1) & !((1 << PAGE_SHIFT) - 1);

/// An entry of a page table, in the 64-bit layout.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct Pte(u64);

impl Pte {
    /// Nothing here. Linux's `pte_none`.
    pub const NONE: Self = Self(0);

    /// Frame and flags together.
    #[inline]
    pub const fn new(pfn: Pfn, flags: PteFlags) -> Self {
        Self((pfn.as_u32() as u64) << PAGE_SHIFT | flags.bits())
    }
    /// Takes the raw bits of the 64-bit layout.
    #[inline]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }
    /// The raw bits of the 64-bit layout.
    #[inline]
    pub const fn raw(self) -> u64 {
        self.0
    }
    /// True if nothing is here.
    #[inline]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
    /// The entry of a page that is in swap: [`PteFlags::SOFT1`] and no other flag, and the slot where the
    /// frame would be.
    #[inline]
    pub const fn swap(entry: SwapEntry) -> Self {
        Self((entry.raw() as u64) << PAGE_SHIFT | PteFlags::SOFT1.bits())
    }
    /// Where in swap the page is, if it is there.
    #[inline]
    pub const fn swap_entry(self) -> Option<SwapEntry> {
        let entry = SwapEntry::from_raw(self.pfn().as_u32());
        if self.0 & !FRAME_MASK == PteFlags::SOFT1.bits() && !entry.is_none() {
            Some(entry)
        } else {
            None
        }
    }
    /// True if the processor may use it.
    #[inline]
    pub const fn is_present(self) -> bool {
        self.0 & PteFlags::PRESENT.bits() != 0
    }
    /// True if writes are allowed.
    #[inline]
    pub const fn is_writable(self) -> bool {
        self.0 & PteFlags::WRITE.bits() != 0
    }
    /// True if the dirty bit is set.
    #[inline]
    pub const fn is_dirty(self) -> bool {
        self.0 & PteFlags::DIRTY.bits() != 0
    }
    /// True if the accessed bit is set.
    #[inline]
    pub const fn is_accessed(self) -> bool {
        self.0 & PteFlags::ACCESSED.bits() != 0
    }
    /// True if it maps memory although it stands above level 0. Means nothing at level 0.
    #[inline]
    pub const fn is_huge(self) -> bool {
        self.0 & PteFlags::HUGE.bits() != 0
    }
    /// The (first) frame.
    #[inline]
    pub const fn pfn(self) -> Pfn {
        Pfn::new(((self.0 & FRAME_MASK) >> PAGE_SHIFT) as u32)
    }
    /// The other bits.
    #[inline]
    pub const fn flags(self) -> PteFlags {
        PteFlags::from_bits_retain(self.0 & !FRAME_MASK)
    }
    /// True if all of `flags` are set.
    #[inline]
    pub const fn contains(self, flags: PteFlags) -> bool {
        self.0 & flags.bits() == flags.bits()
    }
    /// The same with `flags` set.
    #[inline]
    pub const fn with(self, flags: PteFlags) -> Self {
        Self(self.0 | flags.bits())
    }
    /// The same with `flags` cleared.
    #[inline]
    pub const fn without(self, flags: PteFlags) -> Self {
        Self(self.0 & !flags.bits())
    }
}

impl fmt::Debug for Pte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            return f.write_str("Pte(none)");
        }
        write!(f, "Pte({:?} ", self.pfn())?;
        bitflags::parser::to_writer(&self.flags(), &mut *f)?;
        f.write_str(")")
    }
}
