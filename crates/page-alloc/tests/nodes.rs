//! Several nodes: where memory comes from, in which order, and what is counted.

mod common;

use common::{MIB, Machine, alloc, order};
use std::cell::Cell;
use vellum_machine::{CpuLocal, Cpus, VmEvent};
use vellum_page::{AllocRequest, PageSource};
use vellum_page_alloc::{BootError, BootParts, MovableShare, PageAllocator, ZoneProfile};
use vellum_types::{CpuId, GfpFlags, NodeId, Order, OutOfMemory, PAGE_SIZE, Pfn, ZoneType};

const USER: GfpFlags = GfpFlags::HIGHUSER_MOVABLE;
use ZoneType::{Dma, Dma32, HighMem, Movable, Normal};

thread_local! {
    static CPU: Cell<u16> = const { Cell::new(0) };
}

/// Two CPUs to a node.
struct Pairs;

// SAFETY: each thread of a test names a CPU of its own before it allocates.
unsafe impl CpuLocal for Pairs {
    fn pin(&self) -> CpuId {
        CpuId(CPU.get())
    }
    fn unpin(&self, _: CpuId) {}
    fn node_of(&self, cpu: CpuId) -> NodeId {
        NodeId((cpu.0 / 2) as u8)
    }
}

/// `n` nodes of 32 MiB each from 0 up, two CPUs to a node, all equally far apart.
fn nodes(machine: &Machine, n: u8) -> &PageAllocator<'_> {
    let memory: Vec<_> = (0..n)
        .map(|node| {
            (
                u64::from(node) * 32 * MIB,
                u64::from(node + 1) * 32 * MIB,
                node,
            )
        })
        .collect();
    let parts = machine.parts(machine.memblock_of(&memory));
    machine.boot_from(BootParts {
        cpus: Cpus::new(u16::from(n) * 2, &Pairs),
        ..parts
    })
}

fn machine(n: u64) -> Machine {
    CPU.set(0);
    Machine::new(0, n * 32 * MIB)
}

fn take(allocator: &PageAllocator<'_>, request: AllocRequest) -> Result<NodeId, OutOfMemory> {
    let pfn = allocator.alloc_pages(request)?;
    Ok(allocator.node_of(pfn))
}

fn take_near(
    allocator: &PageAllocator<'_>,
    gfp: GfpFlags,
    node: u8,
) -> Result<NodeId, OutOfMemory> {
    let request = AllocRequest::new(Order::ZERO, gfp);
    let pfn = allocator.alloc_pages_node(request, NodeId(node))?;
    Ok(allocator.node_of(pfn))
}

fn zonelist(allocator: &PageAllocator<'_>, node: u8, gfp: GfpFlags) -> Vec<(u8, ZoneType)> {
    let list = allocator.zonelist(NodeId(node), gfp);
    list.map(|(node, zone)| (node.0, zone)).collect()
}

#[test]
fn each_node_has_its_zones_and_holds_its_own_descriptors() {
    let machine = machine(4);
    let allocator = nodes(&machine, 4);
    let zones: Vec<_> = allocator.zones().map(|z| (z.node.0, z.zone_type)).collect();
    assert_eq!(
        zones,
        [(0, Dma), (0, Dma32), (1, Dma32), (2, Dma32), (3, Dma32)]
    );
    for info in allocator.nodes() {
        assert_eq!(info.present, 32 * MIB / PAGE_SIZE);
        // 32 bytes for each frame, and little else.
        let kept = info.present - info.managed;
        // Node 0 also holds the lists of eight CPUs.
        let extra = if info.node == NodeId(0) { 32 } else { 4 };
        assert!((64..=64 + extra).contains(&kept), "{info:?}");
        assert_eq!(info.free, info.managed);
        let start = Pfn::new(u32::from(info.node.0) * 8192);
        for pfn in [start, start + 8191] {
            assert_eq!(allocator.node_of(pfn), info.node);
        }
    }
    let descriptors = machine
        .ram()
        .phys_of(core::ptr::NonNull::from(allocator.memmap().page(Pfn::new(2 * 8192))).cast());
    let node = Pfn::containing(descriptors.unwrap()).map(|pfn| allocator.node_of(pfn));
    assert_eq!(node, Some(NodeId(2)));
}

