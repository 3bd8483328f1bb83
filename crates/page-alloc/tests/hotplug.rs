//! Memory that is added and removed while the machine runs.

mod common;

use common::{MIB, Machine, Rng, alloc};
use vellum_machine::VmItem;
use vellum_page::{AllocRequest, PageSource, PageState};
use vellum_page_alloc::{BootParts, HotplugError, Online, PageAllocator, ZoneProfile};
use vellum_types::{GfpFlags, NodeId, Order, PAGE_SIZE, Pfn, PfnRange, ZoneType};

const USER: GfpFlags = GfpFlags::HIGHUSER_MOVABLE;
const N0: NodeId = NodeId(0);
const N1: NodeId = NodeId(1);

/// So many MiB.
fn mib(start: u32, end: u32) -> PfnRange {
    PfnRange::new(Pfn::new(start << 8), Pfn::new(end << 8)).unwrap()
}

/// 64 MiB on node 0; the rest of 128 MiB may be added, to node 1 too.
fn boot(machine: &Machine) -> &PageAllocator<'_> {
    let profile = ZoneProfile::X86_64.possible(N1);
    let parts = machine.parts(machine.memblock_of(&[(0, 64 * MIB, 0)]));
    machine.boot_from(BootParts { profile, ..parts })
}

fn add(
    allocator: &PageAllocator<'_>,
    range: PfnRange,
    node: NodeId,
    online: Online,
) -> Result<(), HotplugError> {
    // SAFETY: the tests' machines have no other user of memory than the allocator.
    let result = unsafe { allocator.add_memory(range, node, online) };
    allocator.validate().unwrap();
    result
}

fn remove(allocator: &PageAllocator<'_>, range: PfnRange) -> Result<(), HotplugError> {
    let result = allocator.remove_memory(range);
    allocator.validate().unwrap();
    result.map(|bytes| assert_eq!(bytes, range.to_phys()))
}

/// Everything that depends on how much memory there is.
fn numbers(allocator: &PageAllocator<'_>) -> Vec<(u64, u64, u64, u64, [u64; 5])> {
    allocator.drain_all();
    let zones = allocator.zones().filter(|zone| zone.present > 0);
    zones
        .map(|z| (z.present, z.managed, z.free, z.low, z.lowmem_reserve))
        .collect()
}

#[test]
fn a_node_without_memory_gets_some_and_loses_it_again() {
    let machine = Machine::new(0, 128 * MIB);
    let allocator = boot(&machine);
    let before = numbers(allocator);
    assert_eq!(allocator.nodes().nth(1).unwrap().present, 0);
    let strict = AllocRequest::new(Order::ZERO, USER | GfpFlags::THISNODE);
    assert!(allocator.alloc_pages_node(strict, N1).is_err());

    let region = mib(96, 128);
    add(allocator, region, N1, Online::Kernel).unwrap();
    let info = allocator.nodes().nth(1).unwrap();
    assert_eq!(info.present, 8192);
    assert_eq!(info.managed, 8192 - 65, "its descriptors lie in itself");
    let zone = allocator.zones().find(|zone| zone.node == N1).unwrap();
    assert!(zone.min > 0 && zone.low > zone.min);
    let pfn = allocator.alloc_pages_node(strict, N1).unwrap();
    assert!(region.contains(pfn));
    let first: Vec<_> = allocator.zonelist(N1, USER).take(2).collect();
    assert_eq!(first, [(N1, ZoneType::Dma32), (N0, ZoneType::Dma32)]);

    let in_the_way = HotplugError::InTheWay(pfn, PageState::Allocated);
    assert_eq!(remove(allocator, region), Err(in_the_way));
    allocator.free_pages(pfn);
    remove(allocator, region).unwrap();
    assert_eq!(numbers(allocator), before);
    assert!(allocator.memmap().try_page(region.start()).is_none());
    assert!(allocator.alloc_pages_node(strict, N1).is_err());
    // And again, on the other node.
    add(allocator, region, N0, Online::Movable).unwrap();
    let movable = allocator
        .zones()
        .find(|zone| zone.zone_type == ZoneType::Movable);
    assert_eq!(movable.unwrap().present, 8192);
    let pfn = alloc(allocator, 0, USER).unwrap();
    assert_eq!(allocator.zone_type_of(pfn), Some(ZoneType::Movable));
}

#[test]
fn part_of_boot_memory_goes_and_comes_back() {
    let machine = Machine::new(0, 128 * MIB);
    let allocator = boot(&machine);
    let before = numbers(allocator);
    let region = mib(32, 40);
    remove(allocator, region).unwrap();
    let gone = 8 * MIB / PAGE_SIZE;
    assert_eq!(allocator.present_pages(), 64 * MIB / PAGE_SIZE - gone);
    let mut flood = Vec::new();
    flood.extend(core::iter::from_fn(|| {
        alloc(allocator, 0, USER | GfpFlags::MEMALLOC).ok()
    }));
    assert!(!flood.iter().any(|pfn| region.contains(*pfn)));
    assert_eq!(remove(allocator, region), Err(HotplugError::Present));
    add(allocator, region, N0, Online::Kernel).unwrap();
    let pfn = alloc(allocator, 10, USER | GfpFlags::MEMALLOC).unwrap();
    assert!(region.contains(pfn));
    flood
        .into_iter()
        .chain([pfn])
        .for_each(|pfn| allocator.free_pages(pfn));
    allocator.validate().unwrap();
    assert_eq!(numbers(allocator), before);
}

