//! The radix tree.

use crate::radix_node::{SLOT_BITS, Slot};
use crate::{Mark, RadixNode, Range};
use core::fmt;
use core::mem;
use core::ops::RangeInclusive;
use vellum_object::{ObjectCache, OutOfMemory};

/// A sparse array of `V` with `u64` indices and two marks per value. Linux: `struct xarray`.
pub struct RadixTree<'m, V> {
    root: Slot<'m, V>,
    /// The marks of the root entry, as a node above it would have them.
    marks: [bool; Mark::COUNT],
    len: u64,
}

impl<'m, V> RadixTree<'m, V> {
    /// An empty tree; no memory is used.
    pub const fn new() -> Self {
        Self {
            root: Slot::Empty,
            marks: [false; Mark::COUNT],
            len: 0,
        }
    }

    /// True without any value.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many values there are.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// The value at `index`.
    pub fn get(&self, index: u64) -> Option<&V> {
        if index > self.root.max_index() {
            return None;
        }
        let mut slot = &self.root;
        loop {
            match slot {
                Slot::Empty => return None,
                Slot::Value(value) => return Some(value),
                Slot::Node(node) => slot = &node.slots[node.offset(index)],
            }
        }
    }

    /// The value at `index`, to be changed.
    pub fn get_mut(&mut self, index: u64) -> Option<&mut V> {
        if index > self.root.max_index() {
            return None;
        }
        let mut slot = &mut self.root;
        loop {
            match slot {
                Slot::Empty => return None,
                Slot::Value(value) => return Some(value),
                Slot::Node(node) => {
                    let offset = node.offset(index);
                    slot = &mut node.slots[offset];
                }
            }
        }
    }

    /// Puts `value` at `index` and returns the value that was there.
    ///
    /// A new value has no marks; one that replaces another keeps that one's, as `xa_store` does.
    ///
    /// # Errors
    /// Out of memory: `value` comes back, and the tree holds what it held. Replacing never fails.
    pub fn insert(
        &mut self,
        index: u64,
        value: V,
        nodes: ObjectCache<'m, RadixNode<'m, V>>,
    ) -> Result<Option<V>, (V, OutOfMemory)> {
        if let Some(old) = self.get_mut(index) {
            return Ok(Some(mem::replace(old, value)));
        }
        if let Err(error) = self.reserve(index, nodes) {
            // Levels may have been added on top of the tree; take them off again.
            self.shrink();
            return Err((value, error));
        }
        let mut slot = &mut self.root;
        while let Slot::Node(node) = slot {
            let node = &mut **node;
            let offset = node.offset(index);
            node.present |= 1 << offset;
            slot = &mut node.slots[offset];
        }
        *slot = Slot::Value(value);
        self.len += 1;
        Ok(None)
    }

    /// Makes all nodes on the way to `index` exist. On failure no node without values is left,
    /// except for levels above the old root.
    fn reserve(
        &mut self,
        index: u64,
        nodes: ObjectCache<'m, RadixNode<'m, V>>,
    ) -> Result<(), OutOfMemory> {
        if self.root.is_empty() {
            if index != 0 {
                let top = (63 - index.leading_zeros()) as u8 / SLOT_BITS * SLOT_BITS;
                self.root = chain(index, top, nodes)?;
            }
            return Ok(());
        }
        while index > self.root.max_index() {
            let shift = match &self.root {
                Slot::Node(node) => node.shift + SLOT_BITS,
                Slot::Empty | Slot::Value(_) => 0,
            };
            let mut node = nodes.boxed(RadixNode::empty(shift))?;
            node.put(0, mem::replace(&mut self.root, Slot::Empty));
            node.marks = self.marks.map(u64::from);
            self.root = Slot::Node(node);
        }
        let mut slot = &mut self.root;
        while let Slot::Node(node) = slot {
            let node = &mut **node;
            let offset = node.offset(index);
            if node.shift != 0 && node.slots[offset].is_empty() {
                let below = chain(index, node.shift - SLOT_BITS, nodes)?;
                node.put(offset, below);
                return Ok(());
            }
            slot = &mut node.slots[offset];
        }
        Ok(())
    }

    /// Takes the value at `index` out, with its marks. Frees the nodes that become empty and the
    /// levels that are no longer needed.
    pub fn remove(&mut self, index: u64) -> Option<V> {
        if index > self.root.max_index() {
            return None;
        }
        let value = if let Slot::Node(node) = &mut self.root {
            let value = node.take(index)?;
            self.marks = node.marks.map(|bits| bits != 0);
            if node.present == 0 {
                self.root = Slot::Empty;
            }
            value
        } else {
            match mem::replace(&mut self.root, Slot::Empty) {
                Slot::Value(value) => {
                    self.marks = [false; Mark::COUNT];
                    value
                }
                Slot::Empty | Slot::Node(_) => return None,
            }
        };
        self.len -= 1;
        self.shrink();
        Some(value)
    }

    /// Removes levels from the top that have an entry in slot zero alone.
    fn shrink(&mut self) {
        while let Slot::Node(node) = &mut self.root
            && node.present == 1
        {
            self.root = node.clear(0);
        }
    }

