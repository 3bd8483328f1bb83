//! A node of either kind, and the operations that go down the tree.

use crate::entries::{Entries, split};
use crate::path::Steps;
use crate::reserve::Spare;
use crate::{Inner, Leaf, Vma};
use vellum_object::KBox;

/// The most levels, the leaves included. More than memory can hold nodes for: with the least number
/// of entries in each node, ten levels have more than 500 million areas.
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

impl Summary {
    /// Sums up entries with these bounds, of which one has a gap of `inside`.
    pub(crate) fn of(starts: &[u64], ends: &[u64], inside: u64) -> Self {
        let mut gap = inside;
        for (next, end) in starts.iter().skip(1).zip(ends) {
            gap = gap.max(next - end);
        }
        let start = starts.first().copied().unwrap_or(0);
        Self {
            start,
            end: ends.last().copied().unwrap_or(0),
            gap,
        }
    }
}

/// What became of a subtree by an insertion.
pub(crate) struct Grown<'m, B> {
    /// True if its summary may be another.
    pub(crate) changed: bool,
    /// Its upper part, if it was full, to be put behind it.
    pub(crate) upper: Option<Node<'m, B>>,
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

    /// Puts an area in at the place to which `steps` lead. `spare` has the nodes that this takes. The
    /// area below, if it reaches into the new one, is cut off there.
    pub(crate) fn insert(
        &mut self,
        area: KBox<'m, Vma<B>>,
        steps: &mut Steps,
        spare: &mut Spare<'m, B>,
    ) -> Grown<'m, B> {
        match self {
            Self::Leaf(leaf) => {
                let at = steps.next();
                leaf.cut_below(at, area.start());
                if !leaf.is_full() {
                    leaf.put(at, area);
                    return Grown {
                        changed: true,
                        upper: None,
                    };
                }
                let mut right = spare.take_leaf();
                split(&mut **leaf, &mut *right, at, area);
                Grown {
                    changed: true,
                    upper: Some(Self::Leaf(right)),
                }
            }
            Self::Inner(inner) => inner.insert(area, steps, spare),
        }
    }

    /// Goes to the leaf of the area that starts at `start`, where `take` takes an area out; returns
    /// with it whether the summary may have changed. Leaves this node short or empty, if it must, but
    /// none below it.
    pub(crate) fn remove<F>(&mut self, start: u64, take: F) -> Option<(KBox<'m, Vma<B>>, bool)>
    where
        F: FnOnce(&mut Leaf<'m, B>, usize) -> Option<KBox<'m, Vma<B>>>,
    {
        match self {
            Self::Leaf(leaf) => {
                let at = leaf.position(start)?;
                Some((take(leaf, at)?, true))
            }
            Self::Inner(inner) => inner.remove(start, take),
        }
    }

    /// Changes the area that starts at `start`, its bounds too if the order of areas stays. Returns
    /// whether the summary may have changed.
    pub(crate) fn update(&mut self, start: u64, change: impl FnOnce(&mut Vma<B>)) -> bool {
        match self {
            Self::Leaf(leaf) => {
                if let Some(at) = leaf.position(start) {
                    leaf.update(at, change);
                }
                true
            }
            Self::Inner(inner) => inner.update(start, change),
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
