//! The radix tree against a map, under random operations and failing allocations.

use std::collections::{BTreeMap, BTreeSet};
use vellum_collections::{Mark, RadixNode, RadixTree};
use vellum_object::{HeapSource, ObjectCache};

type Cache<'m> = ObjectCache<'m, RadixNode<'m, u64>>;

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    /// Mostly dense small indices, sometimes far ones, sometimes the extremes.
    fn index(&mut self) -> u64 {
        let r = self.next();
        match r % 16 {
            0 => u64::MAX - (r >> 8) % 3,
            1 => ((r >> 8) % 5) << ((r >> 16) % 62),
            2..5 => (r >> 8) % 8192,
            _ => (r >> 8) % 300,
        }
    }
}

fn source() -> HeapSource {
    HeapSource::new(Cache::BOX_LAYOUT)
}

#[test]
fn one_value_at_zero_needs_no_node() {
    let heap = source();
    let nodes = Cache::new(&heap);
    heap.fail_after(0);
    let mut tree = RadixTree::new();
    assert_eq!(tree.insert(0, 7, nodes), Ok(None));
    assert!(tree.set_mark(0, Mark::Dirty));
    assert_eq!(tree.next_marked(0, Mark::Dirty), Some((0, &7)));
    assert_eq!((tree.next_gap(0), tree.next_gap(1)), (1, 1));
    assert_eq!(tree.insert(1, 8, nodes).map_err(|e| e.0), Err(8));
    tree.validate().unwrap();
    assert_eq!(tree.remove(0), Some(7));
    assert!(!tree.any_marked(Mark::Dirty));
}

#[test]
fn height_grows_and_shrinks() {
    let heap = source();
    let nodes = Cache::new(&heap);
    let mut tree = RadixTree::new();
    tree.insert(0, 0, nodes).unwrap();
    tree.insert(63, 63, nodes).unwrap();
    assert_eq!(heap.live(), 1);
    tree.insert(64, 64, nodes).unwrap();
    assert_eq!(heap.live(), 3);
    tree.insert(u64::MAX, 1, nodes).unwrap();
    assert_eq!(heap.live(), 3 + 9 + 10);
    tree.validate().unwrap();
    assert_eq!(tree.next(65), Some((u64::MAX, &1)));
    assert_eq!(tree.next_gap(u64::MAX), 0);
    assert_eq!(tree.remove(u64::MAX), Some(1));
    assert_eq!(heap.live(), 3);
    assert_eq!(tree.remove(64), Some(64));
    assert_eq!(heap.live(), 1);
    assert_eq!(tree.remove(63), Some(63));
    assert_eq!(heap.live(), 0);
    assert_eq!(tree.get(0), Some(&0));
}

#[test]
fn a_full_range_has_its_gap_behind_it() {
    let heap = source();
    let nodes = Cache::new(&heap);
    let mut tree = RadixTree::new();
    for index in 0..4096 {
        tree.insert(index, index, nodes).unwrap();
    }
    assert_eq!(tree.next_gap(0), 4096);
    assert_eq!(tree.next_gap(4095), 4096);
    tree.remove(2000);
    assert_eq!(tree.next_gap(5), 2000);
    assert_eq!(tree.range(1990..=2010).count(), 20);
    drop(tree);
    assert_eq!(heap.live(), 0);
}

fn compare(
    tree: &RadixTree<'_, u64>,
    model: &BTreeMap<u64, u64>,
    marks: &[BTreeSet<u64>; 2],
    from: u64,
) {
    assert_eq!(tree.get(from), model.get(&from));
    assert_eq!(
        tree.next(from),
        model.range(from..).next().map(|(i, v)| (*i, v))
    );
    for (mark, set) in Mark::ALL.into_iter().zip(marks) {
        assert_eq!(tree.is_marked(from, mark), set.contains(&from));
        assert_eq!(tree.any_marked(mark), !set.is_empty());
        let next = set.range(from..).next();
        assert_eq!(tree.next_marked(from, mark), next.map(|i| (*i, &model[i])));
    }
    let mut gap = from;
    while model.contains_key(&gap) {
        gap = gap.wrapping_add(1);
        if gap == 0 {
            break;
        }
    }
    assert_eq!(tree.next_gap(from), gap);
}

fn run(seed: u64, operations: u32, fail_every: u64) {
    let heap = source();
    let nodes = Cache::new(&heap);
    let mut rng = Rng(seed);
    let mut tree = RadixTree::new();
    let mut model = BTreeMap::new();
    let mut marks = [BTreeSet::new(), BTreeSet::new()];
    let mut failures = 0;
    for step in 0..operations {
        let index = rng.index();
        // Phases of growth and of decay, so that the height changes.
        let growing = step / 500 % 2 == 0;
        match rng.next() % 10 {
            0..4 if growing => {
                if fail_every != 0 {
                    heap.fail_after((rng.next() % fail_every) as i64);
                }
                let value = rng.next();
                match tree.insert(index, value, nodes) {
                    Ok(old) => assert_eq!(old, model.insert(index, value)),
                    Err((back, _)) => {
                        assert_eq!(back, value);
                        assert!(!model.contains_key(&index));
                        failures += 1;
                        tree.validate().unwrap();
                    }
                }
            }
            0..6 => {
                // What exists is removed more often than not.
                let index = tree.next(index).map_or(index, |found| found.0);
                assert_eq!(tree.remove(index), model.remove(&index));
                marks.iter_mut().for_each(|set| {
                    set.remove(&index);
                });
            }
            what @ (6 | 7) => {
                let mark = Mark::ALL[what as usize - 6];
                let present = model.contains_key(&index);
                assert_eq!(tree.set_mark(index, mark), present);
                if present {
                    marks[what as usize - 6].insert(index);
                }
            }
            8 => {
                let which = (rng.next() & 1) as usize;
                assert_eq!(
                    tree.clear_mark(index, Mark::ALL[which]),
                    marks[which].remove(&index)
                );
            }
            _ => {
                let last = index.saturating_add(rng.next() % 500);
                assert!(
                    tree.range(index..=last)
                        .eq(model.range(index..=last).map(|(i, v)| (*i, v)))
                );
            }
        }
        assert_eq!(tree.len(), model.len() as u64);
        compare(&tree, &model, &marks, index);
        if step % 64 == 0 {
            tree.validate().unwrap();
        }
    }
    assert!(fail_every == 0 || failures > 0);
    drop(tree);
    assert_eq!(heap.live(), 0);
}

#[test]
fn equals_a_map() {
    run(0x9e37_79b9_7f4a_7c15, 200_000, 0);
}

#[test]
fn equals_a_map_when_memory_runs_out() {
    run(0x2545_f491_4f6c_dd1d, 100_000, 12);
}

#[test]
fn every_allocation_can_fail() {
    for n in 0..40 {
        let heap = source();
        let nodes = Cache::new(&heap);
        let mut tree = RadixTree::new();
        tree.insert(3, 3, nodes).unwrap();
        let before = heap.live();
        heap.fail_after(n);
        let far = tree.insert(u64::MAX, 1, nodes);
        tree.validate().unwrap();
        if far.is_err() {
            assert_eq!(heap.live(), before);
            assert_eq!(tree.len(), 1);
        } else {
            assert!(n >= 20);
        }
        assert_eq!(tree.get(3), Some(&3));
    }
}