    /// Marks the value at `index`. False if there is no value, and then nothing is marked.
    pub fn set_mark(&mut self, index: u64, mark: Mark) -> bool {
        if self.get(index).is_none() {
            return false;
        }
        self.marks[mark.index()] = true;
        let mut slot = &mut self.root;
        while let Slot::Node(node) = slot {
            let node = &mut **node;
            let offset = node.offset(index);
            node.marks[mark.index()] |= 1 << offset;
            slot = &mut node.slots[offset];
        }
        true
    }

    /// Takes the mark from the value at `index`. True if it was marked.
    pub fn clear_mark(&mut self, index: u64, mark: Mark) -> bool {
        if !self.is_marked(index, mark) {
            return false;
        }
        self.marks[mark.index()] = match &mut self.root {
            Slot::Node(node) => {
                node.clear_mark(index, mark);
                node.marks[mark.index()] != 0
            }
            Slot::Empty | Slot::Value(_) => false,
        };
        true
    }

    /// True if there is a value at `index` and it is marked.
    pub fn is_marked(&self, index: u64, mark: Mark) -> bool {
        if index > self.root.max_index() || !self.marks[mark.index()] {
            return false;
        }
        let mut slot = &self.root;
        while let Slot::Node(node) = slot {
            let offset = node.offset(index);
            if node.marks[mark.index()] >> offset & 1 == 0 {
                return false;
            }
            slot = &node.slots[offset];
        }
        true
    }

    /// True if the 64 indices that share a leaf with `index` have values and all of these are marked.
    pub fn leaf_is_marked(&self, index: u64, mark: Mark) -> bool {
        let mut slot = &self.root;
        if index > slot.max_index() && !matches!(slot, Slot::Value(_)) {
            return false;
        }
        while let Slot::Node(node) = slot {
            if node.shift == 0 {
                return node.present != 0 && node.present == node.marks[mark.index()];
            }
            slot = &node.slots[node.offset(index)];
        }
        // A lone value in the root: the leaf it would be in is the first.
        matches!(slot, Slot::Value(_)) && index >> SLOT_BITS == 0 && self.marks[mark.index()]
    }

    /// True if any value is marked. Takes no search.
    pub const fn any_marked(&self, mark: Mark) -> bool {
        self.marks[mark.index()]
    }

    /// The first value at or after `from`, with its index.
    pub fn next(&self, from: u64) -> Option<(u64, &V)> {
        self.search(from, None)
    }

    /// The first marked value at or after `from`, with its index.
    pub fn next_marked(&self, from: u64, mark: Mark) -> Option<(u64, &V)> {
        if !self.any_marked(mark) {
            return None;
        }
        self.search(from, Some(mark))
    }

    fn search(&self, from: u64, mark: Option<Mark>) -> Option<(u64, &V)> {
        if from > self.root.max_index() {
            return None;
        }
        match &self.root {
            Slot::Empty => None,
            Slot::Value(value) => Some((0, value)),
            Slot::Node(node) => node.next(0, from, mark),
        }
    }

    /// The first index at or after `from` that has no value.
    ///
    /// Zero if every index from `from` to the last has one, as `page_cache_next_miss` wraps.
    pub fn next_gap(&self, from: u64) -> u64 {
        if from > self.root.max_index() {
            return from;
        }
        match &self.root {
            Slot::Empty => from,
            Slot::Value(_) => 1,
            Slot::Node(node) => match node.next_gap(0, from) {
                Some(gap) => gap,
                None => node.span_mask().wrapping_add(1),
            },
        }
    }

    /// The values with an index in `range`, in order. An empty range gives nothing.
    pub fn range(&self, range: RangeInclusive<u64>) -> Range<'_, 'm, V> {
        Range::new(self, range)
    }

    /// Checks every invariant of the tree; for tests and debugging.
    ///
    /// # Errors
    /// What is wrong.
    pub fn validate(&self) -> Result<(), &'static str> {
        let (values, marks) = match &self.root {
            Slot::Empty => (0, [false; Mark::COUNT]),
            Slot::Value(_) => (1, self.marks),
            Slot::Node(node) if node.present == 1 => return Err("radix: root can shrink"),
            Slot::Node(node) => (node.validate()?, node.marks.map(|bits| bits != 0)),
        };
        if values != self.len {
            return Err("radix: wrong number of values");
        }
        if marks != self.marks {
            return Err("radix: marks of the root differ from its entry's");
        }
        Ok(())
    }
}

/// A path of nodes without a value, from one of shift `top` down to the leaf of `index`.
fn chain<'m, V>(
    index: u64,
    top: u8,
    nodes: ObjectCache<'m, RadixNode<'m, V>>,
) -> Result<Slot<'m, V>, OutOfMemory> {
    let mut below = nodes.boxed(RadixNode::empty(0))?;
    while below.shift < top {
        let mut node = nodes.boxed(RadixNode::empty(below.shift + SLOT_BITS))?;
        let offset = node.offset(index);
        node.put(offset, Slot::Node(below));
        below = node;
    }
    Ok(Slot::Node(below))
}

impl<V> Default for RadixTree<'_, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V: fmt::Debug> fmt::Debug for RadixTree<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.range(0..=u64::MAX)).finish()
    }
}
