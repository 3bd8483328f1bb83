//! Random operations against a naive reference: which pages exist and which are on lists.

mod common;

use common::{Facts, Frames, Host, Rng, new_page, on_lists};
use std::collections::BTreeSet;
use vellum_machine::{VmEvent, VmItem, VmStat};
use vellum_page::{PageFlags, PageSource, PageState};
use vellum_reclaim::{PolicyKind, Reclaim, ReclaimRequest};
use vellum_types::{GfpFlags, Order, Pfn};

const FRAMES: u32 = 300;

fn random_facts(rng: &mut Rng) -> Facts {
    Facts {
        young: rng.one_in(2),
        exec: rng.one_in(8),
        locked: rng.one_in(30),
        dirty: rng.one_in(3),
        pinned: rng.one_in(20),
        io_error: rng.one_in(20),
        slow_write: rng.one_in(4),
        writing: false,
    }
}

fn model(kind: PolicyKind, seed: u64, ops: u32) {
    let frames = Frames::new(FRAMES, 1 + (seed % 3) as u8, 6, 12);
    let (vmstat, lists) = (VmStat::new(), frames.lists(kind));
    let reclaim = Reclaim::new(&frames, &frames, &lists, &vmstat);
    let host = Host::new(&reclaim, FRAMES);
    let mut rng = Rng(seed * 77 + 1);
    let mut live: BTreeSet<Pfn> = BTreeSet::new();
    // Pages that somebody holds one more reference to, though the owner has let go.
    let mut shadows: Vec<u32> = Vec::new();
    let memmap = reclaim.memmap();
    for op in 0..ops {
        let any = |rng: &mut Rng, live: &BTreeSet<Pfn>| {
            let at = rng.below(live.len().max(1) as u64) as usize;
            live.iter().nth(at).copied()
        };
        match rng.below(10) {
            0..=3 => {
                let state = if rng.one_in(2) {
                    PageState::Anon
                } else {
                    PageState::File
                };
                let mut flags = PageFlags::empty();
                flags.set(PageFlags::MLOCKED, rng.one_in(40));
                flags.set(PageFlags::SWAPBACKED, rng.one_in(4));
                if let Some(pfn) = new_page(&reclaim, state, flags) {
                    host.set(pfn, |facts| *facts = random_facts(&mut rng));
                    if host.facts.borrow()[pfn.index()].dirty {
                        memmap.page(pfn).set_flags(PageFlags::DIRTY);
                    }
                    if let Some(shadow) = shadows.pop() {
                        reclaim.refault(pfn, shadow);
                    }
                    assert!(live.insert(pfn), "{pfn:?} was given out twice");
                } else {
                    host.swap.set(rng.below(3));
                    let request = ReclaimRequest {
                        order: Order::ZERO,
                        gfp: if rng.one_in(3) {
                            GfpFlags::NOFS
                        } else {
                            GfpFlags::KERNEL
                        },
                        target: rng.below(40),
                    };
                    let before = frames.nr_free();
                    let n = reclaim.try_to_free_pages(&host, request);
                    assert_eq!(frames.nr_free() - before, n, "the answer is what was freed");
                }
            }
            4 => {
                if let Some(pfn) = any(&mut rng, &live) {
                    live.remove(&pfn);
                    assert!(memmap.page(pfn).put());
                    reclaim.free_pages(pfn);
                }
            }
            5 => {
                if let Some(pfn) = any(&mut rng, &live) {
                    reclaim.mark_accessed(pfn);
                }
            }
            6 | 7 => {
                if let Some(pfn) = any(&mut rng, &live) {
                    host.set(pfn, |facts| facts.young = true);
                }
            }
            8 => {
                if let Some(pfn) = any(&mut rng, &live) {
                    let page = memmap.page(pfn);
                    let lock = rng.one_in(3);
                    host.set(pfn, |facts| facts.locked = lock);
                    if lock {
                        page.set_flags(PageFlags::MLOCKED);
                    } else {
                        page.clear_flags(PageFlags::MLOCKED);
                    }
                    reclaim.reconsider(pfn);
                    if page.flags().contains(PageFlags::UNEVICTABLE) {
                        assert!(lock, "an unlocked page stays unevictable");
                    }
                }
            }
            _ => {
                host.swap.set(rng.below(50));
                let before = frames.nr_free();
                let n = reclaim.balance(&host);
                assert_eq!(frames.nr_free() - before, n);
            }
        }
        for (pfn, shadow) in host.freed.borrow_mut().drain(..) {
            assert!(live.remove(&pfn), "{pfn:?} was not there to free");
            shadows.push(shadow);
        }
        shadows.truncate(100);
        assert_eq!(on_lists(&vmstat), live.len() as u64, "after {op}");
        assert_eq!(frames.nr_free() + live.len() as u64, u64::from(FRAMES));
        if op % 64 == 0 {
            reclaim.validate().unwrap();
            for pfn in &live {
                let page = memmap.page(*pfn);
                assert!(page.flags().contains(PageFlags::LRU) && page.refcount() == 1);
            }
        }
    }
    reclaim.validate().unwrap();
    let stolen = vmstat.events(VmEvent::PgStealKswapd) + vmstat.events(VmEvent::PgStealDirect);
    let types = vmstat.events(VmEvent::PgStealAnon) + vmstat.events(VmEvent::PgStealFile);
    assert!(stolen > 100 && stolen == types);
    assert!(vmstat.events(VmEvent::UnevictablePgsCulled) > 0);
    assert!(vmstat.item(VmItem::NrUnevictable) <= live.len() as u64);
}

#[test]
fn two_list_agrees_with_the_reference() {
    (1..=10).for_each(|seed| model(PolicyKind::TwoList, seed, 12_000));
}

#[test]
fn linux24_agrees_with_the_reference() {
    (1..=10).for_each(|seed| model(PolicyKind::Linux24, seed, 12_000));
}

#[test]
fn mglru_agrees_with_the_reference() {
    (1..=10).for_each(|seed| model(PolicyKind::Mglru, seed, 12_000));
}

#[test]
fn lru_agrees_with_the_reference() {
    (1..=10).for_each(|seed| model(PolicyKind::Lru, seed, 12_000));
}
