//! Region lists, allocation and hand-over, case by case.

use vellum_memblock::{AllocSpec, Direction, MemBlock, MemBlockError};
use vellum_types::{NodeId, Pfn, PfnRange, PhysAddr, PhysRange};

const N0: NodeId = NodeId(0);
const N1: NodeId = NodeId(1);

fn bytes(start: u64, end: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), PhysAddr::new(end)).unwrap()
}

fn frames(start: u32, end: u32) -> PfnRange {
    PfnRange::new(Pfn::new(start), Pfn::new(end)).unwrap()
}

/// Adds `input` in the order given and compares the list of memory.
fn check_add(input: &[(u64, u64, u8)], expected: &[(u64, u64, u8)]) {
    let mut memblock = MemBlock::new();
    for &(start, end, node) in input {
        memblock.add(bytes(start, end), NodeId(node)).unwrap();
        memblock.validate().unwrap();
    }
    let found: Vec<_> = memblock
        .memory()
        .map(|m| (m.range.start().as_u64(), m.range.end().as_u64(), m.node.0))
        .collect();
    assert_eq!(found, expected, "input {input:?}");
}

#[test]
fn regions_are_sorted_and_merged() {
    check_add(&[(50, 60, 0), (10, 20, 0)], &[(10, 20, 0), (50, 60, 0)]);
    check_add(&[(10, 20, 0), (20, 30, 0)], &[(10, 30, 0)]);
    check_add(&[(20, 30, 0), (10, 20, 0)], &[(10, 30, 0)]);
    check_add(&[(10, 20, 0), (15, 30, 0)], &[(10, 30, 0)]);
    check_add(&[(10, 30, 0), (15, 20, 0)], &[(10, 30, 0)]);
    check_add(&[(15, 20, 0), (10, 30, 0)], &[(10, 30, 0)]);
    check_add(
        &[(10, 20, 0), (30, 40, 0), (50, 60, 0), (5, 70, 0)],
        &[(5, 70, 0)],
    );
    check_add(&[(10, 20, 0), (10, 20, 0)], &[(10, 20, 0)]);
}

#[test]
fn the_first_to_add_a_byte_gives_its_node() {
    check_add(&[(10, 20, 0), (20, 30, 1)], &[(10, 20, 0), (20, 30, 1)]);
    check_add(&[(10, 20, 0), (15, 30, 1)], &[(10, 20, 0), (20, 30, 1)]);
    check_add(
        &[(15, 20, 1), (10, 30, 0)],
        &[(10, 15, 0), (15, 20, 1), (20, 30, 0)],
    );
}

#[test]
fn reservations_cut_memory() {
    let mut memblock = MemBlock::new();
    memblock.add(bytes(0x1000, 0x9000), N0).unwrap();
    memblock.add(bytes(0x9000, 0xc000), N1).unwrap();
    memblock.reserve(bytes(0x0, 0x1800)).unwrap();
    memblock.reserve(bytes(0x8000, 0xa000)).unwrap();
    memblock.reserve(bytes(0xf000, 0x10000)).unwrap();
    let free: Vec<_> = memblock.free_ranges().map(|f| (f.range, f.node)).collect();
    assert_eq!(
        free,
        [(bytes(0x1800, 0x8000), N0), (bytes(0xa000, 0xc000), N1)]
    );

    memblock.free(bytes(0x8800, 0x9800)).unwrap();
    let free: Vec<_> = memblock.free_ranges().map(|f| (f.range, f.node)).collect();
    assert_eq!(
        free,
        [
            (bytes(0x1800, 0x8000), N0),
            (bytes(0x8800, 0x9000), N0),
            (bytes(0x9000, 0x9800), N1),
            (bytes(0xa000, 0xc000), N1)
        ]
    );
    memblock.validate().unwrap();
}

