//! Where an allocation goes: the cases that the kernel's own tests of memblock list, both directions.

use vellum_memblock::{AllocSpec, Direction, MemBlock};
use vellum_types::{NodeId, PhysAddr, PhysRange};

const KIB: u64 = 1 << 10;
/// All of a test's memory: 16 KiB from here.
const BASE: u64 = 0x10_0000;

fn at(start: u64, len: u64) -> PhysRange {
    PhysRange::from_len(PhysAddr::new(BASE + start), len).unwrap()
}

/// 16 KiB, of which `reserved` (offset, length) is taken.
fn machine(reserved: &[(u64, u64)]) -> MemBlock {
    let mut memblock = MemBlock::new();
    memblock.add(at(0, 16 * KIB), NodeId(0)).unwrap();
    for (start, len) in reserved {
        memblock.reserve(at(*start, *len)).unwrap();
    }
    memblock
}

/// Allocates in both directions; `expected` are the offsets from the bottom and from the top.
fn check(memblock: &MemBlock, spec: AllocSpec, len: u64, expected: Option<(u64, u64)>) {
    let low = memblock.clone().alloc(spec.direction(Direction::BottomUp));
    let mut after = memblock.clone();
    let high = after.alloc(spec);
    assert_eq!(
        low,
        expected.map(|(low, _)| at(low, len)),
        "bottom-up {spec:?}"
    );
    assert_eq!(
        high,
        expected.map(|(_, high)| at(high, len)),
        "top-down {spec:?}"
    );
    after.validate().unwrap();
    let taken = high.map_or(0, |range| range.len());
    assert_eq!(after.reserved_bytes(), memblock.reserved_bytes() + taken);
}

#[test]
fn beside_a_reservation() {
    let spec = AllocSpec::new(2 * KIB, 64);
    check(&machine(&[]), spec, 2 * KIB, Some((0, 14 * KIB)));
    // A reservation at the end, at the beginning, and with a gap that is too small behind it.
    check(
        &machine(&[(15 * KIB, KIB)]),
        spec,
        2 * KIB,
        Some((0, 13 * KIB)),
    );
    check(&machine(&[(0, KIB)]), spec, 2 * KIB, Some((KIB, 14 * KIB)));
    check(
        &machine(&[(14 * KIB, KIB)]),
        spec,
        2 * KIB,
        Some((0, 12 * KIB)),
    );
    check(
        &machine(&[(KIB, KIB)]),
        spec,
        2 * KIB,
        Some((2 * KIB, 14 * KIB)),
    );
}

#[test]
fn between_reservations() {
    // One gap is just right; the first gap that is large enough is the second one.
    let exact = machine(&[(0, 4 * KIB), (6 * KIB, 10 * KIB)]);
    check(
        &exact,
        AllocSpec::new(2 * KIB, 64),
        2 * KIB,
        Some((4 * KIB, 4 * KIB)),
    );
    let second = machine(&[
        (KIB, KIB),
        (6 * KIB, KIB),
        (12 * KIB, KIB),
        (14 * KIB, 2 * KIB),
    ]);
    let spec = AllocSpec::new(4 * KIB, 64);
    check(&second, spec, 4 * KIB, Some((2 * KIB, 8 * KIB)));
    // What was allocated merges with the reservations that it touches.
    let mut filled = exact;
    filled.alloc(AllocSpec::new(2 * KIB, 64)).unwrap();
    assert_eq!(filled.reserved().count(), 1);
}

#[test]
fn nowhere() {
    let spec = AllocSpec::new(2 * KIB, 64);
    let gaps: Vec<_> = (0..8).map(|n| (n * 2 * KIB, KIB)).collect();
    check(&machine(&gaps), spec, 2 * KIB, None);
    check(&machine(&[(0, 16 * KIB)]), spec, 2 * KIB, None);
    check(&machine(&[(0, 15 * KIB)]), spec, 2 * KIB, None);
    check(&machine(&[]), AllocSpec::new(17 * KIB, 64), 17 * KIB, None);
    check(&MemBlock::new(), spec, 2 * KIB, None);
    // The last byte counts.
    check(
        &machine(&[(0, 14 * KIB)]),
        spec,
        2 * KIB,
        Some((14 * KIB, 14 * KIB)),
    );
}

