//! The page-table walker, by the hardware's format alone.
//!
//! This is a second reading of the x86-64 manual, on purpose: it shares no code with
//! `vellum-page-table`, so that a wrong bit there is seen here. Intel SDM volume 3, 4.5 (4-level
//! paging) and 4.8 (accessed and dirty flags).

use vellum_machine::DirectMap;
use vellum_types::{Access, Pfn, PhysAddr, Prot, VirtAddr};

const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const PAGE_SIZE_BIT: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const FRAME: u64 = 0x000f_ffff_ffff_f000;

/// Levels above the 4-KiB leaf.
const TOP_LEVEL: u32 = 3;

/// What the tables say about one page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Translation {
    pub(crate) pfn: Pfn,
    pub(crate) prot: Prot,
    pub(crate) accessed: bool,
    pub(crate) dirty: bool,
    /// The leaf entry, and where it is.
    pub(crate) entry: u64,
    slot: PhysAddr,
}

/// Why there is no translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WalkError {
    /// Some entry on the way is not present, or the address is not canonical.
    NotPresent,
    /// An entry points out of RAM.
    BadTable(u64),
}

/// One address space's tables in RAM: CR3 and the memory behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walker<'a> {
    pub(crate) ram: DirectMap<'a>,
    pub(crate) root: Pfn,
}

impl Walker<'_> {
    /// Walks without touching anything, to compare.
    pub(crate) fn peek(&self, va: VirtAddr) -> Result<Translation, WalkError> {
        self.walk(va, false)
    }

    /// Walks and sets the accessed bit in each entry used, if `set_accessed`.
    pub(crate) fn walk(&self, va: VirtAddr, set_accessed: bool) -> Result<Translation, WalkError> {
        // User addresses are the lower half; the upper one belongs to nobody here.
        if va.as_u64() >> 47 != 0 {
            return Err(WalkError::NotPresent);
        }
        let mut table = self.root.addr();
        let mut level = TOP_LEVEL;
        let mut granted = WRITE | USER;
        let mut forbidden = 0;
        loop {
            let index = (va.as_u64() >> (12 + 9 * level)) & 0x1ff;
            let slot = table + index * 8;
            let entry = self.load(slot)?;
            if entry & PRESENT == 0 {
                return Err(WalkError::NotPresent);
            }
            granted &= entry;
            forbidden |= entry & NO_EXECUTE;
            let leaf = level == 0 || (level < TOP_LEVEL && entry & PAGE_SIZE_BIT != 0);
            let entry = if set_accessed {
                self.set(slot, entry, ACCESSED)
            } else {
                entry
            };
            if !leaf {
                table = PhysAddr::new(entry & FRAME);
                level -= 1;
                continue;
            }
            if granted & USER == 0 {
                return Err(WalkError::NotPresent);
            }
            let inside = va.as_u64() & ((1 << (12 + 9 * level)) - 1) & !0xfff;
            let frame = (entry & FRAME & !((1 << (12 + 9 * level)) - 1)) | inside;
            let pfn = Pfn::containing(PhysAddr::new(frame)).ok_or(WalkError::BadTable(entry))?;
            if self.ram.try_ptr(pfn.addr(), 4096).is_none() {
                return Err(WalkError::BadTable(entry));
            }
            let mut prot = Prot::READ;
            prot.set(Prot::WRITE, granted & WRITE != 0);
            prot.set(Prot::EXEC, forbidden == 0);
            return Ok(Translation {
                pfn,
                prot,
                accessed: entry & ACCESSED != 0,
                dirty: entry & DIRTY != 0,
                entry,
                slot,
            });
        }
    }

    /// Sets the dirty bit of a leaf that was just walked. False if the entry changed meanwhile.
    pub(crate) fn set_dirty(&self, leaf: &Translation) -> bool {
        leaf.dirty
            || self
                .ram
                .compare_exchange_u64(leaf.slot, leaf.entry, leaf.entry | DIRTY)
                .is_ok()
    }

    fn load(&self, slot: PhysAddr) -> Result<u64, WalkError> {
        match self.ram.try_ptr(slot, 8) {
            Some(_) => Ok(self.ram.read_u64(slot)),
            None => Err(WalkError::BadTable(slot.as_u64())),
        }
    }

    fn set(&self, slot: PhysAddr, entry: u64, bits: u64) -> u64 {
        if entry & bits == bits {
            return entry;
        }
        // A lost race means that the core changed the entry: its new value is walked next time.
        match self.ram.compare_exchange_u64(slot, entry, entry | bits) {
            Ok(_) => entry | bits,
            Err(now) => now,
        }
    }
}

/// The permission that an access needs.
pub(crate) const fn needed(access: Access) -> Prot {
    match access {
        Access::Read => Prot::READ,
        Access::Write => Prot::WRITE,
        Access::Exec => Prot::EXEC,
    }
}
