//! Memory for areas and nodes, taken before anything changes.

use crate::entries::Entries;
use crate::node::{MAX_LEVELS, Node};
use crate::path::{Path, Steps};
use crate::{Inner, Leaf, Vma};
use core::fmt;
use vellum_object::{KBox, ObjectCache, OutOfMemory};

/// Where the objects of a set come from.
pub struct VmaCaches<'m, B> {
    /// Areas.
    pub areas: ObjectCache<'m, Vma<B>>,
    /// Leaves of the tree.
    pub leaves: ObjectCache<'m, Leaf<'m, B>>,
    /// Inner nodes of the tree.
    pub inners: ObjectCache<'m, Inner<'m, B>>,
}

impl<B> Clone for VmaCaches<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for VmaCaches<'_, B> {}

impl<B> fmt::Debug for VmaCaches<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VmaCaches")
            .field("areas", &self.areas.source().name())
            .field("leaves", &self.leaves.source().name())
            .field("inners", &self.inners.source().name())
            .finish()
    }
}

/// Where a new area goes, what is next to it, and which nodes that takes.
pub(crate) struct Plan {
    path: Path,
    /// End of the area below, start of the one above.
    pub(crate) prev_end: u64,
    pub(crate) next_start: u64,
    nr_leaves: usize,
    nr_inners: usize,
}

impl Plan {
    /// Looks for the place of an area that starts at `start`. A full leaf takes a new leaf, an inner
    /// node for each full one right above it, and one more if that goes up to the root.
    pub(crate) fn new<B>(root: Option<&Node<'_, B>>, start: u64) -> Self {
        let path = Path::default();
        let mut plan = Self {
            path,
            prev_end: 0,
            next_start: u64::MAX,
            nr_leaves: 1,
            nr_inners: 0,
        };
        let Some(mut node) = root else { return plan };
        plan.nr_inners = 1;
        loop {
            match node {
                Node::Inner(inner) => {
                    let at = inner.place_for(start);
                    plan.path.push(at);
                    plan.nr_inners = if inner.is_full() {
                        plan.nr_inners + 1
                    } else {
                        0
                    };
                    if let Some(above) = inner.starts().get(at + 1) {
                        plan.next_start = *above;
                    }
                    node = inner.child(at).expect("a child for every address");
                }
                Node::Leaf(leaf) => {
                    let at = leaf.place_for(start);
                    plan.path.push(at);
                    if !leaf.is_full() {
                        (plan.nr_leaves, plan.nr_inners) = (0, 0);
                    }
                    if let Some(above) = leaf.starts().get(at) {
                        plan.next_start = *above;
                    }
                    // Without one in this leaf there is none: it would be in a leaf below.
                    plan.prev_end = at.checked_sub(1).map_or(0, |below| leaf.ends()[below]);
                    return plan;
                }
            }
        }
    }

    pub(crate) fn steps(&self) -> Steps {
        self.path.steps()
    }
}

/// The empty nodes that one insertion takes.
pub(crate) struct Spare<'m, B> {
    leaf: Option<KBox<'m, Leaf<'m, B>>>,
    inners: [Option<KBox<'m, Inner<'m, B>>>; MAX_LEVELS - 1],
    nr_inners: usize,
}

impl<'m, B> Spare<'m, B> {
    /// Allocates what `plan` says.
    pub(crate) fn reserve(caches: &VmaCaches<'m, B>, plan: &Plan) -> Result<Self, OutOfMemory> {
        let mut spare = Self {
            leaf: None,
            inners: [const { None }; MAX_LEVELS - 1],
            nr_inners: 0,
        };
        if plan.nr_leaves > 0 {
            spare.leaf = Some(caches.leaves.boxed(Leaf::empty())?);
        }
        for _ in 0..plan.nr_inners {
            // A full tree of the greatest height has no memory left either.
            let slot = spare.inners.get_mut(spare.nr_inners).ok_or(OutOfMemory)?;
            *slot = Some(caches.inners.boxed(Inner::empty())?);
            spare.nr_inners += 1;
        }
        Ok(spare)
    }

    pub(crate) fn take_leaf(&mut self) -> KBox<'m, Leaf<'m, B>> {
        self.leaf.take().expect("a leaf was reserved")
    }

    pub(crate) fn take_inner(&mut self) -> KBox<'m, Inner<'m, B>> {
        self.nr_inners -= 1;
        self.inners[self.nr_inners]
            .take()
            .expect("an inner node was reserved")
    }
}
