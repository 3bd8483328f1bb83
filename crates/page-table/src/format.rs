//! The hardware formats.

use crate::{Pte, PteFlags};
use core::sync::atomic::Ordering;
use vellum_machine::DirectMap;
use vellum_types::{GfpFlags, PAGE_SHIFT, PAGE_SIZE, Pfn, SwapEntry, VirtAddr};

/// The shape of a family of page tables. Levels count from the leaves: level 0 holds 4 KiB entries.
///
/// Source: Intel SDM volume 3, chapter "Paging".
pub trait Format: Copy + Send + Sync + 'static {
    /// For people.
    const NAME: &'static str;
    /// How many levels a walk takes.
    const LEVELS: u8;
    /// Bits of an address that are translated.
    const VA_BITS: u32;
    /// Bits of the physical addresses that an entry can hold.
    const PA_BITS: u32;
    /// log2 of the entries of a full table; the root may have fewer.
    const INDEX_BITS: u32;
    /// Bytes of an entry: 4 or 8.
    const ENTRY_BYTES: u64;
    /// The highest level that may map memory.
    const MAX_HUGE_LEVEL: u8;
    /// Entries can forbid instruction fetches.
    const HAS_NX: bool;
    /// How many slots of a swap area its entries can name.
    const SWAP_SLOTS: u32 = SwapEntry::SLOTS;
    /// Where tables may lie.
    const TABLE_GFP: GfpFlags;

    /// The flags of an entry at `level` that links a table. As generous as the format allows: the
    /// leaf decides.
    fn link_flags(level: u8) -> PteFlags {
        let _ = level;
        TABLE_FLAGS
    }

    /// log2 of the bytes that one entry at `level` covers.
    #[inline]
    fn shift(level: u8) -> u32 {
        PAGE_SHIFT + level as u32 * Self::INDEX_BITS
    }
    /// Bytes that one entry at `level` covers.
    #[inline]
    fn span(level: u8) -> u64 {
        1 << Self::shift(level)
    }
    /// Entries of a table at `level`.
    #[inline]
    fn entries(level: u8) -> u64 {
        1 << Self::INDEX_BITS.min(Self::VA_BITS - Self::shift(level))
    }
    /// Which entry of a table at `level` translates `va`.
    #[inline]
    fn index(va: VirtAddr, level: u8) -> u64 {
        (va.as_u64() >> Self::shift(level)) & (Self::entries(level) - 1)
    }
    /// True if `va` can be translated at all. A kernel address is passed without its sign extension.
    #[inline]
    fn translates(va: VirtAddr) -> bool {
        va.as_u64() >> Self::VA_BITS == 0
    }
    /// The address as a processor takes it: the highest translated bit fills those above, where an
    /// address has more bits than are translated.
    #[inline]
    fn canonical(va: VirtAddr) -> VirtAddr {
        let raw = va.as_u64();
        if Self::VA_BITS > 32 && raw >> (Self::VA_BITS - 1) == 1 {
            VirtAddr::new(raw | u64::MAX << Self::VA_BITS)
        } else {
            va
        }
    }
    /// Undoes [`Format::canonical`]; `None` if no address of this format looks like `va`.
    #[inline]
    fn strip(va: VirtAddr) -> Option<VirtAddr> {
        let stripped = VirtAddr::new(va.as_u64() & ((1 << Self::VA_BITS) - 1));
        (Self::canonical(stripped) == va).then_some(stripped)
    }
    /// What is left of `pte` when this format stores it.
    ///
    /// # Panics
    /// If the frame lies above what the format can address.
    #[inline]
    fn encode(pte: Pte) -> u64 {
        let frame_bits = Self::PA_BITS - PAGE_SHIFT;
        assert!(
            frame_bits >= u32::BITS || pte.pfn().as_u32() >> (frame_bits % u32::BITS) == 0,
            "frame too high for the page-table format"
        );
        if Self::HAS_NX {
            pte.raw()
        } else {
            pte.without(PteFlags::NX).raw()
        }
    }
    /// The entry that `raw` stands for.
    #[inline]
    fn decode(raw: u64) -> Pte {
        Pte::from_raw(raw)
    }

    /// Loads entry `index` of `table`.
    #[inline]
    fn load(ram: DirectMap<'_>, table: Pfn, index: u64) -> Pte {
        let at = table.addr() + index * Self::ENTRY_BYTES;
        Self::decode(if Self::ENTRY_BYTES == 4 {
            u64::from(ram.read_u32(at))
        } else {
            ram.read_u64(at)
        })
    }
    /// Stores entry `index` of `table`. What was stored to the linked table before is seen by
    /// whoever loads this.
    #[inline]
    fn store(ram: DirectMap<'_>, table: Pfn, index: u64, pte: Pte) {
        let at = table.addr() + index * Self::ENTRY_BYTES;
        let raw = Self::encode(pte);
        if Self::ENTRY_BYTES == 4 {
            ram.write_u32(at, raw as u32);
        } else {
            ram.write_u64(at, raw);
        }
    }
    /// Stores `count` entries of `table` from `index` that differ in their frames only: those of
    /// `first` and onwards.
    ///
    /// # Panics
    /// If there are not so many from `index` on, or the last frame is too high.
    #[inline]
    fn store_run(ram: DirectMap<'_>, table: Pfn, index: u64, count: u32, first: Pte) {
        let last = Pte::new(first.pfn() + count.saturating_sub(1), first.flags());
        let _ = Self::encode(last);
        let mut raw = Self::encode(first);
        run::<Self>(ram, table, index, count, |old| {
            *old = raw;
            raw += PAGE_SIZE;
        });
    }
    /// Clears `count` entries of `table` from `index`.
    ///
    /// # Panics
    /// If there are not so many from `index` on.
    #[inline]
    fn clear_run(ram: DirectMap<'_>, table: Pfn, index: u64, count: u32) {
        run::<Self>(ram, table, index, count, |old| *old = 0);
    }
    /// Stores entry `index` of `table` if it is still `old`; else returns what it is.
    ///
    /// # Errors
    /// The present entry, if it is not `old`.
    #[inline]
    fn compare_exchange(
        ram: DirectMap<'_>,
        table: Pfn,
        index: u64,
        old: Pte,
        new: Pte,
    ) -> Result<(), Pte> {
        let at = table.addr() + index * Self::ENTRY_BYTES;
        let (old, new) = (Self::encode(old), Self::encode(new));
        let result = if Self::ENTRY_BYTES == 4 {
            ram.compare_exchange_u32(at, old as u32, new as u32)
                .map_err(u64::from)
                .map(drop)
        } else {
            ram.compare_exchange_u64(at, old, new).map(drop)
        };
        result.map_err(Self::decode)
    }
}

