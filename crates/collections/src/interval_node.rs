//! A node of the interval tree, and the balancing of a subtree.

use core::cmp::Ordering;
use core::fmt;
use vellum_object::KBox;

pub(crate) type Link<'m, V> = Option<KBox<'m, IntervalNode<'m, V>>>;

/// An interval `first..=last` with its value: a node of an [`IntervalTree`](crate::IntervalTree).
///
/// Create one ahead with [`IntervalNode::new`] in an object cache to insert it later without fail.
pub struct IntervalNode<'m, V> {
    first: u64,
    last: u64,
    /// The largest `last` of this node and all below it.
    max_last: u64,
    /// Levels from here down; one for a node without children.
    height: u8,
    pub(crate) left: Link<'m, V>,
    pub(crate) right: Link<'m, V>,
    /// Empty only until the allocation of the node has succeeded.
    pub(crate) value: Option<V>,
}

impl<'m, V> IntervalNode<'m, V> {
    /// A node that is in no tree yet.
    ///
    /// # Panics
    /// If `last` is below `first`.
    pub fn new(first: u64, last: u64, value: V) -> Self {
        Self {
            value: Some(value),
            ..Self::vacant(first, last)
        }
    }

    /// A node whose value follows once there is memory for it.
    pub(crate) fn vacant(first: u64, last: u64) -> Self {
        assert!(first <= last, "an interval ends before it starts");
        Self {
            first,
            last,
            max_last: last,
            height: 1,
            left: None,
            right: None,
            value: None,
        }
    }

    /// The lower bound, part of the interval.
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// The upper bound, part of the interval.
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// The value.
    pub const fn value(&self) -> &V {
        self.value
            .as_ref()
            .expect("a node that can be seen has its value")
    }

    /// The value, to be changed.
    pub const fn value_mut(&mut self) -> &mut V {
        self.value
            .as_mut()
            .expect("a node that can be seen has its value")
    }

    /// The value, out of a node that is in no tree.
    pub fn into_value(self) -> V {
        self.value.expect("a node that can be seen has its value")
    }

    /// Gives a node that is in no tree another interval, so that it can be inserted again.
    ///
    /// # Panics
    /// If `last` is below `first`.
    pub fn set_interval(&mut self, first: u64, last: u64) {
        assert!(first <= last, "an interval ends before it starts");
        (self.first, self.last, self.max_last) = (first, last, last);
    }

    pub(crate) const fn max_last(&self) -> u64 {
        self.max_last
    }

    /// The order of the tree.
    pub(crate) fn order(&self, first: u64, last: u64) -> Ordering {
        (first, last).cmp(&(self.first, self.last))
    }

    /// Recomputes what a node knows of its children.
    fn update(&mut self) {
        let left = self.left.as_ref();
        let right = self.right.as_ref();
        self.height = 1 + height(&self.left).max(height(&self.right));
        self.max_last = self
            .last
            .max(left.map_or(0, |node| node.max_last))
            .max(right.map_or(0, |node| node.max_last));
    }

    /// Checks this node and all below it; returns the number of nodes. `low` and `high` bound the
    /// keys that may occur here.
    pub(crate) fn validate(
        &self,
        low: (u64, u64),
        high: (u64, u64),
    ) -> Result<usize, &'static str> {
        let key = (self.first, self.last);
        if self.value.is_none() {
            return Err("interval: node without value");
        }
        if self.first > self.last {
            return Err("interval: ends before it starts");
        }
        if key < low || key > high {
            return Err("interval: out of order");
        }
        if height(&self.left).abs_diff(height(&self.right)) > 1 {
            return Err("interval: not balanced");
        }
        if self.height != 1 + height(&self.left).max(height(&self.right)) {
            return Err("interval: wrong height");
        }
        let mut max_last = self.last;
        let mut nodes = 1;
        if let Some(left) = &self.left {
            nodes += left.validate(low, key)?;
            max_last = max_last.max(left.max_last);
        }
        if let Some(right) = &self.right {
            nodes += right.validate(key, high)?;
            max_last = max_last.max(right.max_last);
        }
        if max_last != self.max_last {
            return Err("interval: wrong largest end");
        }
        Ok(nodes)
    }
}

pub(crate) fn height<V>(link: &Link<'_, V>) -> u8 {
    link.as_ref().map_or(0, |node| node.height)
}

/// Lifts the left child above `node`.
fn rotate_right<'m, V>(mut node: KBox<'m, IntervalNode<'m, V>>) -> KBox<'m, IntervalNode<'m, V>> {
    let Some(mut top) = node.left.take() else {
        return node;
    };
    node.left = top.right.take();
    node.update();
    top.right = Some(node);
    top.update();
    top
}

/// Lifts the right child above `node`.
fn rotate_left<'m, V>(mut node: KBox<'m, IntervalNode<'m, V>>) -> KBox<'m, IntervalNode<'m, V>> {
    let Some(mut top) = node.right.take() else {
        return node;
    };
    node.right = top.left.take();
    node.update();
    top.left = Some(node);
    top.update();
    top
}

/// Restores the balance of a subtree in which one child's height has changed by one.
pub(crate) fn balance<'m, V>(
    mut node: KBox<'m, IntervalNode<'m, V>>,
) -> KBox<'m, IntervalNode<'m, V>> {
    let (left, right) = (height(&node.left), height(&node.right));
    if left > right + 1 {
        if let Some(child) = node
            .left
            .take_if(|child| height(&child.right) > height(&child.left))
        {
            node.left = Some(rotate_left(child));
        }
        rotate_right(node)
    } else if right > left + 1 {
        if let Some(child) = node
            .right
            .take_if(|child| height(&child.left) > height(&child.right))
        {
            node.right = Some(rotate_right(child));
        }
        rotate_left(node)
    } else {
        node.update();
        node
    }
}

impl<V: fmt::Debug> fmt::Debug for IntervalNode<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..={:#x}: {:?}", self.first, self.last, self.value)
    }
}
