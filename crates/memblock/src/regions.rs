//! A sorted list of regions in a fixed array.

use crate::MemBlockError;
use vellum_types::{NodeId, PhysAddr, PhysRange};

/// A stretch of physical memory and the node it belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Region {
    /// The bytes.
    pub range: PhysRange,
    /// Their node.
    pub node: NodeId,
}

impl Region {
    fn new(start: PhysAddr, end: PhysAddr, node: NodeId) -> Option<Self> {
        Some(Self {
            range: PhysRange::new(start, end)?,
            node,
        })
    }
}

/// How many regions a list holds.
pub(crate) const CAPACITY: usize = 128;

/// Regions in ascending order.
///
/// # Invariants
/// The first `len` slots are `Some`, sorted and disjoint; two that touch differ in node.
#[derive(Clone, Debug)]
pub(crate) struct Regions {
    slots: [Option<Region>; CAPACITY],
    len: usize,
}

impl Regions {
    pub(crate) const fn new() -> Self {
        Self {
            slots: [None; CAPACITY],
            len: 0,
        }
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = Region> + Clone + '_ {
        self.slots.iter().take(self.len).flatten().copied()
    }

    /// Adds the bytes of `range` that no region covers yet.
    pub(crate) fn insert(&mut self, range: PhysRange, node: NodeId) -> Result<(), MemBlockError> {
        // Built aside and swapped in, so that running out of slots half way changes nothing.
        let mut merged = Self::new();
        let mut from = range.start();
        for old in self.iter() {
            let gap_end = old.range.start().min(range.end());
            merged.append(Region::new(from, gap_end, node))?;
            merged.append(Some(old))?;
            from = from.max(old.range.end());
        }
        merged.append(Region::new(from, range.end(), node))?;
        *self = merged;
        Ok(())
    }

    /// Takes out the bytes of `range`, where there are any.
    pub(crate) fn remove(&mut self, range: PhysRange) -> Result<(), MemBlockError> {
        let mut left = Self::new();
        for old in self.iter() {
            let (start, end) = (old.range.start(), old.range.end());
            left.append(Region::new(start, end.min(range.start()), old.node))?;
            left.append(Region::new(start.max(range.end()), end, old.node))?;
        }
        *self = left;
        Ok(())
    }

    /// Gives the bytes of `range` that are in the list to `node`.
    pub(crate) fn set_node(&mut self, range: PhysRange, node: NodeId) -> Result<(), MemBlockError> {
        let mut named = Self::new();
        for old in self.iter() {
            let (start, end) = (old.range.start(), old.range.end());
            named.append(Region::new(start, end.min(range.start()), old.node))?;
            let (from, to) = (start.max(range.start()), end.min(range.end()));
            named.append(Region::new(from, to, node))?;
            named.append(Region::new(start.max(range.end()), end, old.node))?;
        }
        *self = named;
        Ok(())
    }

    /// Cuts every region down to whole units of `align` bytes, a power of two.
    pub(crate) fn trim(&mut self, align: u64) {
        self.shrink(|old| {
            let start = old.range.start().as_u64().checked_next_multiple_of(align)?;
            let end = old.range.end().as_u64() & !(align - 1);
            Region::new(PhysAddr::new(start), PhysAddr::new(end), old.node)
        });
    }

    /// Cuts every region down to what lies inside `range`.
    pub(crate) fn cap(&mut self, range: PhysRange) {
        self.shrink(|old| {
            let range = old.range.intersect(&range)?;
            Some(Region { range, ..old })
        });
    }

    /// Makes regions smaller. That cannot make neighbours touch, nor need more slots.
    fn shrink(&mut self, cut: impl Fn(Region) -> Option<Region>) {
        let mut left = Self::new();
        for region in self.iter().filter_map(cut) {
            left.slots[left.len] = Some(region);
            left.len += 1;
        }
        *self = left;
    }

    /// True if no byte of `range` is missing.
    pub(crate) fn covers(&self, range: PhysRange) -> bool {
        let mut from = range.start();
        for region in self.iter() {
            if region.range.contains(from) {
                from = region.range.end();
            }
        }
        from >= range.end()
    }

    /// Puts a region behind all others, joined with the last one if the two touch.
    fn append(&mut self, region: Option<Region>) -> Result<(), MemBlockError> {
        let Some(region) = region else { return Ok(()) };
        if let Some(last) = self
            .len
            .checked_sub(1)
            .and_then(|at| self.slots[at].as_mut())
            && last.range.end() == region.range.start()
            && last.node == region.node
            && let Some(joined) = PhysRange::new(last.range.start(), region.range.end())
        {
            last.range = joined;
            return Ok(());
        }
        let slot = self.slots.get_mut(self.len).ok_or(MemBlockError::Full)?;
        *slot = Some(region);
        self.len += 1;
        Ok(())
    }

    pub(crate) fn validate(&self) -> Result<(), &'static str> {
        if self.iter().count() != self.len {
            return Err("a hole in the list of regions");
        }
        for (a, b) in self.iter().zip(self.iter().skip(1)) {
            if a.range.end() > b.range.start() {
                return Err("regions overlap or are not sorted");
            }
            if a.range.end() == b.range.start() && a.node == b.node {
                return Err("neighbouring regions are not merged");
            }
        }
        Ok(())
    }
}
