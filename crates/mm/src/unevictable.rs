//! Pages that mlock(2) holds in memory. Linux: `mlock_folio`, `munlock_folio`.
//!
//! A page that an mlocked area shows is marked, and stands on the list of pages that reclaim leaves alone.
//! Marks are hints: a page that came by another way, such as around a fault, is found by reclaim in its walk, which
//! sends it to that list; one that loses its mark while another area still locks it is sent back.

use crate::context::{MmContext, has_frame, is_zero_entry};
use crate::mm::MmInner;
use vellum_machine::Machine;
use vellum_page::PageFlags;
use vellum_page_table::Pte;
use vellum_types::{Pfn, VirtRange};

impl<'m, M: Machine> MmContext<'m, M> {
    /// An entry in an mlocked area shows what `pte` says.
    pub(crate) fn mlock_entry(&self, pte: Pte) {
        if has_frame(pte) && !is_zero_entry(pte) {
            let old = self.page(pte.pfn()).set_flags(PageFlags::MLOCKED);
            if !old.contains(PageFlags::MLOCKED) {
                self.source.reconsider(pte.pfn());
            }
        }
    }

    /// One mlocked entry fewer shows the page.
    pub(crate) fn munlock_page(&self, pfn: Pfn) {
        let old = self.page(pfn).clear_flags(PageFlags::MLOCKED);
        if old.intersects(PageFlags::MLOCKED | PageFlags::UNEVICTABLE) {
            self.source.reconsider(pfn);
        }
    }

    /// The pages of a range are mlocked now, or no longer.
    pub(crate) fn mlock_range(&self, inner: &MmInner<'m>, range: VirtRange, locked: bool) {
        for (leaf, part) in inner.table.leaves(range) {
            for va in part.pages() {
                let pte = leaf.get(va);
                if locked {
                    self.mlock_entry(pte);
                } else if has_frame(pte) && !is_zero_entry(pte) {
                    self.munlock_page(pte.pfn());
                }
            }
        }
    }
}
