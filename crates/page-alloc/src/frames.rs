//! What the buddy system knows about frames: their descriptors and the mobility of their pageblocks.

use crate::pcp::{NO_LIST, TYPES};
use crate::zonelist::ZoneId;
use core::sync::atomic::{AtomicU32, Ordering};
pub use vellum_page::PAGEBLOCK_ORDER;
use vellum_page::{Memmap, Page, PageState};
use vellum_types::{MigrateType, Order, Pfn, PfnRange};

/// What is known of a pageblock: four bytes in one word.
///
/// ```text
///   31      24 23      16 15       8 7        0
///   list      | zone     | isolated | mobility
/// ```
/// *Mobility* stays while a pageblock is isolated, to come back to. *Zone* is the [`ZoneId`] of
/// all its frames. *List* is the list for its pages of a CPU of the same node, or [`NO_LIST`].
struct Word;

impl Word {
    const fn of(mobility: u8, isolated: bool, zone: u8) -> u32 {
        let kept = mobility < TYPES as u8 && !isolated && zone != ZoneId::NONE.raw();
        let list = if kept {
            ZoneId::from_raw(zone).kind() * TYPES as u8 + mobility
        } else {
            NO_LIST
        };
        u32::from_be_bytes([list, zone, isolated as u8, mobility])
    }
}

/// Which lists the free blocks of a pageblock are on: those of its mobility, or, while it is isolated,
/// lists from which nothing is allocated. Linux's `MIGRATE_ISOLATE`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Kind(u8);

impl Kind {
    pub(crate) const ISOLATED: Self = Self(MigrateType::COUNT as u8);
    pub(crate) const COUNT: usize = MigrateType::COUNT + 1;

    pub(crate) const fn of(migrate_type: MigrateType) -> Self {
        Self(migrate_type as u8)
    }

    /// From the owner word of a free block.
    #[inline]
    pub(crate) fn from_raw(raw: u32) -> Self {
        Self((raw as u8).min(Self::ISOLATED.0))
    }

    pub(crate) const fn raw(self) -> u32 {
        self.0 as u32
    }

    #[inline]
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT as u8).map(Self)
    }

    /// Free blocks of this kind merge only with their own. Linux: not `migratetype_is_mergeable`.
    pub(crate) fn keeps_apart(self) -> bool {
        self == Self::ISOLATED || self == Self::of(MigrateType::HighAtomic)
    }
}

/// Descriptors and pageblocks of the machine's frames. Copies are cheap and equal.
///
/// A pageblock's mobility is changed only under the lock of the zone that holds it.
#[derive(Clone, Copy)]
pub(crate) struct Frames<'m> {
    pub(crate) memmap: Memmap<'m>,
}

impl<'m> Frames<'m> {
    pub(crate) const fn new(memmap: Memmap<'m>) -> Self {
        Self { memmap }
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

    #[inline]
    fn pageblock(&self, pfn: Pfn) -> &'m AtomicU32 {
        match self.memmap.pageblock(pfn) {
            Some(block) => &block.0,
            None => no_pageblock(pfn),
        }
    }

    /// The per-CPU list for a page, or [`NO_LIST`].
    #[inline(always)]
    pub(crate) fn list_of(&self, pfn: Pfn) -> u8 {
        // Relaxed here and below: the zone's lock orders, and a page on a list of its old mobility
        // does no harm.
        match self.memmap.pageblock(pfn) {
            Some(block) => (block.0.load(Ordering::Relaxed) >> 24) as u8,
            None => NO_LIST,
        }
    }

    /// As `list_of`, of the largest run alone; [`NO_LIST`] elsewhere.
    #[inline(always)]
    pub(crate) fn quick_list_of(&self, pfn: Pfn) -> u8 {
        match self.memmap.pageblock_in_largest_run(pfn) {
            Some(block) => (block.0.load(Ordering::Relaxed) >> 24) as u8,
            None => NO_LIST,
        }
    }

    /// The zone that holds `pfn`, or `None` in a hole.
    #[inline]
    pub(crate) fn zone_id(&self, pfn: Pfn) -> Option<ZoneId> {
        let word = self.memmap.pageblock(pfn)?.0.load(Ordering::Relaxed);
        Some(ZoneId::from_raw((word >> 16) as u8))
    }

    /// The mobility of the pageblock around `pfn`.
    #[inline]
    pub(crate) fn migrate_type(&self, pfn: Pfn) -> MigrateType {
        let raw = self.pageblock(pfn).load(Ordering::Relaxed);
        MigrateType::ALL[raw as usize & (MigrateType::COUNT - 1)]
    }

    /// Which lists the free blocks around `pfn` are on.
    #[inline]
    pub(crate) fn kind(&self, pfn: Pfn) -> Kind {
        let [_, _, isolated, mobility] = self.pageblock(pfn).load(Ordering::Relaxed).to_be_bytes();
        if isolated != 0 {
            Kind::ISOLATED
        } else {
            Kind(mobility)
        }
    }

    fn change(&self, pfn: Pfn, f: impl FnOnce(u8, bool, u8) -> u32) {
        let word = self.pageblock(pfn);
        let [_, zone, isolated, mobility] = word.load(Ordering::Relaxed).to_be_bytes();
        word.store(f(mobility, isolated != 0, zone), Ordering::Relaxed);
    }

    /// Isolates the pageblock around `pfn`, or undoes that. Its mobility is remembered.
    pub(crate) fn set_isolated(&self, pfn: Pfn, on: bool) {
        self.change(pfn, |mobility, _, zone| Word::of(mobility, on, zone));
    }

    /// Notes the zone of the pageblock around `pfn`, all of whose frames are in it.
    pub(crate) fn set_zone_id(&self, pfn: Pfn, zone: ZoneId) {
        let zone = zone.raw();
        self.change(pfn, |mobility, isolated, _| {
            Word::of(mobility, isolated, zone)
        });
    }

    /// Sets the mobility of each pageblock that the block touches.
    pub(crate) fn set_migrate_type(&self, pfn: Pfn, order: Order, to: MigrateType) {
        let mut at = 0;
        while at < order.pages() {
            self.change(pfn + at, |_, isolated, zone| {
                Word::of(to as u8, isolated, zone)
            });
            at += PAGEBLOCK_ORDER.pages();
        }
    }

    /// The frames of the pageblock around `pfn` that have a descriptor.
    pub(crate) fn pageblock_frames(&self, pfn: Pfn) -> Option<PfnRange> {
        let start = Pfn::new(pfn.as_u32() & !(PAGEBLOCK_ORDER.pages() - 1));
        let end = start
            .checked_add(PAGEBLOCK_ORDER.pages())
            .unwrap_or(Pfn::NONE);
        PfnRange::new(start, end)?.intersect(&self.memmap.run_around(pfn)?)
    }
}

#[cold]
#[inline(never)]
fn no_pageblock(pfn: Pfn) -> ! {
    panic!("{pfn:?} is not memory")
}

const _: () = assert!(MigrateType::COUNT.is_power_of_two());
