//! Zones, watermarks, mobility, failure on demand, poison, events.

mod common;

use common::{GIB, MIB, Machine, alloc, bytes, one_cpu, zone_of};
use std::sync::Mutex;
use vellum_machine::{Trace, TraceEvent, TraceSink, VmEvent, VmItem, VmStat};
use vellum_memblock::MemBlock;
use vellum_page::{AllocRequest, OwnedPages, PageSource, PageState};
use vellum_page_alloc::{BootError, PAGE_POISON, PageAllocator, ZoneInfo};
use vellum_types::{GfpFlags, MigrateType, NodeId, Order, OutOfMemory, PAGE_SIZE, Pfn, ZoneType};

const USER: GfpFlags = GfpFlags::HIGHUSER_MOVABLE;
const DMA: GfpFlags = GfpFlags::KERNEL.union(GfpFlags::DMA);

fn zone(allocator: &PageAllocator<'_>, zone_type: ZoneType) -> ZoneInfo {
    allocator
        .zones()
        .find(|zone| zone.zone_type == zone_type)
        .unwrap()
}

/// Takes single pages until there are none.
fn flood(allocator: &PageAllocator<'_>, gfp: GfpFlags) -> Vec<Pfn> {
    core::iter::from_fn(|| alloc(allocator, 0, gfp).ok()).collect()
}

#[test]
fn zones_count_what_they_have() {
    let machine = Machine::new(0, 64 * MIB);
    let mut memblock = MemBlock::new();
    memblock.add(bytes(0x1000, 0x9_fc00), NodeId(0)).unwrap();
    memblock.add(bytes(MIB, 64 * MIB), NodeId(0)).unwrap();
    memblock.reserve(bytes(2 * MIB, 3 * MIB)).unwrap();
    let need = PageAllocator::boot_bytes(machine.ram(), &memblock, one_cpu()) / PAGE_SIZE;
    let allocator = machine.boot_with(memblock, Trace::OFF);
    let names: Vec<_> = allocator.zones().map(|zone| zone.name).collect();
    assert_eq!(names, ["DMA", "DMA32"]);
    let dma = zone(allocator, ZoneType::Dma);
    assert_eq!((dma.start, dma.spanned), (Pfn::new(1), 4095));
    assert_eq!(dma.present, 0x9e + 15 * 256);
    assert_eq!(dma.managed, 0x9e + 14 * 256);
    let dma32 = zone(allocator, ZoneType::Dma32);
    assert_eq!(
        (dma32.start, dma32.spanned, dma32.present),
        (Pfn::new(4096), 12288, 12288)
    );
    assert_eq!(dma32.managed, 12288 - need);
    assert_eq!(allocator.managed_pages(), dma.managed + dma32.managed);
    assert_eq!(allocator.present_pages(), dma.present + dma32.present);
    assert_eq!(allocator.nr_free_pages(), allocator.managed_pages());
    assert_eq!(
        machine.vmstat.item(VmItem::NrFreePages),
        allocator.managed_pages()
    );
    assert_eq!(
        dma.lowmem_reserve[ZoneType::Dma32.index()],
        dma32.managed / 256
    );
}

#[test]
fn the_highest_zone_is_tried_first() {
    let machine = Machine::new(4 * GIB - 8 * MIB, 4 * GIB + 8 * MIB);
    let allocator = machine.boot();
    assert_eq!(
        zone_of(alloc(allocator, 0, USER).unwrap()),
        ZoneType::Normal
    );
    assert_eq!(
        zone_of(alloc(allocator, 0, GfpFlags::KERNEL).unwrap()),
        ZoneType::Normal
    );
    let dma32 = GfpFlags::KERNEL | GfpFlags::DMA32;
    assert_eq!(
        zone_of(alloc(allocator, 0, dma32).unwrap()),
        ZoneType::Dma32
    );
    assert_eq!(
        alloc(allocator, 0, DMA),
        Err(OutOfMemory),
        "there is no such zone here"
    );
    allocator.drain_local();
    let pages = flood(allocator, USER);
    let change = pages
        .iter()
        .position(|pfn| zone_of(*pfn) == ZoneType::Dma32)
        .unwrap();
    let low = zone(allocator, ZoneType::Normal).low;
    let normal = zone(allocator, ZoneType::Normal).managed;
    assert_eq!(
        change as u64 + 2,
        normal - low,
        "Normal is left at its low mark"
    );
    allocator.fold_counters();
    assert_eq!(machine.vmstat.events(VmEvent::PgAllocDma32), {
        pages
            .iter()
            .filter(|pfn| zone_of(**pfn) == ZoneType::Dma32)
            .count() as u64
            + 1
    });
}