/// Stores `count` raw entries from `index`, each as `next` sets it.
#[inline]
fn run<F: Format>(
    ram: DirectMap<'_>,
    table: Pfn,
    index: u64,
    count: u32,
    mut next: impl FnMut(&mut u64),
) {
    assert!(
        index + u64::from(count) <= 1 << F::INDEX_BITS,
        "entries beyond the end of a table"
    );
    let at = table.addr() + index * F::ENTRY_BYTES;
    let mut raw = 0;
    if F::ENTRY_BYTES == 4 {
        for word in ram.words_u32(at, count) {
            next(&mut raw);
            word.store(raw as u32, Ordering::Release);
        }
    } else {
        for word in ram.words_u64(at, count) {
            next(&mut raw);
            // Release pairs with the Acquire of a walker: the frame's content is seen.
            word.store(raw, Ordering::Release);
        }
    }
}

/// Linux's `_PAGE_TABLE`: it sets the accessed and dirty bits of links too, so that a processor need
/// not.
const TABLE_FLAGS: PteFlags = PteFlags::PRESENT
    .union(PteFlags::WRITE)
    .union(PteFlags::USER)
    .union(PteFlags::ACCESSED)
    .union(PteFlags::DIRTY);

/// The 80386's: two levels of 1024 32-bit entries.
#[derive(Clone, Copy, Debug, Default)]
pub struct X86TwoLevel;

impl Format for X86TwoLevel {
    const NAME: &'static str = "x86 2-level";
    const LEVELS: u8 = 2;
    const VA_BITS: u32 = 32;
    const PA_BITS: u32 = 32;
    const INDEX_BITS: u32 = 10;
    const ENTRY_BYTES: u64 = 4;
    const MAX_HUGE_LEVEL: u8 = 1;
    const HAS_NX: bool = false;
    // A kernel with this format has its low memory below 896 MiB, and DMA32 would mean DMA there.
    const TABLE_GFP: GfpFlags = GfpFlags::KERNEL.union(GfpFlags::ZERO);
    const SWAP_SLOTS: u32 = 1 << 24;

    fn encode(pte: Pte) -> u64 {
        match pte.swap_entry() {
            Some(entry) => Self::encode_swap(entry),
            None => {
                let frame = pte.pfn().as_u32();
                assert!(frame >> 20 == 0, "frame too high for the page-table format");
                pte.without(PteFlags::NX).raw()
            }
        }
    }

    fn decode(raw: u64) -> Pte {
        // Of what is not present, only swap entries have this bit and not the mark of PROT_NONE.
        let kind = PteFlags::PRESENT | PteFlags::GLOBAL | PteFlags::SOFT1;
        if raw & kind.bits() == PteFlags::SOFT1.bits() {
            Self::decode_swap(raw)
        } else {
            Pte::from_raw(raw)
        }
    }
}

