//! Writes to pages that are mapped read-only.

use super::{Fault, FaultOutcome};
use crate::MmError;
use crate::backing::Object;
use crate::context::{MmContext, is_zero_entry};
use crate::mm::{Mm, MmInner, RssKind};
use vellum_machine::{Machine, VmEvent};
use vellum_page::{AllocRequest, OwnedPages, PageState};
use vellum_page_table::{Pte, PteFlags};
use vellum_types::{Order, PAGE_SIZE, PfnRange, VirtRange, VmFlags};

impl<'m, M: Machine> MmContext<'m, M> {
    /// `do_wp_page`: share, reuse or copy.
    pub(super) fn do_wp_page(
        &self,
        mm: &Mm<'m>,
        inner: &mut MmInner<'m>,
        fault: &Fault<'m>,
        pte: Pte,
    ) -> Result<FaultOutcome, MmError> {
        if fault.flags.contains(VmFlags::SHARED) {
            // page_mkwrite: the first write since the page was last clean.
            let area = inner.areas.find_containing(fault.page);
            if let Some(Object::File(mapping)) = area.map(|a| &a.backing.object) {
                mapping.mark_dirty(&self.cache, fault.index);
            }
            self.make_writable(mm, fault, pte);
        } else if self.is_sole_owner(pte) {
            self.vmstat.count(VmEvent::CowReuse);
            self.make_writable(mm, fault, pte);
        } else {
            self.copy(mm, inner, fault, pte)?;
        }
        Ok(FaultOutcome::Minor)
    }

    fn make_writable(&self, mm: &Mm<'m>, fault: &Fault<'m>, pte: Pte) {
        let bits = PteFlags::WRITE | PteFlags::DIRTY | PteFlags::ACCESSED;
        fault.leaf.set(fault.page, pte.with(bits));
        self.update_mmu(&fault.leaf, mm.space(), fault.page, 1);
    }

    /// True for an anonymous page that only this entry refers to.
    pub(crate) fn is_sole_owner(&self, pte: Pte) -> bool {
        if is_zero_entry(pte) {
            return false;
        }
        let page = self.page(pte.pfn());
        page.state() == PageState::Anon && page.mapcount() == 1 && page.refcount() == 1
    }

    /// `wp_page_copy`: a frame of its own with the old content; the old frame loses this entry
    /// after the flush.
    fn copy(
        &self,
        mm: &Mm<'m>,
        inner: &mut MmInner<'m>,
        fault: &Fault<'m>,
        pte: Pte,
    ) -> Result<(), MmError> {
        let anon_vma = self.anon_vma_prepare(inner, fault.page)?.id();
        let new =
            OwnedPages::alloc(self.source, AllocRequest::user_movable(Order::ZERO))?.into_pfn();
        let old = pte.pfn();
        let was_zero = is_zero_entry(pte);
        if was_zero {
            if let Some(range) = PfnRange::from_len(new, 1) {
                self.machine.zero_pages(range);
            }
        } else {
            self.ram.copy_page(new, old);
            self.vmstat.count(VmEvent::CowCopy);
        }
        self.adopt_anon(new, anon_vma, fault.index);
        let bits = PteFlags::WRITE | PteFlags::DIRTY;
        let mut gather = self.gather(mm.space());
        fault
            .leaf
            .set(fault.page, Self::entry(new, fault.flags).with(bits));
        if was_zero {
            if let Some(range) = VirtRange::from_len(fault.page, PAGE_SIZE) {
                gather.note_flush(range);
            }
        } else {
            if self.page(old).state() == PageState::File {
                let kind = inner
                    .areas
                    .find_containing(fault.page)
                    .map_or(RssKind::File, |area| self.rss_kind(area, old));
                inner.rss_sub(kind);
            } else {
                inner.rss_sub(RssKind::Anon);
            }
            self.rmap_remove(old);
            gather.remove(fault.page, old);
        }
        inner.rss_add(RssKind::Anon);
        // The flush must come before the new translation, or it would drop that one too.
        gather.flush();
        self.update_mmu(&fault.leaf, mm.space(), fault.page, 1);
        Ok(())
    }
}
