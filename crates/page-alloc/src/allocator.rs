//! The allocator's face: checks, counters, events; the work is done by the zones.

use crate::frames::Frames;
use crate::free_area::ListEnd;
use crate::inject::FailSwitch;
use crate::node::Node;
use crate::watermark::{self, Level, Reserves};
use crate::zone::{Zone, ZoneInfo};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use vellum_machine::{DirectMap, Trace, TraceEvent, VmEvent, VmItem, VmStat};
use vellum_page::{AllocRequest, Memmap, Page, PageSource, PageState};
use vellum_types::{GfpFlags, MigrateType, Order, OutOfMemory, PAGE_SIZE, Pfn, ZoneType};

/// What freed pages are filled with when [`PageAllocator::set_poison`] is on. Linux's `PAGE_POISON`.
pub const PAGE_POISON: u8 = 0xaa;

/// The page allocator of a machine. Lives in the machine's RAM; see [`PageAllocator::boot`].
pub struct PageAllocator<'m> {
    node: Node,
    pub(crate) frames: Frames<'m>,
    ram: DirectMap<'m>,
    pub(crate) vmstat: &'m VmStat,
    trace: Trace<'m>,
    fail: FailSwitch,
    poison: AtomicBool,
    min_free_kbytes: AtomicU64,
}

impl<'m> PageAllocator<'m> {
    pub(crate) const fn new(
        node: Node,
        frames: Frames<'m>,
        ram: DirectMap<'m>,
        vmstat: &'m VmStat,
        trace: Trace<'m>,
    ) -> Self {
        Self {
            node,
            frames,
            ram,
            vmstat,
            trace,
            fail: FailSwitch::off(),
            poison: AtomicBool::new(false),
            min_free_kbytes: AtomicU64::new(0),
        }
    }

    /// Zones that exist on this machine, lowest first.
    pub fn zones(&self) -> impl Iterator<Item = ZoneInfo> {
        self.present_zones().map(Zone::info)
    }

    pub(crate) fn present_zones(&self) -> impl Iterator<Item = &Zone> + Clone {
        self.node.zones().filter(|zone| zone.span.is_some())
    }

    /// Free pages of all zones.
    pub fn nr_free_pages(&self) -> u64 {
        self.present_zones()
            .map(|zone| zone.lock().areas.pages())
            .sum()
    }

    /// Pages that were ever given to the allocator. Linux's `totalram_pages`.
    pub fn managed_pages(&self) -> u64 {
        self.present_zones().map(|zone| zone.managed).sum()
    }

    /// Pages of memory, those kept by boot included.
    pub fn present_pages(&self) -> u64 {
        self.present_zones().map(|zone| zone.present).sum()
    }

    /// The mobility of the 2 MiB pageblock around `pfn`.
    ///
    /// # Panics
    /// If `pfn` is outside the memmap.
    pub fn pageblock_migrate_type(&self, pfn: Pfn) -> MigrateType {
        assert!(
            self.frames.memmap.try_page(pfn).is_some(),
            "{pfn:?} is not memory"
        );
        self.frames.migrate_type(pfn)
    }

    /// Pages of the zones that the kernel can use without tricks.
    fn lowmem_pages(&self) -> u64 {
        let low = self
            .present_zones()
            .filter(|zone| zone.zone_type <= ZoneType::Normal);
        low.map(|zone| zone.managed).sum()
    }

    pub(crate) fn set_default_min_free_kbytes(&self) {
        let kbytes = self.lowmem_pages() * (PAGE_SIZE / 1024);
        self.set_min_free_kbytes(watermark::default_min_free_kbytes(kbytes));
    }

    /// `vm.min_free_kbytes`: kilobytes that the sum of all zones' `min` marks stands for.
    pub fn min_free_kbytes(&self) -> u64 {
        self.min_free_kbytes.load(Ordering::Relaxed)
    }

    /// Sets `vm.min_free_kbytes` and works out the watermarks anew.
    pub fn set_min_free_kbytes(&self, kbytes: u64) {
        // Relaxed: for the reader's eyes; the marks themselves are under the zones' locks.
        self.min_free_kbytes.store(kbytes, Ordering::Relaxed);
        let (pages, lowmem) = (kbytes / (PAGE_SIZE / 1024), self.lowmem_pages());
        for zone in self.present_zones() {
            zone.set_watermarks(pages, lowmem);
        }
    }

    /// For tests: after `n` more successes every allocation fails, until called with `None`.
    pub fn fail_after(&self, n: Option<u64>) {
        self.fail.set(n);
    }

    /// For debugging: fill pages with [`PAGE_POISON`] as they are freed, so that use after free
    /// shows. Linux's `page_poison=1`.
    pub fn set_poison(&self, on: bool) {
        self.poison.store(on, Ordering::Relaxed);
    }

    /// Takes a block from the first zone that may and can give one.
    #[inline(always)]
    fn take_block(&self, order: Order, gfp: GfpFlags) -> Option<Pfn> {
        self.take_above(Level::Low, order, gfp)
            .or_else(|| cold_path(|| self.take_above(Level::Min, order, gfp)))
    }

