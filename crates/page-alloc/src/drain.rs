//! Pages go back from the per-CPU lists to their zones. Linux: `free_pcppages_bulk`, `drain_all_pages`.

use crate::allocator::{PageAllocator, alloc_event};
use crate::frames::Frames;
use crate::free_area::{FreeAreas, ListEnd};
use crate::page_list::PageList;
use crate::pcp::{self, CpuSet, LISTS};
use crate::zonelist::ZoneId;
use vellum_machine::{VmEvent, VmItem};
use vellum_page::{PAGEBLOCK_ORDER, PageState};
use vellum_types::{Order, Pfn, ZoneType};

impl PageAllocator<'_> {
    /// Gives all pages on this CPU's lists back to their zones.
    pub fn drain_local(&self) {
        self.with_set(|own| self.drain_own(own));
    }

    /// Drains this CPU's lists, and asks all other CPUs to drain theirs: each does when it frees a
    /// page, fetches some, or calls [`PageAllocator::service_drain`].
    pub fn drain_all(&self) {
        self.cpu_sets.iter().for_each(|set| set.post_drain());
        self.service_drain();
    }

    /// Drains this CPU's lists if somebody asked for that. For a CPU that is about to idle, or that
    /// was interrupted for this purpose.
    pub fn service_drain(&self) {
        self.with_set(|own| {
            if own.take_drain() {
                self.drain_own(own);
            }
        });
    }

    /// Pages on the lists of all CPUs: free, but in no zone's count.
    pub fn nr_per_cpu_pages(&self) -> u64 {
        let lists = self
            .cpu_sets
            .iter()
            .flat_map(|set| set.lists().iter().enumerate());
        let pages = |(at, list): (usize, &PageList)| list.count() * pcp::order_of(at).pages();
        lists.map(|entry| u64::from(pages(entry))).sum()
    }

    /// Brings `pgalloc_*` and `pgfree` up to date: single pages are counted on their CPU, and this
    /// adds what came since the last call. Readers of the counters call it first.
    pub fn fold_counters(&self) {
        let mut folded = self.folded.lock();
        for zone in self.present_zones() {
            let index = self.zone_index(zone);
            let parts = self
                .sets_near(zone)
                .map(|set| set.counters(zone.zone_type.index()));
            let [allocs, frees] = parts.fold([0, 0], |sum, part| {
                core::array::from_fn(|at| sum[at] + part[at])
            });
            // Never down: a CPU that was between two words is seen right the next time.
            let mut grow = |at: usize, now: u64| {
                let more = now.saturating_sub(folded[index][at]);
                folded[index][at] += more;
                more
            };
            let (allocs, frees) = (grow(0, allocs), grow(1, frees));
            self.vmstat.count_many(alloc_event(zone.zone_type), allocs);
            self.vmstat.count_many(VmEvent::PgFree, frees);
            if self.nodes.are_several() && allocs != 0 {
                // What comes from a CPU's lists was wanted there and is near.
                self.nodes.count_near(zone, allocs);
                self.vmstat.count_many(VmEvent::NumaHit, allocs);
                self.vmstat.count_many(VmEvent::NumaLocal, allocs);
            }
        }
    }

    /// A list has become long, or somebody wants this CPU's pages.
    #[cold]
    #[inline(never)]
    pub(crate) fn relieve(&self, list: usize) {
        self.with_set(|own| {
            if own.take_drain() {
                self.drain_own(own);
            } else {
                let keep = own.next_keep(list);
                self.give_list(own, list, keep);
            }
        });
    }

    pub(crate) fn drain_own(&self, own: &CpuSet) {
        for list in 0..LISTS {
            self.give_list(own, list, 0);
        }
    }

    /// Gives all but the first `keep` pages of a list back.
    fn give_list(&self, own: &CpuSet, list: usize, keep: u32) {
        let (mut at, blocks) = own.cut(self.frames, list, keep);
        if blocks == 0 {
            return;
        }
        let order = pcp::order_of(list);
        let kind = ZoneType::ALL[pcp::zone_of(list)];
        let Some(zone) = self.nodes.zone(ZoneId::new(own.node, kind)) else {
            return;
        };
        // Before the pages can be taken again, so that the counter never drops below zero.
        self.vmstat.add(
            VmItem::NrFreePages,
            u64::from(blocks) * u64::from(order.pages()),
        );
        let mut state = zone.lock();
        while at != Pfn::NONE {
            let (pages, next) = run_at(self.frames, at, order);
            give_run(&mut state.areas, self.frames, at, pages, order);
            at = next;
        }
    }
}

/// The pages of the run of consecutive blocks that begins a chain, and what follows on the chain.
fn run_at(frames: Frames<'_>, first: Pfn, order: Order) -> (u32, Pfn) {
    let mut pages = order.pages();
    let mut next = frames.page(first).next();
    while next != Pfn::NONE && next == first + pages {
        pages += order.pages();
        next = frames.page(next).next();
    }
    (pages, next)
}

/// Frees consecutive blocks of `part` that are PerCpu, in blocks as large as alignment allows.
fn give_run(areas: &mut FreeAreas, frames: Frames<'_>, mut at: Pfn, mut pages: u32, part: Order) {
    while pages != 0 {
        let aligned = (at.as_u32().trailing_zeros()).min(pages.ilog2()) as u8;
        let order = Order::new(aligned)
            .unwrap_or(Order::MAX)
            .min(PAGEBLOCK_ORDER);
        for inner in (part.pages()..order.pages()).step_by(part.pages() as usize) {
            frames.page(at + inner).set_state(PageState::Tail);
        }
        areas.give(frames, at, order, ListEnd::Head);
        at = at + order.pages();
        pages -= order.pages();
    }
}
