//! Exact ranges: isolation, what is in the way, and what is left when all is over.

mod common;

use common::{MIB, Machine, Rng, alloc, free_kib};
use vellum_page::{PageSource, PageState};
use vellum_page_alloc::{ContigError, PageAllocator};
use vellum_types::{GfpFlags, Order, Pfn, PfnRange};

const USER: GfpFlags = GfpFlags::HIGHUSER_MOVABLE;

fn range(start: u32, end: u32) -> PfnRange {
    PfnRange::new(Pfn::new(start), Pfn::new(end)).unwrap()
}

fn free_all(allocator: &PageAllocator<'_>, range: PfnRange) {
    range.iter().for_each(|pfn| allocator.free_pages(pfn));
    allocator.drain_local();
}

#[test]
fn a_free_range_is_taken_exactly() {
    let machine = Machine::new(16 * MIB, 64 * MIB);
    let allocator = machine.boot();
    let (at_boot, free) = (free_kib(allocator), allocator.nr_free_pages());
    // Odd ends, across a border of blocks of the largest order.
    let want = range((24 << 8) - 77, (24 << 8) + 1500);
    assert_eq!(allocator.alloc_contig_range(want), Ok(None));
    allocator.validate().unwrap();
    assert_eq!(allocator.nr_free_pages(), free - u64::from(want.len()));
    for pfn in want.iter() {
        let page = allocator.memmap().page(pfn);
        assert_eq!(
            (page.state(), page.order()),
            (PageState::Allocated, Order::ZERO)
        );
        assert_eq!((page.refcount(), page.owner()), (1, 0));
    }
    assert_eq!(allocator.alloc_contig_range(want), Ok(Some(want.start())));
    free_all(allocator, want);
    allocator.validate().unwrap();
    assert_eq!(free_kib(allocator), at_boot);
}

#[test]
fn what_is_in_the_way_can_be_moved() {
    let machine = Machine::new(16 * MIB, 64 * MIB);
    let allocator = machine.boot();
    let at_boot = free_kib(allocator);
    let pages: Vec<_> = (0..6000)
        .map(|_| alloc(allocator, 0, USER).unwrap())
        .collect();
    let middle = Pfn::new(pages[3000].as_u32() & !1023);
    let want = PfnRange::from_len(middle, 1024).unwrap();
    let mut outside: Vec<_> = pages
        .iter()
        .copied()
        .filter(|pfn| !want.contains(*pfn))
        .collect();
    let isolated = allocator.isolate_range(want).unwrap();
    let busy: Vec<_> = isolated.busy().collect();
    let mut inside: Vec<_> = pages
        .iter()
        .copied()
        .filter(|pfn| want.contains(*pfn))
        .collect();
    inside.sort();
    assert_eq!(busy, inside);
    assert_eq!(
        allocator.isolate_range(want).unwrap_err(),
        ContigError::Isolated
    );
    // A migrator: new pages come from elsewhere, also when the old ones are free.
    for pfn in busy {
        let new = alloc(allocator, 0, USER).unwrap();
        assert!(!want.contains(new), "nothing gets into an isolated range");
        outside.push(new);
        allocator.free_pages(pfn);
    }
    allocator.validate().unwrap();
    assert_eq!(isolated.busy().next(), None);
    isolated.take().unwrap();
    allocator.validate().unwrap();
    free_all(allocator, want);
    outside
        .into_iter()
        .for_each(|pfn| allocator.free_pages(pfn));
    allocator.drain_local();
    allocator.validate().unwrap();
    assert_eq!(free_kib(allocator), at_boot);
}

#[test]
fn a_large_block_in_use_is_one_obstacle() {
    let machine = Machine::new(16 * MIB, 64 * MIB);
    let allocator = machine.boot();
    let at_boot = free_kib(allocator);
    let block = alloc(allocator, 10, USER).unwrap();
    let isolated = allocator
        .isolate_range(PfnRange::from_len(block, 300).unwrap())
        .unwrap();
    assert_eq!(isolated.busy().collect::<Vec<_>>(), [block]);
    // Freed while one of its two pageblocks is isolated.
    allocator.free_pages(block);
    allocator.validate().unwrap();
    let isolated = isolated.take();
    assert!(isolated.is_ok());
    allocator.validate().unwrap();
    free_all(allocator, PfnRange::from_len(block, 300).unwrap());
    assert_eq!(free_kib(allocator), at_boot);
}

#[test]
fn bad_ranges_are_refused() {
    let machine = Machine::new(8 * MIB, 64 * MIB);
    let allocator = machine.boot();
    let outside = range((64 << 8) - 4, (64 << 8) + 4);
    assert!(matches!(
        allocator.alloc_contig_range(outside),
        Err(ContigError::NotMemory(_))
    ));
    let zones = range(4000, 4200);
    assert_eq!(
        allocator.alloc_contig_range(zones),
        Err(ContigError::SeveralZones)
    );
    allocator.validate().unwrap();
}

#[test]
fn random_ranges_among_random_pages() {
    let machine = Machine::new(16 * MIB, 64 * MIB);
    let allocator = machine.boot();
    let at_boot = free_kib(allocator);
    let mut rng = Rng(0x1234_5678_9abc);
    let (mut live, mut ranges): (Vec<Pfn>, Vec<PfnRange>) = (Vec::new(), Vec::new());
    let (mut got, mut refused) = (0, 0);
    for step in 0..20_000 {
        match rng.below(20) {
            0..=8 => live.extend(alloc(allocator, rng.below(6) as u8, USER)),
            9..=17 if !live.is_empty() => {
                let at = rng.below(live.len() as u64) as usize;
                allocator.free_pages(live.swap_remove(at));
            }
            18 => {
                let start = 4096 + rng.below(12_000) as u32;
                let want = range(start, start + 1 + rng.below(200) as u32);
                match allocator.alloc_contig_range(want) {
                    Ok(None) => {
                        got += 1;
                        ranges.push(want);
                    }
                    _ => refused += 1,
                }
            }
            19 => {
                if let Some(old) = ranges.pop() {
                    free_all(allocator, old);
                }
            }
            _ => {}
        }
        if step % 500 == 0 {
            allocator.validate().unwrap();
        }
    }
    assert!(got > 50 && refused > 10, "{got} {refused}");
    ranges.into_iter().for_each(|old| free_all(allocator, old));
    live.into_iter().for_each(|pfn| allocator.free_pages(pfn));
    allocator.drain_local();
    allocator.validate().unwrap();
    assert_eq!(free_kib(allocator), at_boot);
}
