//! Per-CPU page sets: single pages without a lock. Linux: `struct per_cpu_pages`.
//!
//! ```text
//!   head ─▶ 40 ─▶ 41 ─▶ 42 ─▶ 17 ─▶ 93      freeing 43: it continues the run 40..43, so it goes
//!                      run_end = 43         behind 42; freeing any other page: to the head
//! ```
//! Lists are last in, first out, for warm caches, except that pages freed in ascending order stay so:
//! then whoever allocates them again gets neighbours, and a drain gives the zone whole blocks.

use crate::frames::Frames;
use crate::request::DrainRequest;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, fence};
use vellum_page::{PAGEBLOCK_ORDER, Page, PageState};
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
/// How often a batch may double. Linux: `CONFIG_PCP_BATCH_SCALE_MAX`.
const MAX_SCALE: u8 = 5;

const NONE: u32 = Pfn::NONE.as_u32();

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

/// Marks and batch of one list, from the size of its zone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tuning {
    /// Pages moved at once between a list and its zone, at rest.
    pub(crate) batch: u32,
    /// At this length a list is relieved, at rest.
    pub(crate) high_min: u32,
    /// The same after a long run of allocations.
    pub(crate) high_max: u32,
}

impl Tuning {
    /// For the lists of single pages of a zone with `managed` pages, whose low mark is `low`, of a
    /// machine with `nr_cpus`.
    ///
    /// Linux: `zone_batchsize`, `zone_highsize`. Linux's marks are for all lists of a zone and CPU
    /// together, these for one.
    pub(crate) fn new(managed: u64, low: u64, nr_cpus: u16) -> Self {
        let quarter = ((managed >> 10).min(256) / 4).max(1);
        let sum = quarter + quarter / 2;
        let batch = ((1 << sum.ilog2()) - 1_u64).max(1);
        let share = |pages: u64| pages / u64::from(nr_cpus) / TYPES as u64;
        let high_min = share(low).max(batch * 4);
        let high_max = share(managed / 8).max(high_min);
        let narrow = |pages: u64| u32::try_from(pages).unwrap_or(u32::MAX / 2);
        Self {
            batch: narrow(batch),
            high_min: narrow(high_min),
            high_max: narrow(high_max),
        }
    }
}

impl Tuning {
    /// The same amount of memory in blocks of `order`. A list whose blocks are large for its zone
    /// keeps none.
    fn of_order(self, order: Order) -> Self {
        let shrink = |pages: u32| (pages >> order.as_u8()).max(1);
        Self {
            batch: shrink(self.batch),
            high_min: shrink(self.high_min),
            high_max: shrink(self.high_max),
        }
    }
}

/// Blocks that one CPU keeps, of one zone, mobility and order, linked through their descriptors.
///
/// Words are atomics so that anybody may read them, yet only their CPU writes: plain loads and stores.
///
/// # Invariants
/// * `head` starts a chain of `count()` frames, each of state PerCpu with no users.
/// * A frame of state PerCpu whose `prev` is `tag` is on this chain.
pub(crate) struct PageList {
    head: AtomicU32,
    /// One past the page that was freed last. It may be gone again.
    run_end: AtomicU32,
    /// Pages ever put here, by frees and refills.
    put: AtomicU64,
    /// Pages ever taken, by allocations and drains.
    taken: AtomicU64,
    /// When so many pages are here, the list is relieved. Zero while a drain is asked for.
    limit: AtomicU32,
    /// The CPU and the list, as one number.
    tag: u32,
}

impl PageList {
    fn new(tag: u32, tuning: Tuning) -> Self {
        Self {
            head: AtomicU32::new(NONE),
            run_end: AtomicU32::new(NONE),
            put: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            limit: AtomicU32::new(tuning.high_min),
            tag,
        }
    }

    /// Takes up to `out.len()` blocks of `order`. Returns how many.
    fn pop_many(&self, frames: Frames<'_>, order: Order, out: &mut [Pfn]) -> usize {
        let (mut at, mut got) = (self.head(), 0);
        for slot in out {
            let Some(page) = frames.memmap.try_page(at) else {
                break;
            };
            *slot = at;
            at = page.next();
            page.set_refcount(1);
            page.set_state_order(PageState::Allocated, order);
            got += 1;
        }
        self.head.store(at.as_u32(), Relaxed);
        add(&self.taken, got);
        got as usize
    }

    /// How many pages it has.
    pub(crate) fn count(&self) -> u32 {
        (self
            .put
            .load(Relaxed)
            .wrapping_sub(self.taken.load(Relaxed))) as u32
    }

    /// The first block.
    #[inline(always)]
    pub(crate) fn head(&self) -> Pfn {
        Pfn::new(self.head.load(Relaxed))
    }

    #[inline(always)]
    pub(crate) fn tag(&self) -> Pfn {
        Pfn::new(self.tag)
    }

