//! One interval of a tree.

use crate::{MapTree, Mapped, Mapper};
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use vellum_collections::IntervalNode;
use vellum_object::{KArc, ObjectCache, OutOfMemory};

/// `first..=last` of an object, mapped by one address space at one bias. Leaves the tree when it is
/// dropped.
pub struct Registration<'m, O: Mapped<'m>> {
    object: KArc<'m, O>,
    mapper: Mapper,
    /// The interval. Changed by those who hold the lock of the address space.
    first: AtomicU64,
    last: AtomicU64,
    lifetime: core::marker::PhantomData<&'m ()>,
}

impl<'m, O: Mapped<'m>> Registration<'m, O> {
    /// Puts `first..=last` into the tree of `object`.
    ///
    /// # Errors
    /// Out of memory; nothing changed.
    ///
    /// # Panics
    /// If `last` is below `first`.
    pub fn new(
        object: KArc<'m, O>,
        mapper: Mapper,
        first: u64,
        last: u64,
        nodes: ObjectCache<'m, IntervalNode<'m, Mapper>>,
    ) -> Result<Self, OutOfMemory> {
        let node = nodes.boxed(IntervalNode::new(first, last, mapper))?;
        object.mappers().insert(node);
        Ok(Self {
            object,
            mapper,
            first: AtomicU64::new(first),
            last: AtomicU64::new(last),
            lifetime: core::marker::PhantomData,
        })
    }

    /// What is mapped.
    pub const fn object(&self) -> &KArc<'m, O> {
        &self.object
    }

    /// By whom.
    pub const fn mapper(&self) -> Mapper {
        self.mapper
    }

    /// The indices that it stands for, both ends included.
    pub fn interval(&self) -> (u64, u64) {
        // Relaxed: the lock of the address space orders it.
        (
            self.first.load(Ordering::Relaxed),
            self.last.load(Ordering::Relaxed),
        )
    }

    /// True if all of `first..=last` is in the interval.
    #[inline]
    pub fn covers(&self, first: u64, last: u64) -> bool {
        let (from, to) = self.interval();
        from <= first && last <= to
    }

    /// Makes the interval large enough for `first..=last` too. The caller holds the lock of the address
    /// space, or is the only one who knows this registration.
    pub fn widen(&self, first: u64, last: u64) {
        let old = self.interval();
        let new = (old.0.min(first), old.1.max(last));
        if new != old {
            self.tree().resize(old, new, self.mapper);
            self.first.store(new.0, Ordering::Relaxed);
            self.last.store(new.1, Ordering::Relaxed);
        }
    }

    fn tree(&self) -> &MapTree<'m> {
        self.object.mappers()
    }
}

impl<'m, O: Mapped<'m>> Drop for Registration<'m, O> {
    fn drop(&mut self) {
        let (first, last) = self.interval();
        if self.tree().remove(first, last, self.mapper) {
            self.object.unmapped();
        }
    }
}

impl<'m, O: Mapped<'m>> fmt::Debug for Registration<'m, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = self.interval();
        write!(f, "{first:#x}..={last:#x}: {:?}", self.mapper)
    }
}
