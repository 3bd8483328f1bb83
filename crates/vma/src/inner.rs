//! Inner nodes: children, and what a search must know of each.

use crate::entries::{Entries, even_out, pull, put, split, to_left, to_right};
use crate::node::{Grown, Node, Summary};
use crate::path::Steps;
use crate::reserve::Spare;
use crate::{Leaf, Vma};
use core::fmt;
use vellum_object::KBox;

/// Children of an inner node.
pub(crate) const INNER_CHILDREN: usize = 32;

/// An inner node of a [`VmaSet`](crate::VmaSet). Public only so that a cache of inner nodes can be
/// created.
pub struct Inner<'m, B> {
    len: usize,
    /// For each child the first address of its first area.
    starts: [u64; INNER_CHILDREN],
    /// For each child the end of its last area.
    ends: [u64; INNER_CHILDREN],
    /// For each child the largest gap between two of its areas, in bytes.
    gaps: [u64; INNER_CHILDREN],
    children: [Option<Node<'m, B>>; INNER_CHILDREN],
}

impl<'m, B> Inner<'m, B> {
    pub(crate) fn empty() -> Self {
        Self {
            len: 0,
            starts: [0; INNER_CHILDREN],
            ends: [0; INNER_CHILDREN],
            gaps: [0; INNER_CHILDREN],
            children: [const { None }; INNER_CHILDREN],
        }
    }

    #[inline]
    pub(crate) fn starts(&self) -> &[u64] {
        &self.starts[..self.len]
    }

    #[inline]
    pub(crate) fn ends(&self) -> &[u64] {
        &self.ends[..self.len]
    }

    pub(crate) fn gaps(&self) -> &[u64] {
        &self.gaps[..self.len]
    }