    #[inline(always)]
    fn pop(&self, frames: Frames<'_>, order: Order) -> Option<Pfn> {
        let pfn = self.head();
        // The end of a list is outside of every memmap.
        let page = frames.memmap.try_page(pfn)?;
        self.head.store(page.next().as_u32(), Relaxed);
        self.taken.store(self.taken.load(Relaxed) + 1, Relaxed);
        page.set_refcount(1);
        page.set_state_order(PageState::Allocated, order);
        Some(pfn)
    }

    /// Takes a block that nobody uses any more. True if the list is long enough to be relieved.
    #[inline(always)]
    fn push(&self, frames: Frames<'_>, page: &Page, pfn: Pfn, order: Order) -> bool {
        if self.run_end.load(Relaxed) == pfn.as_u32() {
            return self.push_run(frames, page, pfn, order);
        }
        self.wipe(page);
        self.push_head(page, pfn, order)
    }

    /// Clears what an owner wrote into a descriptor, all but the state.
    #[inline(always)]
    fn wipe(&self, page: &Page) {
        page.set_refcount(0);
        page.set_mapcount(0);
        page.set_owner(0);
        page.set_index(0);
        page.set_prev(self.tag());
    }

    #[inline(always)]
    fn push_head(&self, page: &Page, pfn: Pfn, order: Order) -> bool {
        page.set_next(self.head());
        self.head.store(pfn.as_u32(), Relaxed);
        self.pushed(page, pfn, order)
    }

    /// The end of a push, when the block is on the chain.
    #[inline(always)]
    fn pushed(&self, page: &Page, pfn: Pfn, order: Order) -> bool {
        self.run_end
            .store(pfn.as_u32().wrapping_add(order.pages()), Relaxed);
        // After the tag: see `continue_run`.
        page.set_state_order(PageState::PerCpu, order);
        let put = self.put.load(Relaxed) + 1;
        self.put.store(put, Relaxed);
        put.wrapping_sub(self.taken.load(Relaxed)) >= u64::from(self.limit.load(Relaxed))
    }

    /// As `push`, for a block that follows the one freed before. Out of line, so that the rest needs
    /// no stack.
    #[inline(never)]
    fn push_run(&self, frames: Frames<'_>, page: &Page, pfn: Pfn, order: Order) -> bool {
        self.wipe(page);
        if self.continue_run(frames, page, pfn, order) {
            self.pushed(page, pfn, order)
        } else {
            self.push_head(page, pfn, order)
        }
    }

    /// Puts `pfn` behind the block before it, if that is on this list. False if it is not.
    #[inline(always)]
    fn continue_run(&self, frames: Frames<'_>, page: &Page, pfn: Pfn, order: Order) -> bool {
        let before = pfn.as_u32().checked_sub(order.pages());
        let Some(before) = before.and_then(|raw| frames.memmap.try_page(Pfn::new(raw))) else {
            return false;
        };
        // State before tag, as they are written in the other order: a page that another CPU has
        // meanwhile freed shows that CPU's tag.
        if before.state() != PageState::PerCpu || before.prev() != self.tag() {
            return false;
        }
        page.set_next(before.next());
        before.set_next(pfn);
        true
    }

    /// Puts single pages at the head of the list, in their order, as long as each is allocated and in
    /// the pageblock of the first. Returns how many.
    fn push_pages(&self, frames: Frames<'_>, pages: &[Pfn]) -> usize {
        let Some(first) = pages.first() else {
            return 0;
        };
        let pageblock = |pfn: Pfn| pfn.as_u32() >> PAGEBLOCK_ORDER.as_u8();
        let block = pageblock(*first);
        let mut last: Option<&Page> = None;
        let mut pushed = 0;
        for pfn in pages {
            let Some(page) = frames.memmap.try_page(*pfn) else {
                break;
            };
            if !page.is_single() || pageblock(*pfn) != block {
                break;
            }
            self.wipe(page);
            page.set_state(PageState::PerCpu);
            if let Some(last) = last {
                last.set_next(*pfn);
            }
            last = Some(page);
            pushed += 1;
        }
        if let Some(last) = last {
            last.set_next(self.head());
            self.head.store(first.as_u32(), Relaxed);
            self.run_end.store(NONE, Relaxed);
            add(&self.put, pushed);
        }
        pushed as usize
    }

    /// Appends the parts of a block that was just taken from the zone, in ascending order: `parts`
    /// blocks of `order`. `last` is the present end of the chain. Returns the new one.
    fn append(&self, frames: Frames<'_>, last: Pfn, block: Pfn, order: Order, parts: u32) -> Pfn {
        frames.page(block).set_owner(0);
        let mut at = block;
        for _ in 0..parts {
            let page = frames.page(at);
            page.set_prev(self.tag());
            page.set_next(at + order.pages());
            page.set_state_order(PageState::PerCpu, order);
            at = at + order.pages();
        }
        let end = block + (parts - 1) * order.pages();
        frames.page(end).set_next(Pfn::NONE);
        if last == Pfn::NONE {
            self.head.store(block.as_u32(), Relaxed);
        } else {
            frames.page(last).set_next(block);
        }
        add(&self.put, parts);
        end
    }

