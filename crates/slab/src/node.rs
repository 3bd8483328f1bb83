//! What a cache has on one node: lists of slabs, and sheaves between CPUs.

use crate::list::SlabList;
use crate::sheaf::Stack;
use vellum_types::Pfn;

/// What the lock of a node protects, besides the `Page` words and index lists of its slabs.
pub(crate) struct Lists {
    pub(crate) partial: SlabList,
    pub(crate) full: SlabList,
    /// A slab without live objects, or `Pfn::NONE`.
    pub(crate) empty: Pfn,
    /// Slabs without live objects that must stay of this type until the next grace point.
    pub(crate) deferred: SlabList,
    /// Objects that are live or in a sheaf.
    pub(crate) live: u64,
    /// Sheaves with objects, and without: the barn.
    pub(crate) full_sheaves: Stack,
    pub(crate) empty_sheaves: Stack,
    /// Objects in `full_sheaves`.
    pub(crate) in_barn: u64,
}

impl Lists {
    pub(crate) const fn new() -> Self {
        Self {
            partial: SlabList::new(),
            full: SlabList::new(),
            empty: Pfn::NONE,
            deferred: SlabList::new(),
            live: 0,
            full_sheaves: Stack::new(),
            empty_sheaves: Stack::new(),
            in_barn: 0,
        }
    }

    /// Slabs that hold live objects.
    pub(crate) const fn active_slabs(&self) -> u64 {
        self.partial.len() + self.full.len()
    }

    /// All slabs.
    pub(crate) fn num_slabs(&self) -> u64 {
        self.active_slabs() + u64::from(self.empty != Pfn::NONE) + self.deferred.len()
    }
}
