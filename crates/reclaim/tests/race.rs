//! Owners free pages while reclaimers isolate and move them, on several threads.
//!
//! The list holds no reference: whoever isolates must see that the last one is gone
//! ([`Page::try_get`](vellum_page::Page::try_get)), whoever frees must take the page off its list, and
//! a page that changes lists must never look as if it were on none. If one of these is left out, a frame is
//! freed twice, or while it is on a list, or while a reclaimer looks at it; the fixture and the host
//! below look for exactly that.

mod common;

use common::{Frames, Rng, new_page};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use vellum_machine::VmStat;
use vellum_page::{PageFlags, PageSource, PageState};
use vellum_reclaim::{
    MayDo, Outcome, PolicyKind, Reclaim, ReclaimHost, ReclaimRequest, Referenced,
};
use vellum_types::{GfpFlags, Order, Pfn};

const FRAMES: u32 = 64;

/// Whether each page has its owner's reference: who clears it has to drop that reference.
type Owned = [AtomicBool];

/// A host that takes every other page away from its owner.
struct Taker<'a> {
    reclaim: &'a Reclaim<'a>,
    owned: &'a Owned,
}

impl Taker<'_> {
    fn check(&self, pfn: Pfn) {
        let page = self.reclaim.memmap().page(pfn);
        assert!(page.refcount() > 0, "{pfn:?} is isolated without reference");
        assert_ne!(page.state(), PageState::Free, "{pfn:?} was freed meanwhile");
        assert!(
            !page.flags().contains(PageFlags::LRU),
            "{pfn:?} is on a list"
        );
    }
}

impl ReclaimHost for Taker<'_> {
    fn page_referenced(&self, pfn: Pfn) -> Referenced {
        self.check(pfn);
        thread::yield_now();
        self.check(pfn);
        Referenced {
            young: u32::from(pfn.as_u32().is_multiple_of(3)),
            ..Referenced::default()
        }
    }
    fn reclaim_page(&self, pfn: Pfn, _: MayDo) -> Outcome {
        self.check(pfn);
        let page = self.reclaim.memmap().page(pfn);
        if pfn.as_u32().is_multiple_of(2) || !self.owned[pfn.index()].swap(false, Ordering::AcqRel)
        {
            return Outcome::Busy;
        }
        assert!(!page.put(), "the policy has a reference");
        assert!(page.freeze(1), "nobody else has");
        self.reclaim.shadow_for(pfn);
        self.reclaim.free_pages(pfn);
        Outcome::Freed
    }
    fn launder_page(&self, pfn: Pfn) -> Outcome {
        self.check(pfn);
        Outcome::Written
    }
    fn free_swap(&self) -> u64 {
        1
    }
    fn age_spaces(&self, young: &mut dyn FnMut(Pfn)) {
        for pfn in (0..FRAMES).step_by(5) {
            young(Pfn::new(pfn));
        }
    }
    fn shrink_caches(&self, _: u64) -> u64 {
        0
    }
}

/// Brings pages in and lets go of them, unless a reclaimer was faster.
fn own(reclaim: &Reclaim<'_>, owned: &Owned, seed: u64, rounds: u32) {
    let mut rng = Rng(seed);
    let mut mine = Vec::new();
    for _ in 0..rounds {
        if rng.one_in(2) {
            let state = if rng.one_in(2) {
                PageState::Anon
            } else {
                PageState::File
            };
            let Some(pfn) = new_page(reclaim, state, PageFlags::empty()) else {
                continue;
            };
            owned[pfn.index()].store(true, Ordering::Release);
            mine.push(pfn);
        } else if !mine.is_empty() {
            let at = rng.below(mine.len() as u64) as usize;
            let pfn: Pfn = mine.swap_remove(at);
            let page = reclaim.memmap().page(pfn);
            if owned[pfn.index()].swap(false, Ordering::AcqRel) && page.put() {
                reclaim.free_pages(pfn);
            }
        }
    }
}

fn race(kind: PolicyKind, seed: u64) {
    let frames = Frames::new(FRAMES, 1, 4, 8);
    let (vmstat, lists) = (VmStat::new(), frames.lists(kind));
    let reclaim = Reclaim::new(&frames, &frames, &lists, &vmstat);
    let owned: Vec<AtomicBool> = (0..FRAMES).map(|_| AtomicBool::new(false)).collect();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let owners = [1, 2].map(|n| {
            scope.spawn({
                let (reclaim, owned) = (&reclaim, &owned);
                move || own(reclaim, owned, seed * 10 + n, 400_000)
            })
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let taker = Taker {
                    reclaim: &reclaim,
                    owned: &owned,
                };
                let request = ReclaimRequest {
                    order: Order::ZERO,
                    gfp: GfpFlags::KERNEL,
                    target: 8,
                };
                while !stop.load(Ordering::Acquire) {
                    reclaim.try_to_free_pages(&taker, request);
                }
            });
        }
        let ends = owners.map(thread::ScopedJoinHandle::join);
        stop.store(true, Ordering::Release);
        assert!(ends.iter().all(Result::is_ok), "{kind}: an owner failed");
    });
    reclaim.validate().unwrap();
    let held = owned.iter().filter(|owned| owned.load(Ordering::Acquire));
    assert_eq!(
        frames.nr_free() + held.count() as u64,
        u64::from(FRAMES),
        "{kind}: a frame is lost"
    );
}

#[test]
fn pages_are_freed_once_while_reclaim_isolates_them() {
    for kind in PolicyKind::ALL {
        (1..=3).for_each(|seed| race(kind, seed));
    }
}
