//! Descriptors of memory with holes.

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};
use vellum_machine::DirectMap;
use vellum_page::{Memmap, PageState, Run, RunError, RunTable};
use vellum_types::{PAGE_SIZE, Pfn, PfnRange, PhysAddr, PhysRange};

/// Frames of the block at whose borders runs begin and end.
const UNIT: u32 = 1024;
/// Frames of a section.
const SECTION: u32 = 1 << 15;

/// Memory for descriptors, given out from the start and never taken back.
struct Store {
    memory: NonNull<u8>,
    layout: Layout,
    used: u64,
}

impl Store {
    fn new(bytes: usize) -> Self {
        let layout = Layout::from_size_align(bytes, PAGE_SIZE as usize).unwrap();
        // SAFETY: the layout is not empty.
        let memory = NonNull::new(unsafe { std::alloc::alloc(layout) }).unwrap();
        // Junk: whoever gets it must not trust its content.
        // SAFETY: so many bytes were allocated.
        unsafe { memory.write_bytes(0xa5, bytes) };
        Self {
            memory,
            layout,
            used: 0,
        }
    }

    fn add<'m>(&mut self, table: &RunTable<'m>, range: PfnRange) -> Result<(), RunError> {
        let span = PhysRange::from_len(PhysAddr::ZERO, self.layout.size() as u64).unwrap();
        // SAFETY: the memory outlives each test's table and is touched by nobody else.
        let ram = unsafe { DirectMap::<'m>::new(self.memory, span) };
        let at = PhysAddr::new(self.used);
        // SAFETY: nobody was given these bytes before.
        unsafe { table.add(ram, at, range) }?;
        self.used += RunTable::bytes_for(range);
        Ok(())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { std::alloc::dealloc(self.memory.as_ptr(), self.layout) };
    }
}

fn frames(start: u32, end: u32) -> PfnRange {
    PfnRange::new(Pfn::new(start), Pfn::new(end)).unwrap()
}

fn directory(sections: usize) -> Vec<AtomicU8> {
    (0..sections).map(|_| AtomicU8::new(0)).collect()
}

fn runs(n: usize) -> Vec<Run> {
    (0..n).map(|_| Run::default()).collect()
}

#[test]
fn a_hole_has_no_descriptors_and_costs_one_byte_for_each_section() {
    let (mut store, slots, directory) = (Store::new(1 << 20), runs(4), directory(65_537));
    let far = 1 << 31;
    let span = frames(7, far + 100);
    assert_eq!(RunTable::sections(span), 65_537, "8 TiB of hole: 64 KiB");
    let table = RunTable::new(&slots, &directory, span);
    store.add(&table, frames(far, far + 100)).unwrap();
    store.add(&table, frames(7, 507)).unwrap();
    assert_eq!(store.used, 16384 + 4096, "only what is there is described");
    let memmap = Memmap::of(&table);
    assert_eq!(memmap.span(), span);
    assert_eq!(memmap.nr_frames(), 600);
    assert!(memmap.runs().eq([frames(7, 507), frames(far, far + 100)]));
    for hole in [0, 6, 507, SECTION, far - 1, far + 100, u32::MAX] {
        assert!(memmap.try_page(Pfn::new(hole)).is_none(), "{hole:#x}");
    }
    for pfn in memmap.runs().flat_map(|run| run.iter()) {
        assert_eq!(memmap.page(pfn).state(), PageState::Reserved);
        memmap.page(pfn).set_index(u64::from(pfn.as_u32()));
    }
    for pfn in memmap.runs().flat_map(|run| run.iter()) {
        assert_eq!(memmap.page(pfn).index(), u64::from(pfn.as_u32()));
    }
}

#[test]
#[should_panic(expected = "is not memory")]
fn a_descriptor_in_a_hole_panics() {
    let (mut store, slots, directory) = (Store::new(1 << 20), runs(2), directory(4));
    let table = RunTable::new(&slots, &directory, frames(0, 4 * SECTION));
    store.add(&table, frames(0, 100)).unwrap();
    store.add(&table, frames(2 * UNIT, 2 * UNIT + 10)).unwrap();
    Memmap::of(&table).page(Pfn::new(100));
}

