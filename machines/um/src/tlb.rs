//! What is installed in a host address space: an exact record, in runs.
//!
//! A run is a stretch of pages whose frames are consecutive (or all the zero page) and whose
//! protection is equal: one `mmap` of the host, and one of its areas.

use std::collections::BTreeMap;
use vellum_types::Prot;

/// What stands behind a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// This frame of RAM; the next page of a run has the next frame.
    Frame(u32),
    /// Zeroes, for reading only.
    Zero,
}

impl Target {
    /// The target `pages` further on.
    pub(crate) fn ahead(self, pages: u64) -> Self {
        match self {
            Self::Frame(frame) => Self::Frame(frame + pages as u32),
            Self::Zero => Self::Zero,
        }
    }
}

/// A stretch of pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    /// How many.
    pub pages: u64,
    /// What stands behind the first.
    pub target: Target,
    /// What the guest may do without a fault.
    pub prot: Prot,
    /// The operation that installed it last.
    pub epoch: u32,
}

/// The record of one space. Keys are page numbers.
#[derive(Clone, Default, Debug)]
pub(crate) struct Record {
    runs: BTreeMap<u64, Run>,
}

impl Record {
    /// How many runs there are.
    pub(crate) fn len(&self) -> usize {
        self.runs.len()
    }

    /// What is installed at `page`.
    pub(crate) fn get(&self, page: u64) -> Option<(Target, Prot)> {
        let (first, run) = self.runs.range(..=page).next_back()?;
        let offset = page - first;
        (offset < run.pages).then(|| (run.target.ahead(offset), run.prot))
    }

    /// Notes that operation `epoch` needs `page`, which is installed.
    pub(crate) fn touch(&mut self, page: u64, epoch: u32) {
        if let Some((_, run)) = self.runs.range_mut(..=page).next_back() {
            run.epoch = epoch;
        }
    }

    /// Runs that touch `first..end`, clipped to it.
    pub(crate) fn clipped(&self, first: u64, end: u64) -> impl Iterator<Item = (u64, Run)> + '_ {
        let from = match self.runs.range(..first).next_back() {
            Some((at, run)) if at + run.pages > first => *at,
            _ => first,
        };
        self.runs.range(from..end.max(from)).map(move |(at, run)| {
            let (low, high) = ((*at).max(first), (at + run.pages).min(end));
            (
                low,
                Run {
                    pages: high - low,
                    target: run.target.ahead(low - at),
                    ..*run
                },
            )
        })
    }

    /// Cuts the run that covers `page`, if any, so that one begins there.
    fn split(&mut self, page: u64) {
        let Some((at, run)) = self.runs.range_mut(..page).next_back() else {
            return;
        };
        let head = page - at;
        if head < run.pages {
            let tail = Run {
                pages: run.pages - head,
                target: run.target.ahead(head),
                ..*run
            };
            run.pages = head;
            self.runs.insert(page, tail);
        }
    }

    /// Forgets `first..end`.
    pub(crate) fn remove(&mut self, first: u64, end: u64) {
        self.split(first);
        self.split(end);
        while let Some((at, _)) = self.runs.range(first..end).next() {
            let at = *at;
            self.runs.remove(&at);
        }
    }

    /// Records a run, in place of whatever was there.
    pub(crate) fn insert(&mut self, first: u64, run: Run) {
        self.remove(first, first + run.pages);
        self.runs.insert(first, run);
        self.join(first + run.pages);
        self.join(first);
    }

    /// Takes the write permission from `first..end`; calls `each` with what was writable.
    pub(crate) fn wrprotect(&mut self, first: u64, end: u64, mut each: impl FnMut(u64, u64, Prot)) {
        let writable: Vec<(u64, Run)> = self
            .clipped(first, end)
            .filter(|(_, run)| run.prot.contains(Prot::WRITE))
            .collect();
        for (at, run) in writable {
            let prot = run.prot.difference(Prot::WRITE);
            self.split(at);
            self.split(at + run.pages);
            if let Some(run) = self.runs.get_mut(&at) {
                run.prot = prot;
            }
            self.join(at + run.pages);
            self.join(at);
            each(at, run.pages, prot);
        }
    }

    /// Joins the runs that meet at `page`, if they are one.
    fn join(&mut self, page: u64) {
        let Some(right) = self.runs.get(&page).copied() else {
            return;
        };
        let Some((at, left)) = self.runs.range_mut(..page).next_back() else {
            return;
        };
        let meets = at + left.pages == page && left.target.ahead(left.pages) == right.target;
        if meets && left.prot == right.prot {
            left.pages += right.pages;
            left.epoch = left.epoch.max(right.epoch);
            self.runs.remove(&page);
        }
    }

    /// The first run at or after `page`, else the first of all: a clock's hand.
    pub(crate) fn next_run(&self, page: u64) -> Option<(u64, Run)> {
        let next = self
            .runs
            .range(page..)
            .next()
            .or_else(|| self.runs.iter().next());
        next.map(|(at, run)| (*at, *run))
    }

    /// Checks that runs are ordered, not empty, disjoint and joined.
    #[cfg(test)]
    fn validate(&self) {
        let mut before: Option<(u64, Run)> = None;
        for (at, run) in &self.runs {
            assert!(run.pages > 0);
            if let Some((last, left)) = before {
                assert!(last + left.pages <= *at, "overlap");
                let meets = last + left.pages == *at
                    && left.target.ahead(left.pages) == run.target
                    && left.prot == run.prot;
                assert!(!meets, "not joined");
            }
            before = Some((*at, *run));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    struct Rng(u64);
    impl Rng {
        fn below(&mut self, n: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % n
        }
    }

    #[test]
    fn agrees_with_a_map_of_pages() {
        let mut rng = Rng(0x9e37_79b9_7f4a_7c15);
        let mut record = Record::default();
        let mut model: HashMap<u64, (Target, Prot)> = HashMap::new();
        for step in 0..100_000 {
            let (first, pages) = (rng.below(64), rng.below(8) + 1);
            match rng.below(4) {
                0 => {
                    record.remove(first, first + pages);
                    (first..first + pages).for_each(|p| {
                        model.remove(&p);
                    });
                }
                1 => {
                    record.wrprotect(first, first + pages, |at, n, prot| {
                        for p in at..at + n {
                            let (_, old) = model.get_mut(&p).expect("was there");
                            assert!(old.contains(Prot::WRITE));
                            *old = prot;
                        }
                    });
                    let left = (first..first + pages).filter_map(|p| model.get(&p));
                    assert!(
                        left.into_iter()
                            .all(|(_, prot)| !prot.contains(Prot::WRITE))
                    );
                }
                kind => {
                    let zero = kind == 2 && rng.below(2) == 0;
                    let target = if zero {
                        Target::Zero
                    } else {
                        Target::Frame(first as u32 + 8 * rng.below(2) as u32)
                    };
                    let prot = if zero || rng.below(2) == 0 {
                        Prot::READ
                    } else {
                        Prot::READ | Prot::WRITE
                    };
                    record.insert(
                        first,
                        Run {
                            pages,
                            target,
                            prot,
                            epoch: 0,
                        },
                    );
                    for p in 0..pages {
                        model.insert(first + p, (target.ahead(p), prot));
                    }
                }
            }
            if step % 16 == 0 {
                record.validate();
                for page in 0..80 {
                    assert_eq!(record.get(page), model.get(&page).copied(), "page {page}");
                }
                let covered: u64 = record.clipped(10, 50).map(|(_, run)| run.pages).sum();
                assert_eq!(
                    covered,
                    (10..50).filter(|p| model.contains_key(p)).count() as u64
                );
            }
        }
    }
}
