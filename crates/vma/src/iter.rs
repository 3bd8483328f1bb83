//! Walking the set in order.

use crate::node::{MAX_LEVELS, Node};
use crate::{Inner, Leaf, Vma};
use core::fmt;
use core::iter::FusedIterator;

/// Areas of a [`VmaSet`](crate::VmaSet), by ascending address.
pub struct Areas<'t, 'm, B> {
    /// The inner nodes above the leaf, each with the slot of the child to visit next.
    path: [Option<(&'t Inner<'m, B>, usize)>; MAX_LEVELS],
    depth: usize,
    leaf: Option<&'t Leaf<'m, B>>,
    slot: usize,
    /// Areas that start here or above do not count.
    end: u64,
}

impl<'t, 'm, B> Areas<'t, 'm, B> {
    /// The areas that end after `from` and start before `end`.
    pub(crate) fn new(root: Option<&'t Node<'m, B>>, from: u64, end: u64) -> Self {
        let mut areas = Self {
            path: [None; MAX_LEVELS],
            depth: 0,
            leaf: None,
            slot: 0,
            end,
        };
        areas.descend(root, from);
        areas
    }

    /// Goes down to the first area that ends after `from`.
    fn descend(&mut self, node: Option<&'t Node<'m, B>>, from: u64) {
        let mut node = node;
        while let Some(Node::Inner(inner)) = node {
            let at = inner.first_ending_after(from);
            self.path[self.depth] = Some((inner, at + 1));
            self.depth += 1;
            node = inner.child(at);
        }
        if let Some(Node::Leaf(leaf)) = node {
            self.leaf = Some(leaf);
            self.slot = leaf.first_ending_after(from);
        }
    }

    /// Goes to the next leaf.
    fn advance(&mut self) {
        self.leaf = None;
        while self.leaf.is_none() && self.depth > 0 {
            let Some((inner, at)) = self.path[self.depth - 1] else {
                return;
            };
            match inner.child(at) {
                Some(child) => {
                    self.path[self.depth - 1] = Some((inner, at + 1));
                    self.descend(Some(child), 0);
                }
                None => self.depth -= 1,
            }
        }
    }
}

impl<'t, B> Iterator for Areas<'t, '_, B> {
    type Item = &'t Vma<B>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let leaf = self.leaf?;
            match leaf.area(self.slot) {
                Some(area) if area.start().as_u64() < self.end => {
                    self.slot += 1;
                    return Some(area);
                }
                Some(_) => {
                    (self.leaf, self.depth) = (None, 0);
                    return None;
                }
                None => self.advance(),
            }
        }
    }
}

impl<B> FusedIterator for Areas<'_, '_, B> {}

impl<B> fmt::Debug for Areas<'_, '_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Areas(leaf {:?}, slot {})", self.leaf, self.slot)
    }
}
