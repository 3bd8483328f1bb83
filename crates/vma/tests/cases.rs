//! Single cases, and sets with many areas.

use vellum_object::{HeapSource, ObjectCache};
use vellum_types::{PAGE_SIZE, VirtAddr, VirtRange, VmFlags};
use vellum_vma::{Backing, GapRequest, Inner, Leaf, Vma, VmaCaches, VmaError, VmaSet};

const RW: VmFlags = VmFlags::READ.union(VmFlags::WRITE);
const STACK: VmFlags = RW.union(VmFlags::GROWSDOWN);

/// A file by number; zero is anonymous memory.
#[derive(Clone, Debug)]
struct File(u32);

impl Backing for File {
    fn can_merge(&self, other: &Self) -> bool {
        self.0 == other.0
    }
    fn is_linear(&self) -> bool {
        true
    }
}

struct Heaps([HeapSource; 3]);

impl Heaps {
    fn new() -> Self {
        Self([
            HeapSource::new(ObjectCache::<Vma<File>>::BOX_LAYOUT),
            HeapSource::new(ObjectCache::<Leaf<'_, File>>::BOX_LAYOUT),
            HeapSource::new(ObjectCache::<Inner<'_, File>>::BOX_LAYOUT),
        ])
    }
    fn set(&self) -> VmaSet<'_, File> {
        VmaSet::new(VmaCaches {
            areas: ObjectCache::new(&self.0[0]),
            leaves: ObjectCache::new(&self.0[1]),
            inners: ObjectCache::new(&self.0[2]),
        })
    }
    fn live(&self) -> [usize; 3] {
        [self.0[0].live(), self.0[1].live(), self.0[2].live()]
    }
    fn fail_after(&self, n: i64) {
        self.0.iter().for_each(|heap| heap.fail_after(n));
    }
}

fn page(number: u64) -> VirtAddr {
    VirtAddr::from_page_number(number)
}

fn pages(first: u64, end: u64) -> VirtRange {
    VirtRange::new(page(first), page(end)).unwrap()
}

fn anon(first: u64, end: u64, flags: VmFlags) -> Vma<File> {
    Vma::new(pages(first, end), flags, first, File(0))
}

fn ranges(set: &VmaSet<'_, File>) -> Vec<(u64, u64)> {
    set.iter()
        .map(|area| (area.start().page_number(), area.end().page_number()))
        .collect()
}

#[test]
fn an_empty_set_has_nothing_and_costs_nothing() {
    let heaps = Heaps::new();
    heaps.fail_after(0);
    let mut set = heaps.set();
    assert!(set.is_empty() && set.first().is_none() && set.last().is_none());
    assert!(set.find(VirtAddr::ZERO).is_none() && set.find_mut(page(5)).is_none());
    assert_eq!(set.split(page(5)), Ok(()));
    assert_eq!(set.isolate(pages(1, 9)), Ok(()));
    set.merge_around(pages(0, 9));
    assert!(set.remove(page(5)).is_none());
    assert_eq!(set.set_range(page(1), pages(1, 2)), Err(VmaError::NotFound));
    assert_eq!(set.insert(anon(1, 2, RW)), Err(VmaError::OutOfMemory));
    assert_eq!(set.overlapping(pages(0, 100)).count(), 0);
    set.validate().unwrap();
}

#[test]
fn mprotect_of_the_middle_and_back() {
    let heaps = Heaps::new();
    let mut set = heaps.set();
    set.insert(Vma::new(pages(10, 20), RW, 100, File(3)))
        .unwrap();
    set.isolate(pages(13, 15)).unwrap();
    set.find_mut(page(14)).unwrap().flags = VmFlags::READ;
    set.merge_around(pages(13, 15));
    assert_eq!(ranges(&set), [(10, 13), (13, 15), (15, 20)]);
    assert_eq!(set.find(page(14)).unwrap().pgoff(), 103);
    assert_eq!(set.find(page(19)).unwrap().page_index(page(19)), 109);
    set.find_mut(page(13)).unwrap().flags = RW;
    heaps.fail_after(0);
    set.merge_around(pages(13, 15));
    assert_eq!(ranges(&set), [(10, 20)]);
    assert_eq!((set.total_pages(), heaps.live()), (10, [1, 1, 0]));
}

#[test]
fn offsets_decide_whether_areas_merge() {
    let heaps = Heaps::new();
    let mut set = heaps.set();
    set.insert(Vma::new(pages(10, 12), RW, 0, File(1))).unwrap();
    heaps.fail_after(0);
    let next = |pgoff, file| Vma::new(pages(12, 13), RW, pgoff, File(file));
    assert_eq!(set.insert_merged(next(1, 1)), Err(VmaError::OutOfMemory));
    assert_eq!(set.insert_merged(next(2, 2)), Err(VmaError::OutOfMemory));
    assert_eq!(set.insert_merged(next(2, 1)), Ok(pages(10, 13)));
    assert_eq!(set.insert_merged(next(2, 1)), Err(VmaError::Overlap));
    assert_eq!((set.len(), set.total_pages()), (1, 3));
}

#[test]
fn a_hole_filled_joins_both_sides() {
    let heaps = Heaps::new();
    let mut set = heaps.set();
    set.insert(anon(1, 4, RW)).unwrap();
    set.insert(anon(5, 9, RW)).unwrap();
    heaps.fail_after(0);
    assert_eq!(set.insert_merged(anon(4, 5, RW)), Ok(pages(1, 9)));
    assert_eq!(heaps.live(), [1, 1, 0]);
    set.validate().unwrap();
}

#[test]
fn isolate_takes_back_the_first_cut() {
    let heaps = Heaps::new();
    let mut set = heaps.set();
    set.insert(anon(1, 9, RW)).unwrap();
    heaps.fail_after(1);
    assert!(set.isolate(pages(3, 5)).is_err());
    assert_eq!(ranges(&set), [(1, 9)]);
    set.validate().unwrap();
}

#[test]
fn bounds_move_but_not_over_others() {
    let heaps = Heaps::new();
    let mut set = heaps.set();
    set.insert(Vma::new(pages(10, 12), RW, 1, File(1))).unwrap();
    set.insert(anon(20, 22, RW)).unwrap();
    assert_eq!(set.set_range(page(10), pages(9, 15)), Ok(()));
    assert_eq!(set.first().unwrap().pgoff(), 0);
    assert_eq!(
        set.set_range(page(9), pages(8, 15)),
        Err(VmaError::InvalidRange)
    );
    assert_eq!(set.set_range(page(9), pages(9, 21)), Err(VmaError::Overlap));
    assert_eq!(
        set.set_range(page(9), pages(30, 31)),
        Err(VmaError::Overlap)
    );
    assert_eq!(
        set.set_range(page(10), pages(9, 11)),
        Err(VmaError::NotFound)
    );
    let odd = VirtRange::new(page(9), VirtAddr::new(0x9100)).unwrap();
    assert_eq!(set.set_range(page(9), odd), Err(VmaError::InvalidRange));
    assert_eq!(set.total_pages(), 8);
    set.validate().unwrap();
}

#[test]
fn below_a_stack_stays_a_guard() {
    let heaps = Heaps::new();
    let mut set = heaps.set();
    set.insert(anon(100, 110, STACK)).unwrap();
    let mut request = GapRequest {
        len: 10 * PAGE_SIZE,
        low: page(50),
        high: page(200),
        align: PAGE_SIZE,
        top_down: true,
        guard_gap: 20 * PAGE_SIZE,
    };
    assert_eq!(set.unmapped_area(request), Some(page(190)));
    request.high = page(115);
    assert_eq!(set.unmapped_area(request), Some(page(70)));
    request.low = page(75);
    assert_eq!(set.unmapped_area(request), None);
    // The flag may change at any time; nothing of it is remembered.
    set.find_mut(page(100)).unwrap().flags = RW;
    assert_eq!(set.unmapped_area(request), Some(page(90)));
    request.guard_gap = u64::MAX;
    set.find_mut(page(100)).unwrap().flags = STACK;
    assert_eq!(set.unmapped_area(request), None);
}

#[test]
fn odd_requests_for_gaps() {
    let heaps = Heaps::new();
    let mut set = heaps.set();
    let whole = GapRequest {
        len: PAGE_SIZE,
        low: VirtAddr::ZERO,
        high: VirtAddr::new(u64::MAX),
        align: 0,
        top_down: false,
        guard_gap: 0,
    };
    assert_eq!(set.unmapped_area(whole), Some(VirtAddr::ZERO));
    assert_eq!(
        set.unmapped_area(GapRequest {
            top_down: true,
            ..whole
        }),
        Some(VirtAddr::new(u64::MAX - 2 * PAGE_SIZE + 1))
    );
    assert_eq!(set.unmapped_area(GapRequest { len: 0, ..whole }), None);
    assert_eq!(
        set.unmapped_area(GapRequest {
            len: u64::MAX,
            align: 1 << 30,
            ..whole
        }),
        None
    );
    assert_eq!(
        set.unmapped_area(GapRequest {
            align: 3 * PAGE_SIZE,
            ..whole
        }),
        None
    );
    assert_eq!(
        set.unmapped_area(GapRequest {
            high: VirtAddr::ZERO,
            ..whole
        }),
        None
    );
    // A gap that is just aligned well is found, though it is too small at other alignments.
    set.insert(anon(0, 16, RW)).unwrap();
    set.insert(anon(32, 64, RW)).unwrap();
    let exact = GapRequest {
        len: 16 << 12,
        align: 16 << 12,
        high: page(64),
        ..whole
    };
    assert_eq!(set.unmapped_area(exact), Some(page(16)));
}

#[test]
fn the_ends_of_the_address_space() {
    let heaps = Heaps::new();
    let mut set = heaps.set();
    let top = u64::MAX >> 12;
    set.insert(anon(0, 1, RW)).unwrap();
    set.insert(anon(top - 1, top, RW)).unwrap();
    assert_eq!(set.find(VirtAddr::ZERO).unwrap().end(), page(1));
    assert!(set.find(VirtAddr::new(u64::MAX)).is_none());
    assert_eq!(
        set.find_prev(VirtAddr::new(u64::MAX)).0.unwrap().start(),
        page(top - 1)
    );
    assert_eq!(set.find(page(1)).unwrap().start(), page(top - 1));
    set.merge_around(pages(0, top));
    set.split(page(0)).unwrap();
    assert_eq!(set.iter().count(), 2);
    set.validate().unwrap();
}

#[test]
fn the_last_area_found_is_tried_first() {
    let heaps = Heaps::new();
    let mut set = heaps.set();
    for n in 0..1000 {
        set.insert(anon(4 * n, 4 * n + 2, RW)).unwrap();
    }
    for n in [500, 501, 501, 500] {
        assert!(set.find(page(4 * 125) + n).is_some());
    }
    assert_eq!((set.cache_stats().hits, set.cache_stats().misses), (3, 1));
    // Above a gap there is an answer, but nothing to remember.
    assert_eq!(set.find(page(2)).unwrap().start(), page(4));
    assert_eq!(set.find(page(501)).unwrap().start(), page(500));
    assert_eq!((set.cache_stats().hits, set.cache_stats().misses), (4, 2));
    // A way that leads elsewhere by now does no harm.
    for n in 0..999 {
        set.remove(page(4 * n)).unwrap();
        assert!(set.find_containing(page(500)).is_none() == (n >= 125));
    }
}

/// 20 000 areas in ascending, descending and mixed order.
#[test]
fn many_areas() {
    const COUNT: u64 = 20_000;
    let orders: [fn(u64) -> u64; 3] = [|n| n, |n| COUNT - 1 - n, |n| n * 7919 % COUNT];
    for order in orders {
        let heaps = Heaps::new();
        let mut set = heaps.set();
        for n in (0..COUNT).map(order) {
            set.insert(anon(10 + 3 * n, 11 + 3 * n, RW)).unwrap();
        }
        set.validate().unwrap();
        // At least half full on average.
        assert!(heaps.live()[1] <= COUNT as usize / 8, "{:?}", heaps.live());
        assert_eq!((set.len() as u64, set.total_pages()), (COUNT, COUNT));
        assert!(
            set.iter()
                .map(|area| area.start().page_number())
                .eq((0..COUNT).map(|n| 10 + 3 * n))
        );
        let two = GapRequest {
            len: 2 * PAGE_SIZE,
            low: page(10),
            high: page(1 << 30),
            align: PAGE_SIZE,
            top_down: false,
            guard_gap: 0,
        };
        assert_eq!(set.unmapped_area(two), Some(page(11)));
        let three = GapRequest {
            len: 3 * PAGE_SIZE,
            ..two
        };
        assert_eq!(set.unmapped_area(three), Some(page(3 * COUNT + 8)));
        set.remove(page(10 + 3 * 12_345)).unwrap();
        assert_eq!(set.unmapped_area(three), Some(page(11 + 3 * 12_344)));
        for n in (0..COUNT).map(order).filter(|n| *n != 12_345) {
            set.remove(page(10 + 3 * n)).unwrap();
            if n % 997 == 0 {
                set.validate().unwrap();
            }
        }
        assert_eq!(heaps.live(), [0; 3]);
    }
}

/// Each allocation of a long run of insertions fails once.
#[test]
fn every_allocation_can_fail() {
    let heaps = Heaps::new();
    let mut set = heaps.set();
    let (mut n, mut failures) = (0, 0);
    while n < 2000 {
        for (which, heap) in heaps.0.iter().enumerate() {
            let (before, live) = (set.len(), heaps.live());
            heap.fail_after(0);
            let result = set.insert(anon(4 * n, 4 * n + 3, RW));
            heap.fail_after(i64::MAX);
            if result == Ok(()) {
                set.remove(page(4 * n)).unwrap();
                assert!(which != 0, "an area without memory");
            } else {
                failures += 1;
                assert_eq!((set.len(), heaps.live()), (before, live));
            }
        }
        set.insert(anon(4 * n, 4 * n + 3, RW)).unwrap();
        n += 1;
    }
    set.validate().unwrap();
    assert!(failures > 2100, "{failures}");
    for at in 0..2000 {
        heaps.fail_after(at % 3);
        if set
            .isolate(pages(4 * at as u64 + 1, 4 * at as u64 + 2))
            .is_err()
        {
            assert!(set.find_containing(page(4 * at as u64)).unwrap().nr_pages() == 3);
        }
    }
    set.validate().unwrap();
    assert_eq!(set.total_pages(), 6000);
}

#[test]
fn sets_can_be_shared() {
    fn shared<T: Send + Sync>() {}
    shared::<VmaSet<'static, File>>();
}
