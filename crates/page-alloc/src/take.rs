//! Taking frames: zones in order, watermarks, reserves. Linux: `get_page_from_freelist`,
//! `__alloc_pages_slowpath` as far as it neither waits nor reclaims.

use crate::allocator::PageAllocator;
use crate::fallback;
use crate::frames::{Frames, Kind};
use crate::free_area::FreeAreas;
use crate::highatomic;
use crate::node::Node;
use crate::pcp::{self, CpuSet};
use crate::watermark::{self, Level, Reserves};
use crate::zone::Zone;
use vellum_machine::VmItem;
use vellum_page::{PAGEBLOCK_ORDER, PageState};
use vellum_types::{GfpFlags, MigrateType, NodeId, Order, Pfn};

impl<'m> PageAllocator<'m> {
    /// First from this CPU's lists, then by way of them from a zone, then straight from a zone.
    pub(crate) fn take(&self, order: Order, gfp: GfpFlags, node: Option<NodeId>) -> Option<Pfn> {
        let from = self.start_node(node);
        let through_set = self.with_set(|own| {
            // This CPU keeps blocks of its own node only.
            if own.node != from.id || self.highest_zone(gfp) != gfp.highest_zone() {
                return None;
            }
            own.pop_order(self.frames, gfp, order)
                .or_else(|| self.refill(own, order, gfp, 1))
        });
        through_set.or_else(|| self.take_block(order, gfp, from))
    }

    /// Above the low marks: fetches blocks for a list and takes one of them. Fetches `least` at least
    /// if there are so many.
    pub(crate) fn refill(
        &self,
        own: &CpuSet,
        order: Order,
        gfp: GfpFlags,
        least: u32,
    ) -> Option<Pfn> {
        if own.take_drain() {
            self.drain_own(own);
        }
        let (highest, migrate_type) = (self.highest_zone(gfp), gfp.migrate_type());
        let from = self.nodes.get(own.node)?;
        for zone in self.nodes.zonelist(from, highest, true) {
            let single = pcp::list_of(zone.zone_type.index(), migrate_type)?;
            let list = pcp::list_of_order(single, order);
            if list >= pcp::LISTS {
                return None;
            }
            let mut state = zone.lock();
            let reserve = zone.reserve_against(highest);
            let room = watermark::room(&state.marks, reserve, state.areas.usable(false));
            let room = room >> order.as_u8();
            if room == 0 {
                continue;
            }
            if let Some(pfn) = own.pop_list(self.frames, list) {
                return Some(pfn);
            }
            let want = own.next_fill(list).max(least).min(room);
            let got = fill(&mut state.areas, self.frames, own, list, migrate_type, want);
            drop(state);
            let pages = u64::from(got) * u64::from(order.pages());
            self.vmstat.sub(VmItem::NrFreePages, pages);
            if got != 0 {
                return own.pop_list(self.frames, list);
            }
        }
        None
    }

    /// A block from the first zone that may and can give one; not through this CPU's lists.
    #[inline(never)]
    pub(crate) fn take_block(&self, order: Order, gfp: GfpFlags, node: &'m Node) -> Option<Pfn> {
        if let Some(pfn) = self.take_above(Level::Low, order, gfp, node) {
            return Some(pfn);
        }
        self.take_low(order, gfp, node)
    }

    /// The rest of `take_block`, when memory is short or in pieces.
    #[cold]
    fn take_low(&self, order: Order, gfp: GfpFlags, node: &'m Node) -> Option<Pfn> {
        if gfp.contains(GfpFlags::KSWAPD_RECLAIM) {
            self.wake_kswapd(order, gfp, node);
        }
        if let Some(pfn) = self.take_above(Level::Min, order, gfp, node) {
            return Some(pfn);
        }
        // Somebody's guess at a larger block is not worth everybody's lists.
        if order != Order::ZERO && gfp.contains(GfpFlags::NORETRY) {
            return None;
        }
        self.drain_all();
        if let Some(pfn) = self.take_above(Level::Min, order, gfp, node) {
            return Some(pfn);
        }
        // Who may wait could have reclaimed, so the reserve for those who cannot goes first.
        while gfp.contains(GfpFlags::DIRECT_RECLAIM) && self.unreserve_highatomic(gfp, node) {
            if let Some(pfn) = self.take_above(Level::Min, order, gfp, node) {
                return Some(pfn);
            }
        }
        None
    }

