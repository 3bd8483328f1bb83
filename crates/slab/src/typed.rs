//! Objects that stay constructed while they are free, with their type.

use crate::{CacheFlags, CacheSpec, KmemCache, SlabAllocator};
use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use vellum_types::{GfpFlags, OutOfMemory};

/// A cache whose objects are `T`s even while they are free: made by `T::default` when their slab is
/// made, and handed out again as their last user left them.
///
/// What is expensive to set up, a lock or an empty list, is set up once (Bonwick 1994).
pub struct ConstructedCache<'m, T> {
    cache: &'m KmemCache<'m>,
    object: PhantomData<fn() -> T>,
}

impl<T> Clone for ConstructedCache<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for ConstructedCache<'_, T> {}

/// # Safety
/// `memory` has the layout of `T` and is used by nobody.
unsafe fn construct<T: Default>(memory: NonNull<u8>) {
    // SAFETY: by this function's contract.
    unsafe { memory.cast::<T>().write(T::default()) };
}

impl<'m> SlabAllocator<'m> {
    /// A cache of constructed objects. `T` needs no drop, because there is none: its slab's memory
    /// just ends.
    ///
    /// # Errors
    /// Out of memory.
    ///
    /// # Panics
    /// As [`SlabAllocator::create`].
    pub fn constructed<T: Default + Send + 'static>(
        &'m self,
        name: &'static str,
        flags: CacheFlags,
    ) -> Result<ConstructedCache<'m, T>, OutOfMemory> {
        const { assert!(!core::mem::needs_drop::<T>()) };
        let cache = self.create(CacheSpec {
            name,
            layout: Layout::new::<T>(),
            flags,
            ctor: Some(construct::<T>),
        })?;
        // INVARIANT: objects of this cache are `T`s from the moment their slab exists.
        Ok(ConstructedCache {
            cache,
            object: PhantomData,
        })
    }
}

impl<'m, T> ConstructedCache<'m, T> {
    /// An object, as its last user left it.
    ///
    /// # Errors
    /// Out of memory.
    #[inline]
    #[track_caller]
    pub fn alloc(&self) -> Result<Constructed<'m, T>, OutOfMemory> {
        let object = self.cache.alloc_gfp(GfpFlags::KERNEL).ok_or(OutOfMemory)?;
        Ok(Constructed {
            object: object.cast(),
            cache: self.cache,
            owns: PhantomData,
        })
    }

    /// The cache.
    pub const fn cache(&self) -> &'m KmemCache<'m> {
        self.cache
    }
}

/// The owner of an object of a [`ConstructedCache`]. Dropping it frees the object and leaves the
/// value in it.
///
/// # Invariants
/// `object` is a live object of `cache` and holds a `T`.
pub struct Constructed<'m, T> {
    object: NonNull<T>,
    cache: &'m KmemCache<'m>,
    owns: PhantomData<T>,
}

// SAFETY: owns its T as a Box would; the cache is Sync.
unsafe impl<T: Send> Send for Constructed<'_, T> {}
// SAFETY: shared, it gives out only &T.
unsafe impl<T: Sync> Sync for Constructed<'_, T> {}

impl<T> Deref for Constructed<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: by the invariant.
        unsafe { self.object.as_ref() }
    }
}

impl<T> DerefMut for Constructed<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: by the invariant; borrowed exclusively.
        unsafe { self.object.as_mut() }
    }
}

impl<T> Drop for Constructed<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: by the invariant; not used again, and still a T.
        unsafe { self.cache.free(self.object.cast()) };
    }
}

impl<T: fmt::Debug> fmt::Debug for Constructed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
