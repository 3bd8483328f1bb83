//! The interval tree against a list, under random operations and failing allocations.

use vellum_collections::{IntervalNode, IntervalTree};
use vellum_object::{HeapSource, ObjectCache};

type Cache<'m> = ObjectCache<'m, IntervalNode<'m, u32>>;

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn interval(&mut self) -> (u64, u64) {
        let r = self.next();
        let first = (r >> 8) % 400;
        match r % 32 {
            0 => (0, u64::MAX),
            1 => (u64::MAX, u64::MAX),
            2..6 => (first / 40, first / 40 + 2),
            _ => (first, first + (r >> 40) % 30),
        }
    }
}

fn source() -> HeapSource {
    HeapSource::new(Cache::BOX_LAYOUT)
}

fn run(seed: u64, operations: u32, fail_every: u64) {
    let heap = source();
    let nodes = Cache::new(&heap);
    let mut rng = Rng(seed);
    let mut tree = IntervalTree::new();
    let mut model: Vec<(u64, u64, u32)> = Vec::new();
    for step in 0..operations {
        let (first, last) = rng.interval();
        let growing = step / 2000 % 2 == 0;
        match rng.next() % 8 {
            0..3 if growing => {
                if fail_every != 0 {
                    heap.fail_after((rng.next() % fail_every) as i64);
                }
                match tree.insert(first, last, step, nodes) {
                    Ok(()) => model.push((first, last, step)),
                    Err((back, _)) => assert_eq!(back, step),
                }
            }
            0..4 if !model.is_empty() => {
                let victim = model.swap_remove(rng.next() as usize % model.len());
                let node = tree.remove(victim.0, victim.1, |v| *v == victim.2).unwrap();
                assert_eq!((node.first(), node.last(), *node.value()), victim);
            }
            4 => assert!(tree.remove(first, last, |_| false).is_none()),
            5 if !model.is_empty() => {
                // Moved with the same node: no allocation.
                let at = rng.next() as usize % model.len();
                let victim = model[at];
                heap.fail_after(0);
                let mut node = tree.remove(victim.0, victim.1, |v| *v == victim.2).unwrap();
                node.set_interval(first, last);
                *node.value_mut() = step;
                tree.insert_node(node);
                model[at] = (first, last, step);
                heap.fail_after(i64::MAX);
            }
            _ => {
                let mut found: Vec<_> = tree
                    .overlapping(first, last)
                    .map(|(f, l, v)| (f, l, *v))
                    .collect();
                assert!(found.is_sorted_by_key(|i| (i.0, i.1)));
                let mut expected: Vec<_> = model
                    .iter()
                    .copied()
                    .filter(|i| i.0 <= last && first <= i.1)
                    .collect();
                found.sort_unstable();
                expected.sort_unstable();
                assert_eq!(found, expected);
            }
        }
        assert_eq!(tree.len(), model.len());
        assert_eq!(heap.live(), model.len());
        if step % 64 == 0 {
            tree.validate().unwrap();
        }
    }
    drop(tree);
    assert_eq!(heap.live(), 0);
}

#[test]
fn equals_a_list() {
    run(0x9e37_79b9_7f4a_7c15, 120_000, 0);
}

#[test]
fn equals_a_list_when_memory_runs_out() {
    run(0x2545_f491_4f6c_dd1d, 100_000, 3);
}

#[test]
fn one_of_many_equal_intervals() {
    let heap = source();
    let nodes = Cache::new(&heap);
    let mut tree = IntervalTree::new();
    for value in 0..1000 {
        tree.insert(5, 9, value, nodes).unwrap();
    }
    tree.validate().unwrap();
    for value in (0..1000).rev() {
        assert_eq!(*tree.remove(5, 9, |v| *v == value).unwrap().value(), value);
        tree.validate().unwrap();
    }
    assert!(tree.is_empty());
}

#[test]
fn ascending_and_descending_insertions_stay_balanced() {
    let heap = source();
    let nodes = Cache::new(&heap);
    let mut tree = IntervalTree::new();
    for i in 0..5000 {
        tree.insert(i, i, 0, nodes).unwrap();
        tree.insert(100_000 - i, 100_000 - i, 0, nodes).unwrap();
    }
    tree.validate().unwrap();
    assert_eq!(tree.iter().count(), 10_000);
    assert_eq!(tree.overlapping(6000, 90_000).count(), 0);
}
