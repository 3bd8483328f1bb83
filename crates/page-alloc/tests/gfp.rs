//! What each modifier does, the reserve for atomic blocks, bulk requests, poison.

mod common;

use common::{MIB, Machine, alloc, free_kib};
use vellum_page::PageSource;
use vellum_page_alloc::{PAGE_POISON, PageAllocator};
use vellum_types::{GfpFlags, MigrateType, Order, OutOfMemory, Pfn};

const USER: GfpFlags = GfpFlags::HIGHUSER_MOVABLE;

fn flood(allocator: &PageAllocator<'_>, gfp: GfpFlags) -> Vec<Pfn> {
    core::iter::from_fn(|| alloc(allocator, 0, gfp).ok()).collect()
}

fn free(allocator: &PageAllocator<'_>, pages: &[Pfn]) {
    pages.iter().for_each(|pfn| allocator.free_pages(*pfn));
}

#[test]
fn kswapd_is_wanted_below_the_low_mark() {
    let machine = Machine::new(16 * MIB, 80 * MIB);
    let allocator = machine.boot();
    alloc(allocator, 5, USER).unwrap();
    assert_eq!(allocator.kswapd_wanted(), None);
    // Who does not ask for it does not wake it.
    let silent = flood(allocator, USER.difference(GfpFlags::KSWAPD_RECLAIM));
    assert_eq!(allocator.kswapd_wanted(), None);
    assert_eq!(alloc(allocator, 0, USER), Err(OutOfMemory));
    assert_eq!(allocator.kswapd_wanted(), Some(Order::ZERO));
    assert_eq!(alloc(allocator, 3, GfpFlags::NOWAIT), Err(OutOfMemory));
    assert_eq!(alloc(allocator, 1, GfpFlags::NOWAIT), Err(OutOfMemory));
    assert_eq!(allocator.kswapd_wanted(), Order::new(3));
    allocator.kswapd_served();
    assert_eq!(allocator.kswapd_wanted(), None);
    free(allocator, &silent);
    alloc(allocator, 0, USER).unwrap();
    assert_eq!(allocator.kswapd_wanted(), None);
}

/// The first atomic block below the low mark reserves its pageblock for others of its like.
#[test]
fn atomic_blocks_have_a_reserve() {
    let machine = Machine::new(16 * MIB, 270 * MIB);
    let allocator = machine.boot();
    let at_boot = free_kib(allocator);
    let plain = GfpFlags::NOWAIT;
    let pages = flood(allocator, plain);
    // Some neighbours come free, so that there are blocks; still below the low mark.
    let mut sorted = pages.clone();
    sorted.sort();
    let start = sorted
        .iter()
        .position(|pfn| pfn.as_u32() % 512 == 0)
        .unwrap();
    free(allocator, &sorted[start..start + 64]);
    allocator.drain_local();
    let block = alloc(allocator, 2, GfpFlags::ATOMIC).unwrap();
    assert_eq!(
        allocator.pageblock_migrate_type(block),
        MigrateType::HighAtomic
    );
    allocator.validate().unwrap();
    // Nobody else gets what is free there, atomic blocks do.
    let rest = flood(allocator, plain);
    assert!(
        rest.iter()
            .all(|pfn| pfn.as_u32() / 512 != block.as_u32() / 512)
    );
    let second = alloc(allocator, 2, GfpFlags::ATOMIC).unwrap();
    assert_eq!(second.as_u32() / 512, block.as_u32() / 512);
    // Before one that may wait fails, the reserve is given up.
    let last = flood(allocator, GfpFlags::KERNEL);
    assert_ne!(
        allocator.pageblock_migrate_type(block),
        MigrateType::HighAtomic
    );
    allocator.validate().unwrap();
    free(allocator, &sorted[..start]);
    free(allocator, &sorted[start + 64..]);
    free(allocator, &rest);
    free(allocator, &last);
    free(allocator, &[block, second]);
    allocator.drain_local();
    allocator.validate().unwrap();
    assert_eq!(free_kib(allocator), at_boot);
}

#[test]
fn bulk_requests_give_neighbours_and_take_anything_back() {
    let machine = Machine::new(16 * MIB, 80 * MIB);
    let allocator = machine.boot();
    let (at_boot, managed) = (free_kib(allocator), allocator.managed_pages());
    let mut out = vec![Pfn::NONE; 1000];
    assert_eq!(allocator.alloc_pages_bulk(USER, &mut []), 0);
    assert_eq!(allocator.alloc_pages_bulk(USER, &mut out), 1000);
    let runs = out.windows(2).filter(|pair| pair[1] == pair[0] + 1).count();
    assert!(runs > 900, "{runs}");
    assert_eq!(allocator.nr_free_pages() + 1000, managed);
    // Single pages and blocks in one go.
    out.push(alloc(allocator, 3, USER).unwrap());
    out.push(alloc(allocator, 7, USER).unwrap());
    out.push(alloc(allocator, 0, USER).unwrap());
    allocator.free_pages_bulk(&out);
    assert_eq!(allocator.nr_free_pages(), managed);
    allocator.validate().unwrap();
    // More than there is: all that there is.
    let mut all = vec![Pfn::NONE; managed as usize + 1];
    let got = allocator.alloc_pages_bulk(USER | GfpFlags::MEMALLOC, &mut all);
    assert_eq!(got as u64, managed);
    allocator.free_pages_bulk(&all[..got]);
    allocator.fail_after(Some(3));
    assert_eq!(allocator.alloc_pages_bulk(USER, &mut all[..10]), 3);
    allocator.fail_after(None);
    allocator.free_pages_bulk(&all[..3]);
    allocator.drain_local();
    allocator.validate().unwrap();
    assert_eq!(free_kib(allocator), at_boot);
}

#[test]
#[should_panic(expected = "double free")]
fn a_double_free_in_a_bulk_panics() {
    let machine = Machine::new(16 * MIB, 80 * MIB);
    let allocator = machine.boot();
    let pfn = alloc(allocator, 0, USER).unwrap();
    allocator.free_pages_bulk(&[pfn, pfn]);
}

/// Writes to a page after it was freed.
fn use_after_free(order: u8, at: u32) {
    let machine = Machine::new(16 * MIB, 32 * MIB);
    let allocator = machine.boot();
    allocator.set_poison(true);
    let pfn = alloc(allocator, order, USER).unwrap();
    allocator.free_pages(pfn);
    machine.ram().write_u64((pfn + at).addr() + 800, 1);
    flood(allocator, USER | GfpFlags::MEMALLOC);
}

#[test]
#[should_panic(expected = "has 0x1 at offset 800")]
fn a_write_to_a_free_page_is_noticed() {
    use_after_free(0, 0);
}

#[test]
#[should_panic(expected = "use after free")]
fn a_write_to_the_tail_of_a_free_block_is_noticed() {
    use_after_free(6, 33);
}

#[test]
fn poison_can_be_switched_at_any_time() {
    let machine = Machine::new(16 * MIB, 32 * MIB);
    let allocator = machine.boot();
    for round in 0..6 {
        allocator.set_poison(round % 2 == 0);
        let pages = flood(allocator, USER | GfpFlags::MEMALLOC);
        for pfn in &pages {
            assert_eq!(allocator.memmap().page(*pfn).index(), 0);
            machine.ram().fill_pages(*pfn, 1, round);
        }
        free(allocator, &pages);
        let content = machine.ram().read_u64(pages[9].addr());
        let expected = if round % 2 == 0 { PAGE_POISON } else { round };
        assert_eq!(content, u64::from_ne_bytes([expected; 8]));
        allocator.validate().unwrap();
    }
}
