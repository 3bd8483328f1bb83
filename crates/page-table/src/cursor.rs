//! What is there in a range.

use crate::{Format, LeafTable, Pte};
use core::marker::PhantomData;
use vellum_machine::DirectMap;
use vellum_types::{Pfn, VirtAddr, VirtRange};

/// Something found in a range.
#[derive(Debug)]
pub enum Mapped<'m, F: Format> {
    /// A leaf table, perhaps empty, and the part of the range it covers.
    Leaf(LeafTable<'m, F>, VirtRange),
    /// A huge entry, all that it covers (which may reach beyond the range), and its level.
    Huge(VirtRange, Pte, u8),
}

/// The leaf tables and huge entries that overlap a range, in order.
///
/// An absent subtree costs one entry, however large it is. Each step walks from the root, so that
/// the tables behind the cursor may be freed and those ahead may be made.
pub struct Entries<'m, F: Format> {
    ram: DirectMap<'m>,
    root: Pfn,
    next: VirtAddr,
    end: VirtAddr,
    format: PhantomData<F>,
}

impl<'m, F: Format> Entries<'m, F> {
    pub(crate) fn new(ram: DirectMap<'m>, root: Pfn, range: VirtRange) -> Self {
        let limit = VirtAddr::new(1 << F::VA_BITS);
        let end = if root == Pfn::NONE {
            VirtAddr::ZERO
        } else {
            range.end().min(limit)
        };
        Self {
            ram,
            root,
            next: range.start(),
            end,
            format: PhantomData,
        }
    }
}

impl<'m, F: Format> Iterator for Entries<'m, F> {
    type Item = Mapped<'m, F>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut table = self.root;
        let mut level = F::LEVELS - 1;
        let mut index = F::index(self.next, level);
        while self.next < self.end {
            let va = self.next;
            if level == 0 {
                let leaf = LeafTable::new(self.ram, table, va);
                self.next = leaf.range().end().min(self.end);
                return Some(Mapped::Leaf(leaf, VirtRange::new(va, self.next)?));
            }
            let pte = F::load(self.ram, table, index);
            let covered = VirtRange::from_len(va.align_down(F::span(level)), F::span(level))?;
            if pte.is_none() {
                self.next = covered.end();
                index += 1;
                if index == F::entries(level) {
                    // The next entry is in another table: begin at the root again.
                    (table, level) = (self.root, F::LEVELS - 1);
                    index = F::index(self.next, level);
                }
            } else if pte.is_huge() {
                self.next = covered.end();
                return Some(Mapped::Huge(covered, pte, level));
            } else {
                table = pte.pfn();
                level -= 1;
                index = F::index(va, level);
            }
        }
        None
    }
}

/// The leaf tables that overlap a range, in order. Made by [`crate::PageTable::leaves`].
pub struct Leaves<'m, F: Format>(Entries<'m, F>);

impl<'m, F: Format> Leaves<'m, F> {
    pub(crate) fn new(entries: Entries<'m, F>) -> Self {
        Self(entries)
    }
}

impl<'m, F: Format> Iterator for Leaves<'m, F> {
    type Item = (LeafTable<'m, F>, VirtRange);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.find_map(|found| match found {
            Mapped::Leaf(leaf, part) => Some((leaf, part)),
            Mapped::Huge(..) => None,
        })
    }
}