    /// Cuts all but the first `keep` pages off; returns the first of the rest and how many they are.
    fn cut(&self, frames: Frames<'_>, keep: u32) -> (Pfn, u32) {
        let count = self.count();
        if keep >= count {
            return (Pfn::NONE, 0);
        }
        let rest = if keep == 0 {
            let all = self.head();
            self.head.store(NONE, Relaxed);
            all
        } else {
            let mut last = frames.page(self.head());
            for _ in 1..keep {
                last = frames.page(last.next());
            }
            let rest = last.next();
            last.set_next(Pfn::NONE);
            rest
        };
        let cut = count - keep;
        add(&self.taken, cut);
        (rest, cut)
    }
}

/// How many pages a list moves and keeps at present.
struct Pace {
    tuning: Tuning,
    high: AtomicU32,
    alloc_scale: AtomicU8,
    free_scale: AtomicU8,
    /// Of the pages ever put, those that came from the zone; of those ever taken, those that went
    /// there. The rest are frees and allocations.
    filled: AtomicU64,
    drained: AtomicU64,
}

impl Pace {
    fn new(tuning: Tuning) -> Self {
        Self {
            tuning,
            high: AtomicU32::new(tuning.high_min),
            alloc_scale: AtomicU8::new(0),
            free_scale: AtomicU8::new(0),
            filled: AtomicU64::new(0),
            drained: AtomicU64::new(0),
        }
    }

    /// How many pages to fetch. Runs of allocations fetch more and more, and may keep more.
    fn next_fill(&self) -> u32 {
        let Tuning {
            batch, high_max, ..
        } = self.tuning;
        let scale = self.alloc_scale.load(Relaxed);
        self.alloc_scale.store((scale + 1).min(MAX_SCALE), Relaxed);
        self.free_scale
            .store(self.free_scale.load(Relaxed) / 2, Relaxed);
        let high = self.high.load(Relaxed);
        self.high.store((high + batch).min(high_max), Relaxed);
        (batch << scale).min((high / 2).max(batch))
    }

    /// How many of `count` pages to keep when too many were freed. Runs of frees give back more and
    /// more.
    fn next_keep(&self, count: u32) -> u32 {
        let batch = self.tuning.batch;
        let scale = self.free_scale.load(Relaxed);
        self.free_scale.store((scale + 1).min(MAX_SCALE), Relaxed);
        self.alloc_scale
            .store(self.alloc_scale.load(Relaxed) / 2, Relaxed);
        let most = (self.high.load(Relaxed) - batch).max(batch);
        count.saturating_sub((batch << scale).clamp(batch, most))
    }

    /// Back to the marks at rest.
    fn calm(&self) {
        self.high.store(self.tuning.high_min, Relaxed);
        self.alloc_scale.store(0, Relaxed);
        self.free_scale.store(0, Relaxed);
    }
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
            lists: core::array::from_fn(|at| PageList::new((cpu * SLOTS + at) as u32, tuning(at))),
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

    /// Takes the page that a request for a single page gets first.
    #[inline(always)]
    pub(crate) fn pop(&self, frames: Frames<'_>, gfp: GfpFlags) -> Option<Pfn> {
        let list = self.route[gfp.bits() as usize % ROUTES];
        self.lists[usize::from(list) % SLOTS].pop(frames, Order::ZERO)
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

/// Adds to a word that only this CPU writes.
fn add(word: &AtomicU64, n: u32) {
    word.store(word.load(Relaxed) + u64::from(n), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_linux_numbers() {
        // zone_batchsize of 16 MiB, 128 MiB, 512 MiB, 1 GiB and 16 GiB.
        let batch = |mib: u64| Tuning::new(mib << 8, 0, 1).batch;
        assert_eq!([16, 128, 512, 1024, 16384].map(batch), [1, 7, 31, 63, 63]);
    }

    #[test]
    fn marks_are_shared_by_the_cpus() {
        let of = |cpus| Tuning::new(1 << 18, 12_000, cpus);
        assert_eq!((of(1).high_min, of(1).high_max), (4000, 10_922));
        assert_eq!((of(4).high_min, of(4).high_max), (1000, 2730));
        assert_eq!(of(64).high_min, 63 * 4);
    }

    #[test]
    fn batches_grow_in_runs_and_shrink_back() {
        let pace = Pace::new(Tuning {
            batch: 4,
            high_min: 32,
            high_max: 64,
        });
        let fills: std::vec::Vec<u32> = (0..6).map(|_| pace.next_fill()).collect();
        assert_eq!(fills, [4, 8, 16, 22, 24, 26]);
        let kept: std::vec::Vec<u32> = (0..5).map(|_| pace.next_keep(64)).collect();
        assert_eq!(kept, [60, 56, 48, 32, 12], "counted from 64 each time");
        assert_eq!(
            pace.next_fill(),
            4,
            "a run of frees ends a run of allocations"
        );
        pace.calm();
        assert_eq!((pace.next_keep(64), pace.high.load(Relaxed)), (60, 32));
    }
}
