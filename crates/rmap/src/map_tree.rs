//! Who maps an object, by page index.

use core::fmt;
use vellum_collections::{IntervalNode, IntervalTree};
use vellum_machine::{LockRank, SpinLock};
use vellum_object::KBox;
use vellum_types::{SpaceId, VirtAddr};

/// Mappers that one look at the tree takes along.
const BATCH: usize = 64;

/// An address space that maps an object so that index `i` is at page number `i + bias`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Mapper {
    /// The address space.
    pub space: SpaceId,
    /// Page number minus index, wrapping.
    pub bias: u64,
}

impl Mapper {
    /// The mapper of an area whose first page has the number `page` and shows index `index`.
    pub const fn new(space: SpaceId, page: u64, index: u64) -> Self {
        Self {
            space,
            bias: page.wrapping_sub(index),
        }
    }

    /// Where index `index` is in this space.
    pub const fn addr(&self, index: u64) -> VirtAddr {
        VirtAddr::from_page_number(index.wrapping_add(self.bias))
    }
}

/// An object that is mapped.
pub trait Mapped<'m> {
    /// Who maps it.
    fn mappers(&self) -> &MapTree<'m>;

    /// Its last mapper is gone. Called with no lock of this crate held. Does nothing by default.
    fn unmapped(&self) {}
}

/// The mappers of one object. Linux: `i_mmap`, `anon_vma->rb_root`.
pub struct MapTree<'m> {
    tree: SpinLock<IntervalTree<'m, Mapper>>,
}

impl<'m> MapTree<'m> {
    /// Nobody maps it.
    pub const fn new() -> Self {
        Self {
            tree: SpinLock::new(LockRank::Rmap, IntervalTree::new()),
        }
    }

    /// True if nobody maps it.
    pub fn is_empty(&self) -> bool {
        self.tree.lock().is_empty()
    }

    /// How many registrations there are.
    pub fn len(&self) -> usize {
        self.tree.lock().len()
    }

    pub(crate) fn insert(&self, node: KBox<'m, IntervalNode<'m, Mapper>>) {
        self.tree.lock().insert_node(node);
    }

    /// Takes one registration out. True if it was the last.
    pub(crate) fn remove(&self, first: u64, last: u64, mapper: Mapper) -> bool {
        let mut tree = self.tree.lock();
        // Equal ones are as good as each other.
        let node = tree.remove(first, last, |one| *one == mapper);
        debug_assert!(node.is_some(), "a registration is not in its tree");
        let empty = tree.is_empty();
        drop(tree);
        drop(node);
        empty
    }

    /// Gives the registration `old` the interval `new`.
    pub(crate) fn resize(&self, old: (u64, u64), new: (u64, u64), mapper: Mapper) {
        let mut tree = self.tree.lock();
        if let Some(mut node) = tree.remove(old.0, old.1, |one| *one == mapper) {
            node.set_interval(new.0, new.1);
            tree.insert_node(node);
        }
    }

    /// Calls `each` for everybody who may map an index of `first..=last`, with the part of it that the
    /// registration has, until it returns false. No lock is held while `each` runs.
    pub fn visit(&self, first: u64, last: u64, each: &mut dyn FnMut(Mapper, u64, u64) -> bool) {
        let mut found = [None; BATCH];
        let mut after = None;
        loop {
            let (count, more) = self.collect(first, last, after, &mut found);
            for (mapper, from, to) in found.iter().take(count).flatten() {
                if !each(*mapper, *from, *to) {
                    return;
                }
            }
            if !more {
                return;
            }
            after = found[count - 1];
        }
    }

    /// Fills `found`; in order if there are more than it holds, so that a later call can go on `after` the
    /// last of them even if the tree changed. Returns how many it found and whether there are more.
    fn collect(
        &self,
        first: u64,
        last: u64,
        after: Option<(Mapper, u64, u64)>,
        found: &mut [Option<(Mapper, u64, u64)>; BATCH],
    ) -> (usize, bool) {
        let tree = self.tree.lock();
        let mut count = 0;
        let mut more = false;
        for (from, to, mapper) in tree.overlapping(first, last) {
            let entry = Some((*mapper, from.max(first), to.min(last)));
            if after.is_some() && entry <= after {
                continue;
            }
            if count < BATCH {
                found[count] = entry;
                count += 1;
                continue;
            }
            if !more {
                // Only now does the order matter.
                found.sort_unstable();
                more = true;
            }
            if entry < found[BATCH - 1] {
                let at = found.partition_point(|have| *have <= entry);
                found[at..].rotate_right(1);
                found[at] = entry;
            }
        }
        (count, more)
    }

    /// Checks the tree.
    ///
    /// # Errors
    /// What is wrong.
    pub fn validate(&self) -> Result<(), &'static str> {
        self.tree.lock().validate()
    }
}

impl Default for MapTree<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MapTree<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MapTree({} mappers)", self.len())
    }
}
