//! The set of areas beside an array with an entry for each page: the model of the crate's own tests.

use crate::input::Input;
use model::{Heaps, Model, Object, Set, addr, page_of, range};
use vellum_types::{PAGE_SIZE, VmFlags};
use vellum_vma::{GapRequest, Vma, VmaError};

#[allow(
    dead_code,
    unreachable_pub,
    reason = "of the model, not of its generator"
)]
#[path = "../../crates/vma/tests/model/mod.rs"]
mod model;

const PAGES: u64 = 256;

struct Run<'h> {
    heaps: &'h Heaps,
    set: Set<'h>,
    model: Model,
}

/// Inserts, splits, isolates, removes, protects, moves boundaries and searches gaps; nodes cannot be
/// had at times.
pub fn run(data: &[u8]) {
    let heaps = Heaps::new();
    let mut input = Input::new(data);
    let mut run = Run {
        heaps: &heaps,
        set: Set::new(heaps.caches()),
        model: Model::new(PAGES as usize),
    };
    while !input.is_empty() {
        run.step(&mut input);
        run.model.check(&run.set);
    }
    drop(run);
    assert_eq!(heaps.live(), [0; 3]);
}

fn flags(input: &mut Input<'_>) -> VmFlags {
    match input.below(8) {
        0 => VmFlags::READ | VmFlags::WRITE | VmFlags::GROWSDOWN,
        1..=4 => VmFlags::READ,
        _ => VmFlags::READ | VmFlags::WRITE,
    }
}

fn extent(input: &mut Input<'_>) -> (usize, usize) {
    let first = input.below(PAGES);
    let len = 1 + input.below(16);
    (first as usize, (first + len).min(PAGES) as usize)
}

impl Run<'_> {
    /// Does something that may fail for want of memory; then nothing has changed.
    fn arm(&self, input: &mut Input<'_>) {
        let mut count = || match input.below(16) {
            few @ 0..=3 => few as i64,
            _ => i64::MAX,
        };
        self.heaps.fail_after([count(), count(), count()]);
    }

    fn disarm(&self) {
        self.heaps.fail_after([i64::MAX; 3]);
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let what = input.below(8);
        let (first, end) = extent(input);
        match what {
            0 | 1 => self.insert(input, first, end, what == 0),
            2 => {
                self.arm(input);
                let done = self.set.split(addr(first)).is_ok();
                self.disarm();
                if done {
                    self.model.split(first);
                }
            }
            3 => self.unmap(input, first, end),
            4 => self.protect(input, first, end),
            5 => self.set_range(input, first),
            6 => self.gap(input, first, end),
            _ => {
                self.set.merge_around(range(first, end));
                self.model.merge_around(first, end);
            }
        }
    }

    fn insert(&mut self, input: &mut Input<'_>, first: usize, end: usize, merged: bool) {
        let flags = flags(input);
        let bits = input.byte();
        let pgoff = 1000 + first as u64 + u64::from(bits & 7 == 7);
        let object = Object {
            id: bits >> 3 & 1,
            linear: bits >> 4 & 1 == 0,
            tag: [None, None, Some(1), Some(2)][usize::from(bits >> 5 & 3)],
        };
        let free = self.model.is_free(first, end);
        self.arm(input);
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
            Err(VmaError::OutOfMemory) => assert!(free),
            Err(error) => panic!("{error}"),
        }
    }

    fn isolate(&mut self, input: &mut Input<'_>, first: usize, end: usize) -> bool {
        self.arm(input);
        let done = self.set.isolate(range(first, end)).is_ok();
        self.disarm();
        if done {
            self.model.split(first);
            self.model.split(end);
        }
        done
    }

    fn unmap(&mut self, input: &mut Input<'_>, first: usize, end: usize) {
        if !self.isolate(input, first, end) {
            return;
        }
        // What takes away needs no memory.
        self.heaps.fail_after([0; 3]);
        let next = |set: &Set<'_>| set.overlapping(range(first, end)).next().map(Vma::start);
        while let Some(start) = next(&self.set) {
            let area = self.set.remove(start).expect("it was found");
            let (f, e) = self.model.area(page_of(start)).expect("an area");
            assert_eq!(area.range(), range(f, e));
            assert!(first <= f && e <= end);
            self.model.clear(f, e);
        }
        self.disarm();
        assert!(self.model.is_free(first, end));
    }

    fn protect(&mut self, input: &mut Input<'_>, first: usize, end: usize) {
        let flags = flags(input);
        if !self.isolate(input, first, end) {
            return;
        }
        self.heaps.fail_after([0; 3]);
        let areas = self.set.overlapping(range(first, end));
        let starts: Vec<_> = areas.map(Vma::start).collect();
        for start in starts {
            self.set.find_mut(start).expect("it was found").flags = flags;
            let (f, e) = self.model.area(page_of(start)).expect("an area");
            let pages = self.model.pages[f..e].iter_mut();
            pages.flatten().for_each(|page| page.flags = flags);
        }
        self.set.merge_around(range(first, end));
        self.disarm();
        self.model.merge_around(first, end);
    }

    fn set_range(&mut self, input: &mut Input<'_>, at: usize) {
        let Some((first, end)) = self.model.area(at) else {
            return;
        };
        let (mut new_first, mut new_end) = (first as i64, end as i64);
        let by = input.below(7) as i64 - 3;
        if input.one_in(2) {
            new_first += by;
        } else {
            new_end += by;
        }
        if new_first < 0 || new_end > PAGES as i64 || new_first >= new_end {
            return;
        }
        let (new_first, new_end) = (new_first as usize, new_end as usize);
        let page = self.model.pages[first].expect("an area");
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

    fn gap(&mut self, input: &mut Input<'_>, a: usize, b: usize) {
        let bits = input.byte();
        let wide = bits & 1 == 0;
        let request = GapRequest {
            len: PAGE_SIZE * (1 + input.below(12)),
            low: addr(if wide { 0 } else { a }),
            high: addr(if wide { PAGES as usize } else { b }),
            align: PAGE_SIZE << (bits >> 1 & 7),
            top_down: bits >> 4 & 1 == 0,
            guard_gap: PAGE_SIZE * [0, 3, 8, 1][usize::from(bits >> 5 & 3)],
        };
        let found = self.set.unmapped_area(request);
        assert_eq!(found, self.model.gap(&request), "{request:?}");
    }
}
