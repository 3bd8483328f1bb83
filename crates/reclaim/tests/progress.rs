//! Reclaim makes progress or fails; it never hangs.

mod common;

use common::{Facts, Frames, Host, Rng, new_page};
use vellum_machine::{VmEvent, VmStat};
use vellum_page::{PageFlags, PageSource, PageState};
use vellum_reclaim::{PolicyKind, Reclaim, ReclaimRequest};
use vellum_types::{GfpFlags, Order, Pfn};

const FRAMES: u32 = 500;

/// Host calls that one reclaim may make on a machine of `FRAMES` frames: each priority looks at
/// no more than all of it, and at each page with two calls.
const WATCHDOG: u64 = 13 * 3 * (FRAMES as u64 + 64);

fn fill(
    reclaim: &Reclaim<'_>,
    host: &Host<'_>,
    mut facts: impl FnMut(u32) -> (PageState, Facts),
) -> Vec<Pfn> {
    let mut pages = Vec::new();
    for at in 0.. {
        let (state, facts) = facts(at);
        let mut flags = PageFlags::empty();
        flags.set(PageFlags::DIRTY, facts.dirty);
        let Some(pfn) = new_page(reclaim, state, flags) else {
            return pages;
        };
        host.set(pfn, |slot| *slot = facts);
        pages.push(pfn);
    }
    pages
}

fn request(gfp: GfpFlags) -> ReclaimRequest {
    ReclaimRequest {
        order: Order::ZERO,
        gfp,
        target: 32,
    }
}

/// Runs `f` on a full machine for each policy.
fn each_policy(f: impl Fn(&Reclaim<'_>, &Host<'_>, &VmStat)) {
    for kind in PolicyKind::ALL {
        let frames = Frames::new(FRAMES, 1, 16, 48);
        let (vmstat, lists) = (VmStat::new(), frames.lists(kind));
        let reclaim = Reclaim::new(&frames, &frames, &lists, &vmstat);
        let host = Host::new(&reclaim, FRAMES);
        f(&reclaim, &host, &vmstat);
        reclaim.validate().unwrap();
    }
}

/// Every combination of what may be wrong with all pages: what can be freed is freed.
#[test]
fn every_combination_makes_progress_or_fails() {
    for bits in 0..256_u32 {
        let bit = |n: u32| bits & 1 << n != 0;
        let facts = Facts {
            young: bit(0),
            exec: bit(1),
            locked: bit(2),
            dirty: bit(3),
            pinned: bit(4),
            io_error: bit(5),
            slow_write: bit(6),
            writing: false,
        };
        let anon = bit(7);
        each_policy(|reclaim, host, _| {
            let state = if anon {
                PageState::Anon
            } else {
                PageState::File
            };
            fill(reclaim, host, |_| (state, facts));
            let hopeless = facts.locked || facts.pinned || facts.dirty && facts.io_error;
            let freed = reclaim.try_to_free_pages(host, request(GfpFlags::KERNEL));
            assert_eq!(freed == 0, hopeless, "{} {facts:?}", reclaim.policy());
            assert!(host.calls.get() < WATCHDOG, "{} calls", host.calls.get());
            host.calls.set(0);
            let balanced = reclaim.balance(host);
            assert_eq!(balanced + freed == 0, hopeless);
            assert!(
                host.calls.get() < 4 * WATCHDOG,
                "{} calls",
                host.calls.get()
            );
        });
    }
}

/// One page among hopeless ones is found, wherever it is.
#[test]
fn a_single_page_that_can_go_is_found() {
    for seed in 1..40 {
        each_policy(|reclaim, host, _| {
            let mut rng = Rng(seed);
            let good = rng.below(u64::from(FRAMES)) as u32;
            fill(reclaim, host, |at| {
                let state = if rng.one_in(2) {
                    PageState::Anon
                } else {
                    PageState::File
                };
                let hopeless = at != good;
                (
                    state,
                    Facts {
                        pinned: hopeless,
                        ..Facts::default()
                    },
                )
            });
            let freed = reclaim.try_to_free_pages(host, request(GfpFlags::KERNEL));
            assert_eq!(freed, 1, "{} seed {seed}", reclaim.policy());
            assert!(host.calls.get() < WATCHDOG);
        });
    }
}