#[test]
fn allocation_obeys_direction_alignment_limits_and_node() {
    let mut memblock = MemBlock::new();
    memblock.add(bytes(0x1000, 0x10_0100), N0).unwrap();
    memblock.add(bytes(0x20_0000, 0x30_0000), N1).unwrap();

    let top = AllocSpec::new(0x100, 0x1000);
    assert_eq!(memblock.alloc(top), Some(bytes(0x2f_f000, 0x2f_f100)));
    // The tail of that page is still free and large enough for smaller alignments.
    assert_eq!(
        memblock.alloc(AllocSpec::new(0x80, 0x80)),
        Some(bytes(0x2f_ff80, 0x30_0000))
    );
    let bottom = top.direction(Direction::BottomUp);
    assert_eq!(memblock.alloc(bottom), Some(bytes(0x1000, 0x1100)));
    assert_eq!(memblock.alloc(bottom), Some(bytes(0x2000, 0x2100)));
    assert_eq!(
        memblock.alloc(top.on_node(N0)),
        Some(bytes(0x10_0000, 0x10_0100))
    );
    let limited = top.within(bytes(0x4_0000, 0x5_0000));
    assert_eq!(memblock.alloc(limited), Some(bytes(0x4_f000, 0x4_f100)));
    assert_eq!(
        memblock.alloc(limited.direction(Direction::BottomUp)),
        Some(bytes(0x4_0000, 0x4_0100))
    );
    assert_eq!(
        memblock.alloc(AllocSpec::new(0x20_0000, 1)),
        None,
        "no range is that large"
    );
    assert_eq!(
        memblock.alloc(AllocSpec::new(0, 1)),
        None,
        "nothing was asked for"
    );
    assert_eq!(memblock.alloc(AllocSpec::new(u64::MAX, 1 << 63)), None);
    memblock.validate().unwrap();
}

#[test]
fn the_first_page_is_never_allocated() {
    let mut memblock = MemBlock::new();
    memblock.add(bytes(0, 0x2000), N0).unwrap();
    let spec = AllocSpec::new(0x1000, 1).direction(Direction::BottomUp);
    assert_eq!(memblock.alloc(spec), Some(bytes(0x1000, 0x2000)));
    assert_eq!(memblock.alloc(AllocSpec::new(1, 1)), None);
}

#[test]
fn hand_over_yields_whole_free_frames_once() {
    let mut memblock = MemBlock::new();
    memblock.add(bytes(0x1100, 0x8f00), N0).unwrap();
    memblock.add(bytes(0x8f00, 0xa000), N1).unwrap();
    memblock.add(bytes(0xf_f000, 0xf_f800), N1).unwrap();
    memblock.reserve(bytes(0x4010, 0x4020)).unwrap();
    assert_eq!(memblock.span(), Some(frames(2, 10)));
    let mut rest = memblock.hand_over();
    assert_eq!(rest.span(), Some(frames(2, 10)));
    assert_eq!(rest.next(), Some((frames(2, 4), N0)));
    assert_eq!(rest.next(), Some((frames(5, 8), N0)));
    assert_eq!(rest.next(), Some((frames(9, 10), N1)));
    assert_eq!(rest.next(), None);
    assert_eq!(rest.next(), None);
    assert_eq!(rest.memory().count(), 3);
    assert_eq!(rest.reserved().count(), 1);
}

#[test]
fn no_memory_is_no_span() {
    assert_eq!(MemBlock::new().span(), None);
    let mut memblock = MemBlock::default();
    memblock.add(bytes(0x10, 0x20), N0).unwrap();
    assert_eq!(memblock.span(), None);
    assert_eq!(memblock.hand_over().next(), None);
}

#[test]
fn a_full_list_refuses_and_is_unchanged() {
    let mut memblock = MemBlock::new();
    for i in 0..MemBlock::CAPACITY as u64 {
        memblock
            .add(bytes(i * 0x2000, i * 0x2000 + 0x1000), N0)
            .unwrap();
        memblock
            .reserve(bytes(i * 0x2000, i * 0x2000 + 0x100))
            .unwrap();
    }
    let memory: Vec<_> = memblock.memory().collect();
    let taken: Vec<_> = memblock.reserved().collect();
    assert_eq!(
        memblock.add(bytes(0x1000_0000, 0x1000_1000), N0),
        Err(MemBlockError::Full)
    );
    assert_eq!(memblock.remove(bytes(0x10, 0x20)), Err(MemBlockError::Full));
    assert_eq!(memblock.free(bytes(0x10, 0x20)), Err(MemBlockError::Full));
    assert_eq!(memblock.alloc(AllocSpec::new(0x10, 0x10)), None);
    assert!(memblock.memory().eq(memory));
    assert!(memblock.reserved().eq(taken));
    // What needs no further region still works.
    memblock.add(bytes(0x1000, 0x2000), N0).unwrap();
    memblock.free(bytes(0, 0x100)).unwrap();
    assert!(memblock.alloc(AllocSpec::new(0x10, 0x10)).is_some());
    memblock.validate().unwrap();
}
