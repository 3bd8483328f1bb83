//! Random operations against one byte-sized cell per byte of a small machine.

use vellum_memblock::{AllocSpec, Direction, MemBlock};
use vellum_types::{NodeId, PAGE_SIZE, PhysAddr, PhysRange};

const LEN: usize = 0x4000;
const OPS: u32 = 100_000;

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
    fn range(&mut self) -> PhysRange {
        let start = self.below(LEN as u64 - 1);
        let magnitude = self.below(11);
        let len = 1 + self.below(1 << magnitude);
        let end = (start + len).min(LEN as u64);
        PhysRange::new(PhysAddr::new(start), PhysAddr::new(end)).unwrap()
    }
}

fn cells(range: PhysRange) -> core::ops::Range<usize> {
    range.start().as_u64() as usize..range.end().as_u64() as usize
}

#[test]
fn random_operations_match_a_byte_map() {
    let mut rng = Rng(0x9e37_79b9_7f4a_7c15);
    let mut memblock = MemBlock::new();
    let mut memory: Vec<Option<u8>> = vec![None; LEN];
    let mut taken = vec![false; LEN];
    for op in 0..OPS {
        let range = rng.range();
        match rng.below(10) {
            0 | 1 => {
                let node = rng.below(2) as u8;
                if memblock.add(range, NodeId(node)).is_ok() {
                    memory[cells(range)].iter_mut().for_each(|cell| {
                        cell.get_or_insert(node);
                    });
                }
            }
            2 => match rng.below(16) {
                0 => check_trim(&mut memblock, &mut memory, 1 << rng.below(6)),
                1..=6 => {
                    let node = rng.below(2) as u8;
                    if memblock.set_node(range, NodeId(node)).is_ok() {
                        let cells = memory[cells(range)].iter_mut();
                        cells.flatten().for_each(|cell| *cell = node);
                    }
                }
                _ => {
                    if memblock.remove(range).is_ok() {
                        memory[cells(range)].fill(None);
                    }
                }
            },
            3 | 4 => {
                if memblock.reserve(range).is_ok() {
                    taken[cells(range)].fill(true);
                }
            }
            5..=7 => {
                if memblock.free(range).is_ok() {
                    taken[cells(range)].fill(false);
                }
            }
            _ => check_alloc(&mut rng, &mut memblock, &memory, &mut taken),
        }
        memblock.validate().unwrap();
        if op % 16 == 0 {
            compare(&memblock, &memory, &taken);
        }
    }
    let mut seen = vec![false; LEN];
    for (frames, node) in memblock.clone().hand_over() {
        for cell in cells(frames.to_phys()) {
            assert!(!seen[cell] && !taken[cell] && memory[cell] == Some(node.0));
            seen[cell] = true;
        }
    }
    for page in 0..LEN / PAGE_SIZE as usize {
        let bytes = page * PAGE_SIZE as usize..(page + 1) * PAGE_SIZE as usize;
        let first = memory[bytes.start];
        let whole = first.is_some() && bytes.clone().all(|b| memory[b] == first && !taken[b]);
        assert_eq!(whole, seen[bytes.start], "page {page}");
    }
}

/// Drops the ends of each run of one node that do not fill a unit.
fn check_trim(memblock: &mut MemBlock, memory: &mut [Option<u8>], align: usize) {
    memblock.trim(align as u64);
    let mut start = 0;
    while start < memory.len() {
        let owner = memory[start];
        let run = memory[start..].iter().take_while(|cell| **cell == owner);
        let end = start + run.count();
        let low = start.next_multiple_of(align).min(end);
        let high = (end & !(align - 1)).max(low);
        memory[start..low].fill(None);
        memory[high..end].fill(None);
        start = end;
    }
}

fn check_alloc(rng: &mut Rng, memblock: &mut MemBlock, memory: &[Option<u8>], taken: &mut [bool]) {
    let (size, align) = (1 + rng.below(300), 1_usize << rng.below(8));
    let limits = rng.range();
    let direction = if rng.below(2) == 0 {
        Direction::TopDown
    } else {
        Direction::BottomUp
    };
    let node = (rng.below(2) == 0).then(|| rng.below(2) as u8);
    let mut spec = AllocSpec::new(size, align as u64)
        .within(limits)
        .direction(direction);
    let fallback = rng.below(2) == 0;
    if let Some(node) = node {
        spec = if fallback {
            spec.near_node(NodeId(node))
        } else {
            spec.on_node(NodeId(node))
        };
    }
    let fits = |start: u64, node: Option<u8>| {
        let end = start + size;
        start >= PAGE_SIZE && start >= limits.start().as_u64() && end <= limits.end().as_u64() && {
            let bytes = start as usize..end as usize;
            let owner = memory[bytes.start];
            owner.is_some()
                && node.is_none_or(|node| owner == Some(node))
                && bytes.clone().all(|b| memory[b] == owner && !taken[b])
        }
    };
    let place = |node| {
        let mut places = (0..LEN).step_by(align).map(|start| start as u64);
        match direction {
            Direction::BottomUp => places.find(|start| fits(*start, node)),
            Direction::TopDown => places.rev().find(|start| fits(*start, node)),
        }
    };
    let elsewhere = || fallback.then(|| place(None)).flatten();
    let expected = place(node).or_else(elsewhere);
    let full = memblock.reserved().count() == MemBlock::CAPACITY;
    match memblock.alloc(spec) {
        Some(found) => {
            assert_eq!(Some(found.start().as_u64()), expected);
            assert_eq!(found.len(), size);
            taken[cells(found)].fill(true);
        }
        None => assert!(full || expected.is_none(), "{spec:?} fits at {expected:?}"),
    }
}

fn compare(memblock: &MemBlock, memory: &[Option<u8>], taken: &[bool]) {
    let mut found = vec![None; LEN];
    memblock
        .memory()
        .for_each(|m| found[cells(m.range)].fill(Some(m.node.0)));
    assert!(found == memory);
    let mut found = vec![false; LEN];
    memblock
        .reserved()
        .for_each(|r| found[cells(r.range)].fill(true));
    assert!(found == taken);
    let mut free = vec![None; LEN];
    memblock
        .free_ranges()
        .for_each(|f| free[cells(f.range)].fill(Some(f.node.0)));
    for (cell, free) in free.into_iter().enumerate() {
        assert_eq!(free, memory[cell].filter(|_| !taken[cell]));
    }
    assert_eq!(
        memblock.memory_bytes(),
        memory.iter().flatten().count() as u64
    );
    assert_eq!(
        memblock.reserved_bytes(),
        taken.iter().filter(|t| **t).count() as u64
    );
}
