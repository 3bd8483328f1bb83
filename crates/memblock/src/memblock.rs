//! The two lists and what lies between them.

use crate::regions::{CAPACITY, Region, Regions};
use crate::{AllocSpec, Direction, HandOver};
use vellum_types::{NodeId, PAGE_SIZE, PfnRange, PhysAddr, PhysRange};

/// Why an operation was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemBlockError {
    /// The list would need more than [`MemBlock::CAPACITY`] regions. Nothing was changed.
    Full,
}

impl core::fmt::Display for MemBlockError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Full => f.write_str("too many memory regions"),
        }
    }
}

impl core::error::Error for MemBlockError {}

/// The memory of a machine while it boots.
#[derive(Clone, Debug)]
pub struct MemBlock {
    memory: Regions,
    reserved: Regions,
}

impl MemBlock {
    /// Regions that each of the two lists can hold.
    pub const CAPACITY: usize = CAPACITY;

    /// No memory at all.
    pub const fn new() -> Self {
        Self {
            memory: Regions::new(),
            reserved: Regions::new(),
        }
    }

    /// Declares `range` usable memory of `node`. Bytes that were declared before keep their node.
    ///
    /// # Errors
    /// [`MemBlockError::Full`]; nothing is changed then.
    pub fn add(&mut self, range: PhysRange, node: NodeId) -> Result<(), MemBlockError> {
        self.memory.insert(range, node)
    }

    /// Declares that there is no usable memory in `range` after all.
    ///
    /// # Errors
    /// [`MemBlockError::Full`]; nothing is changed then.
    pub fn remove(&mut self, range: PhysRange) -> Result<(), MemBlockError> {
        self.memory.remove(range)
    }

    /// Keeps `range` from being handed out. It may be reserved already or hold no memory.
    ///
    /// # Errors
    /// [`MemBlockError::Full`]; nothing is changed then.
    pub fn reserve(&mut self, range: PhysRange) -> Result<(), MemBlockError> {
        // Reservations have no node: neighbours always merge.
        self.reserved.insert(range, NodeId::default())
    }

    /// Ends the reservation of `range`, of which some may not be reserved.
    ///
    /// # Errors
    /// [`MemBlockError::Full`], since a hole splits a region; nothing is changed then.
    pub fn free(&mut self, range: PhysRange) -> Result<(), MemBlockError> {
        self.reserved.remove(range)
    }

    /// Says anew which node the memory inside `range` belongs to. Linux's `memblock_set_node`: a
    /// firmware names nodes in another table than memory.
    ///
    /// # Errors
    /// [`MemBlockError::Full`]; nothing is changed then.
    pub fn set_node(&mut self, range: PhysRange, node: NodeId) -> Result<(), MemBlockError> {
        self.memory.set_node(range, node)
    }

    /// Forgets the ends of memory regions that do not fill a unit of `align` bytes; a region without
    /// a whole unit goes altogether. Linux's `memblock_trim_memory`.
    ///
    /// # Panics
    /// If `align` is not a power of two.
    pub fn trim(&mut self, align: u64) {
        assert!(align.is_power_of_two(), "alignment is not a power of two");
        self.memory.trim(align);
    }

    /// Forgets all memory outside `range`. Reservations stay. Linux's `memblock_cap_memory_range`.
    pub fn cap(&mut self, range: PhysRange) {
        self.memory.cap(range);
    }

    /// Forgets memory from the top until at most `bytes` are left: `mem=`. Linux's
    /// `memblock_enforce_memory_limit`.
    pub fn limit(&mut self, bytes: u64) {
        let mut left = bytes;
        let mut end = PhysAddr::ZERO;
        for region in self.memory.iter() {
            let here = region.range.len().min(left);
            if here == 0 {
                break;
            }
            end = region.range.start() + here;
            left -= here;
        }
        match PhysRange::new(PhysAddr::ZERO, end) {
            Some(rest) => self.cap(rest),
            None => self.memory = Regions::new(),
        }
    }

    /// Finds free bytes and reserves them. Their content is what it was.
    ///
    /// The first page of the machine is never given, as in Linux: address zero means "none" to too
    /// many callers. `None` if nothing fits or the list of reservations is full.
    pub fn alloc(&mut self, spec: AllocSpec) -> Option<PhysRange> {
        let found = spec.attempts().find_map(|attempt| self.find(&attempt))?;
        self.reserve(found).ok()?;
        Some(found)
    }