#[test]
fn within_limits() {
    let spec = AllocSpec::new(KIB, 1);
    let narrow = spec.within(at(4 * KIB, KIB));
    check(&machine(&[]), narrow, KIB, Some((4 * KIB, 4 * KIB)));
    check(&machine(&[(4 * KIB, 1)]), narrow, KIB, None);
    check(&machine(&[]), spec.within(at(4 * KIB, KIB - 1)), KIB, None);
    // The end of the limits is not aligned: the place is.
    let aligned = AllocSpec::new(100, 64).within(at(0, 8 * KIB + 50));
    check(&machine(&[]), aligned, 100, Some((0, 8 * KIB - 64)));
    // Limits that begin below and end above memory.
    let wide = PhysRange::new(PhysAddr::new(BASE - KIB), PhysAddr::new(BASE + 20 * KIB)).unwrap();
    check(&machine(&[]), spec.within(wide), KIB, Some((0, 15 * KIB)));
}

#[test]
fn a_wish_for_high_memory_may_be_dropped() {
    let from = |offset| AllocSpec::new(KIB, 64).preferably_from(PhysAddr::new(BASE + offset));
    check(&machine(&[]), from(4 * KIB), KIB, Some((4 * KIB, 15 * KIB)));
    check(
        &machine(&[]),
        from(4 * KIB + 1),
        KIB,
        Some((4 * KIB + 64, 15 * KIB)),
    );
    // Nothing from there on: anywhere, from the end that is asked for.
    check(&machine(&[]), from(16 * KIB), KIB, Some((0, 15 * KIB)));
    let full = machine(&[(8 * KIB, 8 * KIB)]);
    check(&full, from(8 * KIB), KIB, Some((0, 7 * KIB)));
    check(&machine(&[(0, 16 * KIB)]), from(8 * KIB), KIB, None);
}

/// Nodes of 4, 1, 2, 2, 1, 1, 4 and 1 KiB, in this order.
const NODES: [u64; 8] = [4, 1, 2, 2, 1, 1, 4, 1];

fn nodes(reserved: &[(u64, u64)]) -> MemBlock {
    let mut memblock = MemBlock::new();
    let mut start = 0;
    for (node, kib) in NODES.into_iter().enumerate() {
        memblock
            .add(at(start, kib * KIB), NodeId(node as u8))
            .unwrap();
        start += kib * KIB;
    }
    for (start, len) in reserved {
        memblock.reserve(at(*start, *len)).unwrap();
    }
    memblock
}

#[test]
fn on_a_node() {
    let exact = AllocSpec::new(KIB, 64).on_node(NodeId(3));
    let near = AllocSpec::new(KIB, 64).near_node(NodeId(3));
    for spec in [exact, near] {
        check(&nodes(&[]), spec, KIB, Some((7 * KIB, 8 * KIB)));
        // Part of the node is taken.
        check(
            &nodes(&[(8 * KIB, KIB)]),
            spec,
            KIB,
            Some((7 * KIB, 7 * KIB)),
        );
        // Limits cut the node.
        let half = spec.within(at(0, 8 * KIB));
        check(&nodes(&[]), half, KIB, Some((7 * KIB, 7 * KIB)));
    }
    // All of it is taken, it is too small, the limits leave it out, or it does not exist.
    let all = nodes(&[(7 * KIB, 2 * KIB)]);
    check(&all, exact, KIB, None);
    check(&all, near, KIB, Some((0, 15 * KIB)));
    let large = AllocSpec::new(3 * KIB, 64);
    check(&nodes(&[]), large.on_node(NodeId(3)), 3 * KIB, None);
    check(
        &nodes(&[]),
        large.near_node(NodeId(3)),
        3 * KIB,
        Some((0, 12 * KIB)),
    );
    let outside = at(0, 7 * KIB);
    check(&nodes(&[]), exact.within(outside), KIB, None);
    check(&nodes(&[]), near.within(outside), KIB, Some((0, 6 * KIB)));
    check(
        &nodes(&[]),
        AllocSpec::new(KIB, 1).on_node(NodeId(9)),
        KIB,
        None,
    );
    // Larger than any node: no allocation lies on two.
    check(&nodes(&[]), AllocSpec::new(5 * KIB, 1), 5 * KIB, None);
    // The node is given up before the lower limit.
    let from = AllocSpec::new(KIB, 64).preferably_from(PhysAddr::new(BASE + 10 * KIB));
    check(
        &nodes(&[]),
        from.near_node(NodeId(3)),
        KIB,
        Some((10 * KIB, 15 * KIB)),
    );
    check(
        &nodes(&[]),
        from.on_node(NodeId(3)),
        KIB,
        Some((7 * KIB, 8 * KIB)),
    );
}