#[test]
fn the_zonelist_begins_at_home_and_goes_on_by_distance() {
    let machine = machine(4);
    let allocator = nodes(&machine, 4);
    assert_eq!(
        zonelist(allocator, 0, USER),
        [(0, Dma32), (0, Dma), (1, Dma32), (2, Dma32), (3, Dma32)]
    );
    // Of nodes equally far, the next one around comes first: not all fall back to node 0.
    assert_eq!(
        zonelist(allocator, 2, USER),
        [(2, Dma32), (3, Dma32), (0, Dma32), (0, Dma), (1, Dma32)]
    );
    assert_eq!(
        zonelist(allocator, 2, GfpFlags::KERNEL | GfpFlags::DMA),
        [(0, Dma)]
    );
    assert_eq!(zonelist(allocator, 5, USER), []);

    // A ring in which 0 and 2 are far apart.
    let ring = |from: NodeId, to: NodeId| match from.0.abs_diff(to.0) {
        0 => 10,
        1 | 3 => 20,
        _ => 30,
    };
    let memory = [(0, 32, 0), (32, 64, 1), (64, 96, 2), (96, 128, 3)];
    let memory = memory.map(|(start, end, node)| (start * MIB, end * MIB, node));
    let machine = Machine::new(0, 128 * MIB);
    let parts = machine.parts(machine.memblock_of(&memory));
    let allocator = machine.boot_from(BootParts {
        distance: &ring,
        ..parts
    });
    let order = |node| {
        zonelist(allocator, node, USER)
            .into_iter()
            .map(|z| z.0)
            .collect::<Vec<_>>()
    };
    assert_eq!(order(0), [0, 0, 1, 3, 2]);
    assert_eq!(order(1), [1, 2, 0, 0, 3]);
    assert_eq!(order(2), [2, 3, 1, 0, 0]);
    assert_eq!(order(3), [3, 0, 0, 2, 1]);
    let info = allocator.nodes().nth(2).unwrap();
    assert_eq!(info.distance[..4], [30, 20, 10, 20]);
}

#[test]
fn a_cpu_gets_memory_of_its_node() {
    let machine = machine(2);
    let allocator = nodes(&machine, 2);
    let request = AllocRequest::new(Order::ZERO, USER);
    for (cpu, node) in [(0, 0), (3, 1), (1, 0), (2, 1)] {
        CPU.set(cpu);
        assert_eq!(take(allocator, request), Ok(NodeId(node)));
    }
    CPU.set(0);
    assert_eq!(take_near(allocator, USER, 1), Ok(NodeId(1)));
    assert_eq!(
        take_near(allocator, USER | GfpFlags::THISNODE, 1),
        Ok(NodeId(1))
    );
    assert_eq!(
        take_near(allocator, USER, 7),
        Ok(NodeId(0)),
        "no such node: as if it had not been named"
    );
}

/// A full node 0 sends its requests to node 1, unless they insist.
///
/// ```text
///   node 0  ██████████████▒▒  left at low marks: node 1 is asked first …
///   node 1  ██████████████▒▒  … then both go down to min
/// ```
#[test]
fn an_exhausted_node_falls_back_to_the_next() {
    let machine = machine(2);
    let allocator = nodes(&machine, 2);
    let request = AllocRequest::new(Order::ZERO, USER);
    let flood: Vec<_> = core::iter::from_fn(|| allocator.alloc_pages(request).ok()).collect();
    let on: Vec<_> = flood.iter().map(|pfn| allocator.node_of(*pfn)).collect();
    let change = on.iter().position(|node| *node == NodeId(1)).unwrap();
    assert!(on[..change].iter().all(|node| *node == NodeId(0)));
    let back = change
        + on[change..]
            .iter()
            .position(|node| *node == NodeId(0))
            .unwrap();
    assert!(on[change..back].iter().all(|node| *node == NodeId(1)));
    let marks = |node: u8| {
        let zones = allocator
            .zones()
            .filter(move |zone| zone.node == NodeId(node));
        zones.map(|zone| zone.free - zone.min - zone.lowmem_reserve[Movable.index()])
    };
    assert!(marks(0).chain(marks(1)).all(|above| above == 0));
    allocator.fold_counters();
    let events = |event| machine.vmstat.events(event);
    let missed = on.iter().filter(|node| **node == NodeId(1)).count() as u64;
    assert_eq!(events(VmEvent::NumaMiss), missed);
    assert_eq!(events(VmEvent::NumaForeign), missed);
    assert_eq!(events(VmEvent::NumaOther), missed);
    assert_eq!(events(VmEvent::NumaHit), on.len() as u64 - missed);
    assert_eq!(events(VmEvent::NumaLocal), on.len() as u64 - missed);
    let [first, second] = [0, 1].map(|at| allocator.nodes().nth(at).unwrap());
    assert_eq!((first.numa_foreign, first.numa_miss), (missed, 0));
    assert_eq!((second.numa_foreign, second.numa_miss), (0, missed));
    assert_eq!(first.numa_hit, on.len() as u64 - missed);

    flood
        .iter()
        .rev()
        .take(missed as usize)
        .for_each(|pfn| allocator.free_pages(*pfn));
    while take_near(allocator, USER | GfpFlags::THISNODE, 0).is_ok() {}
    assert!(
        allocator.alloc_pages(request).is_ok(),
        "node 1 has room again"
    );
    allocator.validate().unwrap();
}

