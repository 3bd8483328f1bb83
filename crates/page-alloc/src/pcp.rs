//! Per-CPU page sets: free blocks without a lock. Linux: `struct per_cpu_pages`.

use crate::frames::Frames;
use crate::pace::{Pace, Tuning};
use crate::page_list::{PageList, add};
use crate::request::DrainRequest;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::{AtomicU64, fence};
use vellum_page::{PAGEBLOCK_ORDER, Page};
use vellum_types::{GfpFlags, MigrateType, NodeId, Order, Pfn, ZoneType};

/// Mobilities that have lists of their own. The rest goes to the zone at once.
pub(crate) const TYPES: usize = 3;
/// Lists for blocks of one order: for each zone one of each such mobility.
pub(crate) const PER_ORDER: usize = ZoneType::COUNT * TYPES;
/// Orders of blocks that have lists: the small ones that the kernel itself asks for, and that of a
/// huge page. Linux: `NR_PCP_LISTS`.
const ORDERS: [u8; 5] = [0, 1, 2, 3, PAGEBLOCK_ORDER.as_u8()];
/// Lists of one CPU.
pub(crate) const LISTS: usize = PER_ORDER * ORDERS.len();
/// For each order, where its lists begin; past the end if it has none.
const FIRST_LIST: [u8; 16] = {
    let mut first = [NO_LIST; 16];
    let mut at = 0;
    while at < ORDERS.len() {
        first[ORDERS[at] as usize] = (at * PER_ORDER) as u8;
        at += 1;
    }
    first
};
/// As many, rounded up so that an index is cheaply kept inside. The last one is always empty.
const SLOTS: usize = (LISTS + 1).next_power_of_two();
/// Values of the gfp bits that choose zone and mobility.
pub(crate) const ROUTES: usize = 32;
/// The route of requests that no zone can serve.
pub(crate) const NO_LIST: u8 = u8::MAX;

const _: () = assert!(
    (GfpFlags::DMA.bits()
        | GfpFlags::HIGHMEM.bits()
        | GfpFlags::DMA32.bits()
        | GfpFlags::MOVABLE.bits()
        | GfpFlags::RECLAIMABLE.bits()) as usize
        == ROUTES - 1,
    "the low bits of a gfp mask choose zone and mobility"
);

/// The list for single pages of a zone and a mobility; `None` if they go to the zone at once.
pub(crate) fn list_of(zone: usize, migrate_type: MigrateType) -> Option<usize> {
    let at = migrate_type.index();
    (at < TYPES).then_some(zone * TYPES + at)
}

/// The list for blocks of `order`, where `single` is that for single pages. At least [`LISTS`] if
/// there is none.
#[inline(always)]
pub(crate) fn list_of_order(single: usize, order: Order) -> usize {
    single + usize::from(FIRST_LIST[order.index() % 16])
}

/// The order of the blocks on a list.
pub(crate) fn order_of(list: usize) -> Order {
    let raw = ORDERS.get(list / PER_ORDER).copied();
    raw.and_then(Order::new).unwrap_or(Order::ZERO)
}

/// The zone whose blocks are on a list.
pub(crate) fn zone_of(list: usize) -> usize {
    list % PER_ORDER / TYPES
}

/// The lists of one CPU, on cache lines of their own.
///
/// Changed only by a flow of control that is pinned to the CPU, or while the CPU is stopped. Nothing
/// here calls out, so one flow never meets itself half way.
#[repr(align(64))]
pub(crate) struct CpuSet {
    /// The node of the CPU, and of all blocks on its lists.
    pub(crate) node: NodeId,
    lists: [PageList; SLOTS],
    /// Which list serves a request, by the low bits of its gfp mask.
    route: [u8; ROUTES],
    paces: [Pace; LISTS],
    drain: DrainRequest,
}

impl CpuSet {
    /// The lists of CPU number `cpu`, which is near `node`.
    pub(crate) fn new(
        cpu: usize,
        node: NodeId,
        tuning: impl Fn(usize) -> Tuning,
        route: [u8; ROUTES],
    ) -> Self {
        let rest = Tuning::new(0, 0, 1);
        let tuning = |at: usize| match at {
            0..LISTS => tuning(zone_of(at)).of_order(order_of(at)),
            _ => rest,
        };
        Self {
            node,
            lists: core::array::from_fn(|at| {
                PageList::new((cpu * SLOTS + at) as u32, tuning(at).high_min)
            }),
            paces: core::array::from_fn(|at| Pace::new(tuning(at))),
            route,
            drain: DrainRequest::new(),
        }
    }

    pub(crate) fn lists(&self) -> &[PageList] {
        &self.lists[..LISTS]
    }

    /// Pages ever allocated from and freed to the lists of one zone.
    pub(crate) fn counters(&self, zone: usize) -> [u64; 2] {
        let mut sums = [0_u64; 2];
        for at in (0..LISTS).filter(|at| zone_of(*at) == zone) {
            let pages = u64::from(order_of(at).pages());
            let (list, pace) = (&self.lists[at], &self.paces[at]);
            let part = |all: &AtomicU64, not: &AtomicU64| {
                // Another CPU may be between the two words.
                all.load(Relaxed).saturating_sub(not.load(Relaxed)) * pages
            };
            sums[0] += part(&list.taken, &pace.drained);
            sums[1] += part(&list.put, &pace.filled);
        }
        sums
    }