#[test]
fn flags_limit_what_is_done() {
    each_policy(|reclaim, host, vmstat| {
        fill(reclaim, host, |at| {
            let dirty = at % 2 == 0;
            (
                PageState::File,
                Facts {
                    dirty,
                    io_error: false,
                    ..Facts::default()
                },
            )
        });
        let before = vmstat.events(VmEvent::AllocStall);
        assert_eq!(
            reclaim.try_to_free_pages(host, request(GfpFlags::ATOMIC)),
            0
        );
        assert_eq!(vmstat.events(VmEvent::AllocStall), before);
        assert_eq!(host.calls.get(), 0);
        let mut all = 0;
        loop {
            let freed = reclaim.try_to_free_pages(host, request(GfpFlags::NOFS));
            all += freed;
            if freed == 0 {
                break;
            }
        }
        let dirty = host
            .facts
            .borrow()
            .iter()
            .filter(|facts| facts.dirty)
            .count() as u64;
        assert_eq!((all, dirty), (u64::from(FRAMES) / 2, u64::from(FRAMES) / 2));
        assert!(reclaim.try_to_free_pages(host, request(GfpFlags::KERNEL)) > 0);
    });
}

#[test]
fn without_swap_anonymous_pages_stay() {
    each_policy(|reclaim, host, _| {
        host.swap.set(0);
        fill(reclaim, host, |at| {
            let file = at % 10 == 0;
            (
                if file {
                    PageState::File
                } else {
                    PageState::Anon
                },
                Facts::default(),
            )
        });
        let mut all = 0;
        while let n @ 1.. = reclaim.try_to_free_pages(host, request(GfpFlags::KERNEL)) {
            all += n;
        }
        assert_eq!(all, u64::from(FRAMES) / 10, "{}", reclaim.policy());
    });
}

#[test]
fn mlocked_pages_never_leave_and_cost_nothing_later() {
    each_policy(|reclaim, host, _| {
        let pages = fill(reclaim, host, |_| {
            (
                PageState::Anon,
                Facts {
                    locked: true,
                    ..Facts::default()
                },
            )
        });
        assert_eq!(
            reclaim.try_to_free_pages(host, request(GfpFlags::KERNEL)),
            0
        );
        host.calls.set(0);
        assert_eq!(
            reclaim.try_to_free_pages(host, request(GfpFlags::KERNEL)),
            0
        );
        assert!(
            host.calls.get() < 20,
            "they are off the lists: {}",
            host.calls.get()
        );
        for pfn in pages {
            host.set(pfn, |facts| facts.locked = false);
            reclaim.reconsider(pfn);
        }
        assert!(reclaim.try_to_free_pages(host, request(GfpFlags::KERNEL)) >= 32);
    });
}

#[test]
fn balance_stops_at_the_high_mark() {
    each_policy(|reclaim, host, vmstat| {
        fill(reclaim, host, |_| (PageState::File, Facts::default()));
        let freed = reclaim.balance(host);
        assert!(
            (48..48 + 32).contains(&freed),
            "{}: {freed}",
            reclaim.policy()
        );
        assert_eq!(vmstat.events(VmEvent::PgStealKswapd), freed);
        assert_eq!(reclaim.balance(host), 0, "nothing to do");
        assert_eq!(vmstat.events(VmEvent::KswapdRuns), 1);
    });
}

/// The owner lets go while the policy holds the page: the put-back frees it.
#[test]
fn a_page_let_go_of_while_isolated_is_freed_once() {
    struct LetGo<'a>(Host<'a>);
    impl vellum_reclaim::ReclaimHost for LetGo<'_> {
        fn page_referenced(&self, pfn: Pfn) -> vellum_reclaim::Referenced {
            assert!(
                !self.0.reclaim.memmap().page(pfn).put(),
                "the policy has one"
            );
            self.0.page_referenced(pfn)
        }
        fn reclaim_page(&self, _: Pfn, _: vellum_reclaim::MayDo) -> vellum_reclaim::Outcome {
            vellum_reclaim::Outcome::Busy
        }
        fn launder_page(&self, _: Pfn) -> vellum_reclaim::Outcome {
            vellum_reclaim::Outcome::Busy
        }
        fn free_swap(&self) -> u64 {
            1
        }
        fn age_spaces(&self, _: &mut dyn FnMut(Pfn)) {}
        fn shrink_caches(&self, _: u64) -> u64 {
            0
        }
    }
    for kind in PolicyKind::ALL {
        let frames = Frames::new(64, 1, 4, 8);
        let (vmstat, lists) = (VmStat::new(), frames.lists(kind));
        let reclaim = Reclaim::new(&frames, &frames, &lists, &vmstat);
        let host = LetGo(Host::new(&reclaim, 64));
        fill(&reclaim, &host.0, |_| (PageState::Anon, Facts::default()));
        reclaim.try_to_free_pages(&host, request(GfpFlags::KERNEL));
        assert_eq!(frames.nr_free(), 64, "{kind}");
        reclaim.validate().unwrap();
    }
}