    #[inline]
    pub(crate) fn child(&self, at: usize) -> Option<&Node<'m, B>> {
        self.children.get(at)?.as_ref()
    }

    pub(crate) fn child_mut(&mut self, at: usize) -> Option<&mut Node<'m, B>> {
        self.children.get_mut(at)?.as_mut()
    }

    /// Slot of the first child with an area that ends after `addr`; the length if there is none.
    #[inline]
    pub(crate) fn first_ending_after(&self, addr: u64) -> usize {
        self.ends().partition_point(|end| *end <= addr)
    }

    /// Slot of the child that has, or is to have, the area that starts at `start`.
    pub(crate) fn place_for(&self, start: u64) -> usize {
        self.starts()
            .partition_point(|other| *other <= start)
            .saturating_sub(1)
    }

    /// Takes the summary of a child over. True if it is another, and this node's too, perhaps.
    fn refresh(&mut self, at: usize) -> bool {
        let Some(child) = &self.children[at] else {
            return false;
        };
        let old = Summary {
            start: self.starts[at],
            end: self.ends[at],
            gap: self.gaps[at],
        };
        let new = child.summary();
        (self.starts[at], self.ends[at], self.gaps[at]) = (new.start, new.end, new.gap);
        new != old
    }

    /// See [`Node::insert`].
    pub(crate) fn insert(
        &mut self,
        area: KBox<'m, Vma<B>>,
        steps: &mut Steps,
        spare: &mut Spare<'m, B>,
    ) -> Grown<'m, B> {
        let at = steps.next();
        let child = self.child_mut(at).expect("a path leads to a child");
        let Grown { changed, upper } = child.insert(area, steps, spare);
        let changed = changed && self.refresh(at);
        let Some(upper) = upper else {
            return Grown {
                changed,
                upper: None,
            };
        };
        if !self.is_full() {
            self.put(at + 1, upper);
            return Grown {
                changed: true,
                upper: None,
            };
        }
        let mut right = spare.take_inner();
        split(self, &mut *right, at + 1, upper);
        Grown {
            changed: true,
            upper: Some(Node::Inner(right)),
        }
    }

    /// See [`Node::remove`].
    pub(crate) fn remove<F>(&mut self, start: u64, take: F) -> Option<(KBox<'m, Vma<B>>, bool)>
    where
        F: FnOnce(&mut Leaf<'m, B>, usize) -> Option<KBox<'m, Vma<B>>>,
    {
        let at = self.place_for(start);
        let child = self.child_mut(at)?;
        let (area, changed) = child.remove(start, take)?;
        if child.is_short() {
            self.balance(at);
            return Some((area, true));
        }
        Some((area, changed && self.refresh(at)))
    }

    /// See [`Node::update`].
    pub(crate) fn update(&mut self, start: u64, change: impl FnOnce(&mut Vma<B>)) -> bool {
        let at = self.place_for(start);
        match self.child_mut(at) {
            Some(child) => child.update(start, change) && self.refresh(at),
            None => false,
        }
    }

    /// Fills the short child at `at` up from a neighbour, or joins the two.
    fn balance(&mut self, at: usize) {
        let at = at.min(self.len.saturating_sub(2));
        let (lower, upper) = self.children.split_at_mut(at + 1);
        let emptied = match (&mut lower[at], upper.first_mut()) {
            (Some(Node::Leaf(left)), Some(Some(Node::Leaf(right)))) => {
                even_out(&mut **left, &mut **right)
            }
            (Some(Node::Inner(left)), Some(Some(Node::Inner(right)))) => {
                even_out(&mut **left, &mut **right)
            }
            _ => false,
        };
        self.refresh(at);
        if emptied {
            self.pull(at + 1);
        } else if at + 1 < self.len {
            self.refresh(at + 1);
        }
    }

    fn pull(&mut self, at: usize) -> Option<Node<'m, B>> {
        pull(&mut self.starts, self.len, at, 0);
        pull(&mut self.ends, self.len, at, 0);
        pull(&mut self.gaps, self.len, at, 0);
        let child = pull(&mut self.children, self.len, at, None);
        self.len -= 1;
        child
    }

    /// The only child, taken out, if there is only one.
    pub(crate) fn take_only_child(&mut self) -> Option<Node<'m, B>> {
        if self.len == 1 { self.pull(0) } else { None }
    }

    pub(crate) fn summary(&self) -> Summary {
        let inside = self.gaps().iter().copied().fold(0, u64::max);
        Summary::of(self.starts(), self.ends(), inside)
    }

    /// Checks this node at `level` and all below it; returns areas and pages.
    pub(crate) fn validate(&self, floor: u64, level: usize) -> Result<(usize, u64), &'static str> {
        let mut floor = floor;
        let mut sum = (0, 0);
        for at in 0..self.len {
            let child = self.child(at).ok_or("vma: vacant slot in an inner node")?;
            if child.is_short() {
                return Err("vma: node has too few entries");
            }
            let kept = Summary {
                start: self.starts[at],
                end: self.ends[at],
                gap: self.gaps[at],
            };
            if child.summary() != kept {
                return Err("vma: wrong summary of a child");
            }
            let (areas, pages) = child.validate(floor, level - 1)?;
            sum = (sum.0 + areas, sum.1 + pages);
            floor = kept.end;
        }
        if self.children[self.len..].iter().any(Option::is_some) {
            return Err("vma: child behind the end of an inner node");
        }
        Ok(sum)
    }
}

impl<'m, B> Entries for Inner<'m, B> {
    type Entry = Node<'m, B>;
    const CAPACITY: usize = INNER_CHILDREN;

    fn len(&self) -> usize {
        self.len
    }

    fn put(&mut self, at: usize, child: Self::Entry) {
        let Summary { start, end, gap } = child.summary();
        put(&mut self.starts, self.len, at, start);
        put(&mut self.ends, self.len, at, end);
        put(&mut self.gaps, self.len, at, gap);
        put(&mut self.children, self.len, at, Some(child));
        self.len += 1;
    }

    fn move_right(&mut self, right: &mut Self, count: usize) {
        let lens = (self.len, right.len);
        to_right(&mut self.starts, &mut right.starts, lens, count);
        to_right(&mut self.ends, &mut right.ends, lens, count);
        to_right(&mut self.gaps, &mut right.gaps, lens, count);
        to_right(&mut self.children, &mut right.children, lens, count);
        (self.len, right.len) = (lens.0 - count, lens.1 + count);
    }

    fn move_left(&mut self, right: &mut Self, count: usize) {
        let lens = (self.len, right.len);
        to_left(&mut self.starts, &mut right.starts, lens, count);
        to_left(&mut self.ends, &mut right.ends, lens, count);
        to_left(&mut self.gaps, &mut right.gaps, lens, count);
        to_left(&mut self.children, &mut right.children, lens, count);
        (self.len, right.len) = (lens.0 + count, lens.1 - count);
    }
}

impl<B> fmt::Debug for Inner<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Inner({} children, {:?})", self.len, self.summary())
    }
}
