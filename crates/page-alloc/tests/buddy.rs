//! Splitting and merging, by example.

mod common;

use common::{MIB, Machine, alloc, free_kib, order};
use vellum_page::{PageSource, PageState};
use vellum_types::{GfpFlags, Order, Pfn};

const USER: GfpFlags = GfpFlags::HIGHUSER_MOVABLE;

/// Memory of one block of 128 pages; 16 pages are asked for. No list but the last has a block, so that
/// one is split until the rest is a block of 16; each upper half goes to the list of its size:
///
/// ```text
///   0        16        32                  64                                      128
///   ├────────┴─────────┴───────────────────┴───────────────────────────────────────┤  128 free
///   ├──────────────────────────────────────┼───────────────────────────────────────┤
///   │                                      │                 64 free               │
///   ├──────────────────┬───────────────────┤
///   │                  │      32 free      │
///   ├────────┬─────────┤
///   │ taken  │ 16 free │
/// ```
/// Freeing goes the same way up: 16 meets its buddy 16, then 32, then 64, and all is one block again.
#[test]
fn sixteen_pages_from_a_block_of_128() {
    let machine = Machine::new(32 * MIB, 36 * MIB);
    let allocator = machine.boot_only(32 * MIB, 32 * MIB + 512 * 1024);
    assert_eq!(free_kib(allocator), [512]);
    let pfn = alloc(allocator, 4, USER).unwrap();
    assert_eq!(pfn.addr().as_u64(), 32 * MIB, "the lowest part is taken");
    assert_eq!(free_kib(allocator), [64, 128, 256]);
    allocator.free_pages(pfn);
    assert_eq!(free_kib(allocator), [512]);
    allocator.validate().unwrap();
}

/// The textbook's buddy example: 1024 KiB in units of 64 KiB; A 34K, B 66K, C 35K, D 67K.
#[test]
fn the_textbook_example() {
    let machine = Machine::new(32 * MIB, 36 * MIB);
    let allocator = machine.boot_only(32 * MIB, 33 * MIB);
    // A unit of the example is a block of order 4 here.
    let get = |kib: u64| {
        let order = Order::for_bytes(kib * 1024).unwrap().max(order(4));
        alloc(allocator, order.as_u8(), USER).unwrap()
    };
    let check = |free: &[u64]| {
        assert_eq!(free_kib(allocator), free);
        allocator.validate().unwrap();
    };
    check(&[1024]);
    let a = get(34);
    check(&[64, 128, 256, 512]);
    let b = get(66);
    check(&[64, 256, 512]);
    let c = get(35);
    check(&[256, 512]);
    let d = get(67);
    check(&[128, 512]);
    allocator.free_pages(b);
    check(&[128, 128, 512]);
    allocator.free_pages(d);
    check(&[128, 256, 512]);
    allocator.free_pages(a);
    check(&[64, 128, 256, 512]);
    allocator.free_pages(c);
    check(&[1024]);
}

#[test]
fn consecutive_pages_are_neighbours() {
    let machine = Machine::new(32 * MIB, 128 * MIB);
    let allocator = machine.boot();
    // The small blocks beside the allocator's tables go first, rather than split a large one.
    let next = || alloc(allocator, 0, USER).unwrap();
    let first = Pfn::new(32 << 8);
    assert!((0..1024).any(|_| next() == first));
    for at in 1..4096 {
        assert_eq!(alloc(allocator, 0, USER), Ok(first + at));
    }
    // Kernel memory does not break the run.
    for at in 4096..5000 {
        alloc(allocator, (at % 4) as u8, GfpFlags::KERNEL).unwrap();
        assert_eq!(alloc(allocator, 0, USER), Ok(first + at));
    }
    // What was freed merges, and is used again lowest first.
    for at in 64..128 {
        allocator.free_pages(first + at);
    }
    assert!((0..1024).any(|_| next() == first + 64));
    for at in 65..128 {
        assert_eq!(alloc(allocator, 0, USER), Ok(first + at));
    }
    allocator.validate().unwrap();
}