#[test]
fn the_dma_zone_survives_a_flood_of_user_pages() {
    let machine = Machine::new(0, 256 * MIB);
    let allocator = machine.boot();
    let pages = flood(allocator, USER);
    assert!(
        pages.iter().any(|pfn| zone_of(*pfn) == ZoneType::Dma),
        "the reserve is not all of it"
    );
    let dma = zone(allocator, ZoneType::Dma);
    let reserve = dma.lowmem_reserve[ZoneType::Movable.index()];
    assert!(reserve >= 200);
    assert_eq!(dma.free, dma.min + reserve);
    assert_eq!(alloc(allocator, 0, GfpFlags::KERNEL), Err(OutOfMemory));
    let saved = flood(allocator, DMA);
    assert_eq!(saved.len() as u64, reserve);
    assert!(saved.iter().all(|pfn| zone_of(*pfn) == ZoneType::Dma));
    for pfn in pages.into_iter().chain(saved) {
        allocator.free_pages(pfn);
    }
    allocator.validate().unwrap();
    assert_eq!(allocator.nr_free_pages(), allocator.managed_pages());
}

#[test]
fn the_reserve_below_min_is_for_the_urgent() {
    let machine = Machine::new(16 * MIB, 80 * MIB);
    let allocator = machine.boot();
    let dma32 = || zone(allocator, ZoneType::Dma32);
    assert_eq!(
        allocator.min_free_kbytes(),
        (allocator.managed_pages() * 4 * 16).isqrt()
    );
    let min = dma32().min;
    assert_eq!(min, allocator.min_free_kbytes() / 4);
    assert!(dma32().low > min && dma32().high > dma32().low);

    flood(allocator, GfpFlags::KERNEL);
    assert_eq!(dma32().free, min);
    flood(allocator, GfpFlags::NOWAIT);
    assert_eq!(dma32().free, min, "not waiting alone gives no right");
    flood(allocator, GfpFlags::KERNEL | GfpFlags::HIGH);
    assert_eq!(dma32().free, min - min / 2);
    flood(allocator, GfpFlags::ATOMIC);
    assert_eq!(dma32().free, (min - min / 2) - (min - min / 2) / 4);
    flood(
        allocator,
        GfpFlags::KERNEL | GfpFlags::MEMALLOC | GfpFlags::NOMEMALLOC,
    );
    assert_ne!(dma32().free, 0);
    flood(allocator, GfpFlags::KERNEL | GfpFlags::MEMALLOC);
    assert_eq!(dma32().free, 0);
    allocator.validate().unwrap();
}

#[test]
fn min_free_kbytes_can_be_set() {
    let machine = Machine::new(16 * MIB, 32 * MIB);
    let allocator = machine.boot();
    allocator.set_min_free_kbytes(4096);
    assert_eq!(allocator.min_free_kbytes(), 4096);
    assert_eq!(zone(allocator, ZoneType::Dma32).min, 1024);
    flood(allocator, USER);
    assert_eq!(allocator.nr_free_pages(), 1024);
    allocator.set_min_free_kbytes(0);
    flood(allocator, USER);
    assert!(allocator.nr_free_pages() < 1024);
}

#[test]
fn mobilities_live_in_pageblocks_of_their_own() {
    let machine = Machine::new(16 * MIB, 64 * MIB);
    let allocator = machine.boot();
    let reclaimable = GfpFlags::KERNEL | GfpFlags::RECLAIMABLE;
    let mut seen = Vec::new();
    for _ in 0..1500 {
        for (gfp, state) in [
            (USER, PageState::Anon),
            (GfpFlags::KERNEL, PageState::Slab),
            (reclaimable, PageState::Slab),
        ] {
            let pfn = alloc(allocator, 0, gfp).unwrap();
            allocator.memmap().page(pfn).set_state(state);
            assert_eq!(allocator.pageblock_migrate_type(pfn), gfp.migrate_type());
            seen.push(pfn);
        }
    }
    allocator.validate().unwrap();
    // With nothing left of their own, all take from each other, down to the last page.
    seen.extend(flood(allocator, GfpFlags::KERNEL | GfpFlags::MEMALLOC));
    assert_eq!(allocator.nr_free_pages(), 0);
    seen.into_iter().for_each(|pfn| allocator.free_pages(pfn));
    allocator.validate().unwrap();
    assert_eq!(allocator.nr_free_pages(), allocator.managed_pages());
}