    #[inline(always)]
    fn take_above(&self, level: Level, order: Order, gfp: GfpFlags) -> Option<Pfn> {
        let highest = gfp.highest_zone();
        let migrate_type = gfp.migrate_type();
        let reserves = Reserves::of(gfp);
        let frames = self.frames;
        for zone in self.node.zonelist(highest) {
            let mut state = zone.lock();
            let reserve = zone.lowmem_reserve[highest.index()];
            let free = state.areas.pages();
            if !watermark::allows(&state.marks, level, reserves, reserve, free, order) {
                continue;
            }
            let Some(pfn) = state.areas.take(frames, order, migrate_type) else {
                continue;
            };
            // Still under the lock: nobody may see a Free page that is on no list.
            let page = frames.page(pfn);
            page.set_owner(0);
            page.set_refcount(1);
            page.set_state_order(PageState::Allocated, order);
            drop(state);
            self.vmstat
                .count_many(alloc_event(zone.zone_type), u64::from(order.pages()));
            self.vmstat
                .sub(VmItem::NrFreePages, u64::from(order.pages()));
            return Some(pfn);
        }
        None
    }

    /// As `take_block`; kept out of line so that the path for single pages stays short.
    #[inline(never)]
    fn take_large(&self, order: Order, gfp: GfpFlags) -> Option<Pfn> {
        self.take_block(order, gfp)
    }

    /// Takes back the block at `pfn`, which is allocated and of `order`.
    #[inline(always)]
    fn give_block(&self, pfn: Pfn, order: Order) {
        let frames = self.frames;
        if self.poison.load(Ordering::Relaxed) {
            self.ram.fill_pages(pfn, order.pages(), PAGE_POISON);
        }
        // Before the lock: the frames are the caller's alone until they are on a list.
        wipe(frames.page(pfn));
        for at in 1..order.pages() {
            let page = frames.page(pfn + at);
            wipe(page);
            page.set_owner(0);
            page.set_state(PageState::Tail);
        }
        self.vmstat
            .count_many(VmEvent::PgFree, u64::from(order.pages()));
        // Before the block can be taken again, so that the counter never drops below zero.
        self.vmstat
            .add(VmItem::NrFreePages, u64::from(order.pages()));
        let zone = self.node.zone_of(pfn);
        zone.lock().areas.give(frames, pfn, order, ListEnd::Head);
    }

    /// As `give_block`; kept out of line so that the path for single pages stays short.
    #[inline(never)]
    fn give_large(&self, pfn: Pfn, order: Order) {
        self.give_block(pfn, order);
    }

    /// The order of the allocated block at `pfn`.
    #[inline]
    fn allocated_order(&self, pfn: Pfn) -> Order {
        let Some(page) = self.frames.memmap.try_page(pfn) else {
            not_allocated(pfn, None)
        };
        match page.state() {
            state @ (PageState::Reserved
            | PageState::Free
            | PageState::PerCpu
            | PageState::Tail) => not_allocated(pfn, Some(state)),
            _ => page.order(),
        }
    }
}

impl core::fmt::Debug for PageAllocator<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (free, managed) = (self.nr_free_pages(), self.managed_pages());
        write!(f, "PageAllocator({free} of {managed} pages free)")
    }
}

impl PageSource for PageAllocator<'_> {
    #[inline]
    fn alloc_pages(&self, request: AllocRequest) -> Result<Pfn, OutOfMemory> {
        let AllocRequest { order, gfp } = request;
        if self.fail.trips() {
            return Err(OutOfMemory);
        }
        let pfn = if order == Order::ZERO {
            self.take_block(Order::ZERO, gfp)
        } else {
            self.take_large(order, gfp)
        }
        .ok_or(OutOfMemory)?;
        if gfp.contains(GfpFlags::ZERO) {
            self.ram.fill_pages(pfn, order.pages(), 0);
        }
        let migrate_type = gfp.migrate_type();
        self.trace.emit(TraceEvent::MmPageAlloc {
            pfn,
            order,
            gfp,
            migrate_type,
        });
        Ok(pfn)
    }

    #[inline]
    fn free_pages(&self, pfn: Pfn) {
        let order = self.allocated_order(pfn);
        self.trace.emit(TraceEvent::MmPageFree { pfn, order });
        if order == Order::ZERO {
            self.give_block(pfn, Order::ZERO);
        } else {
            self.give_large(pfn, order);
        }
    }

    fn split_page(&self, pfn: Pfn) {
        let order = self.allocated_order(pfn);
        for at in 0..order.pages() {
            let page = self.frames.page(pfn + at);
            page.set_refcount(1);
            page.set_state_order(PageState::Allocated, Order::ZERO);
        }
    }

    fn memmap(&self) -> Memmap<'_> {
        self.frames.memmap
    }

    fn ram(&self) -> DirectMap<'_> {
        self.ram
    }
}

/// Clears what an owner wrote into a descriptor, all but state and owner word.
#[inline]
fn wipe(page: &Page) {
    page.set_refcount(0);
    page.set_mapcount(0);
    page.set_index(0);
}

/// Calls `f` in a way that tells the compiler how seldom this happens.
#[cold]
#[inline(never)]
fn cold_path<T>(f: impl FnOnce() -> T) -> T {
    f()
}

const fn alloc_event(zone_type: ZoneType) -> VmEvent {
    match zone_type {
        ZoneType::Dma => VmEvent::PgAllocDma,
        ZoneType::Dma32 => VmEvent::PgAllocDma32,
        ZoneType::Normal => VmEvent::PgAllocNormal,
        ZoneType::HighMem => VmEvent::PgAllocHigh,
        ZoneType::Movable => VmEvent::PgAllocMovable,
    }
}

#[cold]
#[inline(never)]
fn not_allocated(pfn: Pfn, state: Option<PageState>) -> ! {
    match state {
        Some(PageState::Free | PageState::PerCpu) => panic!("double free of {pfn:?}"),
        Some(PageState::Tail) => panic!("{pfn:?} does not start a block: double or wrong free"),
        Some(state) => panic!("wrong free of {pfn:?}: it is {state:?}"),
        None => panic!("wrong free of {pfn:?}: not memory"),
    }
}
