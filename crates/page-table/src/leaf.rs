//! One table of 4 KiB entries.

use crate::{Format, Pte, PteFlags};
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU64, Ordering};
use vellum_machine::DirectMap;
use vellum_types::{PAGE_SIZE, Pfn, VirtAddr, VirtRange};

/// A leaf table, found once and then used for neighbouring entries.
///
/// It stays valid while the lock of the address space is held and no tables are freed.
pub struct LeafTable<'m, F: Format> {
    ram: DirectMap<'m>,
    frame: Pfn,
    base: VirtAddr,
    /// The entries of formats that have 64-bit ones, looked up once; empty for others.
    words: &'m [AtomicU64],
    format: PhantomData<F>,
}

impl<F: Format> Clone for LeafTable<'_, F> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<F: Format> Copy for LeafTable<'_, F> {}

impl<'m, F: Format> LeafTable<'m, F> {
    /// How many entries a leaf table has.
    pub const ENTRIES: usize = 1 << F::INDEX_BITS;
    /// How many bytes of address space a leaf table covers.
    pub const SPAN: u64 = Self::ENTRIES as u64 * PAGE_SIZE;

    #[inline]
    pub(crate) fn new(ram: DirectMap<'m>, frame: Pfn, va: VirtAddr) -> Self {
        let words = if F::ENTRY_BYTES == 8 {
            ram.words_u64(frame.addr(), Self::ENTRIES as u32)
        } else {
            &[]
        };
        Self {
            ram,
            frame,
            base: va.align_down(Self::SPAN),
            words,
            format: PhantomData,
        }
    }

    /// The first address it translates.
    #[inline]
    pub const fn base(&self) -> VirtAddr {
        self.base
    }
    /// The frame that holds it.
    pub const fn frame(&self) -> Pfn {
        self.frame
    }
    /// True if it translates `va`.
    #[inline]
    pub fn covers(&self, va: VirtAddr) -> bool {
        va.as_u64().wrapping_sub(self.base.as_u64()) < Self::SPAN
    }
    /// What it translates.
    ///
    /// # Panics
    /// Never: no format reaches the end of the 64-bit space.
    pub fn range(&self) -> VirtRange {
        VirtRange::from_len(self.base, Self::SPAN).expect("inside VA_BITS")
    }

    /// The entry of `va`.
    #[inline]
    pub fn get(&self, va: VirtAddr) -> Pte {
        debug_assert!(self.covers(va));
        if F::ENTRY_BYTES == 8 {
            // Acquire, as in `Format::load`.
            let raw = self.words[F::index(va, 0) as usize].load(Ordering::Acquire);
            return F::decode(raw);
        }
        F::load(self.ram, self.frame, F::index(va, 0))
    }
    /// The entries of `pages` pages from that of `va`, none or not.
    ///
    /// # Panics
    /// If they are not all in this table.
    #[inline]
    pub fn run(&self, va: VirtAddr, pages: u64) -> impl Iterator<Item = Pte> + use<'m, F> {
        debug_assert!(self.covers(va));
        let first = F::index(va, 0);
        assert!(
            first + pages <= Self::ENTRIES as u64,
            "entries beyond the end of a table"
        );
        let (this, wide) = (*self, F::ENTRY_BYTES == 8);
        let range = first as usize..(first + pages) as usize;
        let words = if wide {
            &self.words[range.clone()]
        } else {
            &[]
        };
        // Acquire, as in `Format::load`.
        let fast = words
            .iter()
            .map(|word| F::decode(word.load(Ordering::Acquire)));
        let rest = if wide { 0..0 } else { range };
        fast.chain(rest.map(move |index| F::load(this.ram, this.frame, index as u64)))
    }
    /// Stores the entry of `va`.
    ///
    /// A present entry must not be overwritten this way if its accessed or dirty bit matters on a
    /// machine that sets them; see [`LeafTable::replace`].
    ///
    /// # Panics
    /// If the frame is too high for the format.
    #[inline]
    pub fn set(&self, va: VirtAddr, pte: Pte) {
        debug_assert!(self.covers(va));
        if F::ENTRY_BYTES == 8 {
            // Release, as in `Format::store`.
            self.words[F::index(va, 0) as usize].store(F::encode(pte), Ordering::Release);
            return;
        }
        F::store(self.ram, self.frame, F::index(va, 0), pte);
    }
    /// Stores `pages` entries from that of `va`, which map consecutive frames from `first`.
    ///
    /// # Panics
    /// If they are not all in this table, or a frame is too high for the format.
    #[inline]
    pub fn set_run(&self, va: VirtAddr, first: Pfn, pages: u32, flags: PteFlags) {
        debug_assert!(self.covers(va));
        F::store_run(
            self.ram,
            self.frame,
            F::index(va, 0),
            pages,
            Pte::new(first, flags),
        );
    }
    /// Clears `pages` entries from that of `va`.
    ///
    /// # Panics
    /// If they are not all in this table.
    #[inline]
    pub fn clear_run(&self, va: VirtAddr, pages: u32) {
        debug_assert!(self.covers(va));
        F::clear_run(self.ram, self.frame, F::index(va, 0), pages);
    }
    /// Stores the entry of `va` and returns the old one, with all bits that a hardware walker set
    /// until that moment. Linux's `ptep_get_and_clear`.
    ///
    /// # Panics
    /// If the frame is too high for the format.
    #[inline]
    pub fn replace(&self, va: VirtAddr, pte: Pte) -> Pte {
        let mut old = self.get(va);
        while let Err(now) = self.compare_exchange(va, old, pte) {
            old = now;
        }
        old
    }
    /// Stores the entry of `va` if it is still `old`.
    ///
    /// # Errors
    /// The present entry, if it is not `old`.
    ///
    /// # Panics
    /// If the frame is too high for the format.
    #[inline]
    pub fn compare_exchange(&self, va: VirtAddr, old: Pte, new: Pte) -> Result<(), Pte> {
        debug_assert!(self.covers(va));
        F::compare_exchange(self.ram, self.frame, F::index(va, 0), old, new)
    }

    /// The entries in `range` that are not none, in order. Each is loaded when it is reached.
    pub fn iter(&self, range: VirtRange) -> impl Iterator<Item = (VirtAddr, Pte)> + use<'m, F> {
        let this = *self;
        range
            .intersect(&this.range())
            .into_iter()
            .flat_map(|part| part.pages())
            .map(move |va| (va, this.get(va)))
            .filter(|(_, pte)| !pte.is_none())
    }
    /// True if all entries are none.
    pub fn is_empty(&self) -> bool {
        (0..F::entries(0)).all(|index| F::load(self.ram, self.frame, index).is_none())
    }
}

impl<F: Format> core::fmt::Debug for LeafTable<'_, F> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "LeafTable({:?} in {:?})", self.base, self.frame)
    }
}
