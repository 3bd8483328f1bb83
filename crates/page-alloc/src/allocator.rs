//! The allocator's face: checks, counters, events; the work is done by the zones.

use crate::frames::Frames;
use crate::free_area::ListEnd;
use crate::hooks::{Hook, Hooks};
use crate::inject::FailSwitch;
use crate::node::{Node, NodeInfo, Nodes, NumaEvent};
use crate::pcp::{self, CpuSet};
use crate::profile::ZoneProfile;
use crate::watermark;
use crate::zone::{Zone, ZoneInfo};
use crate::zonelist::ZoneId;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use vellum_machine::{
    Cpus, DirectMap, LockRank, SpinLock, Trace, TraceEvent, VmEvent, VmItem, VmStat,
};
use vellum_page::{AllocRequest, Memmap, Page, PageFlags, PageSource, PageState, RunTable};
use vellum_types::{
    GfpFlags, MigrateType, NodeId, Order, OutOfMemory, PAGE_SIZE, Pfn, PfnRange, ZoneType,
};

/// The page allocator of a machine. Lives in the machine's RAM; see [`PageAllocator::boot`].
pub struct PageAllocator<'m> {
    pub(crate) nodes: Nodes<'m>,
    pub(crate) frames: Frames<'m>,
    pub(crate) runs: &'m RunTable<'m>,
    pub(crate) profile: ZoneProfile,
    /// Some frames lie outside the direct map.
    zeroes_only_lowmem: bool,
    pub(crate) plugging: AtomicBool,
    pub(crate) ram: DirectMap<'m>,
    cpus: Cpus<'m>,
    /// The lists of all CPUs. Each changes its own, see `with_set`.
    pub(crate) cpu_sets: &'m [CpuSet],
    /// The lists of the first CPU.
    first_set: &'m CpuSet,
    pub(crate) vmstat: &'m VmStat,
    trace: Trace<'m>,
    pub(crate) hooks: Hooks,
    fail: FailSwitch,
    /// The order wanted from reclaim and one more; 0 if none.
    kswapd: AtomicU8,
    /// For each zone, allocations and frees on per-CPU lists that `vmstat` knows of.
    pub(crate) folded: SpinLock<[[u64; 2]; ZoneId::COUNT]>,
    min_free_kbytes: AtomicU64,
}

impl<'m> PageAllocator<'m> {
    pub(crate) fn new(
        nodes: Nodes<'m>,
        frames: Frames<'m>,
        runs: &'m RunTable<'m>,
        profile: ZoneProfile,
        ram: DirectMap<'m>,
        (cpus, cpu_sets): (Cpus<'m>, &'m [CpuSet]),
        vmstat: &'m VmStat,
        trace: Trace<'m>,
    ) -> Self {
        let hooks = Hooks::new();
        hooks.set(Hook::Trace, trace.is_on());
        hooks.set(Hook::Cpus, !cpus.is_single() || nodes.are_several());
        let memory = frames.memmap.span();
        Self {
            zeroes_only_lowmem: !ram.span().contains_range(&memory.to_phys()),
            nodes,
            frames,
            runs,
            profile,
            plugging: AtomicBool::new(false),
            ram,
            cpus,
            cpu_sets,
            first_set: &cpu_sets[0],
            vmstat,
            trace,
            hooks,
            fail: FailSwitch::off(),
            kswapd: AtomicU8::new(0),
            folded: SpinLock::new(LockRank::Zone, [[0; 2]; ZoneId::COUNT]),
            min_free_kbytes: AtomicU64::new(0),
        }
    }

    /// Zones that exist on this machine, node by node, lowest first.
    pub fn zones(&self) -> impl Iterator<Item = ZoneInfo> {
        self.present_zones().map(Zone::info)
    }

    pub(crate) fn present_zones(&self) -> impl Iterator<Item = &Zone> + Clone {
        self.nodes.zones().filter(|zone| zone.span().is_some())
    }

    /// The nodes of this machine.
    pub fn nodes(&self) -> impl Iterator<Item = NodeInfo> {
        self.fold_counters();
        self.nodes.infos()
    }

    /// The zones that an allocation of `gfp` from `node` tries, in this order. Empty if there is no
    /// such node.
    pub fn zonelist(
        &self,
        node: NodeId,
        gfp: GfpFlags,
    ) -> impl Iterator<Item = (NodeId, ZoneType)> {
        let zones = self.nodes.zone_ids(node, gfp.highest_zone());
        zones.filter_map(|id| self.nodes.zone(id).map(|zone| (zone.node, zone.zone_type)))
    }