    /// The place for one attempt.
    fn find(&self, spec: &AllocSpec) -> Option<PhysRange> {
        let mut fits = self
            .free_ranges()
            .filter(|free| spec.node.is_none_or(|node| node == free.node))
            .filter_map(|free| Self::fit(spec, free.range));
        match spec.direction {
            Direction::BottomUp => fits.next(),
            Direction::TopDown => fits.last(),
        }
    }

    /// The best place for `spec` inside one free range.
    fn fit(spec: &AllocSpec, free: PhysRange) -> Option<PhysRange> {
        let low = free
            .start()
            .max(spec.min)
            .max(PhysAddr::new(PAGE_SIZE))
            .as_u64();
        let high = free.end().min(spec.max).as_u64();
        let start = match spec.direction {
            Direction::BottomUp => low.checked_next_multiple_of(spec.align)?,
            Direction::TopDown => high.checked_sub(spec.size)? & !(spec.align - 1),
        };
        let end = start.checked_add(spec.size)?;
        if start < low || end > high {
            return None;
        }
        PhysRange::new(PhysAddr::new(start), PhysAddr::new(end))
    }

    /// Usable memory, ascending.
    pub fn memory(&self) -> impl DoubleEndedIterator<Item = Region> + Clone + '_ {
        self.memory.iter()
    }

    /// Reservations, ascending. Their node means nothing.
    pub fn reserved(&self) -> impl DoubleEndedIterator<Item = Region> + Clone + '_ {
        self.reserved.iter()
    }

    /// Memory that is not reserved, ascending, in bytes.
    pub fn free_ranges(&self) -> impl Iterator<Item = Region> + '_ {
        let mut from = PhysAddr::ZERO;
        core::iter::from_fn(move || {
            let found = self.next_free(from)?;
            from = found.range.end();
            Some(found)
        })
    }

    /// As [`MemBlock::free_ranges`], of one node.
    pub fn free_ranges_on(&self, node: NodeId) -> impl Iterator<Item = PhysRange> + '_ {
        self.free_ranges()
            .filter(move |free| free.node == node)
            .map(|free| free.range)
    }

    /// True if all of `range` is memory. Linux's `memblock_is_region_memory`.
    pub fn is_memory(&self, range: PhysRange) -> bool {
        self.memory.covers(range)
    }

    /// True if any of `range` is reserved. Linux's `memblock_is_region_reserved`.
    pub fn is_reserved(&self, range: PhysRange) -> bool {
        self.reserved.iter().any(|r| r.range.overlaps(&range))
    }

    /// The node of the memory at `addr`.
    pub fn node_at(&self, addr: PhysAddr) -> Option<NodeId> {
        self.memory
            .iter()
            .find(|m| m.range.contains(addr))
            .map(|m| m.node)
    }

    /// The first free range, or rest of one, at or above `from`.
    pub(crate) fn next_free(&self, from: PhysAddr) -> Option<Region> {
        for memory in self.memory.iter().filter(|m| m.range.end() > from) {
            let mut start = memory.range.start().max(from);
            let mut end = memory.range.end();
            for taken in self.reserved.iter() {
                if taken.range.start() > start {
                    end = end.min(taken.range.start());
                    break;
                }
                start = start.max(taken.range.end());
            }
            if let Some(range) = PhysRange::new(start, end) {
                return Some(Region {
                    range,
                    node: memory.node,
                });
            }
        }
        None
    }

    /// Bytes of usable memory.
    pub fn memory_bytes(&self) -> u64 {
        self.memory.iter().map(|m| m.range.len()).sum()
    }

    /// Bytes reserved, whether or not they are memory.
    pub fn reserved_bytes(&self) -> u64 {
        self.reserved.iter().map(|r| r.range.len()).sum()
    }

    /// From the first whole frame of memory to the last, holes included. `None` if there is none
    /// below 16 TiB.
    pub fn span(&self) -> Option<PfnRange> {
        let mut frames = self.memory.iter().filter_map(|m| m.range.whole_frames());
        let first = frames.next()?;
        let last = frames.next_back().unwrap_or(first);
        PfnRange::new(first.start(), last.end())
    }

    /// Ends the boot phase: what is free now belongs to the page allocator.
    pub fn hand_over(self) -> HandOver {
        HandOver::new(self)
    }

    /// Checks the invariants of both lists.
    ///
    /// # Errors
    /// What is wrong.
    pub fn validate(&self) -> Result<(), &'static str> {
        self.memory.validate()?;
        self.reserved.validate()
    }
}

impl Default for MemBlock {
    fn default() -> Self {
        Self::new()
    }
}
