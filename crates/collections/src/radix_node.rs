//! One level of a radix tree.

use core::fmt;
use vellum_object::KBox;

/// log2 of the slots in a node, Linux's `XA_CHUNK_SHIFT`.
pub(crate) const SLOT_BITS: u8 = 6;
/// Slots in a node.
pub(crate) const SLOTS: usize = 1 << SLOT_BITS;

/// A property of a value that can be searched for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Mark {
    /// Differs from what is stored, Linux's `PAGECACHE_TAG_DIRTY`.
    Dirty,
    /// Only remembers something that was there, Linux's value entries.
    Shadow,
}

impl Mark {
    /// How many marks there are.
    pub const COUNT: usize = 2;
    /// All marks.
    pub const ALL: [Self; Self::COUNT] = [Self::Dirty, Self::Shadow];

    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

/// What a slot of a node, or the root, holds.
pub(crate) enum Slot<'m, V> {
    Empty,
    Value(V),
    Node(KBox<'m, RadixNode<'m, V>>),
}

impl<V> Slot<'_, V> {
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// The largest index that can be found below this slot, if it is the root.
    pub(crate) fn max_index(&self) -> u64 {
        match self {
            Self::Node(node) => node.span_mask(),
            Self::Empty | Self::Value(_) => 0,
        }
    }
}

/// A node of a [`RadixTree`](crate::RadixTree): 64 slots for six bits of the index.
///
/// Public only so that a cache of nodes can be created.
pub struct RadixNode<'m, V> {
    /// How far the index is shifted right to give the slot number; zero in a leaf.
    pub(crate) shift: u8,
    /// A bit for each slot that is not empty.
    pub(crate) present: u64,
    /// For each mark a bit for each slot that has a value so marked at or below it.
    pub(crate) marks: [u64; Mark::COUNT],
    pub(crate) slots: [Slot<'m, V>; SLOTS],
}

impl<'m, V> RadixNode<'m, V> {
    pub(crate) fn empty(shift: u8) -> Self {
        Self {
            shift,
            present: 0,
            marks: [0; Mark::COUNT],
            slots: [const { Slot::Empty }; SLOTS],
        }
    }

    /// The slot on the way to `index`.
    pub(crate) fn offset(&self, index: u64) -> usize {
        (index >> self.shift) as usize % SLOTS
    }

    /// The bits of an index that this node and those below it decode.
    pub(crate) fn span_mask(&self) -> u64 {
        match 1u64.checked_shl(u32::from(self.shift + SLOT_BITS)) {
            Some(span) => span - 1,
            None => u64::MAX,
        }
    }

    pub(crate) fn put(&mut self, offset: usize, entry: Slot<'m, V>) {
        self.present |= 1 << offset;
        self.slots[offset] = entry;
    }

    pub(crate) fn clear(&mut self, offset: usize) -> Slot<'m, V> {
        let bit = !(1u64 << offset);
        self.present &= bit;
        for mark in &mut self.marks {
            *mark &= bit;
        }
        core::mem::replace(&mut self.slots[offset], Slot::Empty)
    }

    fn set_mark_bit(&mut self, offset: usize, mark: Mark, marked: bool) {
        let bits = &mut self.marks[mark.index()];
        *bits = *bits & !(1 << offset) | u64::from(marked) << offset;
    }

    /// Takes the value at `index` out, and frees the nodes below this one that become empty.
    ///
    /// Recursion goes one level per six bits of index, eleven deep at most.
    pub(crate) fn take(&mut self, index: u64) -> Option<V> {
        let offset = self.offset(index);
        if let Slot::Node(child) = &mut self.slots[offset] {
            let value = child.take(index)?;
            if child.present == 0 {
                self.clear(offset);
            } else {
                let below = child.marks;
                for mark in Mark::ALL {
                    self.set_mark_bit(offset, mark, below[mark.index()] != 0);
                }
            }
            return Some(value);
        }
        match self.clear(offset) {
            Slot::Value(value) => Some(value),
            Slot::Empty | Slot::Node(_) => None,
        }
    }

    /// Clears a mark; true if it was set.
    pub(crate) fn clear_mark(&mut self, index: u64, mark: Mark) -> bool {
        let offset = self.offset(index);
        if self.marks[mark.index()] >> offset & 1 == 0 {
            return false;
        }
        let (cleared, left) = match &mut self.slots[offset] {
            Slot::Node(child) => {
                let cleared = child.clear_mark(index, mark);
                (cleared, child.marks[mark.index()] != 0)
            }
            Slot::Empty | Slot::Value(_) => (true, false),
        };
        self.set_mark_bit(offset, mark, left);
        cleared
    }

    /// The first value at or after `from`, of those marked if a mark is given. `base` is the first
    /// index of this node.
    pub(crate) fn next(&self, base: u64, from: u64, mark: Option<Mark>) -> Option<(u64, &V)> {
        let candidates = match mark {
            Some(mark) => self.marks[mark.index()],
            None => self.present,
        };
        let start = self.offset(from);
        let mut left = candidates & u64::MAX << start;
        while left != 0 {
            let offset = left.trailing_zeros() as usize;
            left &= left - 1;
            let first = base | (offset as u64) << self.shift;
            match &self.slots[offset] {
                Slot::Value(value) => return Some((first, value)),
                Slot::Node(child) => {
                    // Only the slot of `from` itself can turn out to hold nothing.
                    if let Some(found) = child.next(first, from.max(first), mark) {
                        return Some(found);
                    }
                }
                Slot::Empty => {}
            }
        }
        None
    }

    /// The first index at or after `from`, within this node, that has no value.
    pub(crate) fn next_gap(&self, base: u64, from: u64) -> Option<u64> {
        for offset in self.offset(from)..SLOTS {
            let first = base | (offset as u64) << self.shift;
            // The root of a tree of full height has slots beyond the last index.
            if first >> self.shift & (SLOTS as u64 - 1) != offset as u64 {
                return None;
            }
            match &self.slots[offset] {
                Slot::Empty => return Some(from.max(first)),
                Slot::Value(_) => {}
                Slot::Node(child) => {
                    if let Some(gap) = child.next_gap(first, from.max(first)) {
                        return Some(gap);
                    }
                }
            }
        }
        None
    }

    /// Checks this node and all below it; returns the number of values.
    pub(crate) fn validate(&self) -> Result<u64, &'static str> {
        if self.present == 0 {
            return Err("radix: empty node");
        }
        let mut values = 0;
        for (offset, slot) in self.slots.iter().enumerate() {
            let present = self.present >> offset & 1 == 1;
            if present == slot.is_empty() {
                return Err("radix: present bit differs from slot");
            }
            let marks = self.marks.map(|bits| bits >> offset & 1 == 1);
            match slot {
                Slot::Empty if marks.contains(&true) => return Err("radix: mark on empty slot"),
                Slot::Empty => {}
                Slot::Value(_) if self.shift != 0 => return Err("radix: value above the leaves"),
                Slot::Value(_) => values += 1,
                Slot::Node(_) if self.shift == 0 => return Err("radix: node below the leaves"),
                Slot::Node(child) => {
                    if child.shift + SLOT_BITS != self.shift {
                        return Err("radix: wrong shift");
                    }
                    if child.marks.map(|bits| bits != 0) != marks {
                        return Err("radix: mark differs from the level below");
                    }
                    values += child.validate()?;
                }
            }
        }
        Ok(values)
    }
}

impl<V> fmt::Debug for RadixNode<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RadixNode")
            .field("shift", &self.shift)
            .field("present", &self.present)
            .field("marks", &self.marks)
            .finish_non_exhaustive()
    }
}