/// Programs fill the machine; the lowest 16 MiB, all that an old device reaches, are not theirs to the
/// last page.
///
/// ```text
///              DMA                 DMA32 of node 0        DMA32 of node 1
///   boot       ················    ················       ················
///   flood      ████████████▒▒▒▒    ███████████████▒       ███████████████▒
///                          └ lowmem_reserve: for those who can use nothing else
///   GFP_DMA    ███████████████▒    ███████████████▒       ███████████████▒   ▒ min
/// ```
#[test]
fn a_flood_of_user_pages_leaves_the_dma_zone_usable() {
    CPU.set(0);
    let machine = Machine::new(0, 384 * MIB);
    let memory = machine.memblock_of(&[(0, 256 * MIB, 0), (256 * MIB, 384 * MIB, 1)]);
    let allocator = machine.boot_from(machine.parts(memory));
    while alloc(allocator, 0, USER).is_ok() {}
    assert_eq!(alloc(allocator, 0, GfpFlags::KERNEL), Err(OutOfMemory));
    let dma = || {
        allocator
            .zones()
            .find(|zone| zone.zone_type == Dma)
            .unwrap()
    };
    let reserve = dma().lowmem_reserve[Movable.index()];
    // A 256th of the memory above on the same node.
    let above: u64 = allocator
        .zones()
        .filter(|zone| zone.node == NodeId(0) && zone.zone_type > Dma)
        .map(|zone| zone.managed)
        .sum();
    assert_eq!(reserve, above / 256);
    assert_eq!(dma().free, dma().min + reserve);
    for _ in 0..reserve {
        let pfn = alloc(allocator, 0, GfpFlags::KERNEL | GfpFlags::DMA).unwrap();
        assert_eq!(allocator.zone_type_of(pfn), Some(Dma));
    }
    allocator.validate().unwrap();
}

#[test]
fn on_32_bits_memory_above_896_mib_has_no_address() {
    CPU.set(0);
    let machine = Machine::new(0, 32 * MIB);
    // Only the beginning is really there; boot touches no other byte, and nor does this test.
    let memory = machine.memblock_of(&[(0, 32 * MIB, 0), (896 * MIB, 1024 * MIB, 0)]);
    let parts = machine.parts(memory.clone());
    assert_eq!(
        PageAllocator::boot_from(parts).map(|_| ()),
        Err(BootError::OutsideDirectMap)
    );
    let profile = ZoneProfile::X86_32;
    let allocator = machine.boot_from(BootParts {
        profile,
        ..machine.parts(memory)
    });
    let zones: Vec<_> = allocator.zones().map(|zone| zone.zone_type).collect();
    assert_eq!(zones, [Dma, Normal, HighMem]);
    assert_eq!(
        zonelist(allocator, 0, USER),
        [(0, HighMem), (0, Normal), (0, Dma)]
    );
    let zone_of = |gfp| {
        let pfn = alloc(allocator, 0, gfp).unwrap();
        allocator.zone_type_of(pfn).unwrap()
    };
    assert_eq!(zone_of(GfpFlags::HIGHUSER), HighMem);
    assert_eq!(zone_of(GfpFlags::KERNEL), Normal);
    assert_eq!(zone_of(GfpFlags::KERNEL | GfpFlags::DMA), Dma);
    // Only what has an address can be zeroed here.
    assert_eq!(zone_of(GfpFlags::HIGHUSER | GfpFlags::ZERO), Normal);
    allocator.set_poison(true);
    let pfn = alloc(allocator, 3, USER).unwrap();
    assert!(!machine.ram().covers(pfn));
    allocator.free_pages(pfn);
    let high = allocator
        .zones()
        .find(|zone| zone.zone_type == HighMem)
        .unwrap();
    assert_eq!((high.min, high.present), (32, 128 * MIB / PAGE_SIZE));
    allocator.validate().unwrap();
}

