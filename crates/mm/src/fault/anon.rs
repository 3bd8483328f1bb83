//! Faults on memory that has no page yet: zero-filled on demand.

use super::{Fault, FaultOutcome};
use crate::MmError;
use crate::backing::FaultStream;
use crate::context::MmContext;
use crate::mm::{Mm, MmInner, RssKind};
use vellum_machine::{Machine, VmEvent};
use vellum_page_table::PteFlags;
use vellum_types::{Order, PAGE_SIZE, PfnRange, VirtAddr, VmFlags};

impl<'m, M: Machine> MmContext<'m, M> {
    /// `do_anonymous_page`: a read maps the shared zero page, a write gets frames of its own.
    pub(super) fn do_anonymous(
        &self,
        mm: &Mm<'m>,
        inner: &mut MmInner<'m>,
        fault: &Fault<'m>,
    ) -> Result<FaultOutcome, MmError> {
        if fault.is_write() {
            self.fill_anon(mm, inner, fault)?;
        } else {
            let pte = Self::entry(self.zero_page, fault.flags).with(PteFlags::SPECIAL);
            fault.leaf.set(fault.page, pte);
            self.vmstat.count(VmEvent::ZeroPageMapped);
            self.update_mmu(&fault.leaf, mm.space(), fault.page, 1);
        }
        Ok(FaultOutcome::Minor)
    }

    /// Fills a block of pages around the faulting one, as large as the area, its empty entries, the
    /// faults before and the free memory suggest; at worst the one page.
    fn fill_anon(
        &self,
        mm: &Mm<'m>,
        inner: &mut MmInner<'m>,
        fault: &Fault<'m>,
    ) -> Result<(), MmError> {
        let max = if self.is_short() {
            Order::ZERO
        } else {
            self.machine.features().anon_order_max
        };
        let anon_vma = self.anon_vma_prepare(mm.space(), inner, fault.page)?;
        let stream = inner
            .areas
            .find_containing(fault.page)
            .map_or(FaultStream::default(), |area| area.backing.stream);
        let (frames, order) = self.alloc_block(anon_order(fault, stream, max))?;
        let start = fault.page.align_down(order.bytes());
        let pages = order.pages();
        if let Some(range) = PfnRange::from_len(frames, pages) {
            self.zero_pages(range);
        }
        for n in 0..pages {
            self.install_anon(
                inner,
                fault,
                start + u64::from(n) * PAGE_SIZE,
                frames + n,
                anon_vma,
            );
        }
        if max > Order::ZERO {
            if let Some(area) = inner.areas.find_mut(fault.page) {
                let first = start.page_number();
                area.backing.stream.filled(first, u64::from(pages), order);
            }
            self.vmstat
                .count_many(VmEvent::AnonFaultAround, u64::from(pages) - 1);
        }
        self.update_mmu(&fault.leaf, mm.space(), start, u64::from(pages));
        Ok(())
    }

    fn install_anon(
        &self,
        inner: &mut MmInner<'m>,
        fault: &Fault<'m>,
        va: VirtAddr,
        pfn: vellum_types::Pfn,
        anon_vma: u32,
    ) {
        self.adopt_anon(pfn, anon_vma, fault.index_of(va));
        let mut pte = Self::entry(pfn, fault.flags).with(PteFlags::DIRTY);
        if fault.flags.contains(VmFlags::WRITE) {
            pte = pte.with(PteFlags::WRITE);
        }
        fault.leaf.set(va, pte);
        inner.rss_add(RssKind::Anon);
        self.source.lru_add(pfn);
    }
}

/// The largest order, up to what the area's stream of faults deserves, whose aligned block around
/// the page lies in the area and is still empty. Linux: `alloc_anon_folio`.
fn anon_order(fault: &Fault<'_>, stream: FaultStream, max: Order) -> Order {
    if fault
        .flags
        .intersects(VmFlags::NOHUGEPAGE | VmFlags::RAND_READ)
    {
        return Order::ZERO;
    }
    let mut order = stream.next_order(fault.page.page_number(), max);
    while let Some(down) = order.down() {
        let start = fault.page.align_down(order.bytes());
        let inside = start >= fault.range.start()
            && start
                .checked_add(order.bytes())
                .is_some_and(|end| end <= fault.range.end());
        let empty = |n| fault.leaf.get(start + n * PAGE_SIZE).is_none();
        if inside && (0..u64::from(order.pages())).all(empty) {
            return order;
        }
        order = down;
    }
    Order::ZERO
}
