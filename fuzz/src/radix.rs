//! The radix tree beside a map.

use crate::input::Input;
use std::collections::{BTreeMap, BTreeSet};
use vellum_collections::{Mark, RadixNode, RadixTree};
use vellum_object::{HeapSource, ObjectCache};

type Cache<'m> = ObjectCache<'m, RadixNode<'m, u64>>;

fn index(input: &mut Input<'_>) -> u64 {
    match input.below(4) {
        0 => input.below(256),
        1 => input.below(1 << 14),
        2 => u64::MAX - input.below(256),
        _ => input.below(256) << input.below(57),
    }
}

/// Inserts, removes, marks and searches; nodes cannot be had at times.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let heap = HeapSource::new(Cache::BOX_LAYOUT);
    let nodes = Cache::new(&heap);
    let mut tree = RadixTree::new();
    let mut model = BTreeMap::new();
    let mut marks = [BTreeSet::new(), BTreeSet::new()];
    while !input.is_empty() {
        let what = input.below(8);
        let at = index(&mut input);
        match what {
            0..=2 => {
                let count = input.below(16);
                heap.fail_after(if count < 4 { count as i64 } else { i64::MAX });
                match tree.insert(at, count, nodes) {
                    Ok(old) => assert_eq!(old, model.insert(at, count)),
                    Err((back, _)) => assert!(back == count && !model.contains_key(&at)),
                }
                heap.fail_after(i64::MAX);
            }
            3 | 4 => {
                let at = tree.next(at).map_or(at, |found| found.0);
                assert_eq!(tree.remove(at), model.remove(&at));
                marks.iter_mut().for_each(|set| {
                    set.remove(&at);
                });
            }
            5 => {
                let which = input.below(2) as usize;
                let there = model.contains_key(&at);
                tree.set_mark(at, Mark::ALL[which]);
                if there {
                    marks[which].insert(at);
                }
            }
            6 => {
                let which = input.below(2) as usize;
                tree.clear_mark(at, Mark::ALL[which]);
                marks[which].remove(&at);
            }
            _ => {
                let end = index(&mut input).max(at);
                let found = tree.range(at..=end).map(|(index, value)| (index, *value));
                let wanted = model.range(at..=end).map(|(index, value)| (*index, *value));
                assert!(found.eq(wanted));
            }
        }
        tree.validate().expect("valid");
        assert_eq!(tree.get(at), model.get(&at));
        let next = model.range(at..).next();
        assert_eq!(tree.next(at), next.map(|(index, value)| (*index, value)));
        for (mark, set) in Mark::ALL.into_iter().zip(&marks) {
            assert_eq!(tree.is_marked(at, mark), set.contains(&at));
            let next = set.range(at..).next();
            assert_eq!(
                tree.next_marked(at, mark).map(|found| found.0),
                next.copied()
            );
        }
        let mut gap = at;
        while model.contains_key(&gap) {
            // 0 also says that there is none up to the end.
            gap = gap.wrapping_add(1);
            if gap == 0 {
                break;
            }
        }
        assert_eq!(tree.next_gap(at), gap);
        assert_eq!(tree.len(), model.len() as u64);
    }
    drop(tree);
    assert_eq!(heap.live(), 0);
}
