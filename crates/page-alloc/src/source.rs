//! Allocating and freeing: the common case first, then what is switched on, then the zones.

use crate::allocator::{PageAllocator, not_allocated};
use crate::free_area::ListEnd;
use crate::hooks::Hook;
use crate::pcp::{self, CpuSet};
use crate::zonelist::ZoneId;
use vellum_machine::{DirectMap, TraceEvent, VmEvent, VmItem};
use vellum_page::{AllocRequest, Memmap, Page, PageFlags, PageSource, PageState};
use vellum_types::{GfpFlags, NodeId, Order, OutOfMemory, Pfn, PfnRange};

impl PageSource for PageAllocator<'_> {
    #[inline]
    fn alloc_pages(&self, request: AllocRequest) -> Result<Pfn, OutOfMemory> {
        let AllocRequest { order, gfp } = request;
        if order != Order::ZERO {
            return self.alloc_large(request);
        }
        if !gfp.contains(GfpFlags::ZERO)
            && self.hooks.none()
            && let Some(pfn) = self.first_set.quick_pop(self.frames, gfp)
        {
            return Ok(pfn);
        }
        self.alloc_single(request)
    }

    #[inline]
    fn free_pages(&self, pfn: Pfn) {
        let Some(page) = self.frames.memmap.in_largest_run(pfn) else {
            return self.free_slow(pfn);
        };
        if !page.is_single() {
            return self.free_large(pfn, page);
        }
        let list = usize::from(self.frames.quick_list_of(pfn));
        if self.hooks.any() || list >= pcp::PER_ORDER {
            return self.free_single(pfn, page, list);
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

impl<'m> PageAllocator<'m> {
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

    /// A single page, where the CPU must be asked for, or where something is switched on.
    #[inline(never)]
    fn alloc_single(&self, request: AllocRequest) -> Result<Pfn, OutOfMemory> {
        if self.hooks.plain() && !request.gfp.contains(GfpFlags::ZERO) {
            let pin = self.cpus.pin();
            if let Some(own) = self.cpu_sets.get(usize::from(pin.cpu().0))
                && let Some(pfn) = own.quick_pop(self.frames, request.gfp)
            {
                return Ok(pfn);
            }
        }
        self.alloc_slow(request)
    }

    /// The same for a free of the single page `pfn`, which belongs on `list`.
    #[inline(never)]
    fn free_single(&self, pfn: Pfn, page: &Page, list: usize) {
        if !self.hooks.plain() || list >= pcp::PER_ORDER {
            return self.free_slow(pfn);
        }
        let pin = self.cpus.pin();
        let Some(own) = self.cpu_sets.get(usize::from(pin.cpu().0)) else {
            return self.free_slow(pfn);
        };
        if !self.is_near(own, pfn) || !own.is_simple(pfn, list) {
            return self.free_slow(pfn);
        }
        if own.push_simple(page, pfn, list) {
            self.relieve(list);
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
            && let Some(pfn) = self.first_set.quick_pop_order(self.frames, gfp, order)
        {
            return Ok(pfn);
        }
        self.alloc_slow(request)
    }

    /// A single page that follows the one freed before.
    #[inline(never)]
    fn free_run(&self, pfn: Pfn, page: &Page, list: usize) {
        if self.first_set.quick_push_run(self.frames, page, pfn, list) {
            self.relieve(list);
        }
    }

    /// As `free_slow`, the same way.
    #[inline(never)]
    fn free_large(&self, pfn: Pfn, page: &Page) {
        if self.hooks.none()
            && let Ok(order) = page.allocated_order()
        {
            let list = pcp::list_of_order(usize::from(self.frames.quick_list_of(pfn)), order);
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