    #[inline]
    fn take_above(&self, level: Level, order: Order, gfp: GfpFlags, node: &'m Node) -> Option<Pfn> {
        let highest = self.highest_zone(gfp);
        let this_node = gfp.contains(GfpFlags::THISNODE);
        let migrate_type = gfp.migrate_type();
        let reserves = Reserves::of(gfp);
        let frames = self.frames;
        // Linux's ALLOC_HIGHATOMIC.
        let atomic = level == Level::Min && matches!(reserves, Reserves::Atomic | Reserves::All);
        for zone in self.nodes.zonelist(node, highest, this_node) {
            let mut state = zone.lock();
            let reserve = zone.reserve_against(highest);
            let free = state.areas.usable(atomic);
            if !watermark::allows(&state.marks, level, reserves, reserve, free, order) {
                continue;
            }
            let Some(pfn) = take_from_zone(&mut state.areas, frames, order, migrate_type, atomic)
            else {
                continue;
            };
            // Still under the lock: nobody may see a Free page that is on no list.
            let page = frames.page(pfn);
            page.set_owner(0);
            page.set_refcount(1);
            page.set_state_order(PageState::Allocated, order);
            if atomic && order != Order::ZERO && reserves == Reserves::Atomic {
                highatomic::reserve(&mut state.areas, frames, zone.managed(), pfn, order);
            }
            drop(state);
            self.count_taken(zone, order);
            if self.nodes.are_several() {
                self.count_numa(node, zone, u64::from(order.pages()));
            }
            return Some(pfn);
        }
        None
    }

    fn count_taken(&self, zone: &Zone, order: Order) {
        let pages = u64::from(order.pages());
        let event = crate::allocator::alloc_event(zone.zone_type);
        self.vmstat.count_many(event, pages);
        self.vmstat.sub(VmItem::NrFreePages, pages);
    }

    /// Gives one reserved pageblock up, for the mobility that `gfp` asks for. False if there is none.
    fn unreserve_highatomic(&self, gfp: GfpFlags, node: &'m Node) -> bool {
        let this_node = gfp.contains(GfpFlags::THISNODE);
        let mut zones = self.nodes.zonelist(node, self.highest_zone(gfp), this_node);
        zones.any(|zone| {
            let mut state = zone.lock();
            highatomic::unreserve(&mut state.areas, self.frames, gfp.migrate_type())
        })
    }
}

fn take_from_zone(
    areas: &mut FreeAreas,
    frames: Frames<'_>,
    order: Order,
    migrate_type: MigrateType,
    atomic: bool,
) -> Option<Pfn> {
    if atomic
        && order != Order::ZERO
        && let Some(pfn) = highatomic::take(areas, frames, order)
    {
        return Some(pfn);
    }
    if let Some(pfn) = areas.take(frames, order, migrate_type) {
        return Some(pfn);
    }
    if atomic {
        return highatomic::take(areas, frames, order);
    }
    None
}

/// Moves up to `want` blocks from the zone to an empty list, lowest first. Returns how many.
fn fill(
    areas: &mut FreeAreas,
    frames: Frames<'_>,
    own: &CpuSet,
    list: usize,
    migrate_type: MigrateType,
    want: u32,
) -> u32 {
    let (kind, part) = (Kind::of(migrate_type), pcp::order_of(list));
    let (mut got, mut last) = (0, Pfn::NONE);
    while got < want {
        let most = part.as_u8() + (want - got).ilog2() as u8;
        let most = Order::new(most)
            .unwrap_or(PAGEBLOCK_ORDER)
            .min(PAGEBLOCK_ORDER);
        let (block, order) = match areas.smallest(part, kind) {
            Some(from) => {
                let order = from.min(most);
                (areas.take_from(frames, from, order, kind), order)
            }
            // Foreign pages one at a time, and only for a request that would fail otherwise.
            None if got == 0 => match fallback::take(areas, frames, part, migrate_type) {
                Some(pfn) => (pfn, part),
                None => break,
            },
            None => break,
        };
        let parts = order.pages() >> part.as_u8();
        last = own.append(frames, list, last, block, parts);
        got += parts;
    }
    got
}
