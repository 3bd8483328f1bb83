//! A zone: frames of like reach, with their own lock, lists and watermarks.

use crate::frames::Kind;
use crate::free_area::FreeAreas;
use crate::watermark::{self, Watermarks};
use crate::zonelist::ZoneId;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use vellum_machine::{LockRank, SpinGuard, SpinLock};
use vellum_types::{MigrateType, NodeId, Order, Pfn, PfnRange, ZoneType};

/// What a zone's lock protects.
pub(crate) struct ZoneState {
    pub(crate) areas: FreeAreas,
    pub(crate) marks: Watermarks,
}

/// `struct zone`. The numbers change at boot and when memory is added or removed; they are Relaxed,
/// since each stands for itself.
pub(crate) struct Zone {
    pub(crate) node: NodeId,
    pub(crate) zone_type: ZoneType,
    /// From the first frame of memory to the last, holes included; both zero if there never was any.
    start: AtomicU32,
    end: AtomicU32,
    /// Frames that are memory.
    present: AtomicU64,
    /// Frames that were given to the buddy system.
    managed: AtomicU64,
    /// Pages that an allocation leaves here, by the highest zone that it could use.
    lowmem_reserve: [AtomicU64; ZoneType::COUNT],
    state: SpinLock<ZoneState>,
}

impl Zone {
    pub(crate) const fn new(node: NodeId, zone_type: ZoneType) -> Self {
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
            node,
            zone_type,
            start: AtomicU32::new(0),
            end: AtomicU32::new(0),
            present: AtomicU64::new(0),
            managed: AtomicU64::new(0),
            lowmem_reserve: [const { AtomicU64::new(0) }; ZoneType::COUNT],
            state: SpinLock::new(LockRank::Zone, state),
        }
    }

    pub(crate) const fn id(&self) -> ZoneId {
        ZoneId::new(self.node, self.zone_type)
    }

    pub(crate) fn span(&self) -> Option<PfnRange> {
        let start = Pfn::new(self.start.load(Ordering::Relaxed));
        PfnRange::new(start, Pfn::new(self.end.load(Ordering::Relaxed)))
    }

    pub(crate) fn present(&self) -> u64 {
        self.present.load(Ordering::Relaxed)
    }

    pub(crate) fn managed(&self) -> u64 {
        self.managed.load(Ordering::Relaxed)
    }

    /// The pages that an allocation which could have used zone `highest` must leave.
    #[inline]
    pub(crate) fn reserve_against(&self, highest: ZoneType) -> u64 {
        self.lowmem_reserve[highest.index()].load(Ordering::Relaxed)
    }

    /// Counts frames of this zone that are memory.
    pub(crate) fn add_present(&self, memory: PfnRange) {
        let old = self.span().unwrap_or(memory);
        let (start, end) = (old.start().min(memory.start()), old.end().max(memory.end()));
        self.start.store(start.as_u32(), Ordering::Relaxed);
        self.end.store(end.as_u32(), Ordering::Relaxed);
        self.present
            .fetch_add(u64::from(memory.len()), Ordering::Relaxed);
    }

    /// Counts out frames that are memory no more. The span shrinks if they are at an end of it.
    pub(crate) fn remove_present(&self, memory: PfnRange) {
        self.present
            .fetch_sub(u64::from(memory.len()), Ordering::Relaxed);
        let Some(span) = self.span() else { return };
        if memory.end() == span.end() {
            let end = memory.start().max(span.start());
            self.end.store(end.as_u32(), Ordering::Relaxed);
        } else if memory.start() == span.start() {
            self.start.store(memory.end().as_u32(), Ordering::Relaxed);
        }
    }

    /// So many pages were given to the buddy system.
    pub(crate) fn add_managed(&self, pages: u64) {
        self.managed.fetch_add(pages, Ordering::Relaxed);
    }

    /// So many pages were taken from the buddy system for good.
    pub(crate) fn remove_managed(&self, pages: u64) {
        self.managed.fetch_sub(pages, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn lock(&self) -> SpinGuard<'_, ZoneState> {
        self.state.lock()
    }

    pub(crate) fn set_watermarks(&self, min_free_pages: u64, lowmem_pages: u64) {
        let managed = self.managed();
        self.lock().marks = match self.zone_type {
            ZoneType::HighMem | ZoneType::Movable => Watermarks::of_highmem(managed),
            _ => Watermarks::new(min_free_pages, managed, lowmem_pages),
        };
    }

    pub(crate) fn set_lowmem_reserve(&self, managed: &[u64; ZoneType::COUNT]) {
        let reserves = watermark::lowmem_reserves(self.zone_type, managed);
        for (slot, reserve) in self.lowmem_reserve.iter().zip(reserves) {
            slot.store(reserve, Ordering::Relaxed);
        }
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
        let span = self.span();
        ZoneInfo {
            node: self.node,
            zone_type: self.zone_type,
            name: self.zone_type.name(),
            start: span.map_or(Pfn::ZERO, |span| span.start()),
            spanned: span.map_or(0, |span| u64::from(span.len())),
            present: self.present(),
            managed: self.managed(),
            free: state.areas.pages(),
            min: state.marks.min,
            low: state.marks.low,
            high: state.marks.high,
            lowmem_reserve: ZoneType::ALL.map(|highest| self.reserve_against(highest)),
            free_area,
            free_by_type,
        }
    }
}

/// What `/proc/zoneinfo`, `buddyinfo` and `pagetypeinfo` tell about a zone. Counts are pages unless
/// stated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ZoneInfo {
    /// Of which node.
    pub node: NodeId,
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