#[test]
fn a_table_refuses_what_does_not_fit() {
    let (mut store, slots, directory) = (Store::new(1 << 20), runs(2), directory(2));
    let table = RunTable::new(&slots, &directory, frames(SECTION, 3 * SECTION));
    let misplaced = Err(RunError::Misplaced);
    assert_eq!(
        store.add(&table, frames(SECTION - 1, SECTION + 1)),
        misplaced
    );
    assert_eq!(
        store.add(&table, frames(3 * SECTION - 1, 3 * SECTION + 1)),
        misplaced
    );
    let one = frames(SECTION + 100, SECTION + 200);
    store.add(&table, one).unwrap();
    assert_eq!(store.add(&table, one), misplaced);
    assert_eq!(
        store.add(&table, frames(SECTION + 199, SECTION + 300)),
        misplaced
    );
    store
        .add(&table, frames(2 * SECTION, 2 * SECTION + 50))
        .unwrap();
    let full = Err(RunError::Full);
    assert_eq!(
        store.add(&table, frames(2 * SECTION + UNIT, 2 * SECTION + UNIT + 1)),
        full
    );
    let memmap = Memmap::of(&table);
    assert_eq!(memmap.nr_frames(), 150);
    // What is taken out comes back to its own slot; the largest stays.
    assert!(!table.remove(one), "handles know it by heart");
    assert!(!table.remove(frames(2 * SECTION, 2 * SECTION + 49)));
    assert!(table.remove(frames(2 * SECTION, 2 * SECTION + 50)));
    assert!(memmap.try_page(Pfn::new(2 * SECTION)).is_none());
    assert_eq!(memmap.nr_frames(), 100);
    store
        .add(&table, frames(2 * SECTION, 2 * SECTION + 50))
        .unwrap();
    assert_eq!(
        memmap.page(Pfn::new(2 * SECTION + 49)).state(),
        PageState::Reserved
    );
}

/// Runs of random length at random units, added in random order, some taken out and put back, against
/// a list.
#[test]
fn random_runs_match_a_list() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |n: u32| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) as u32 % n
    };
    const UNITS: u32 = 40 * SECTION / UNIT;
    for _ in 0..60 {
        let (mut store, slots, directory) = (Store::new(64 << 20), runs(40), directory(40));
        let span = frames(0, 40 * SECTION);
        let table = RunTable::new(&slots, &directory, span);
        let mut known: Vec<(PfnRange, bool)> = Vec::new();
        let mut memmap = None;
        for _ in 0..200 {
            if below(3) > 0 || known.is_empty() {
                let start = below(UNITS) * UNIT + below(UNIT);
                let magnitude = below(15);
                let len = 1 + below(1 << magnitude);
                let range = frames(start, (start + len).min(40 * SECTION));
                let last = |range: &PfnRange| (range.end().as_u32() - 1) / UNIT;
                let apart = known.iter().all(|(old, _)| {
                    last(old) < start / UNIT || last(&range) < old.start().as_u32() / UNIT
                });
                if apart && known.len() < 40 {
                    store.add(&table, range).unwrap();
                    known.push((range, true));
                }
            } else {
                let at = below(known.len() as u32) as usize;
                let (range, online) = known[at];
                if online {
                    known[at].1 = !table.remove(range);
                } else {
                    store.add(&table, range).unwrap();
                    known[at].1 = true;
                }
            }
            let memmap = *memmap.get_or_insert_with(|| Memmap::of(&table));
            let mut ranges: Vec<_> = known.iter().filter(|k| k.1).map(|k| k.0).collect();
            ranges.sort_by_key(PfnRange::start);
            assert!(memmap.runs().eq(ranges.iter().copied()));
            let total: u64 = ranges.iter().map(|range| u64::from(range.len())).sum();
            assert_eq!(memmap.nr_frames(), total);
            let edges = known.iter().flat_map(|(range, _)| {
                let (start, end) = (range.start().as_u32(), range.end().as_u32());
                [
                    start.wrapping_sub(1),
                    start,
                    (start + end) / 2,
                    end - 1,
                    end,
                ]
            });
            for raw in edges
                .collect::<Vec<_>>()
                .into_iter()
                .chain([below(40 * SECTION)])
            {
                let pfn = Pfn::new(raw);
                let expected = ranges.iter().find(|range| range.contains(pfn)).copied();
                assert_eq!(memmap.run_around(pfn), expected, "{pfn:?}");
                assert_eq!(memmap.try_page(pfn).is_some(), expected.is_some());
                if expected.is_some() {
                    let block = memmap.pageblock(pfn).unwrap();
                    block.0.store(raw, Ordering::Relaxed);
                    memmap.page(pfn).set_index(u64::from(raw));
                    assert_eq!(memmap.page(pfn).index(), u64::from(raw));
                }
            }
        }
    }
}
