//! Writes to pages that are mapped read-only.

use super::{Fault, FaultOutcome};
use crate::MmError;
use crate::backing::Object;
use crate::context::{MmContext, is_zero_entry};
use crate::mm::{Mm, MmInner, RssKind, UserLeaf};
use vellum_machine::{Machine, VmEvent};
use vellum_page::{AllocRequest, OwnedPages, PageFlags, PageState};
use vellum_page_table::{Pte, PteFlags};
use vellum_types::{Order, PAGE_SIZE, Pfn, PfnRange, VirtAddr, VirtRange, VmFlags};

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
            self.make_writable(fault.leaf, fault.page, pte);
            self.update_mmu(&fault.leaf, mm.space(), fault.page, 1);
        } else if self.is_sole_owner(pte) || self.can_leave_swap(pte) {
            self.reuse_around(mm, fault);
        } else if is_zero_entry(pte) {
            self.replace_zero(mm, inner, fault)?;
        } else {
            self.copy_shared(mm, inner, fault)?;
        }
        Ok(FaultOutcome::Minor)
    }

    fn make_writable(&self, leaf: UserLeaf<'m>, va: VirtAddr, pte: Pte) {
        let bits = PteFlags::WRITE | PteFlags::DIRTY | PteFlags::ACCESSED;
        leaf.set(va, pte.with(bits));
    }

    /// Gives write permission back to the page, and to those around it that have lost all their
    /// other owners too: after a child is gone, a parent finds many such pages in a row.
    fn reuse_around(&self, mm: &Mm<'m>, fault: &Fault<'m>) {
        let window = fault.window(u64::from(self.machine.features().fault_around_pages));
        let mut reused = 0;
        for va in window.pages() {
            let pte = fault.leaf.get(va);
            if pte.is_present() && !pte.flags().contains(PteFlags::WRITE) && self.is_sole_owner(pte)
            {
                self.make_writable(fault.leaf, va, pte);
                reused += 1;
            }
        }
        self.vmstat.count_many(VmEvent::CowReuse, reused);
        self.update_mmu(&fault.leaf, mm.space(), window.start(), window.nr_pages());
    }

    /// True for an anonymous page that only this entry refers to, now that the slot it had in swap is given
    /// up: what is about to be stored is not there.
    fn can_leave_swap(&self, pte: Pte) -> bool {
        let swap_cached = !is_zero_entry(pte)
            && self.page(pte.pfn()).mapcount() == 1
            && self.page(pte.pfn()).flags().contains(PageFlags::SWAPCACHE);
        swap_cached && self.swap.try_to_free_swap(pte.pfn()) && self.is_sole_owner(pte)
    }

    /// True for an anonymous page that only this entry refers to.
    pub(crate) fn is_sole_owner(&self, pte: Pte) -> bool {
        if is_zero_entry(pte) {
            return false;
        }
        let page = self.page(pte.pfn());
        page.state() == PageState::Anon && page.mapcount() == 1 && page.refcount() == 1
    }

    /// The first write to a page that showed the shared zero page: a zeroed frame of its own.
    fn replace_zero(
        &self,
        mm: &Mm<'m>,
        inner: &mut MmInner<'m>,
        fault: &Fault<'m>,
    ) -> Result<(), MmError> {
        let anon_vma = self.anon_vma_prepare(mm.space(), inner, fault.page)?;
        let request = AllocRequest::user_movable(Order::ZERO);
        let new = OwnedPages::alloc(self.source, request)?.into_pfn();
        if let Some(range) = PfnRange::from_len(new, 1) {
            self.zero_pages(range);
        }
        let mut gather = self.gather(mm.space());
        if let Some(range) = VirtRange::from_len(fault.page, PAGE_SIZE) {
            gather.note_flush(range);
        }
        self.install_copy(inner, fault, fault.page, new, anon_vma);
        // The flush must come before the new translation, or it would drop that one too.
        gather.flush();
        self.update_mmu(&fault.leaf, mm.space(), fault.page, 1);
        Ok(())
    }

    fn install_copy(
        &self,
        inner: &mut MmInner<'m>,
        fault: &Fault<'m>,
        va: VirtAddr,
        new: Pfn,
        anon_vma: u32,
    ) {
        self.adopt_anon(new, anon_vma, fault.index_of(va));
        let bits = PteFlags::WRITE | PteFlags::DIRTY;
        fault.leaf.set(va, Self::entry(new, fault.flags).with(bits));
        inner.rss_add(RssKind::Anon);
        self.source.lru_add(new);
    }

    /// `wp_page_copy`: frames of its own with the old content for the page, and for as many pages
    /// of the file behind it as the stream of such faults suggests. The old frames lose their
    /// entries after the flush.
    pub(super) fn copy_shared(
        &self,
        mm: &Mm<'m>,
        inner: &mut MmInner<'m>,
        fault: &Fault<'m>,
    ) -> Result<(), MmError> {
        let anon_vma = self.anon_vma_prepare(mm.space(), inner, fault.page)?;
        let (frames, order) = self.alloc_block(self.copy_order(mm, inner, fault))?;
        let pages = order.pages();
        let start = fault.page.align_down(order.bytes());
        let mut gather = self.gather(mm.space());
        for n in 0..pages {
            let va = start + u64::from(n) * PAGE_SIZE;
            let old = fault.leaf.get(va).pfn();
            let kind = inner
                .areas
                .find_containing(va)
                .map_or(RssKind::Anon, |area| self.rss_kind(area, old));
            self.copy_page(frames + n, old);
            self.install_copy(inner, fault, va, frames + n, anon_vma);
            inner.rss_sub(kind);
            self.rmap_remove(old);
            if fault.flags.contains(VmFlags::LOCKED) {
                self.munlock_page(old);
            }
            gather.remove(va, old);
        }
        self.vmstat.count_many(VmEvent::CowCopy, u64::from(pages));
        if !fault.anonymous
            && let Some(area) = inner.areas.find_mut(fault.page)
        {
            let first = start.page_number();
            area.backing.stream.filled(first, u64::from(pages), order);
        }
        gather.flush();
        self.update_mmu(&fault.leaf, mm.space(), start, u64::from(pages));
        Ok(())
    }

    /// How many pages of a file to copy at once, as an order: an aligned block around the page whose
    /// entries all still show the file, and that no running I/O holds in place. (What the file becomes later is not seen there any more; mmap(2)
    /// leaves that open.)
    fn copy_order(&self, mm: &Mm<'m>, inner: &MmInner<'m>, fault: &Fault<'m>) -> Order {
        let max = self.machine.features().anon_order_max;
        if fault.anonymous || max == Order::ZERO || self.is_short() {
            return Order::ZERO;
        }
        let stream = inner
            .areas
            .find_containing(fault.page)
            .map(|area| area.backing.stream);
        let mut order = stream
            .unwrap_or_default()
            .next_copy_order(fault.page.page_number(), max);
        let shows_file = |va: VirtAddr| {
            let pte = fault.leaf.get(va);
            let moves = va == fault.page || !self.machine.is_pinned(mm.space(), va);
            pte.is_present() && self.page(pte.pfn()).state() == PageState::File && moves
        };
        while let Some(down) = order.down() {
            let start = fault.page.align_down(order.bytes());
            let block = VirtRange::from_len(start, order.bytes());
            if block.is_some_and(|block| {
                fault.range.contains_range(&block) && block.pages().all(shows_file)
            }) {
                return order;
            }
            order = down;
        }
        Order::ZERO
    }
}