impl X86TwoLevel {
    /// A swap entry does not fit where the frame would be: area in bits 1..6, slot in 11..32, 6..8 and 9.
    fn encode_swap(entry: SwapEntry) -> u64 {
        let (area, slot) = (u64::from(entry.area()), u64::from(entry.slot()));
        assert!(
            slot < u64::from(Self::SWAP_SLOTS),
            "swap slot too high for the page-table format"
        );
        let low = slot & 0x1f_ffff;
        let middle = slot >> 21 & 3;
        let top = slot >> 23;
        PteFlags::SOFT1.bits() | area << 1 | low << 11 | middle << 6 | top << 9
    }

    fn decode_swap(raw: u64) -> Pte {
        let slot = raw >> 11 & 0x1f_ffff | (raw >> 6 & 3) << 21 | (raw >> 9 & 1) << 23;
        let area = raw >> 1 & 0x1f;
        match SwapEntry::new(area as u8, slot as u32) {
            Some(entry) => Pte::swap(entry),
            None => Pte::from_raw(raw),
        }
    }
}

/// The Pentium Pro's: three levels, four entries in the root, 64-bit entries.
#[derive(Clone, Copy, Debug, Default)]
pub struct X86Pae;

impl Format for X86Pae {
    const NAME: &'static str = "x86 PAE";
    const LEVELS: u8 = 3;
    const VA_BITS: u32 = 32;
    const PA_BITS: u32 = 52;
    const INDEX_BITS: u32 = 9;
    const ENTRY_BYTES: u64 = 8;
    const MAX_HUGE_LEVEL: u8 = 1;
    const HAS_NX: bool = true;
    // CR3 has 32 bits in this mode; low memory lies below 896 MiB.
    const TABLE_GFP: GfpFlags = GfpFlags::KERNEL.union(GfpFlags::ZERO);

    fn link_flags(level: u8) -> PteFlags {
        // Write, user, accessed and dirty are reserved in the four root entries.
        if level == 2 {
            PteFlags::PRESENT
        } else {
            TABLE_FLAGS
        }
    }
}

/// The AMD64's: four levels, 48 bits.
#[derive(Clone, Copy, Debug, Default)]
pub struct X86_64FourLevel;

impl Format for X86_64FourLevel {
    const NAME: &'static str = "x86-64 4-level";
    const LEVELS: u8 = 4;
    const VA_BITS: u32 = 48;
    const PA_BITS: u32 = 52;
    const INDEX_BITS: u32 = 9;
    const ENTRY_BYTES: u64 = 8;
    const MAX_HUGE_LEVEL: u8 = 2;
    const HAS_NX: bool = true;
    const TABLE_GFP: GfpFlags = GfpFlags::KERNEL.union(GfpFlags::ZERO);
}

/// With LA57: five levels, 57 bits.
#[derive(Clone, Copy, Debug, Default)]
pub struct X86_64FiveLevel;

impl Format for X86_64FiveLevel {
    const NAME: &'static str = "x86-64 5-level";
    const LEVELS: u8 = 5;
    const VA_BITS: u32 = 57;
    const PA_BITS: u32 = 52;
    const INDEX_BITS: u32 = 9;
    const ENTRY_BYTES: u64 = 8;
    const MAX_HUGE_LEVEL: u8 = 2;
    const HAS_NX: bool = true;
    const TABLE_GFP: GfpFlags = GfpFlags::KERNEL.union(GfpFlags::ZERO);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comes_back<F: Format>() {
        for area in [0, 1, 17, SwapEntry::AREAS - 1] {
            for bit in 0..F::SWAP_SLOTS.ilog2() {
                for slot in [1 << bit, (1 << bit) | 1, F::SWAP_SLOTS - 1] {
                    let entry = SwapEntry::new(area, slot).unwrap();
                    let raw = F::encode(Pte::swap(entry));
                    assert_eq!(F::decode(raw).swap_entry(), Some(entry), "{}", F::NAME);
                    assert!(raw >> (8 * F::ENTRY_BYTES - 1) >> 1 == 0);
                    // Neither present nor the mark of PROT_NONE.
                    assert_eq!(raw & 0x101, 0, "{}", F::NAME);
                    assert!(!F::decode(raw).is_none() && !F::decode(raw).is_present());
                }
            }
        }
    }

    #[test]
    fn swap_entries_come_back_in_every_format() {
        comes_back::<X86TwoLevel>();
        comes_back::<X86Pae>();
        comes_back::<X86_64FourLevel>();
        comes_back::<X86_64FiveLevel>();
    }

    #[test]
    fn what_is_no_swap_entry_is_none() {
        let frame = Pfn::new(0x1234);
        let soft = PteFlags::SOFT1;
        assert_eq!(Pte::NONE.swap_entry(), None);
        assert_eq!(Pte::new(frame, soft | PteFlags::PRESENT).swap_entry(), None);
        assert_eq!(Pte::new(frame, soft | PteFlags::GLOBAL).swap_entry(), None);
        assert_eq!(Pte::new(frame, PteFlags::GLOBAL).swap_entry(), None);
    }
}
