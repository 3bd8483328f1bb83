//! What each modifier does, the reserve for atomic blocks, bulk requests, poison.

mod common;

use common::{MIB, Machine, alloc, free_kib};
use vellum_page::PageSource;
use vellum_page_alloc::{PAGE_POISON, PageAllocator};
use vellum_types::{GfpFlags, MigrateType, NodeId, Order, OutOfMemory, Pfn, ZoneType};

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
    assert_eq!(allocator.kswapd_wanted(NodeId(0)), None);
    // Who does not ask for it does not wake it.
    let silent = flood(allocator, USER.difference(GfpFlags::KSWAPD_RECLAIM));
    assert_eq!(allocator.kswapd_wanted(NodeId(0)), None);
    assert_eq!(alloc(allocator, 0, USER), Err(OutOfMemory));
    assert_eq!(allocator.kswapd_wanted(NodeId(0)), Some(Order::ZERO));
    assert_eq!(alloc(allocator, 3, GfpFlags::NOWAIT), Err(OutOfMemory));
    assert_eq!(alloc(allocator, 1, GfpFlags::NOWAIT), Err(OutOfMemory));
    assert_eq!(allocator.kswapd_wanted(NodeId(0)), Order::new(3));
    allocator.kswapd_served(NodeId(0));
    assert_eq!(allocator.kswapd_wanted(NodeId(0)), None);
    free(allocator, &silent);
    alloc(allocator, 0, USER).unwrap();
    assert_eq!(allocator.kswapd_wanted(NodeId(0)), None);
}

/// Which zones and which part of the reserve each group of modifiers reaches.
#[test]
fn each_group_reaches_what_it_is_for() {
    let highest = |gfp: GfpFlags| gfp.highest_zone();
    assert_eq!(highest(GfpFlags::HIGHUSER_MOVABLE), ZoneType::Movable);
    assert_eq!(highest(GfpFlags::HIGHUSER), ZoneType::HighMem);
    assert_eq!(highest(GfpFlags::USER), ZoneType::Normal);
    assert_eq!(highest(GfpFlags::KERNEL | GfpFlags::DMA32), ZoneType::Dma32);
    assert_eq!(highest(GfpFlags::KERNEL | GfpFlags::DMA), ZoneType::Dma);
    // Movable alone does not mean that no address is needed.
    assert_eq!(
        highest(GfpFlags::USER | GfpFlags::MOVABLE),
        ZoneType::Normal
    );

    let left = |gfp: GfpFlags| {
        let machine = Machine::new(16 * MIB, 80 * MIB);
        let allocator = machine.boot();
        let min = allocator.zones().map(|zone| zone.min).sum::<u64>();
        flood(allocator, gfp);
        let wanted = allocator.kswapd_wanted(NodeId(0)).is_some();
        (min, allocator.nr_free_pages(), wanted)
    };
    for gfp in [
        GfpFlags::KERNEL,
        GfpFlags::USER,
        GfpFlags::HIGHUSER,
        GfpFlags::HIGHUSER_MOVABLE,
        GfpFlags::NOIO,
        GfpFlags::NOFS,
        GfpFlags::NOWAIT,
        GfpFlags::KERNEL | GfpFlags::ACCOUNT,
        GfpFlags::KERNEL | GfpFlags::RECLAIMABLE,
        GfpFlags::KERNEL | GfpFlags::RETRY_MAYFAIL,
        GfpFlags::KERNEL | GfpFlags::NORETRY | GfpFlags::NOWARN,
    ] {
        let (min, free, wanted) = left(gfp);
        assert_eq!((free, wanted), (min, true), "{gfp:?}");
    }
    let (min, free, wanted) = left(GfpFlags::ATOMIC);
    assert!(free < min / 2 && free > 0 && wanted);
    let (_, free, _) = left(GfpFlags::KERNEL | GfpFlags::MEMALLOC);
    assert_eq!(free, 0);
}

/// The allocator itself never waits: `__GFP_NOFAIL` is a promise of the wrapper that reclaims, which
/// must hear of the failure to keep it.
#[test]
fn nofail_is_told_when_there_is_nothing() {
    let machine = Machine::new(16 * MIB, 48 * MIB);
    let allocator = machine.boot();
    let gfp = GfpFlags::KERNEL | GfpFlags::NOFAIL;
    let pages = flood(allocator, gfp);
    assert_eq!(alloc(allocator, 0, gfp), Err(OutOfMemory));
    allocator.free_pages(pages[0]);
    assert!(alloc(allocator, 0, gfp).is_ok());
}

/// The first atomic block below the low mark reserves its pageblock for others of its like.
#[test]
fn atomic_blocks_have_a_reserve() {
    // Whatever the metadata and the last pageblock look like.
    for end in [256, 258, 270, 271, 272, 300] {
        atomic_reserve(end * MIB);
    }
}

fn atomic_reserve(end: u64) {
    let machine = Machine::new(16 * MIB, end);
    let allocator = machine.boot();
    let at_boot = free_kib(allocator);
    let plain = GfpFlags::NOWAIT;
    let pages = flood(allocator, plain);
    // Some neighbours come free, so that there are blocks; still below the low mark.
    let mut sorted = pages.clone();
    sorted.sort();
    let pageblock = |pfn: Pfn| pfn.as_u32() / 512;
    let start = sorted
        .windows(512)
        .position(|run| run[0].as_u32() % 512 == 0 && run[511] == run[0] + 511)
        .unwrap();
    let neighbours: Vec<_> = sorted.drain(start..start + 64).collect();
    free(allocator, &neighbours);
    allocator.drain_local();
    let block = alloc(allocator, 2, GfpFlags::ATOMIC).unwrap();
    assert_eq!(
        allocator.pageblock_migrate_type(block),
        MigrateType::HighAtomic
    );
    allocator.validate().unwrap();
    // What comes free there is for others of its like.
    let is_near = |pfn: &Pfn| pageblock(*pfn) == pageblock(block);
    let more: Vec<_> = sorted.iter().copied().filter(is_near).take(64).collect();
    sorted.retain(|pfn| !more.contains(pfn));
    free(allocator, &more);
    let rest = flood(allocator, plain);
    assert!(!rest.iter().any(is_near));
    let second = alloc(allocator, 2, GfpFlags::ATOMIC).unwrap();
    assert!(is_near(&second));
    // Before one that may wait fails, the reserve is given up.
    let last = flood(allocator, GfpFlags::KERNEL);
    assert_ne!(
        allocator.pageblock_migrate_type(block),
        MigrateType::HighAtomic
    );
    allocator.validate().unwrap();
    free(allocator, &sorted);
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
