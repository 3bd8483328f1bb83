//! Trees of mappers and chains of `anon_vma`s against naive lists, also while allocations fail.

use std::collections::BTreeSet;
use vellum_collections::{IntervalNode, RadixNode};
use vellum_object::{HeapSource, KArc, ObjectCache};
use vellum_rmap::{
    AnonLink, AnonLinkRef, AnonTable, AnonVma, AnonVmaRef, MapTree, Mapped, Mapper, Registration,
    RmapCaches,
};
use vellum_types::SpaceId;

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

struct File<'m>(MapTree<'m>);

impl<'m> Mapped<'m> for File<'m> {
    fn mappers(&self) -> &MapTree<'m> {
        &self.0
    }
}

type Nodes<'m> = ObjectCache<'m, IntervalNode<'m, Mapper>>;

fn mapper(rng: &mut Rng) -> Mapper {
    Mapper {
        space: SpaceId((rng.next() % 200) as u32),
        bias: rng.next() % 3,
    }
}

#[test]
fn visits_exactly_who_is_registered() {
    let (node_heap, file_heap) = (
        HeapSource::new(Nodes::BOX_LAYOUT),
        HeapSource::new(ObjectCache::<File<'_>>::ARC_LAYOUT),
    );
    let nodes = Nodes::new(&node_heap);
    let file = ObjectCache::new(&file_heap)
        .shared(File(MapTree::new()))
        .expect("a file");
    let mut rng = Rng(0x9e37_79b9_7f4a_7c15);
    let mut live: Vec<(Registration<'_, File<'_>>, u64, u64)> = Vec::new();
    for step in 0..120_000 {
        let (first, len) = (rng.next() % 64, rng.next() % 16);
        let growing = live.len() < 40 || (step / 4000 % 2 == 0 && live.len() < 400);
        match rng.next() % 4 {
            0 | 1 if growing => {
                if rng.next().is_multiple_of(8) {
                    node_heap.fail_after(0);
                }
                let who = mapper(&mut rng);
                let before = file.0.len();
                match Registration::new(file.clone(), who, first, first + len, nodes) {
                    Ok(one) => live.push((one, first, first + len)),
                    Err(_) => assert_eq!(file.0.len(), before),
                }
                node_heap.fail_after(-1);
            }
            0 | 1 => {
                let at = rng.next() as usize % live.len();
                drop(live.swap_remove(at));
            }
            2 if !live.is_empty() => {
                let at = rng.next() as usize % live.len();
                let (one, from, to) = &mut live[at];
                one.widen(first, first + len);
                (*from, *to) = ((*from).min(first), (*to).max(first + len));
                assert_eq!(one.interval(), (*from, *to));
            }
            _ if step % 16 == 0 => {
                let last = first + len;
                let mut want: Vec<_> = live
                    .iter()
                    .filter(|(_, from, to)| *from <= last && first <= *to)
                    .map(|(one, from, to)| (one.mapper(), *from.max(&first), *to.min(&last)))
                    .collect();
                let mut seen = Vec::new();
                file.0.visit(first, last, &mut |who, from, to| {
                    seen.push((who, from, to));
                    true
                });
                want.sort();
                seen.sort();
                if seen.len() <= 64 {
                    assert_eq!(seen, want);
                }
                // More than one look takes equal entries once: one visit of a space is enough.
                want.dedup();
                seen.dedup();
                assert_eq!(seen, want);
            }
            _ => {}
        }
        if step % 1024 == 0 {
            file.0.validate().expect("a valid tree");
        }
    }
    live.clear();
    assert!(file.0.is_empty());
    drop(file);
    assert_eq!(node_heap.live(), 0);
}

#[test]
fn a_visit_that_is_stopped_stops() {
    let (node_heap, file_heap) = (
        HeapSource::new(Nodes::BOX_LAYOUT),
        HeapSource::new(ObjectCache::<File<'_>>::ARC_LAYOUT),
    );
    let file = ObjectCache::new(&file_heap)
        .shared(File(MapTree::new()))
        .expect("a file");
    let nodes = Nodes::new(&node_heap);
    let _live: Vec<_> = (0..300)
        .map(|n| {
            let who = Mapper::new(SpaceId(n), 100, 7);
            Registration::new(file.clone(), who, 0, 9, nodes).expect("memory")
        })
        .collect();
    let mut seen = 0;
    file.0.visit(5, 5, &mut |who, from, to| {
        assert_eq!((from, to), (5, 5));
        assert_eq!(who.addr(5).page_number(), 98);
        seen += 1;
        seen < 130
    });
    assert_eq!(seen, 130);
}

struct Heaps {
    all: [HeapSource; 4],
}

impl Heaps {
    fn new() -> Self {
        Self {
            all: [
                HeapSource::new(ObjectCache::<AnonVma<'_>>::ARC_LAYOUT),
                HeapSource::new(ObjectCache::<AnonLink<'_>>::ARC_LAYOUT),
                HeapSource::new(ObjectCache::<RadixNode<'_, AnonVmaRef<'_>>>::BOX_LAYOUT),
                HeapSource::new(Nodes::BOX_LAYOUT),
            ],
        }
    }
    fn caches(&self) -> RmapCaches<'_> {
        let [anon_vma, links, numbers, mappers] = &self.all;
        RmapCaches {
            anon_vma: ObjectCache::new(anon_vma),
            links: ObjectCache::new(links),
            numbers: ObjectCache::new(numbers),
            mappers: ObjectCache::new(mappers),
        }
    }
    fn fail(&self, rng: &mut Rng) {
        for heap in &self.all {
            heap.fail_after(if rng.next().is_multiple_of(2) {
                (rng.next() % 6) as i64
            } else {
                -1
            });
        }
    }
    fn heal(&self) {
        self.all.iter().for_each(|heap| heap.fail_after(-1));
    }
}

/// A process with one area of 16 pages: its chain, and for each page the `anon_vma` it belongs to.
struct Process<'m> {
    space: SpaceId,
    chain: AnonLinkRef<'m>,
    pages: [u32; 16],
}

fn spaces_of(table: &AnonTable<'_>, id: u32, index: u64) -> BTreeSet<SpaceId> {
    let mut seen = BTreeSet::new();
    let anon_vma = table.get(id).expect("a live anon_vma");
    anon_vma.mappers().visit(index, index, &mut |who, _, _| {
        seen.insert(who.space);
        true
    });
    seen
}

/// Random forks, writes and exits: whoever has a page is found from it.
fn live_and_fork(fail: bool) {
    let heaps = Box::leak(Box::new(Heaps::new()));
    let table: &'static AnonTable<'static> = Box::leak(Box::new(AnonTable::new()));
    let caches = heaps.caches();
    let mut rng = Rng(0x1234_5678_9abc_def1);
    let mut next = 1;
    let mut all: Vec<Process<'static>> = Vec::new();
    let mut longest = 0;
    for step in 0..40_000 {
        if fail {
            heaps.fail(&mut rng);
        }
        match rng.next() % 8 {
            _ if all.is_empty() => {
                let who = Mapper::new(SpaceId(next), 1000, 0);
                if let Ok(chain) = AnonLink::prepare(table, &caches, who, (0, 15)) {
                    let pages = [chain.anon_vma().id(); 16];
                    all.push(Process {
                        space: SpaceId(next),
                        chain,
                        pages,
                    });
                    next += 1;
                }
            }
            0..3 if all.len() < 24 => {
                let parent = &all[rng.next() as usize % all.len()];
                let who = Mapper::new(SpaceId(next), 1000, 0);
                if let Ok(chain) = parent.chain.fork(table, &caches, who, (0, 15)) {
                    let pages = parent.pages;
                    all.push(Process {
                        space: SpaceId(next),
                        chain,
                        pages,
                    });
                    next += 1;
                }
            }
            3 => {
                let at = rng.next() as usize % all.len();
                drop(all.swap_remove(at));
            }
            4 => {
                let at = rng.next() as usize % all.len();
                let who = Mapper::new(all[at].space, 5000 + step, 0);
                if let Ok(chain) = all[at].chain.moved(&caches, who, (0, 15)) {
                    assert!(chain.same_chain(&all[at].chain));
                    all[at].chain = chain;
                }
            }
            _ => {
                let at = rng.next() as usize % all.len();
                let id = all[at].chain.anon_vma().id();
                all[at].pages[rng.next() as usize % 16] = id;
            }
        }
        heaps.heal();
        if step % 64 == 0 {
            table.validate().expect("a valid table");
            for process in &all {
                longest = longest.max(process.chain.depth());
                for (index, id) in (0..).zip(process.pages) {
                    assert!(spaces_of(table, id, index).contains(&process.space));
                }
            }
        }
    }
    // Ancestors that are gone leave nothing that grows.
    assert!(longest <= 26, "a chain of {longest}");
    all.clear();
    assert!(table.is_empty());
    for heap in &heaps.all[..2] {
        assert_eq!(heap.live(), 0);
    }
}

#[test]
fn whoever_has_a_page_is_found_from_it() {
    live_and_fork(false);
}

#[test]
fn failed_allocations_leave_no_trace() {
    live_and_fork(true);
}

#[test]
fn a_page_made_after_a_fork_is_sought_in_the_child_alone() {
    let heaps = Box::leak(Box::new(Heaps::new()));
    let table: &'static AnonTable<'static> = Box::leak(Box::new(AnonTable::new()));
    let caches = heaps.caches();
    let who = |space| Mapper::new(SpaceId(space), 0, 0);
    let parent = AnonLink::prepare(table, &caches, who(1), (0, 9)).expect("memory");
    let child = parent.fork(table, &caches, who(2), (0, 9)).expect("memory");
    let other = parent.fork(table, &caches, who(3), (0, 9)).expect("memory");
    let of = |chain: &AnonLinkRef<'static>| {
        let seen = spaces_of(table, chain.anon_vma().id(), 4);
        seen.into_iter().map(|space| space.0).collect::<Vec<_>>()
    };
    assert_eq!(of(&parent), [1, 2, 3]);
    assert_eq!(of(&child), [2]);
    assert_eq!(of(&other), [3]);
    assert!(!child.is_singular() && parent.is_singular());
    // A daemon that forks and whose parent ends, over and over: the chain does not grow.
    let mut last = child;
    drop((parent, other));
    for space in 4..100 {
        let next = last
            .fork(table, &caches, who(space), (0, 9))
            .expect("memory");
        last = next;
        assert!(last.depth() <= 3, "depth {}", last.depth());
    }
    assert!(KArc::strong_count(&last) == 1);
}
