//! A zone: frames of like reach, with their own lock, lists and watermarks.

use crate::frames::Kind;
use crate::free_area::FreeAreas;
use crate::watermark::{self, Watermarks};
use vellum_machine::{LockRank, SpinGuard, SpinLock};
use vellum_types::{MigrateType, Order, Pfn, PfnRange, ZoneType};

/// Frames below this are ZONE_DMA: 16 MiB, what an ISA device reaches.
const DMA_END: Pfn = Pfn::new(16 << 8);
/// Frames below this are ZONE_DMA32: 4 GiB, what a 32-bit device reaches.
const DMA32_END: Pfn = Pfn::new(4 << 18);

// A block never crosses a zone boundary, so that one lock is enough to merge.
const _: () = assert!(Order::MAX.is_aligned(DMA_END) && Order::MAX.is_aligned(DMA32_END));

/// The zone of a frame. HighMem and Movable are absent: all RAM is in the direct map.
#[inline]
pub(crate) fn zone_type_of(pfn: Pfn) -> ZoneType {
    if pfn >= DMA32_END {
        ZoneType::Normal
    } else if pfn >= DMA_END {
        ZoneType::Dma32
    } else {
        ZoneType::Dma
    }
}

/// The frames that a zone may hold.
fn reach(zone_type: ZoneType) -> Option<PfnRange> {
    match zone_type {
        ZoneType::Dma => PfnRange::new(Pfn::ZERO, DMA_END),
        ZoneType::Dma32 => PfnRange::new(DMA_END, DMA32_END),
        ZoneType::Normal => PfnRange::new(DMA32_END, Pfn::NONE),
        ZoneType::HighMem | ZoneType::Movable => None,
    }
}

/// What a zone's lock protects.
pub(crate) struct ZoneState {
    pub(crate) areas: FreeAreas,
    pub(crate) marks: Watermarks,
}

/// `struct zone`. All but `state` is constant after boot.
pub(crate) struct Zone {
    pub(crate) zone_type: ZoneType,
    /// From the first frame of memory to the last, holes included; `None` if the zone is absent.
    pub(crate) span: Option<PfnRange>,
    /// Frames that are memory.
    pub(crate) present: u64,
    /// Frames that were given to the buddy system.
    pub(crate) managed: u64,
    /// Pages that an allocation leaves here, by the highest zone that it could use.
    pub(crate) lowmem_reserve: [u64; ZoneType::COUNT],
    state: SpinLock<ZoneState>,
}

impl Zone {
    pub(crate) const fn new(zone_type: ZoneType) -> Self {
        let marks = Watermarks {
            min: 0,
            low: 0,
            high: 0,
        };
        let state = ZoneState {
            areas: FreeAreas::EMPTY,
            marks,
        };
        Self {
            zone_type,
            span: None,
            present: 0,
            managed: 0,
            lowmem_reserve: [0; ZoneType::COUNT],
            state: SpinLock::new(LockRank::Zone, state),
        }
    }

    /// Counts the frames of `memory` that belong to this zone, before anything is freed into it.
    pub(crate) fn add_present(&mut self, memory: PfnRange) {
        let Some(here) = reach(self.zone_type).and_then(|reach| reach.intersect(&memory)) else {
            return;
        };
        self.present += u64::from(here.len());
        let start = self
            .span
            .map_or(here.start(), |span| span.start().min(here.start()));
        let end = self
            .span
            .map_or(here.end(), |span| span.end().max(here.end()));
        self.span = PfnRange::new(start, end);
    }

    #[inline]
    pub(crate) fn lock(&self) -> SpinGuard<'_, ZoneState> {
        self.state.lock()
    }

    /// As `lock`, for a zone that nobody else can reach yet.
    pub(crate) fn state_mut(&mut self) -> &mut ZoneState {
        self.state.get_mut()
    }

    pub(crate) fn set_watermarks(&self, min_free_pages: u64, lowmem_pages: u64) {
        self.lock().marks = Watermarks::new(min_free_pages, self.managed, lowmem_pages);
    }

    pub(crate) fn set_lowmem_reserve(&mut self, managed: &[u64; ZoneType::COUNT]) {
        self.lowmem_reserve = watermark::lowmem_reserves(self.zone_type, managed);
    }

    /// A snapshot.
    pub(crate) fn info(&self) -> ZoneInfo {
        let state = self.lock();
        let mut free_by_type = [[0; Order::COUNT]; MigrateType::COUNT];
        let mut free_area = [0; Order::COUNT];
        for order in Order::all() {
            for migrate_type in MigrateType::ALL {
                let blocks = u64::from(state.areas.list(order, Kind::of(migrate_type)).count);
                free_by_type[migrate_type.index()][order.index()] = blocks;
                free_area[order.index()] += blocks;
            }
        }
        ZoneInfo {
            zone_type: self.zone_type,
            name: self.zone_type.name(),
            start: self.span.map_or(Pfn::ZERO, |span| span.start()),
            spanned: self.span.map_or(0, |span| u64::from(span.len())),
            present: self.present,
            managed: self.managed,
            free: state.areas.pages(),
            min: state.marks.min,
            low: state.marks.low,
            high: state.marks.high,
            lowmem_reserve: self.lowmem_reserve,
            free_area,
            free_by_type,
        }
    }
}

/// What `/proc/zoneinfo`, `buddyinfo` and `pagetypeinfo` tell about a zone. Counts are pages unless
/// stated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ZoneInfo {
    /// Which zone.
    pub zone_type: ZoneType,
    /// Linux's name of it.
    pub name: &'static str,
    /// The first frame of memory; zero if the zone is absent.
    pub start: Pfn,
    /// From the first frame of memory to the last, holes included.
    pub spanned: u64,
    /// Frames that are memory.
    pub present: u64,
    /// Frames that the buddy system was given.
    pub managed: u64,
    /// Free now.
    pub free: u64,
    /// See [`Watermarks::min`].
    pub min: u64,
    /// See [`Watermarks::low`].
    pub low: u64,
    /// See [`Watermarks::high`].
    pub high: u64,
    /// Pages that an allocation must leave here, by the highest zone that it could use. Linux's
    /// `protection`.
    pub lowmem_reserve: [u64; ZoneType::COUNT],
    /// Free blocks of each order.
    pub free_area: [u64; Order::COUNT],
    /// Free blocks of each mobility and order.
    pub free_by_type: [[u64; Order::COUNT]; MigrateType::COUNT],
}
