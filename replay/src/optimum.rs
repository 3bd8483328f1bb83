//! What no policy can beat, and what exact LRU does.

use crate::trace::Trace;
use std::collections::BinaryHeap;

/// Faults of Bélády's optimum in a memory of `ram` pages: it evicts the page whose next use is
/// farthest away. O(n log n).
pub fn optimal_faults(trace: &Trace, ram: u32) -> u64 {
    const NEVER: usize = usize::MAX;
    let references = &trace.references;
    let mut next = vec![NEVER; references.len()];
    let mut seen = vec![NEVER; trace.pages as usize];
    for (at, reference) in references.iter().enumerate().rev() {
        next[at] = std::mem::replace(&mut seen[reference.page as usize], at);
    }
    // The resident pages by next use; an entry is out of date if the page's next use has changed.
    let mut due = vec![None; trace.pages as usize];
    let mut heap = BinaryHeap::new();
    let (mut resident, mut faults) = (0, 0);
    for (at, reference) in references.iter().enumerate() {
        let page = reference.page as usize;
        if due[page].is_none() {
            faults += 1;
            if resident == ram {
                while let Some((when, victim)) = heap.pop() {
                    if due[victim] == Some(when) {
                        due[victim] = None;
                        break;
                    }
                }
            } else {
                resident += 1;
            }
        }
        due[page] = Some(next[at]);
        heap.push((next[at], page));
    }
    faults
}

/// Faults of exact LRU for every size of memory: element `n` is for `n` pages; the last is for all
/// pages. By stack distances, O(n log n) for all sizes together.
pub fn lru_faults(trace: &Trace) -> Vec<u64> {
    let n = trace.references.len();
    let mut tree = Fenwick(vec![0; n + 1]);
    let mut last = vec![None; trace.pages as usize];
    let mut at_distance = vec![0_u64; trace.pages as usize + 1];
    let mut hits = 0;
    for (at, reference) in trace.references.iter().enumerate() {
        let page = reference.page as usize;
        if let Some(before) = last[page] {
            // Pages used since then, this one included, have their latest use in before..at.
            let distance = (tree.up_to(at) - tree.up_to(before)) as usize;
            at_distance[distance] += 1;
            tree.add(before, -1);
            hits += 1;
        }
        tree.add(at, 1);
        last[page] = Some(at);
    }
    debug_assert_eq!(at_distance.iter().sum::<u64>(), hits);
    let mut faults = n as u64;
    let mut curve = Vec::with_capacity(at_distance.len());
    for count in at_distance {
        faults -= count;
        curve.push(faults);
    }
    curve
}

/// Prefix sums that can be changed.
struct Fenwick(Vec<i32>);

impl Fenwick {
    fn add(&mut self, at: usize, by: i32) {
        let mut at = at + 1;
        while at < self.0.len() {
            self.0[at] += by;
            at += at & at.wrapping_neg();
        }
    }
    /// The sum of the first `end` elements.
    fn up_to(&self, end: usize) -> i32 {
        let (mut at, mut sum) = (end, 0);
        while at > 0 {
            sum += self.0[at];
            at &= at - 1;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::Rng;

    fn random(seed: u64) -> Trace {
        let mut rng = Rng::new(seed);
        Trace::from_pages((0..300).map(|_| (rng.below(12) * rng.below(3), false)))
    }

    /// Looks at the future and the past of every resident page, each time.
    fn naive(trace: &Trace, ram: usize, optimal: bool) -> u64 {
        let refs: Vec<u32> = trace.references.iter().map(|r| r.page).collect();
        let (mut resident, mut faults) = (Vec::new(), 0);
        for (at, page) in refs.iter().enumerate() {
            if resident.contains(page) {
                continue;
            }
            faults += 1;
            if resident.len() == ram {
                let key = |page: &u32| {
                    if optimal {
                        let ahead = refs[at..].iter().position(|r| r == page);
                        ahead.unwrap_or(usize::MAX)
                    } else {
                        at - refs[..at].iter().rposition(|r| r == page).unwrap_or(0)
                    }
                };
                let victim = (0..ram).max_by_key(|i| key(&resident[*i])).unwrap();
                resident.swap_remove(victim);
            }
            resident.push(*page);
        }
        faults
    }

    #[test]
    fn both_agree_with_the_naive_way() {
        for seed in 1..40 {
            let trace = random(seed);
            let curve = lru_faults(&trace);
            for ram in 1..=trace.pages {
                assert_eq!(
                    optimal_faults(&trace, ram),
                    naive(&trace, ram as usize, true)
                );
                assert_eq!(curve[ram as usize], naive(&trace, ram as usize, false));
            }
        }
    }

    #[test]
    fn the_textbook_example() {
        let pages = [7, 0, 1, 2, 0, 3, 0, 4, 2, 3, 0, 3, 2, 1, 2, 0, 1, 7, 0, 1];
        let trace = Trace::from_pages(pages.map(|page| (page, false)));
        assert_eq!(optimal_faults(&trace, 3), 9);
        assert_eq!(lru_faults(&trace)[3], 12);
    }
}