fn movable(memory: &[(u64, u64, u8)], share: MovableShare) -> Vec<(u8, u64)> {
    let end = memory.iter().map(|m| m.1).max().unwrap();
    let machine = Machine::new(0, end);
    let profile = ZoneProfile::X86_64.movable(share);
    let parts = machine.parts(machine.memblock_of(memory));
    let allocator = machine.boot_from(BootParts { profile, ..parts });
    let zones = allocator.zones().filter(|zone| zone.zone_type == Movable);
    let found: Vec<_> = zones
        .map(|zone| (zone.node.0, zone.start.addr().as_u64() / MIB))
        .collect();
    if !found.is_empty() {
        let request = AllocRequest::new(Order::ZERO, USER);
        let pfn = allocator
            .alloc_pages_node(request, NodeId(found[0].0))
            .unwrap();
        assert_eq!(allocator.zone_type_of(pfn), Some(Movable));
        for _ in 0..2000 {
            let pfn = alloc(allocator, 0, GfpFlags::KERNEL).unwrap();
            assert_ne!(
                allocator.zone_type_of(pfn),
                Some(Movable),
                "only for what moves"
            );
        }
        // Tables of boot would pin it: they lie below.
        for zone in allocator.zones().filter(|zone| zone.zone_type == Movable) {
            assert_eq!(zone.managed, zone.present);
        }
    }
    found
}

#[test]
fn the_end_of_each_node_can_be_kept_for_what_moves() {
    CPU.set(0);
    let two = [(0, 64 * MIB, 0), (64 * MIB, 128 * MIB, 1)];
    let pages = |mib: u64| mib * 256;
    assert_eq!(movable(&two, MovableShare::None), []);
    assert_eq!(
        movable(&two, MovableShare::KernelCore(pages(64))),
        [(0, 32), (1, 96)]
    );
    assert_eq!(
        movable(&two, MovableShare::MovableCore(pages(64))),
        [(0, 32), (1, 96)]
    );
    // Rounded up to a block of the largest order; never in a lower zone than the highest.
    assert_eq!(
        movable(&two, MovableShare::KernelCore(pages(65))),
        [(0, 36), (1, 100)]
    );
    assert_eq!(
        movable(&two, MovableShare::KernelCore(pages(24))),
        [(0, 16), (1, 76)]
    );
    assert_eq!(movable(&two, MovableShare::KernelCore(pages(128))), []);
    assert_eq!(movable(&two, MovableShare::KernelCore(u64::MAX)), []);
    // What a small node cannot give, the other does.
    let uneven = [(0, 96 * MIB, 0), (96 * MIB, 112 * MIB, 1)];
    assert_eq!(
        movable(&uneven, MovableShare::KernelCore(pages(64))),
        [(0, 48)]
    );
    // Nodes that are to be removable.
    assert_eq!(movable(&two, MovableShare::Nodes(0b10)), [(1, 64)]);
}

#[test]
fn nodes_may_meet_anywhere_and_lie_in_pieces() {
    CPU.set(0);
    // The border lies inside a block of the largest order, and a page is shared; node 0 has memory on
    // both sides of node 1; there are holes of every size.
    let machine = Machine::new(0, 512 * MIB);
    let memory = machine.memblock_of(&[
        (0x1000, 0x9_fc00, 0),
        (MIB, 33 * MIB + 0x1800, 0),
        (33 * MIB + 0x1800, 66 * MIB, 1),
        (67 * MIB, 70 * MIB, 0),
        (256 * MIB, 257 * MIB, 1),
        (300 * MIB, 512 * MIB, 0),
    ]);
    let allocator = machine.boot_from(machine.parts(memory));
    let runs: Vec<_> = allocator.memmap().runs().map(|run| run.to_phys()).collect();
    assert_eq!(
        runs,
        [
            common::bytes(0x1000, 36 * MIB),
            common::bytes(36 * MIB, 68 * MIB),
            common::bytes(68 * MIB, 70 * MIB),
            common::bytes(256 * MIB, 257 * MIB),
            common::bytes(300 * MIB, 512 * MIB),
        ]
    );
    let present: u64 = allocator.nodes().map(|node| node.present).sum();
    let whole = 0x9e + (32 * MIB + 33 * MIB + 3 * MIB + MIB + 212 * MIB) / PAGE_SIZE - 1;
    assert_eq!(present, whole);
    while alloc(allocator, 0, USER | GfpFlags::MEMALLOC).is_ok() {}
    assert_eq!(allocator.nr_free_pages(), 0);
    allocator.validate().unwrap();
}

