//! `validate` sees each kind of damage.

mod common;

use common::{MIB, Machine, alloc, order};
use vellum_machine::VmItem;
use vellum_page::{Page, PageSource, PageState};
use vellum_page_alloc::PageAllocator;
use vellum_types::{GfpFlags, MigrateType, Order, Pfn};

/// The first frame of a block of the largest order in the middle of the list.
const FREE: Pfn = Pfn::new(24 << 8);

/// Does `damage` to a machine with one block of order 4 allocated, given as the second argument.
fn check(expected: &str, damage: impl FnOnce(&PageAllocator<'_>, Pfn)) {
    let machine = Machine::new(16 * MIB, 40 * MIB);
    let allocator = machine.boot();
    let block = alloc(allocator, 4, GfpFlags::KERNEL).unwrap();
    let first = page(allocator, FREE);
    assert_eq!(
        (first.state(), first.order()),
        (PageState::Free, Order::MAX)
    );
    allocator.validate().unwrap();
    damage(allocator, block);
    assert_eq!(allocator.validate(), Err(expected));
}

fn page<'a>(allocator: &'a PageAllocator<'_>, pfn: Pfn) -> &'a Page {
    allocator.memmap().page(pfn)
}

#[test]
fn damaged_lists() {
    check("a list ends early or leaves memory", |a, _| {
        page(a, FREE).set_next(Pfn::NONE)
    });
    check("a backward link is wrong", |a, _| {
        page(a, FREE).set_prev(Pfn::new(0))
    });
    check("a block is on the list of another mobility", |a, _| {
        page(a, FREE).set_owner(MigrateType::Reclaimable as u32);
    });
}

#[test]
fn damaged_free_blocks() {
    check(
        "a block on a list is not free or of another order",
        |a, _| {
            page(a, FREE).set_state_order(PageState::Free, order(3));
        },
    );
    check(
        "a block on a list is not free or of another order",
        |a, _| {
            page(a, FREE).set_state_order(PageState::Allocated, Order::MAX);
        },
    );
    check(
        "blocks overlap: a frame inside a free block is not Tail",
        |a, _| {
            page(a, FREE + 512).set_state_order(PageState::Free, order(9));
        },
    );
    check("a free frame has users", |a, _| {
        page(a, FREE).set_refcount(1)
    });
    check("a free frame has users", |a, _| {
        page(a, FREE + 7).set_mapcount(1)
    });
}

#[test]
fn damaged_allocated_blocks() {
    check("two buddies are both free", |a, block| {
        page(a, block).set_state_order(PageState::Free, order(4));
    });
    check("a free block is on no list", |a, block| {
        page(a, block).set_state_order(PageState::Free, order(3));
        page(a, block + 8).set_state_order(PageState::Allocated, order(3));
        page(a, block + 8).set_refcount(1);
    });
    check("a frame belongs to no block", |a, block| {
        page(a, block).set_state(PageState::Slab)
    });
    check("a managed frame was lost", |a, block| {
        for at in 0..16 {
            page(a, block + at).set_state(PageState::Reserved);
        }
    });
    check("an allocated frame has no users", |a, block| {
        page(a, block).set_refcount(0)
    });
}

#[test]
fn a_wrong_counter() {
    let machine = Machine::new(16 * MIB, 40 * MIB);
    let allocator = machine.boot();
    machine.vmstat.add(VmItem::NrFreePages, 1);
    assert_eq!(
        allocator.validate(),
        Err("nr_free_pages is not the sum of the zones")
    );
}
