//! Faults on pages that are in swap.

use super::{Fault, FaultOutcome};
use crate::MmError;
use crate::context::MmContext;
use crate::mm::{Mm, MmInner, RssKind};
use vellum_machine::Machine;
use vellum_page::PageFlags;
use vellum_page_table::PteFlags;
use vellum_types::{SwapEntry, VmFlags};

impl<'m, M: Machine> MmContext<'m, M> {
    /// `do_swap_page`: maps the page of `entry` from the swap cache. If it is not there, the fault begins
    /// anew after it was read, for which no lock may be held.
    pub(crate) fn do_swap_page(
        &self,
        mm: &Mm<'m>,
        inner: &mut MmInner<'m>,
        fault: &Fault<'m>,
        entry: SwapEntry,
    ) -> Result<FaultOutcome, MmError> {
        let own = self.anon_vma_prepare(mm.space(), inner, fault.page)?;
        let Some(pfn) = self.swap.lookup(entry) else {
            return Err(MmError::Swapped(entry));
        };
        let page = self.page(pfn);
        if !page.flags().contains(PageFlags::UPTODATE) {
            self.swap.put_page(pfn);
            return Err(MmError::Swapped(entry));
        }
        let sole = self.swap.is_sole(entry);
        if page.owner() == 0 {
            // Fresh from the device. Others who have the entry stand at least in the root, as we do.
            let area = inner.areas.find_containing(fault.page);
            let chain = area.and_then(|area| area.backing.anon.as_ref());
            let root = chain.map_or(own, |chain| chain.anon_vma().root());
            page.set_owner(if sole { own } else { root });
            page.set_index(fault.index);
        }
        let mut pte = Self::entry(pfn, fault.flags);
        if sole && fault.is_write() && fault.flags.contains(VmFlags::WRITE) {
            pte = pte.with(PteFlags::WRITE | PteFlags::DIRTY);
        }
        // The reference of the lookup is the entry's now.
        self.rmap_add(pfn);
        fault.leaf.set(fault.page, pte);
        inner.rss_add(RssKind::Anon);
        inner.swap_entries -= 1;
        self.swap.free(entry);
        if pte.is_writable() || self.swap.is_half_full() {
            // What the slot has is out of date with the first store; or others need it more.
            self.swap.try_to_free_swap(pfn);
        }
        if fault.is_write() && !pte.is_writable() {
            return self.do_wp_page(mm, inner, fault, pte);
        }
        self.update_mmu(&fault.leaf, mm.space(), fault.page, 1);
        Ok(FaultOutcome::Minor)
    }
}