    /// Takes the page that a request for a single page gets first, if it is in the largest run.
    #[inline(always)]
    pub(crate) fn quick_pop(&self, frames: Frames<'_>, gfp: GfpFlags) -> Option<Pfn> {
        let list = self.route[gfp.bits() as usize % ROUTES];
        self.lists[usize::from(list) % SLOTS].quick_pop(frames, Order::ZERO)
    }

    /// The same for a block of `order`.
    #[inline(always)]
    pub(crate) fn quick_pop_order(
        &self,
        frames: Frames<'_>,
        gfp: GfpFlags,
        order: Order,
    ) -> Option<Pfn> {
        let single = self.route[gfp.bits() as usize % ROUTES];
        let list = list_of_order(usize::from(single), order);
        self.lists.get(list)?.quick_pop(frames, order)
    }

    /// Takes as many single pages as `out` has room for and the list holds. Returns how many.
    pub(crate) fn pop_many(&self, frames: Frames<'_>, gfp: GfpFlags, out: &mut [Pfn]) -> usize {
        let list = self.route[gfp.bits() as usize % ROUTES];
        self.lists[usize::from(list) % SLOTS].pop_many(frames, Order::ZERO, out)
    }

    /// Takes the block of `order` that a request gets first.
    #[inline(always)]
    pub(crate) fn pop_order(&self, frames: Frames<'_>, gfp: GfpFlags, order: Order) -> Option<Pfn> {
        let single = self.route[gfp.bits() as usize % ROUTES];
        let list = list_of_order(usize::from(single), order);
        self.lists.get(list)?.pop(frames, order)
    }

    /// Takes a block off a list.
    #[inline]
    pub(crate) fn pop_list(&self, frames: Frames<'_>, list: usize) -> Option<Pfn> {
        self.lists[list].pop(frames, order_of(list))
    }

    /// True if [`CpuSet::push`] is the simple case.
    #[inline(always)]
    pub(crate) fn is_simple(&self, pfn: Pfn, list: usize) -> bool {
        self.lists[list % SLOTS].run_end.load(Relaxed) != pfn.as_u32()
    }

    /// As `push`, in the simple case.
    #[inline(always)]
    pub(crate) fn push_simple(&self, page: &Page, pfn: Pfn, list: usize) -> bool {
        let list = &self.lists[list % SLOTS];
        list.wipe(page);
        list.push_head(page, pfn, Order::ZERO)
    }

    /// As `push`, for a single page of the largest run that follows the one freed before.
    #[inline(always)]
    pub(crate) fn quick_push_run(
        &self,
        frames: Frames<'_>,
        page: &Page,
        pfn: Pfn,
        list: usize,
    ) -> bool {
        self.lists[list % SLOTS].quick_push_run(frames, page, pfn)
    }

    /// Keeps a block of the list's order. True if the list wants to be relieved: it is long, or
    /// somebody asked.
    #[inline(always)]
    pub(crate) fn push(
        &self,
        frames: Frames<'_>,
        page: &Page,
        pfn: Pfn,
        list: usize,
        order: Order,
    ) -> bool {
        self.lists[list % SLOTS].push(frames, page, pfn, order)
    }

    /// Keeps single pages; see [`PageList::push_pages`].
    pub(crate) fn push_pages(&self, frames: Frames<'_>, pages: &[Pfn], list: usize) -> usize {
        self.lists[list].push_pages(frames, pages)
    }

    /// True if a list wants to be relieved.
    pub(crate) fn is_long(&self, list: usize) -> bool {
        let list = &self.lists[list];
        list.count() >= list.limit.load(Relaxed)
    }

    /// Adds a block from the zone to the end of a list; see [`PageList::append`].
    pub(crate) fn append(
        &self,
        frames: Frames<'_>,
        list: usize,
        last: Pfn,
        block: Pfn,
        parts: u32,
    ) -> Pfn {
        add(&self.paces[list].filled, parts);
        self.lists[list].append(frames, last, block, order_of(list), parts)
    }

    pub(crate) fn cut(&self, frames: Frames<'_>, list: usize, keep: u32) -> (Pfn, u32) {
        let (rest, cut) = self.lists[list].cut(frames, keep);
        add(&self.paces[list].drained, cut);
        (rest, cut)
    }

    pub(crate) fn next_fill(&self, list: usize) -> u32 {
        let fill = self.paces[list].next_fill();
        self.set_limits();
        fill
    }

    pub(crate) fn next_keep(&self, list: usize) -> u32 {
        let keep = self.paces[list].next_keep(self.lists[list].count());
        self.set_limits();
        keep
    }

    /// Asks the CPU to drain: its next free of a page sees to it.
    pub(crate) fn post_drain(&self) {
        self.drain.post();
        self.lists
            .iter()
            .for_each(|list| list.limit.store(0, Relaxed));
    }

    /// True if a drain was asked for, which the caller does now.
    pub(crate) fn take_drain(&self) -> bool {
        let taken = self.drain.take();
        if taken {
            self.paces.iter().for_each(Pace::calm);
            self.set_limits();
        }
        taken
    }

    fn set_limits(&self) {
        for (list, pace) in self.lists.iter().zip(&self.paces) {
            list.limit.store(pace.high.load(Relaxed), Relaxed);
        }
        // A request that came in between had its zeros overwritten: put them back. The fence is
        // between our limits and our look at the request, as the poster's stores are in order.
        fence(SeqCst);
        if self.drain.is_posted() {
            self.lists
                .iter()
                .for_each(|list| list.limit.store(0, Relaxed));
        }
    }
}
