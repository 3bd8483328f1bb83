//! The interval tree.

use crate::IntervalNode;
use crate::interval_node::{Link, balance};
use core::cmp::Ordering;
use core::fmt;
use core::iter::FusedIterator;
use vellum_object::{KBox, ObjectCache, OutOfMemory};

/// More levels than an AVL tree of all nodes that fit into 64 bits of memory can have: a tree of
/// 64 levels has at least 2.7e13 nodes of more than 64 bytes.
const MAX_HEIGHT: usize = 64;

/// A multiset of closed intervals with a value each. Linux: `struct rb_root_cached` of
/// `INTERVAL_TREE_DEFINE`.
pub struct IntervalTree<'m, V> {
    root: Link<'m, V>,
    len: usize,
}

impl<'m, V> IntervalTree<'m, V> {
    /// An empty tree; no memory is used.
    pub const fn new() -> Self {
        Self { root: None, len: 0 }
    }

    /// How many intervals there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// True without any interval.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds `first..=last`; equal intervals may be added any number of times.
    ///
    /// # Errors
    /// Out of memory: `value` comes back, and the tree is as it was.
    ///
    /// # Panics
    /// If `last` is below `first`.
    pub fn insert(
        &mut self,
        first: u64,
        last: u64,
        value: V,
        nodes: ObjectCache<'m, IntervalNode<'m, V>>,
    ) -> Result<(), (V, OutOfMemory)> {
        match nodes.boxed(IntervalNode::vacant(first, last)) {
            Ok(mut node) => {
                node.value = Some(value);
                self.insert_node(node);
                Ok(())
            }
            Err(error) => Err((value, error)),
        }
    }

    /// Adds a node that the caller allocated, or took from a tree. Cannot fail.
    pub fn insert_node(&mut self, node: KBox<'m, IntervalNode<'m, V>>) {
        self.root = Some(insert_below(self.root.take(), node));
        self.len += 1;
    }

    /// Takes out one interval that is exactly `first..=last` and whose value `which` accepts.
    ///
    /// Logarithmic in the intervals, plus the number of equal intervals that `which` refuses.
    pub fn remove(
        &mut self,
        first: u64,
        last: u64,
        mut which: impl FnMut(&V) -> bool,
    ) -> Option<KBox<'m, IntervalNode<'m, V>>> {
        let node = remove_below(&mut self.root, first, last, &mut which)?;
        self.len -= 1;
        Some(node)
    }

    /// All intervals that share a point with `first..=last`, by ascending start, each as
    /// `(first, last, value)`.
    pub fn overlapping(&self, first: u64, last: u64) -> Overlapping<'_, 'm, V> {
        let mut iter = Overlapping {
            path: [None; MAX_HEIGHT],
            depth: 0,
            first,
            last,
        };
        iter.descend(self.root.as_deref());
        iter
    }

    /// All intervals, by ascending start.
    pub fn iter(&self) -> Overlapping<'_, 'm, V> {
        self.overlapping(0, u64::MAX)
    }

    /// Checks every invariant of the tree; for tests and debugging.
    ///
    /// # Errors
    /// What is wrong.
    pub fn validate(&self) -> Result<(), &'static str> {
        let nodes = match &self.root {
            Some(root) => root.validate((0, 0), (u64::MAX, u64::MAX))?,
            None => 0,
        };
        if nodes == self.len {
            Ok(())
        } else {
            Err("interval: wrong number of nodes")
        }
    }
}

/// Inserts into a subtree and returns its new root. As deep as the tree is high.
fn insert_below<'m, V>(
    link: Link<'m, V>,
    node: KBox<'m, IntervalNode<'m, V>>,
) -> KBox<'m, IntervalNode<'m, V>> {
    let Some(mut top) = link else { return node };
    if top.order(node.first(), node.last()) == Ordering::Less {
        top.left = Some(insert_below(top.left.take(), node));
    } else {
        top.right = Some(insert_below(top.right.take(), node));
    }
    balance(top)
}

/// Removes from a subtree. As deep as the tree is high.
fn remove_below<'m, V>(
    link: &mut Link<'m, V>,
    first: u64,
    last: u64,
    which: &mut impl FnMut(&V) -> bool,
) -> Link<'m, V> {
    let top = link.as_mut()?;
    let removed = match top.order(first, last) {
        Ordering::Less => remove_below(&mut top.left, first, last, which),
        Ordering::Greater => remove_below(&mut top.right, first, last, which),
        Ordering::Equal if which(top.value()) => {
            let mut node = link.take()?;
            *link = join(node.left.take(), node.right.take());
            // Alone again: the node ends as it was made.
            return Some(balance(node));
        }
        // Rotations leave equal intervals on both sides.
        Ordering::Equal => remove_below(&mut top.left, first, last, which)
            .or_else(|| remove_below(&mut top.right, first, last, which)),
    }?;
    *link = link.take().map(balance);
    Some(removed)
}

/// Makes one subtree of the two sides of a removed node.
fn join<'m, V>(left: Link<'m, V>, right: Link<'m, V>) -> Link<'m, V> {
    let Some(right) = right else { return left };
    let (mut least, rest) = take_least(right);
    least.left = left;
    least.right = rest;
    Some(balance(least))
}

/// Splits a subtree into its least node and the rest.
fn take_least<'m, V>(
    mut top: KBox<'m, IntervalNode<'m, V>>,
) -> (KBox<'m, IntervalNode<'m, V>>, Link<'m, V>) {
    match top.left.take() {
        Some(left) => {
            let (least, rest) = take_least(left);
            top.left = rest;
            (least, Some(balance(top)))
        }
        None => {
            let rest = top.right.take();
            (top, rest)
        }
    }
}

/// The intervals that share a point with a given one; see [`IntervalTree::overlapping`].
pub struct Overlapping<'t, 'm, V> {
    /// Nodes still to be visited, each before what follows it in order.
    path: [Option<&'t IntervalNode<'m, V>>; MAX_HEIGHT],
    depth: usize,
    first: u64,
    last: u64,
}

impl<'t, 'm, V> Overlapping<'t, 'm, V> {
    /// Goes to the leftmost node of a subtree that may matter.
    fn descend(&mut self, mut link: Option<&'t IntervalNode<'m, V>>) {
        while let Some(node) = link
            && node.max_last() >= self.first
        {
            self.path[self.depth] = Some(node);
            self.depth += 1;
            link = node.left.as_deref();
        }
    }
}

impl<'t, V> Iterator for Overlapping<'t, '_, V> {
    type Item = (u64, u64, &'t V);

    fn next(&mut self) -> Option<Self::Item> {
        while self.depth > 0 {
            self.depth -= 1;
            let node = self.path[self.depth]?;
            if node.first() > self.last {
                // All that follow start later still.
                self.depth = 0;
                break;
            }
            self.descend(node.right.as_deref());
            if node.last() >= self.first {
                return Some((node.first(), node.last(), node.value()));
            }
        }
        None
    }
}

impl<V> FusedIterator for Overlapping<'_, '_, V> {}

impl<V> fmt::Debug for Overlapping<'_, '_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Overlapping({:#x}..={:#x})", self.first, self.last)
    }
}

impl<V> Default for IntervalTree<'_, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V: fmt::Debug> fmt::Debug for IntervalTree<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
