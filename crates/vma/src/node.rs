//! A node of either kind, and the operations that go down the tree.

use crate::entries::{Entries, split};
use crate::reserve::Spare;
use crate::{Inner, Leaf, Vma};
use vellum_object::KBox;
use vellum_types::VirtRange;

/// More levels than memory can hold nodes for: with the least number of children in each node,
/// ten levels have more than 500 million areas.
pub(crate) const MAX_LEVELS: usize = 10;

/// What a node above knows of a subtree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Summary {
    /// First address of the first area.
    pub(crate) start: u64,
    /// End of the last area.
    pub(crate) end: u64,
    /// Largest gap between two areas, in bytes.
    pub(crate) gap: u64,
}

/// A subtree.
pub(crate) enum Node<'m, B> {
    Leaf(KBox<'m, Leaf<'m, B>>),
    Inner(KBox<'m, Inner<'m, B>>),
}

impl<'m, B> Node<'m, B> {
    pub(crate) fn summary(&self) -> Summary {
        match self {
            Self::Leaf(leaf) => leaf.summary(),
            Self::Inner(inner) => inner.summary(),
        }
    }

    /// True if it has fewer entries than a node that is not the root may have.
    pub(crate) fn is_short(&self) -> bool {
        fn short<N: Entries>(node: &N) -> bool {
            node.len() < N::MIN
        }
        match self {
            Self::Leaf(leaf) => short(&**leaf),
            Self::Inner(inner) => short(&**inner),
        }
    }

    /// Puts an area in, which overlaps none. If this node was full its upper part is returned, to
    /// be put behind it. `spare` has the nodes that this takes.
    pub(crate) fn insert(
        &mut self,
        area: KBox<'m, Vma<B>>,
        spare: &mut Spare<'m, B>,
    ) -> Option<Self> {
        match self {
            Self::Leaf(leaf) => {
                let at = leaf.place_for(area.start().as_u64());
                if !leaf.is_full() {
                    leaf.put(at, area);
                    return None;
                }
                let mut right = spare.take_leaf();
                split(&mut **leaf, &mut *right, at, area);
                Some(Self::Leaf(right))
            }
            Self::Inner(inner) => inner.insert(area, spare),
        }
    }

    /// Takes out the area that starts at `start`. Leaves this node short or empty, if it must, but
    /// none below it.
    pub(crate) fn remove(&mut self, start: u64) -> Option<KBox<'m, Vma<B>>> {
        match self {
            Self::Leaf(leaf) => {
                let at = leaf.position(start)?;
                leaf.remove(at)
            }
            Self::Inner(inner) => inner.remove(start),
        }
    }

    /// Moves the bounds of the area that starts at `start`. The order of areas stays.
    pub(crate) fn set_bounds(&mut self, start: u64, range: VirtRange, pgoff: u64) {
        match self {
            Self::Leaf(leaf) => {
                if let Some(at) = leaf.position(start) {
                    leaf.set_bounds(at, range, pgoff);
                }
            }
            Self::Inner(inner) => inner.set_bounds(start, range, pgoff),
        }
    }

    /// The lowest area.
    pub(crate) fn first(&self) -> Option<&Vma<B>> {
        let mut node = self;
        loop {
            match node {
                Self::Leaf(leaf) => return leaf.area(0),
                Self::Inner(inner) => node = inner.child(0)?,
            }
        }
    }

    /// The highest area.
    pub(crate) fn last(&self) -> Option<&Vma<B>> {
        let mut node = self;
        loop {
            match node {
                Self::Leaf(leaf) => return leaf.area(leaf.len().checked_sub(1)?),
                Self::Inner(inner) => node = inner.child(inner.len().checked_sub(1)?)?,
            }
        }
    }

    /// Checks the subtree, whose leaves must be `level` levels down; returns areas and pages.
    pub(crate) fn validate(&self, floor: u64, level: usize) -> Result<(usize, u64), &'static str> {
        match self {
            Self::Leaf(leaf) if level == 0 => leaf.validate(floor),
            Self::Inner(inner) if level > 0 => inner.validate(floor, level),
            Self::Leaf(_) | Self::Inner(_) => Err("vma: leaves at different levels"),
        }
    }
}