#[test]
fn each_order_is_aligned_and_described() {
    let machine = Machine::new(32 * MIB, 64 * MIB);
    let allocator = machine.boot();
    for order in Order::all() {
        alloc(allocator, 0, USER).unwrap();
        let pfn = alloc(allocator, order.as_u8(), USER).unwrap();
        assert!(order.is_aligned(pfn));
        let page = allocator.memmap().page(pfn);
        assert_eq!((page.state(), page.order()), (PageState::Allocated, order));
        assert_eq!((page.refcount(), page.mapcount()), (1, 0));
        assert_eq!((page.owner(), page.index()), (0, 0));
        assert!(page.flags().is_empty());
        for at in 1..order.pages() {
            let page = allocator.memmap().page(pfn + at);
            assert_eq!(
                (page.state(), page.refcount(), page.owner()),
                (PageState::Tail, 0, 0)
            );
        }
    }
    allocator.validate().unwrap();
}

#[test]
fn freeing_wipes_what_the_owner_wrote() {
    let machine = Machine::new(32 * MIB, 64 * MIB);
    let allocator = machine.boot();
    let free = free_kib(allocator);
    let pfn = alloc(allocator, 3, USER).unwrap();
    for at in 0..8 {
        let page = allocator.memmap().page(pfn + at);
        page.set_state_order(PageState::Slab, order(if at == 0 { 3 } else { 0 }));
        page.set_owner(77);
        page.set_index(88);
        page.set_mapcount(99);
        page.set_refcount(5);
    }
    allocator.free_pages(pfn);
    allocator.validate().unwrap();
    assert_eq!(alloc(allocator, 3, USER), Ok(pfn));
    for at in 0..8 {
        let page = allocator.memmap().page(pfn + at);
        assert_eq!((page.owner(), page.index(), page.mapcount()), (0, 0, 0));
    }
    allocator.free_pages(pfn);
    allocator.drain_local();
    assert_eq!(free_kib(allocator), free);
}

#[test]
fn split_page_makes_single_pages() {
    let machine = Machine::new(32 * MIB, 64 * MIB);
    let allocator = machine.boot();
    let free = free_kib(allocator);
    let pfn = alloc(allocator, 4, USER).unwrap();
    allocator.split_page(pfn);
    allocator.validate().unwrap();
    for at in (0..16).rev() {
        let page = allocator.memmap().page(pfn + at);
        assert_eq!(
            (page.state(), page.order()),
            (PageState::Allocated, Order::ZERO)
        );
        assert_eq!(page.refcount(), 1);
        allocator.free_pages(pfn + at);
        allocator.validate().unwrap();
    }
    allocator.drain_local();
    assert_eq!(free_kib(allocator), free);
}

/// Frees what `pick` makes of an allocated block of order 2.
fn free_wrongly(pick: impl Fn(&dyn PageSource, Pfn) -> Pfn) {
    let machine = Machine::new(32 * MIB, 40 * MIB);
    let allocator = machine.boot();
    let pfn = alloc(allocator, 2, USER).unwrap();
    allocator.free_pages(pick(allocator, pfn));
}

#[test]
#[should_panic(expected = "double")]
fn a_double_free_panics() {
    free_wrongly(|source, pfn| {
        source.free_pages(pfn);
        pfn
    });
}

#[test]
#[should_panic(expected = "double")]
fn a_double_free_of_a_merged_page_panics() {
    free_wrongly(|source, pfn| {
        source.split_page(pfn);
        source.free_pages(pfn);
        source.free_pages(pfn + 1);
        pfn + 1
    });
}

#[test]
#[should_panic(expected = "does not start a block")]
fn freeing_the_middle_of_a_block_panics() {
    free_wrongly(|_, pfn| pfn + 1);
}

#[test]
#[should_panic(expected = "not memory")]
fn freeing_a_frame_that_is_not_there_panics() {
    free_wrongly(|_, _| Pfn::new(1));
}

#[test]
#[should_panic(expected = "Reserved")]
fn freeing_the_allocators_own_memory_panics() {
    free_wrongly(|_, _| Pfn::new((40 << 8) - 1));
}
