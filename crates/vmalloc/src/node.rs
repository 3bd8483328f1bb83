//! A node of the arena's trees, and the balancing of a subtree.

use crate::area::Area;
use core::fmt;
use vellum_object::KBox;

pub(crate) type Link<'m> = Option<KBox<'m, VmapNode<'m>>>;

/// A run of kernel addresses: free, in use, or waiting for the flush. Linux's `struct vmap_area`.
/// Public only so that a cache of them can be created.
pub struct VmapNode<'m> {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// The longest run of this node and all below it, in bytes.
    pub(crate) longest: u64,
    /// Levels from here down; one for a node without children.
    height: u8,
    pub(crate) left: Link<'m>,
    /// The right child; outside of a tree, the next of a list.
    pub(crate) right: Link<'m>,
    /// What is there, if it is in use.
    pub(crate) area: Area,
}

impl VmapNode<'_> {
    pub(crate) const fn vacant() -> Self {
        Self {
            start: 0,
            end: 0,
            longest: 0,
            height: 1,
            left: None,
            right: None,
            area: Area::NONE,
        }
    }

    /// Gives a node that is in no tree other addresses.
    pub(crate) fn set_range(&mut self, start: u64, end: u64) {
        (self.start, self.end) = (start, end);
        self.longest = end - start;
        self.height = 1;
    }

    /// Bytes.
    pub(crate) const fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Works out anew what it knows of its children.
    fn update(&mut self) {
        let (left, right) = (self.left.as_deref(), self.right.as_deref());
        let of = |node: Option<&Self>| node.map_or((0, 0), |node| (node.height, node.longest));
        let (left, right) = (of(left), of(right));
        self.height = 1 + left.0.max(right.0);
        self.longest = self.len().max(left.1).max(right.1);
    }

    /// It is shorter than it was; nothing changed below it.
    #[inline]
    pub(crate) fn shrunk(&mut self) {
        let below = longest(&self.left).max(longest(&self.right));
        self.longest = self.len().max(below);
    }

    /// Checks this node and all below it, whose addresses must lie in `low..high`; returns how many
    /// nodes these are.
    pub(crate) fn validate(&self, low: u64, high: u64) -> Result<usize, &'static str> {
        if self.start >= self.end || self.start < low || self.end > high {
            return Err("vmalloc: areas overlap or are out of order");
        }
        if height(&self.left).abs_diff(height(&self.right)) > 1 {
            return Err("vmalloc: tree not balanced");
        }
        let (mut nodes, mut longest) = (1, self.len());
        if let Some(left) = &self.left {
            nodes += left.validate(low, self.start)?;
            longest = longest.max(left.longest);
        }
        if let Some(right) = &self.right {
            nodes += right.validate(self.end, high)?;
            longest = longest.max(right.longest);
        }
        if longest != self.longest {
            return Err("vmalloc: wrong longest run of a subtree");
        }
        if self.height != 1 + height(&self.left).max(height(&self.right)) {
            return Err("vmalloc: wrong height of a subtree");
        }
        Ok(nodes)
    }
}

pub(crate) fn height(link: &Link<'_>) -> u8 {
    link.as_ref().map_or(0, |node| node.height)
}

pub(crate) fn longest(link: &Link<'_>) -> u64 {
    link.as_ref().map_or(0, |node| node.longest)
}

/// Restores the summary of a subtree, and its balance if one child's height has changed by one.
#[inline]
pub(crate) fn rebalance(link: &mut Link<'_>) {
    let Some(top) = link.as_deref_mut() else {
        return;
    };
    if height(&top.left).abs_diff(height(&top.right)) <= 1 {
        top.update();
    } else if let Some(top) = link.take() {
        *link = Some(rotate(top));
    }
}

/// Makes one subtree of the two sides of a removed node.
pub(crate) fn join<'m>(left: Link<'m>, mut right: Link<'m>) -> Link<'m> {
    let Some(mut top) = take_least(&mut right) else {
        return left;
    };
    top.left = left;
    top.right = right;
    let mut link = Some(top);
    rebalance(&mut link);
    link
}

/// Takes the lowest node out of a subtree.
fn take_least<'m>(link: &mut Link<'m>) -> Link<'m> {
    let top = link.as_deref_mut()?;
    if top.left.is_none() {
        let mut node = link.take()?;
        *link = node.right.take();
        return Some(node);
    }
    let least = take_least(&mut top.left);
    rebalance(link);
    least
}

/// Balances a subtree, one side of which is two levels higher than the other.
#[cold]
fn rotate<'m>(mut top: KBox<'m, VmapNode<'m>>) -> KBox<'m, VmapNode<'m>> {
    if height(&top.left) > height(&top.right) {
        if let Some(child) = top
            .left
            .take_if(|child| height(&child.right) > height(&child.left))
        {
            top.left = Some(rotate_left(child));
        }
        rotate_right(top)
    } else {
        if let Some(child) = top
            .right
            .take_if(|child| height(&child.left) > height(&child.right))
        {
            top.right = Some(rotate_right(child));
        }
        rotate_left(top)
    }
}

/// Lifts the left child above `node`.
fn rotate_right<'m>(mut node: KBox<'m, VmapNode<'m>>) -> KBox<'m, VmapNode<'m>> {
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
fn rotate_left<'m>(mut node: KBox<'m, VmapNode<'m>>) -> KBox<'m, VmapNode<'m>> {
    let Some(mut top) = node.right.take() else {
        return node;
    };
    node.right = top.left.take();
    node.update();
    top.left = Some(node);
    top.update();
    top
}

impl fmt::Debug for VmapNode<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start, self.end)
    }
}