#[test]
#[should_panic(expected = "wrong free")]
fn freeing_into_a_removed_region_panics() {
    let machine = Machine::new(0, 128 * MIB);
    let allocator = boot(&machine);
    remove(allocator, mib(32, 36)).unwrap();
    allocator.free_pages(Pfn::new(33 << 8));
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let machine = Machine::new(0, 128 * MIB);
    let allocator = boot(&machine);
    let before = numbers(allocator);
    let crooked = PfnRange::new(Pfn::new((64 << 8) + 1), Pfn::new(68 << 8)).unwrap();
    let cases = [
        (crooked, N0, HotplugError::Unaligned),
        (mib(64, 68), NodeId(3), HotplugError::NoSuchNode),
        (mib(64, 68), NodeId(200), HotplugError::NoSuchNode),
        (mib(60, 68), N0, HotplugError::Present),
        (mib(0, 64), N0, HotplugError::Present),
        (mib(124, 132), N0, HotplugError::OutsideDirectMap),
    ];
    for (range, node, error) in cases {
        assert_eq!(add(allocator, range, node, Online::Kernel), Err(error));
    }
    assert_eq!(remove(allocator, crooked), Err(HotplugError::Unaligned));
    assert_eq!(remove(allocator, mib(60, 68)), Err(HotplugError::Present));
    assert_eq!(remove(allocator, mib(200, 204)), Err(HotplugError::Present));
    // Boot's own tables, after some blocks that were free.
    let in_the_way = remove(allocator, mib(40, 64)).unwrap_err();
    assert!(matches!(
        in_the_way,
        HotplugError::InTheWay(_, PageState::Reserved)
    ));
    assert_eq!(numbers(allocator), before);
    assert_eq!(allocator.nr_free_pages(), allocator.managed_pages());
}

#[test]
fn a_table_of_runs_has_an_end() {
    let machine = Machine::new(0, 512 * MIB);
    let allocator = boot(&machine);
    let mut added = 0;
    let full = loop {
        // A gap behind each, so that none could be one with the last.
        let start = 68 + added * 8;
        match add(allocator, mib(start, start + 4), N0, Online::Kernel) {
            Ok(()) => added += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((full, added), (HotplugError::Full, 32));
    for at in 0..added {
        remove(allocator, mib(68 + at * 8, 72 + at * 8)).unwrap();
    }
    // Each comes back to its place.
    add(allocator, mib(68, 72), N1, Online::Kernel).unwrap();
}

#[test]
fn regions_come_and_go_at_random_under_load() {
    let machine = Machine::new(0, 128 * MIB);
    let allocator = boot(&machine);
    let mut rng = Rng(0x1234_5678_9abc_def1);
    // Regions of 8 MiB behind boot's memory, and two inside.
    let regions: Vec<_> = (8..16).map(|at| mib(at * 8, at * 8 + 8)).collect();
    let inside = [mib(16, 24), mib(32, 40)];
    let all: Vec<_> = regions.iter().copied().chain(inside).collect();
    let mut there = vec![false; 8];
    there.extend([true; 2]);
    let mut live: Vec<(Pfn, usize)> = Vec::new();
    let (mut removed, mut refused) = (0, 0);
    for step in 0..120_000_u32 {
        match rng.below(200) {
            0 => {
                let at = rng.below(10) as usize;
                let node = NodeId(rng.below(2) as u8);
                let online = [Online::Kernel, Online::Movable][rng.below(2) as usize];
                if there[at] {
                    let used = live.iter().any(|(pfn, _)| all[at].contains(*pfn));
                    let result = allocator.remove_memory(all[at]);
                    assert_eq!(result.is_err(), used, "{result:?}");
                    if let Err(error) = result {
                        refused += 1;
                        assert!(
                            matches!(error, HotplugError::InTheWay(pfn, _) if all[at].contains(pfn))
                        );
                    } else {
                        removed += 1;
                        there[at] = false;
                    }
                } else {
                    // SAFETY: nobody but the allocator uses the machine's memory.
                    unsafe { allocator.add_memory(all[at], node, online) }.unwrap();
                    there[at] = true;
                }
            }
            1..=90 => {
                let raw = rng.below(8) as u8;
                let gfp = [USER, GfpFlags::KERNEL][rng.below(2) as usize];
                if let Ok(pfn) = alloc(allocator, raw, gfp) {
                    let gone = all.iter().zip(&there).filter(|(_, there)| !**there);
                    assert!(!gone.into_iter().any(|(range, _)| range.contains(pfn)));
                    machine.ram().fill_pages(pfn, 1 << raw, step as u8);
                    live.push((pfn, 1 << raw));
                }
            }
            91..=93 => live
                .drain(..)
                .for_each(|(pfn, _)| allocator.free_pages(pfn)),
            _ if live.is_empty() => {}
            _ => {
                let at = rng.below(live.len() as u64) as usize;
                allocator.free_pages(live.swap_remove(at).0);
            }
        }
        if step % 4000 == 0 {
            allocator.validate().unwrap();
            let used: usize = live.iter().map(|(_, pages)| pages).sum();
            assert_eq!(
                allocator.nr_free_pages() + used as u64,
                allocator.managed_pages()
            );
            let in_zones = allocator.nr_free_pages() - allocator.nr_per_cpu_pages();
            assert_eq!(machine.vmstat.item(VmItem::NrFreePages), in_zones);
        }
    }
    assert!(
        removed > 50 && refused > 20,
        "{removed} removed, {refused} refused"
    );
}
