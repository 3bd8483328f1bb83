//! What the buddy system knows about frames: their descriptors and the mobility of their pageblocks.

use core::sync::atomic::{AtomicU8, Ordering};
use vellum_page::{Memmap, Page, PageState};
use vellum_types::{MigrateType, Order, Pfn, PfnRange};

/// The order of a pageblock, the unit in which mobility is tracked: 2 MiB. Linux's `pageblock_order`.
pub const PAGEBLOCK_ORDER: Order = match Order::new(9) {
    Some(order) => order,
    None => Order::MAX,
};

/// Descriptors and pageblocks of the machine's frames. Copies are cheap and equal.
///
/// A pageblock's mobility is changed only under the lock of the zone that holds it.
#[derive(Clone, Copy)]
pub(crate) struct Frames<'m> {
    pub(crate) memmap: Memmap<'m>,
    pageblocks: &'m [AtomicU8],
    first_pageblock: u32,
}

impl<'m> Frames<'m> {
    /// Pageblocks that `span` touches.
    pub(crate) const fn nr_pageblocks(span: PfnRange) -> usize {
        let first = span.start().as_u32() >> PAGEBLOCK_ORDER.as_u8();
        let last = (span.end().as_u32() - 1) >> PAGEBLOCK_ORDER.as_u8();
        (last - first + 1) as usize
    }

    /// # Panics
    /// If there are fewer `pageblocks` than the memmap's span touches.
    pub(crate) fn new(memmap: Memmap<'m>, pageblocks: &'m [AtomicU8]) -> Self {
        let span = memmap.span();
        assert!(pageblocks.len() >= Self::nr_pageblocks(span));
        let first_pageblock = span.start().as_u32() >> PAGEBLOCK_ORDER.as_u8();
        Self {
            memmap,
            pageblocks,
            first_pageblock,
        }
    }

    #[inline]
    pub(crate) fn page(&self, pfn: Pfn) -> &'m Page {
        self.memmap.page(pfn)
    }

    /// The order of the free block that starts at `pfn`, if one does.
    #[inline]
    pub(crate) fn free_block(&self, pfn: Pfn) -> Option<Order> {
        let page = self.memmap.try_page(pfn)?;
        (page.state() == PageState::Free).then(|| page.order())
    }

    fn pageblock(&self, pfn: Pfn) -> &'m AtomicU8 {
        let number = pfn.as_u32() >> PAGEBLOCK_ORDER.as_u8();
        &self.pageblocks[(number - self.first_pageblock) as usize]
    }

    /// The mobility of the pageblock around `pfn`.
    #[inline]
    pub(crate) fn migrate_type(&self, pfn: Pfn) -> MigrateType {
        // Relaxed here and below: the zone's lock orders.
        let raw = self.pageblock(pfn).load(Ordering::Relaxed);
        MigrateType::ALL[usize::from(raw) & (MigrateType::COUNT - 1)]
    }

    /// Sets the mobility of each pageblock that the block touches.
    pub(crate) fn set_migrate_type(&self, pfn: Pfn, order: Order, to: MigrateType) {
        let mut at = 0;
        while at < order.pages() {
            self.pageblock(pfn + at).store(to as u8, Ordering::Relaxed);
            at += PAGEBLOCK_ORDER.pages();
        }
    }

    /// The frames of the pageblock around `pfn` that have a descriptor.
    pub(crate) fn pageblock_frames(&self, pfn: Pfn) -> Option<PfnRange> {
        let start = Pfn::new(pfn.as_u32() & !(PAGEBLOCK_ORDER.pages() - 1));
        let end = start
            .checked_add(PAGEBLOCK_ORDER.pages())
            .unwrap_or(Pfn::NONE);
        PfnRange::new(start, end)?.intersect(&self.memmap.span())
    }
}

const _: () = assert!(MigrateType::COUNT.is_power_of_two());
