//! Memory for areas and nodes, taken before anything changes.

use crate::entries::Entries;
use crate::node::{MAX_LEVELS, Node};
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

/// The empty nodes that one insertion takes.
pub(crate) struct Spare<'m, B> {
    leaf: Option<KBox<'m, Leaf<'m, B>>>,
    inners: [Option<KBox<'m, Inner<'m, B>>>; MAX_LEVELS],
    nr_inners: usize,
}

impl<'m, B> Spare<'m, B> {
    /// Allocates what the insertion of an area at `start` takes: nothing if its leaf has room,
    /// else a leaf, an inner node for each full one above it, and one more if the root is full.
    pub(crate) fn reserve(
        caches: &VmaCaches<'m, B>,
        root: Option<&Node<'m, B>>,
        start: u64,
    ) -> Result<Self, OutOfMemory> {
        let (leaves, inners) = Self::demand(root, start);
        let mut spare = Self {
            leaf: None,
            inners: [const { None }; MAX_LEVELS],
            nr_inners: 0,
        };
        if leaves {
            spare.leaf = Some(caches.leaves.boxed(Leaf::empty())?);
        }
        for _ in 0..inners {
            // A full tree of the greatest height has no memory left either.
            let slot = spare.inners.get_mut(spare.nr_inners).ok_or(OutOfMemory)?;
            *slot = Some(caches.inners.boxed(Inner::empty())?);
            spare.nr_inners += 1;
        }
        Ok(spare)
    }

    /// Whether a leaf is needed, and how many inner nodes.
    fn demand(root: Option<&Node<'m, B>>, start: u64) -> (bool, usize) {
        let Some(mut node) = root else {
            return (true, 0);
        };
        let mut full = 0;
        let mut root_full = true;
        loop {
            match node {
                Node::Inner(inner) => {
                    if inner.is_full() {
                        full += 1;
                    } else {
                        full = 0;
                        root_full = false;
                    }
                    match inner.child(inner.place_for(start)) {
                        Some(child) => node = child,
                        None => return (false, 0),
                    }
                }
                Node::Leaf(leaf) if leaf.is_full() => {
                    return (true, full + usize::from(root_full));
                }
                Node::Leaf(_) => return (false, 0),
            }
        }
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