#[test]
fn all_metadata_of_a_machine_is_at_most_a_hundredth_of_its_memory() {
    CPU.set(0);
    for mib in [16, 64, 256, 1024] {
        let machine = Machine::new(0, mib * MIB);
        let allocator = machine.boot();
        let kept = allocator.present_pages() - allocator.managed_pages();
        assert!(
            kept * 100 <= allocator.present_pages(),
            "{mib} MiB: {kept} pages"
        );
    }
    // Holes change nothing: 128 MiB in eight pieces, 64 MiB apart, on four nodes.
    let machine = Machine::new(0, 640 * MIB);
    let memory: Vec<_> = (0..8)
        .map(|at| (at * 80 * MIB, at * 80 * MIB + 16 * MIB, (at / 2) as u8))
        .collect();
    let allocator = machine.boot_from(machine.parts(machine.memblock_of(&memory)));
    let kept = allocator.present_pages() - allocator.managed_pages();
    assert_eq!(allocator.present_pages(), 128 * MIB / PAGE_SIZE);
    assert!(kept * 100 <= allocator.present_pages(), "{kept} pages");
}

#[test]
fn boot_refuses_nodes_and_zones_that_cannot_be() {
    let machine = Machine::new(0, 32 * MIB);
    let boot = |memory: &[(u64, u64, u8)], profile| {
        let parts = machine.parts(machine.memblock_of(memory));
        PageAllocator::boot_from(BootParts { profile, ..parts }).map(|_| ())
    };
    let profile = ZoneProfile::X86_64;
    assert_eq!(
        boot(&[(0, 32 * MIB, 8)], profile),
        Err(BootError::TooManyNodes)
    );
    let crooked = ZoneProfile {
        dma_end: Pfn::new(4097),
        ..profile
    };
    assert_eq!(
        boot(&[(0, 32 * MIB, 0)], crooked),
        Err(BootError::BadProfile)
    );
    let descending = ZoneProfile {
        dma32_end: Pfn::new(1024),
        ..profile
    };
    assert_eq!(
        boot(&[(0, 32 * MIB, 0)], descending),
        Err(BootError::BadProfile)
    );
}

#[test]
fn eight_nodes_and_every_order() {
    CPU.set(0);
    let machine = machine(8);
    let allocator = nodes(&machine, 8);
    let mut taken = Vec::new();
    for node in (0..8).map(NodeId) {
        for raw in 0..=10 {
            let request = AllocRequest::new(order(raw), GfpFlags::KERNEL | GfpFlags::THISNODE);
            let pfn = allocator.alloc_pages_node(request, node).unwrap();
            assert_eq!(allocator.node_of(pfn), node);
            taken.push(pfn);
        }
    }
    allocator.validate().unwrap();
    taken.into_iter().for_each(|pfn| allocator.free_pages(pfn));
    allocator.validate().unwrap();
    assert_eq!(allocator.nr_free_pages(), allocator.managed_pages());
}

/// Only the nodes that a failed search went over are short.
#[test]
fn kswapd_is_wanted_on_the_nodes_that_were_searched() {
    CPU.set(0);
    let machine = machine(2);
    let allocator = nodes(&machine, 2);
    let wanted = || [0, 1].map(|node| allocator.kswapd_wanted(NodeId(node)));
    let strict = USER | GfpFlags::THISNODE;
    while take_near(allocator, strict, 1).is_ok() {}
    assert_eq!(wanted(), [None, Some(Order::ZERO)]);
    let block = AllocRequest::new(order(4), strict);
    assert_eq!(
        allocator.alloc_pages_node(block, NodeId(1)),
        Err(OutOfMemory)
    );
    assert_eq!(wanted(), [None, Some(order(4))]);
    // There is another node: nobody is short.
    allocator.kswapd_served(NodeId(1));
    assert_eq!(take_near(allocator, USER, 1), Ok(NodeId(0)));
    assert_eq!(wanted(), [None, None]);
    while take_near(allocator, USER, 1).is_ok() {}
    assert_eq!(wanted(), [Some(Order::ZERO); 2]);
    allocator.kswapd_served(NodeId(0));
    assert_eq!(wanted(), [None, Some(Order::ZERO)]);
    assert_eq!(allocator.kswapd_wanted(NodeId(7)), None);
}