#[test]
fn free_ranges_of_a_node() {
    let mut memblock = nodes(&[(KIB, KIB), (6 * KIB, 2 * KIB)]);
    let on = |memblock: &MemBlock, node| memblock.free_ranges_on(NodeId(node)).collect::<Vec<_>>();
    assert_eq!(on(&memblock, 0), [at(0, KIB), at(2 * KIB, 2 * KIB)]);
    assert_eq!(on(&memblock, 2), [at(5 * KIB, KIB)]);
    assert_eq!(on(&memblock, 3), [at(8 * KIB, KIB)]);
    assert_eq!(on(&memblock, 9), []);
    memblock.set_node(at(0, 9 * KIB), NodeId(9)).unwrap();
    assert_eq!(on(&memblock, 0), []);
    assert_eq!(
        on(&memblock, 9),
        [at(0, KIB), at(2 * KIB, 4 * KIB), at(8 * KIB, KIB)]
    );
    assert_eq!(
        memblock.node_at(PhysAddr::new(BASE + 8 * KIB)),
        Some(NodeId(9))
    );
    assert_eq!(
        memblock.node_at(PhysAddr::new(BASE + 9 * KIB)),
        Some(NodeId(4))
    );
    assert_eq!(memblock.node_at(PhysAddr::new(BASE + 16 * KIB)), None);
    memblock.validate().unwrap();
}

/// The memory of a machine with pieces (start, length), after `cut`.
fn cut(pieces: &[(u64, u64)], cut: impl Fn(&mut MemBlock)) -> Vec<(u64, u64)> {
    let mut memblock = MemBlock::new();
    for (start, len) in pieces {
        memblock.add(at(*start, *len), NodeId(0)).unwrap();
    }
    cut(&mut memblock);
    memblock.validate().unwrap();
    let offset = |range: PhysRange| (range.start().as_u64() - BASE, range.len());
    memblock.memory().map(|m| offset(m.range)).collect()
}

#[test]
fn trimming() {
    let trim = |memblock: &mut MemBlock| memblock.trim(KIB);
    assert_eq!(
        cut(&[(0, KIB), (2 * KIB, KIB)], trim),
        [(0, KIB), (2 * KIB, KIB)]
    );
    // Too small, and without a whole unit although large enough.
    assert_eq!(cut(&[(0, KIB), (2 * KIB, KIB - 1)], trim), [(0, KIB)]);
    assert_eq!(
        cut(&[(0, KIB), (2 * KIB + 1, 2 * KIB - 2)], trim),
        [(0, KIB)]
    );
    // An end, the other, both.
    assert_eq!(cut(&[(1, 2 * KIB - 1)], trim), [(KIB, KIB)]);
    assert_eq!(cut(&[(0, 2 * KIB - 1)], trim), [(0, KIB)]);
    assert_eq!(cut(&[(1, 3 * KIB - 2)], trim), [(KIB, KIB)]);
}

#[test]
fn limiting() {
    let pieces = [(0, 2 * KIB), (4 * KIB, 2 * KIB)];
    assert_eq!(
        cut(&pieces, |m| m.limit(3 * KIB)),
        [(0, 2 * KIB), (4 * KIB, KIB)]
    );
    assert_eq!(cut(&pieces, |m| m.limit(2 * KIB)), [(0, 2 * KIB)]);
    assert_eq!(cut(&pieces, |m| m.limit(0)), []);
    assert_eq!(cut(&pieces, |m| m.limit(u64::MAX)), pieces);
    assert_eq!(
        cut(&pieces, |m| m.cap(at(KIB, 4 * KIB))),
        [(KIB, KIB), (4 * KIB, KIB)]
    );
}

#[test]
fn questions_about_a_range() {
    let memblock = nodes(&[(4 * KIB, KIB)]);
    assert!(memblock.is_memory(at(0, 16 * KIB)), "across nodes");
    assert!(!memblock.is_memory(at(0, 16 * KIB + 1)));
    assert!(memblock.is_reserved(at(0, 4 * KIB + 1)));
    assert!(!memblock.is_reserved(at(0, 4 * KIB)));
    assert!(!memblock.is_reserved(at(5 * KIB, KIB)));
}

#[test]
fn regions_near_the_end_of_the_address_space() {
    let mut memblock = MemBlock::new();
    let top = PhysRange::new(PhysAddr::new(u64::MAX - KIB), PhysAddr::new(u64::MAX)).unwrap();
    memblock.add(top, NodeId(0)).unwrap();
    memblock.reserve(top).unwrap();
    assert_eq!(
        (memblock.memory_bytes(), memblock.reserved_bytes()),
        (KIB, KIB)
    );
    assert_eq!(memblock.alloc(AllocSpec::new(1, 1)), None);
    memblock.free(top).unwrap();
    assert!(memblock.alloc(AllocSpec::new(1, 1)).is_some());
    memblock.trim(1 << 63);
    assert_eq!(memblock.memory().count(), 0);
}