#[test]
fn a_used_pageblock_is_not_claimed_for_a_single_page() {
    let machine = Machine::new(16 * MIB, 32 * MIB);
    let allocator = machine.boot();
    let all = GfpFlags::MEMALLOC;
    let pages = flood(allocator, USER | all);
    for pfn in &pages {
        allocator.memmap().page(*pfn).set_state(PageState::Anon);
    }
    for pfn in pages.iter().step_by(64) {
        allocator.free_pages(*pfn);
    }
    let pfn = alloc(allocator, 0, GfpFlags::KERNEL | all).unwrap();
    assert_eq!(allocator.pageblock_migrate_type(pfn), MigrateType::Movable);
    // An empty one is.
    for (at, pfn) in pages.iter().enumerate() {
        if at % 64 != 0 && pfn.as_u32() >> 9 == pages[600].as_u32() >> 9 {
            allocator.free_pages(*pfn);
        }
    }
    let pfn = alloc(allocator, 0, GfpFlags::KERNEL | all).unwrap();
    assert_eq!(
        allocator.pageblock_migrate_type(pfn),
        MigrateType::Unmovable
    );
    allocator.validate().unwrap();
}

#[test]
fn failures_come_when_asked_for() {
    let machine = Machine::new(16 * MIB, 32 * MIB);
    let allocator = machine.boot();
    let free = allocator.nr_free_pages();
    allocator.fail_after(Some(2));
    let a = alloc(allocator, 0, USER).unwrap();
    let b = alloc(allocator, 5, USER).unwrap();
    for _ in 0..5 {
        assert_eq!(alloc(allocator, 0, USER), Err(OutOfMemory));
        assert_eq!(alloc(allocator, 3, GfpFlags::ATOMIC), Err(OutOfMemory));
    }
    allocator.free_pages(a);
    allocator.free_pages(b);
    assert_eq!(allocator.nr_free_pages(), free);
    allocator.fail_after(None);
    alloc(allocator, 0, USER).unwrap();
    allocator.validate().unwrap();
}

#[test]
fn zeroed_pages_are_zero_and_poison_shows() {
    let machine = Machine::new(16 * MIB, 32 * MIB);
    let allocator = machine.boot();
    let ram = machine.ram();
    let word = |pfn: Pfn| ram.read_u64(pfn.addr() + 8);
    allocator.set_poison(true);
    let pfn = alloc(allocator, 2, GfpFlags::KERNEL).unwrap();
    ram.fill_pages(pfn, 4, 7);
    allocator.free_pages(pfn);
    assert_eq!(word(pfn + 3), u64::from_ne_bytes([PAGE_POISON; 8]));
    assert_eq!(
        alloc(allocator, 2, AllocRequest::kernel_zeroed(Order::ZERO).gfp),
        Ok(pfn)
    );
    assert_eq!((word(pfn), word(pfn + 3)), (0, 0));
    ram.fill_pages(pfn, 4, 7);
    allocator.set_poison(false);
    allocator.free_pages(pfn);
    assert_eq!(word(pfn), u64::from_ne_bytes([7; 8]));
}

#[derive(Default)]
struct Recorder(Mutex<Vec<TraceEvent>>);

impl TraceSink for Recorder {
    fn event(&self, event: &TraceEvent) {
        self.0.lock().unwrap().push(*event);
    }
}

#[test]
fn each_allocation_and_free_is_an_event() {
    let recorder = Recorder::default();
    let machine = Machine::new(16 * MIB, 32 * MIB);
    let allocator = machine.boot_with(machine.memblock(), Trace::new(&recorder, u32::MAX));
    let block = OwnedPages::alloc(allocator, AllocRequest::kernel(common::order(3))).unwrap();
    let pfn = block.pfn();
    drop(block);
    assert_eq!(
        *recorder.0.lock().unwrap(),
        [
            TraceEvent::MmPageAlloc {
                pfn,
                order: common::order(3),
                gfp: GfpFlags::KERNEL,
                migrate_type: MigrateType::Unmovable
            },
            TraceEvent::MmPageFree {
                pfn,
                order: common::order(3)
            },
        ]
    );
    allocator.fold_counters();
    assert_eq!(machine.vmstat.events(VmEvent::PgAllocDma32), 8);
    assert_eq!(machine.vmstat.events(VmEvent::PgFree), 8);
}

#[test]
fn boot_refuses_machines_without_room() {
    let machine = Machine::new(16 * MIB, 18 * MIB);
    let vmstat = VmStat::new();
    let boot = |memblock| {
        PageAllocator::boot(
            machine.ram(),
            memblock,
            common::one_cpu(),
            &vmstat,
            Trace::OFF,
        )
        .map(|_| ())
        .unwrap_err()
    };
    assert_eq!(boot(MemBlock::new()), BootError::NoMemory);
    let mut outside = machine.memblock();
    outside.add(bytes(MIB, 2 * MIB), NodeId(0)).unwrap();
    assert_eq!(boot(outside), BootError::OutsideDirectMap);
    let mut tiny = MemBlock::new();
    tiny.add(bytes(16 * MIB, 16 * MIB + 4096), NodeId(0))
        .unwrap();
    assert_eq!(boot(tiny), BootError::NoRoomForTables);
    assert_eq!(vmstat.item(VmItem::NrFreePages), 0);
}