    /// The kind of zone that holds `pfn`; `None` in a hole. Linux's `page_zonenum`.
    pub fn zone_type_of(&self, pfn: Pfn) -> Option<ZoneType> {
        self.zone_at(pfn).map(|zone| zone.zone_type)
    }

    #[inline]
    pub(crate) fn zone_at(&self, pfn: Pfn) -> Option<&'m Zone> {
        self.nodes.zone(self.frames.zone_id(pfn)?)
    }

    /// Pages that nobody uses: those of all zones, and those on the lists of all CPUs. The latter are
    /// not part of the counter `nr_free_pages`, as on Linux.
    pub fn nr_free_pages(&self) -> u64 {
        let zones = self.present_zones();
        let in_zones: u64 = zones.map(|zone| zone.lock().areas.pages()).sum();
        in_zones + self.nr_per_cpu_pages()
    }

    /// Pages that were ever given to the allocator. Linux's `totalram_pages`.
    pub fn managed_pages(&self) -> u64 {
        self.present_zones().map(|zone| zone.managed()).sum()
    }

    /// Pages of memory, those kept by boot included.
    pub fn present_pages(&self) -> u64 {
        self.present_zones().map(|zone| zone.present()).sum()
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
        low.map(|zone| zone.managed()).sum()
    }

    pub(crate) fn set_default_min_free_kbytes(&self) {
        let kbytes = self.lowmem_pages() * (PAGE_SIZE / 1024);
        self.set_min_free_kbytes(watermark::default_min_free_kbytes(kbytes));
    }

    /// Works out all that depends on how much memory each zone has.
    pub(crate) fn memory_changed(&self) {
        self.nodes.rebuild();
        self.set_min_free_kbytes(self.min_free_kbytes());
    }

    /// The node that an allocation starts from.
    #[inline]
    pub(crate) fn start_node(&self, wanted: Option<NodeId>) -> &'m Node {
        self.nodes.start(wanted, || self.cpus.local_node())
    }

    /// The sets of CPUs whose lists hold blocks of `zone`.
    pub(crate) fn sets_near(&self, zone: &Zone) -> impl Iterator<Item = &'m CpuSet> {
        let node = zone.node;
        self.cpu_sets.iter().filter(move |set| set.node == node)
    }

    /// Counts whether a block came from where it was wanted.
    #[cold]
    #[inline(never)]
    pub(crate) fn count_numa(&self, wanted: &Node, zone: &Zone, pages: u64) {
        let (how, here) = self
            .nodes
            .count(wanted, zone, self.cpus.local_node(), pages);
        for event in [how, here] {
            let event = match event {
                NumaEvent::Hit => VmEvent::NumaHit,
                NumaEvent::Miss => VmEvent::NumaMiss,
                NumaEvent::Foreign => VmEvent::NumaForeign,
                NumaEvent::Local => VmEvent::NumaLocal,
                NumaEvent::Other => VmEvent::NumaOther,
            };
            self.vmstat.count_many(event, pages);
        }
        if how == NumaEvent::Miss {
            self.vmstat.count_many(VmEvent::NumaForeign, pages);
        }
    }

    /// The highest zone that `gfp` allows: pages without an address cannot be zeroed here.
    #[inline(always)]
    pub(crate) fn highest_zone(&self, gfp: GfpFlags) -> ZoneType {
        let highest = gfp.highest_zone();
        if gfp.contains(GfpFlags::ZERO) && self.zeroes_only_lowmem {
            highest.min(ZoneType::Normal)
        } else {
            highest
        }
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
        self.hooks.set(Hook::Fail, n.is_some());
    }

    /// Asks for reclaim in the background, until `order` can be had.
    pub(crate) fn wake_kswapd(&self, order: Order) {
        // Relaxed: a hint. Two wakers may overwrite each other, and the next request wakes again.
        if self.kswapd.load(Ordering::Relaxed) < order.as_u8() + 1 {
            self.kswapd.store(order.as_u8() + 1, Ordering::Relaxed);
        }
    }

    /// The largest order for which somebody found a zone below its low mark, since the last call of
    /// [`PageAllocator::kswapd_served`]; `None` if nobody did. Linux: `wakeup_kswapd`.
    pub fn kswapd_wanted(&self) -> Option<Order> {
        Order::new(self.kswapd.load(Ordering::Relaxed).checked_sub(1)?)
    }

    /// Reclaim has done what was wanted.
    pub fn kswapd_served(&self) {
        self.kswapd.store(0, Ordering::Relaxed);
    }

    /// Takes back the block at `pfn`, which is allocated and of `order`, past this CPU's lists.
    fn give_block(&self, pfn: Pfn, page: &Page, order: Order) {
        let frames = self.frames;
        // Before the lock: the frames are the caller's alone until they are on a list.
        wipe(page);
        if self.hooks.has(Hook::Poison) {
            self.mark_poisoned(pfn, order);
        }
        let pages = u64::from(order.pages());
        self.vmstat.count_many(VmEvent::PgFree, pages);
        // Before the block can be taken again, so that the counter never drops below zero.
        self.vmstat.add(VmItem::NrFreePages, pages);
        let zone = self.zone_of(pfn);
        zone.lock().areas.give(frames, pfn, order, ListEnd::Head);
    }

    /// Tails are left as they were found, so that nothing need be done to them; an owner that uses them
    /// says so.
    #[inline]
    fn check_tails(&self, pfn: Pfn, page: &Page, order: Order) {
        if page.state() == PageState::Slab || page.flags().contains(PageFlags::HEAD) {
            self.wipe_tails(pfn, order);
        }
        debug_assert!(
            (1..order.pages()).all(|at| is_clean_tail(self.frames.page(pfn + at))),
            "the owner of {pfn:?} left something in its tails and did not set HEAD"
        );
    }

    fn wipe_tails(&self, pfn: Pfn, order: Order) {
        for at in 1..order.pages() {
            let page = self.frames.page(pfn + at);
            wipe(page);
            page.set_owner(0);
            page.set_state(PageState::Tail);
        }
    }

    /// Everything that is not the common case of an allocation.
    #[inline(never)]
    fn alloc_slow(&self, request: AllocRequest) -> Result<Pfn, OutOfMemory> {
        self.alloc_from(request, None)
    }

    /// As `alloc_slow`, from `node` by preference.
    fn alloc_from(&self, request: AllocRequest, node: Option<NodeId>) -> Result<Pfn, OutOfMemory> {
        let AllocRequest { order, gfp } = request;
        if self.hooks.plain()
            && node.is_none()
            && !gfp.contains(GfpFlags::ZERO)
            && let Some(pfn) = self.with_set(|own| own.pop_order(self.frames, gfp, order))
        {
            return Ok(pfn);
        }
        if self.fail.trips() {
            return Err(OutOfMemory);
        }
        let pfn = self.take(order, gfp, node).ok_or(OutOfMemory)?;
        if let Some(range) = PfnRange::from_len(pfn, order.pages()) {
            self.check_poison(range);
        }
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

    /// Everything that is not the common case of a free.
    #[inline(never)]
    fn free_slow(&self, pfn: Pfn) {
        let (page, order) = self.allocated(pfn);
        self.trace.emit(TraceEvent::MmPageFree { pfn, order });
        if order != Order::ZERO {
            self.check_tails(pfn, page, order);
        }
        if self.hooks.has(Hook::Poison) {
            self.poison(pfn, order);
        } else if self.keep(pfn, page, order) {
            return;
        }
        self.give_block(pfn, page, order);
    }

    /// Calls `f` with the lists of this CPU, which nobody else changes meanwhile.
    #[inline(always)]
    pub(crate) fn with_set<R>(&self, f: impl FnOnce(&CpuSet) -> R) -> R {
        let pin = self.cpus.pin();
        f(&self.cpu_sets[usize::from(pin.cpu().0)])
    }

    /// True if `pfn` belongs to the node whose blocks a CPU keeps: others go back there at once.
    #[inline(always)]
    pub(crate) fn is_near(&self, own: &CpuSet, pfn: Pfn) -> bool {
        !self.nodes.are_several() || self.frames.zone_id(pfn).map(ZoneId::node) == Some(own.node)
    }

    /// Puts a block on this CPU's lists. False if it must go to its zone at once.
    #[inline]
    fn keep(&self, pfn: Pfn, page: &Page, order: Order) -> bool {
        let list = pcp::list_of_order(usize::from(self.frames.list_of(pfn)), order);
        if list >= pcp::LISTS {
            return false;
        }
        let relieve = self.with_set(|own| {
            let near = self.is_near(own, pfn);
            near.then(|| own.push(self.frames, page, pfn, list, order))
        });
        if relieve == Some(true) {
            self.relieve(list);
        }
        relieve.is_some()
    }

    /// As `alloc_slow`, for a block that is not a single page, when nothing is switched on.
    #[inline(never)]
    fn alloc_large(&self, request: AllocRequest) -> Result<Pfn, OutOfMemory> {
        let AllocRequest { order, gfp } = request;
        if !gfp.contains(GfpFlags::ZERO)
            && self.hooks.none()
            && let Some(pfn) = self.first_set.pop_order(self.frames, gfp, order)
        {
            return Ok(pfn);
        }
        self.alloc_slow(request)
    }

    /// A single page that follows the one freed before.
    #[inline(never)]
    fn free_run(&self, pfn: Pfn, page: &Page, list: usize) {
        if self
            .first_set
            .push(self.frames, page, pfn, list, Order::ZERO)
        {
            self.relieve(list);
        }
    }

    /// As `free_slow`, the same way.
    #[inline(never)]
    fn free_large(&self, pfn: Pfn, page: &Page) {
        if self.hooks.none()
            && let Ok(order) = page.allocated_order()
        {
            let list = pcp::list_of_order(usize::from(self.frames.list_of(pfn)), order);
            if list < pcp::LISTS {
                self.check_tails(pfn, page, order);
                if self.first_set.push(self.frames, page, pfn, list, order) {
                    self.relieve(list);
                }
                return;
            }
        }
        self.free_slow(pfn);
    }

    /// The order of the allocated block at `pfn`.
    fn allocated(&self, pfn: Pfn) -> (&'m Page, Order) {
        let Some(page) = self.frames.memmap.try_page(pfn) else {
            not_allocated(pfn, None)
        };
        match page.allocated_order() {
            Ok(order) => (page, order),
            Err(state) => not_allocated(pfn, Some(state)),
        }
    }

    /// The number of a zone among all of the machine.
    #[inline(always)]
    pub(crate) fn zone_index(&self, zone: &Zone) -> usize {
        zone.id().index()
    }

    /// The zone of a frame that is memory.
    #[inline(always)]
    pub(crate) fn zone_of(&self, pfn: Pfn) -> &'m Zone {
        match self.zone_at(pfn) {
            Some(zone) => zone,
            None => not_allocated(pfn, None),
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
        if order != Order::ZERO {
            return self.alloc_large(request);
        }
        if !gfp.contains(GfpFlags::ZERO)
            && self.hooks.none()
            && let Some(pfn) = self.first_set.pop(self.frames, gfp)
        {
            return Ok(pfn);
        }
        self.alloc_slow(request)
    }

    #[inline]
    fn free_pages(&self, pfn: Pfn) {
        let Some(page) = self.frames.memmap.try_page(pfn) else {
            return self.free_slow(pfn);
        };
        if !page.is_single() {
            return self.free_large(pfn, page);
        }
        let list = usize::from(self.frames.list_of(pfn));
        if self.hooks.any() || list >= pcp::PER_ORDER {
            return self.free_slow(pfn);
        }
        if !self.first_set.is_simple(pfn, list) {
            return self.free_run(pfn, page, list);
        }
        if self.first_set.push_simple(page, pfn, list) {
            self.relieve(list);
        }
    }

    fn alloc_pages_bulk(&self, gfp: GfpFlags, out: &mut [Pfn]) -> usize {
        let mut got = 0;
        if self.hooks.plain() && !gfp.contains(GfpFlags::ZERO) {
            got = self.take_bulk(gfp, out);
        }
        // Below the low marks, and whatever is switched on: one by one.
        let order = Order::ZERO;
        while let Some(slot) = out.get_mut(got)
            && let Ok(pfn) = self.alloc_slow(AllocRequest { order, gfp })
        {
            *slot = pfn;
            got += 1;
        }
        got
    }

    fn free_pages_bulk(&self, blocks: &[Pfn]) {
        let mut rest = blocks;
        while !rest.is_empty() {
            if self.hooks.plain() {
                rest = &rest[self.give_bulk(rest)..];
            }
            if let Some((pfn, behind)) = rest.split_first() {
                self.free_pages(*pfn);
                rest = behind;
            }
        }
    }

    fn split_page(&self, pfn: Pfn) {
        let (_, order) = self.allocated(pfn);
        for at in 0..order.pages() {
            let page = self.frames.page(pfn + at);
            page.set_refcount(1);
            page.set_state_order(PageState::Allocated, Order::ZERO);
        }
    }

    fn alloc_pages_node(&self, request: AllocRequest, node: NodeId) -> Result<Pfn, OutOfMemory> {
        self.alloc_from(request, Some(node))
    }

    fn node_of(&self, pfn: Pfn) -> NodeId {
        self.zone_at(pfn).map_or(NodeId(0), |zone| zone.node)
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

/// True if a frame inside a block is as every owner must leave it.
fn is_clean_tail(page: &Page) -> bool {
    page.state() == PageState::Tail
        && (page.refcount(), page.mapcount(), page.owner(), page.index()) == (0, 0, 0, 0)
}

pub(crate) const fn alloc_event(zone_type: ZoneType) -> VmEvent {
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
