//! Random operations on a set and on an array of pages, with and without failing allocations.

mod model;

use model::{Heaps, Model, Object, Rng, Set, addr, page_of, range};
use vellum_types::{PAGE_SIZE, VirtRange, VmFlags};
use vellum_vma::{GapRequest, Vma, VmaError};

struct Run<'m> {
    heaps: &'m Heaps,
    rng: Rng,
    set: Set<'m>,
    model: Model,
    /// Longest area made, in pages.
    longest: u64,
    /// Allocations that may succeed before one fails, less one; zero for no failures.
    fail_every: u64,
    failures: u32,
}

impl Run<'_> {
    fn flags(&mut self) -> VmFlags {
        match self.rng.below(16) {
            0 => VmFlags::READ | VmFlags::WRITE | VmFlags::GROWSDOWN,
            1..9 => VmFlags::READ,
            _ => VmFlags::READ | VmFlags::WRITE,
        }
    }

    fn extent(&mut self) -> (usize, usize) {
        let pages = self.model.pages.len() as u64;
        let first = self.rng.below(pages);
        let len = 1 + self.rng.below(self.longest);
        (first as usize, (first + len).min(pages) as usize)
    }

    fn arm(&mut self) {
        if self.fail_every > 0 {
            let mut count = || self.rng.below(self.fail_every) as i64;
            self.heaps.fail_after([count(), count(), count()]);
        }
    }

    fn disarm(&self) {
        self.heaps.fail_after([i64::MAX; 3]);
    }

    /// After a refusal for want of memory everything is as it was.
    fn failed(&mut self) {
        self.failures += 1;
        self.model.check(&self.set);
    }

    fn insert(&mut self, merged: bool) {
        let (first, end) = self.extent();
        let flags = self.flags();
        // Offsets that continue those of the neighbours, mostly.
        let pgoff = 1000 + first as u64 + u64::from(self.rng.below(8) == 0);
        let object = Object {
            id: self.rng.below(2) as u8,
            linear: self.rng.below(4) != 0,
            tag: [None, None, Some(1), Some(2)][self.rng.below(4) as usize],
        };
        let free = self.model.is_free(first, end);
        self.arm();
        let area = Vma::new(range(first, end), flags, pgoff, object);
        let result = if merged {
            self.set.insert_merged(area)
        } else {
            self.set.insert(area).map(|()| range(first, end))
        };
        self.disarm();
        match result {
            Ok(now) => {
                assert!(free);
                if merged {
                    let (f, e) = self.model.insert_merged(first, end, flags, pgoff, object);
                    assert_eq!(now, range(f, e));
                } else {
                    self.model.set(first, end, flags, pgoff, object);
                }
            }
            Err(VmaError::Overlap) => assert!(!free),
            Err(VmaError::OutOfMemory) => {
                assert!(free);
                self.failed();
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn split(&mut self) {
        let at = self.extent().0;
        self.arm();
        let result = self.set.split(addr(at));
        self.disarm();
        match result {
            Ok(()) => self.model.split(at),
            Err(_) => self.failed(),
        }
    }

    fn isolate(&mut self, first: usize, end: usize) -> bool {
        self.arm();
        let result = self.set.isolate(range(first, end));
        self.disarm();
        match result {
            Ok(()) => {
                self.model.split(first);
                self.model.split(end);
            }
            Err(_) => self.failed(),
        }
        result.is_ok()
    }

    fn unmap(&mut self) {
        let (first, end) = self.extent();
        if !self.isolate(first, end) {
            return;
        }
        self.heaps.fail_after([0; 3]);
        loop {
            let start = self
                .set
                .overlapping(range(first, end))
                .next()
                .map(|area| area.start());
            let Some(start) = start else { break };
            let area = self.set.remove(start).unwrap();
            let (f, e) = self.model.area(page_of(start)).unwrap();
            assert_eq!(area.range(), range(f, e));
            assert!(first <= f && e <= end);
            self.model.clear(f, e);
        }
        assert!(self.set.remove(addr(first)).is_none());
        self.disarm();
        assert!(self.model.is_free(first, end));
    }

    fn protect(&mut self) {
        let (first, end) = self.extent();
        let flags = self.flags();
        if !self.isolate(first, end) {
            return;
        }
        self.heaps.fail_after([0; 3]);
        let starts: Vec<_> = self
            .set
            .overlapping(range(first, end))
            .map(Vma::start)
            .collect();
        for start in starts {
            let area = self.set.find_mut(start).unwrap();
            area.flags = flags;
            let (f, e) = self.model.area(page_of(start)).unwrap();
            self.model.pages[f..e]
                .iter_mut()
                .flatten()
                .for_each(|page| page.flags = flags);
        }
        self.set.merge_around(range(first, end));
        self.disarm();
        self.model.merge_around(first, end);
    }

    fn set_range(&mut self) {
        let at = self.extent().0;
        let Some((first, end)) = self.model.area(at) else {
            return;
        };
        let (mut new_first, mut new_end) = (first as i64, end as i64);
        if self.rng.below(2) == 0 {
            new_first += self.rng.below(7) as i64 - 3;
        } else {
            new_end += self.rng.below(7) as i64 - 3;
        }
        if new_first < 0 || new_end > self.model.pages.len() as i64 || new_first >= new_end {
            return;
        }
        let (new_first, new_end) = (new_first as usize, new_end as usize);
        let page = self.model.pages[first].unwrap();
        let mut without = self.model.clone();
        without.clear(first, end);
        self.heaps.fail_after([0; 3]);
        let result = self.set.set_range(addr(first), range(new_first, new_end));
        self.disarm();
        if without.is_free(new_first.min(first), new_end.max(end)) {
            assert_eq!(result, Ok(()));
            let pgoff = page.pgoff + new_first as u64 - first as u64;
            without.set(new_first, new_end, page.flags, pgoff, page.object);
            self.model = without;
        } else {
            assert_eq!(result, Err(VmaError::Overlap));
        }
    }

    fn gap(&mut self) {
        let (a, b) = (self.extent().0, self.extent().0);
        let wide = self.rng.below(2) == 0;
        let request = GapRequest {
            len: PAGE_SIZE * (1 + self.rng.below(12)),
            low: addr(if wide { 0 } else { a.min(b) }),
            high: addr(if wide {
                self.model.pages.len()
            } else {
                a.max(b)
            }),
            align: [0, PAGE_SIZE, PAGE_SIZE, 4 * PAGE_SIZE, 16 * PAGE_SIZE]
                [self.rng.below(5) as usize],
            top_down: self.rng.below(2) == 0,
            guard_gap: PAGE_SIZE * [0, 3, 8][self.rng.below(3) as usize],
        };
        let naive = GapRequest {
            align: request.align.max(PAGE_SIZE),
            ..request
        };
        assert_eq!(
            self.set.unmapped_area(request),
            self.model.gap(&naive),
            "{request:?}"
        );
    }

    fn find(&mut self) {
        for _ in 0..3 {
            let (first, end) = self.extent();
            let at = addr(first) + self.rng.below(PAGE_SIZE);
            let containing = self.model.area(first);
            let found = containing.or_else(|| {
                let page = (first..self.model.pages.len()).find(|p| self.model.pages[*p].is_some());
                self.model.area(page?)
            });
            let before = containing.map_or(first, |area| area.0);
            let prev = (0..before).rev().find(|p| self.model.pages[*p].is_some());
            let prev = prev.and_then(|p| self.model.area(p));
            let to_range = |(f, e)| -> VirtRange { range(f, e) };
            assert_eq!(self.set.find(at).map(Vma::range), found.map(to_range));
            assert_eq!(
                self.set.find_containing(at).map(Vma::range),
                containing.map(to_range)
            );
            assert_eq!(
                self.set.find_mut(at).map(|a| a.range()),
                containing.map(to_range)
            );
            let (p, f) = self.set.find_prev(at);
            assert_eq!(p.map(Vma::range), prev.map(to_range));
            assert_eq!(f.map(Vma::range), found.map(to_range));
            let overlap = self.set.overlapping(range(first, end)).count();
            let begins =
                (first + 1..end).filter(|p| self.model.pages[*p].is_some_and(|p| p.begins));
            assert_eq!(
                overlap,
                begins.count() + usize::from(self.model.pages[first].is_some())
            );
        }
    }

    fn run(&mut self, operations: u32) {
        for step in 0..operations {
            // Phases in which the set grows, and in which it shrinks to nothing.
            let shrink = step / 10_000 % 3 == 2;
            let what = if shrink && self.rng.below(2) == 0 {
                9
            } else {
                self.rng.below(20)
            };
            match what {
                0..4 => self.insert(true),
                4..8 => self.insert(false),
                8 => self.split(),
                9 => self.unmap(),
                10..12 => self.protect(),
                12..14 => self.set_range(),
                14..16 => self.gap(),
                16 => {
                    let (first, end) = self.extent();
                    self.isolate(first, end);
                }
                17 => {
                    let (first, end) = self.extent();
                    self.set.merge_around(range(first, end));
                    self.model.merge_around(first, end);
                }
                _ => self.find(),
            }
            assert_eq!(self.heaps.areas.live(), self.set.len());
            if step % 128 == 0 {
                self.model.check(&self.set);
            }
        }
        self.model.check(&self.set);
        assert!(self.fail_every == 0 || self.failures > 50);
    }
}

fn run(seed: u64, pages: usize, longest: u64, operations: u32, fail_every: u64) {
    let heaps = Heaps::new();
    {
        let set = Set::new(heaps.caches());
        let (rng, model) = (Rng(seed), Model::new(pages));
        let mut run = Run {
            heaps: &heaps,
            rng,
            set,
            model,
            longest,
            fail_every,
            failures: 0,
        };
        run.run(operations);
        let stats = run.set.cache_stats();
        assert!(stats.hits > 0 && stats.misses > 0);
    }
    assert_eq!(heaps.live(), [0; 3]);
}

#[test]
fn small_space() {
    run(0x9e37_79b9_7f4a_7c15, 64, 8, 100_000, 0);
}

#[test]
fn middle_space() {
    run(0x2545_f491_4f6c_dd1d, 512, 12, 100_000, 0);
}

#[test]
fn large_space_of_many_areas() {
    run(0x1234_5678_9abc_def1, 4096, 3, 60_000, 0);
}

#[test]
fn when_memory_runs_out() {
    run(0x0dd0_beef_cafe_f00d, 1024, 3, 100_000, 4);
}
