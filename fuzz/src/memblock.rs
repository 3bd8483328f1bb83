//! Boot memory beside a map of its bytes.

use crate::input::Input;
use vellum_memblock::{AllocSpec, Direction, MemBlock};
use vellum_types::{NodeId, PAGE_SIZE, PhysAddr, PhysRange};

const LEN: usize = 0x3000;

struct Model {
    memblock: MemBlock,
    memory: Vec<Option<u8>>,
    taken: Vec<bool>,
}

fn range(input: &mut Input<'_>) -> PhysRange {
    let start = input.below(LEN as u64 - 1);
    let magnitude = 1 + input.below(12);
    let len = 1 + input.below(1 << magnitude);
    let end = (start + len).min(LEN as u64);
    PhysRange::new(PhysAddr::new(start), PhysAddr::new(end)).expect("not empty")
}

fn cells(range: PhysRange) -> core::ops::Range<usize> {
    range.start().as_u64() as usize..range.end().as_u64() as usize
}

/// Adds, removes, reserves, frees and allocates.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut model = Model {
        memblock: MemBlock::new(),
        memory: vec![None; LEN],
        taken: vec![false; LEN],
    };
    while !input.is_empty() {
        model.step(&mut input);
        model.memblock.validate().expect("valid");
    }
    model.compare();
    model.hand_over();
}

impl Model {
    fn step(&mut self, input: &mut Input<'_>) {
        let what = input.below(6);
        let range = range(input);
        let node = input.below(3) as u8;
        match what {
            0 => {
                if self.memblock.add(range, NodeId(node)).is_ok() {
                    let cells = &mut self.memory[cells(range)];
                    cells.iter_mut().for_each(|cell| {
                        cell.get_or_insert(node);
                    });
                }
            }
            1 => {
                if self.memblock.remove(range).is_ok() {
                    self.memory[cells(range)].fill(None);
                }
            }
            2 => {
                if self.memblock.reserve(range).is_ok() {
                    self.taken[cells(range)].fill(true);
                }
            }
            3 => {
                if self.memblock.free(range).is_ok() {
                    self.taken[cells(range)].fill(false);
                }
            }
            4 => {
                if self.memblock.set_node(range, NodeId(node)).is_ok() {
                    let cells = self.memory[cells(range)].iter_mut();
                    cells.flatten().for_each(|cell| *cell = node);
                }
            }
            _ => self.alloc(input, range, node),
        }
    }

    fn alloc(&mut self, input: &mut Input<'_>, limits: PhysRange, node: u8) {
        let (size, align) = (1 + input.below(300), 1_usize << input.below(9));
        let bits = input.byte();
        let direction = if bits & 1 == 0 {
            Direction::TopDown
        } else {
            Direction::BottomUp
        };
        let mut spec = AllocSpec::new(size, align as u64)
            .within(limits)
            .direction(direction);
        let wanted = (bits & 2 != 0).then_some(node);
        let fallback = bits & 4 != 0;
        if wanted.is_some() {
            spec = if fallback {
                spec.near_node(NodeId(node))
            } else {
                spec.on_node(NodeId(node))
            };
        }
        let elsewhere = || fallback.then(|| self.place(size, align, limits, direction, None));
        let expected = self
            .place(size, align, limits, direction, wanted)
            .or_else(|| elsewhere().flatten());
        let full = self.memblock.reserved().count() == MemBlock::CAPACITY;
        match self.memblock.alloc(spec) {
            Some(found) => {
                assert_eq!(Some(found.start().as_u64()), expected);
                assert_eq!(found.len(), size);
                self.taken[cells(found)].fill(true);
            }
            None => assert!(full || expected.is_none(), "{spec:?} fits at {expected:?}"),
        }
    }

    /// The first place that fits, by trying each.
    fn place(
        &self,
        size: u64,
        align: usize,
        limits: PhysRange,
        direction: Direction,
        node: Option<u8>,
    ) -> Option<u64> {
        let fits = |start: &u64| {
            let end = start + size;
            *start >= PAGE_SIZE
                && *start >= limits.start().as_u64()
                && end <= limits.end().as_u64()
                && {
                    let bytes = *start as usize..end as usize;
                    let owner = self.memory[bytes.start];
                    owner.is_some()
                        && node.is_none_or(|node| owner == Some(node))
                        && bytes
                            .clone()
                            .all(|at| self.memory[at] == owner && !self.taken[at])
                }
        };
        let mut places = (0..LEN).step_by(align).map(|start| start as u64);
        match direction {
            Direction::BottomUp => places.find(fits),
            Direction::TopDown => places.rev().find(fits),
        }
    }

    fn compare(&self) {
        let mut memory = vec![None; LEN];
        let mut taken = vec![false; LEN];
        let mut free = vec![None; LEN];
        let memblock = &self.memblock;
        memblock
            .memory()
            .for_each(|m| memory[cells(m.range)].fill(Some(m.node.0)));
        memblock
            .reserved()
            .for_each(|r| taken[cells(r.range)].fill(true));
        memblock
            .free_ranges()
            .for_each(|f| free[cells(f.range)].fill(Some(f.node.0)));
        assert!(memory == self.memory && taken == self.taken);
        for (at, free) in free.into_iter().enumerate() {
            assert_eq!(free, self.memory[at].filter(|_| !self.taken[at]));
        }
    }

    fn hand_over(self) {
        let mut seen = vec![false; LEN];
        for (frames, node) in self.memblock.hand_over() {
            for at in cells(frames.to_phys()) {
                assert!(!seen[at] && !self.taken[at] && self.memory[at] == Some(node.0));
                seen[at] = true;
            }
        }
    }
}
