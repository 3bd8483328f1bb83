//! The handles.

use crate::ObjectSource;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::pin::Pin;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering, fence};

#[repr(C)]
pub(crate) struct BoxInner<'m, T> {
    pub(crate) source: &'m dyn ObjectSource,
    pub(crate) value: T,
}

/// The sole owner of an object in a machine's memory.
pub struct KBox<'m, T> {
    inner: NonNull<BoxInner<'m, T>>,
    owns: PhantomData<(T, &'m ())>,
}

// SAFETY: a KBox owns its T as a Box would; the source is Sync.
unsafe impl<T: Send> Send for KBox<'_, T> {}
// SAFETY: a shared KBox gives out only &T.
unsafe impl<T: Sync> Sync for KBox<'_, T> {}

impl<'m, T> KBox<'m, T> {
    pub(crate) fn from_inner(inner: NonNull<BoxInner<'m, T>>) -> Self {
        Self {
            inner,
            owns: PhantomData,
        }
    }

    /// Promises that the value is not moved again.
    pub fn into_pin(self) -> Pin<Self> {
        // SAFETY: the value lies in its object until it is dropped there: a pinned box gives out no
        // `&mut T` for a T that cares, and `into_value` takes the box itself.
        unsafe { Pin::new_unchecked(self) }
    }

    /// Moves the value out and frees the object.
    pub fn into_value(self) -> T {
        let this = core::mem::ManuallyDrop::new(self);
        // SAFETY: the object is initialised; `this` is never used again, so it is read once.
        let inner = unsafe { this.inner.read() };
        // SAFETY: the memory came from this source and was given up by the read above.
        unsafe { inner.source.free_object(this.inner.cast()) };
        inner.value
    }
}

// The box may be moved: its value stays where it is.
impl<T> Unpin for KBox<'_, T> {}

impl<T> Deref for KBox<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the object is initialised and owned by self.
        unsafe { &self.inner.as_ref().value }
    }
}

impl<T> DerefMut for KBox<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the object is initialised and owned by self, which is borrowed exclusively.
        unsafe { &mut self.inner.as_mut().value }
    }
}

impl<T> Drop for KBox<'_, T> {
    fn drop(&mut self) {
        // SAFETY: the object is initialised; the reference field is plain data.
        let source = unsafe { self.inner.as_ref().source };
        // SAFETY: initialised, owned, and not used after this.
        unsafe { self.inner.drop_in_place() };
        // SAFETY: the memory came from this source, and its value is gone.
        unsafe { source.free_object(self.inner.cast()) };
    }
}

impl<T: fmt::Debug> fmt::Debug for KBox<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[repr(C)]
pub(crate) struct ArcInner<'m, T> {
    source: &'m dyn ObjectSource,
    count: AtomicU32,
    value: T,
}

impl<'m, T> ArcInner<'m, T> {
    pub(crate) fn new(source: &'m dyn ObjectSource, value: T) -> Self {
        Self {
            source,
            count: AtomicU32::new(1),
            value,
        }
    }

    pub(crate) fn into_value(self) -> T {
        self.value
    }
}

/// One of several owners of an object in a machine's memory.
pub struct KArc<'m, T> {
    inner: NonNull<ArcInner<'m, T>>,
    owns: PhantomData<(T, &'m ())>,
}

// SAFETY: as for Arc: any owner may read or drop the T from any thread.
unsafe impl<T: Send + Sync> Send for KArc<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for KArc<'_, T> {}

impl<'m, T> KArc<'m, T> {
    pub(crate) fn from_inner(inner: NonNull<ArcInner<'m, T>>) -> Self {
        Self {
            inner,
            owns: PhantomData,
        }
    }

    fn inner(&self) -> &ArcInner<'m, T> {
        // SAFETY: the object is initialised and lives while any owner does.
        unsafe { self.inner.as_ref() }
    }

    /// True if both own the same object.
    pub fn ptr_eq(a: &Self, b: &Self) -> bool {
        a.inner == b.inner
    }

    /// How many owners there are; a snapshot, exact only under a lock that stops new owners.
    pub fn strong_count(this: &Self) -> u32 {
        // Relaxed: the caller's lock orders it, if it matters.
        this.inner().count.load(Ordering::Relaxed)
    }

    /// The value itself, if this is its only owner; else the handle again.
    ///
    /// # Errors
    /// There are other owners.
    pub fn try_unwrap(this: Self) -> Result<T, Self> {
        // Acquire pairs with the Release in drop: the other owners' uses are over. From 1 to 0, so
        // that an owner that is made at this moment is impossible: it would be made from `this`.
        let count = &this.inner().count;
        if count
            .compare_exchange(1, 0, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            return Err(this);
        }
        let this = core::mem::ManuallyDrop::new(this);
        // SAFETY: initialised; no owner is left, so it is read once.
        let inner = unsafe { this.inner.read() };
        // SAFETY: the memory came from this source and was given up by the read above.
        unsafe { inner.source.free_object(this.inner.cast()) };
        Ok(inner.value)
    }

    /// The value, if this is its only owner.
    pub fn get_mut(this: &mut Self) -> Option<&mut T> {
        // Acquire pairs with the Release in drop: the other owners' uses are over.
        if this.inner().count.load(Ordering::Acquire) == 1 {
            // SAFETY: the only owner is borrowed exclusively, so nobody else can reach the value.
            Some(unsafe { &mut this.inner.as_mut().value })
        } else {
            None
        }
    }
}

impl<T> Clone for KArc<'_, T> {
    #[inline]
    fn clone(&self) -> Self {
        // Relaxed: an owner already exists here, so the object cannot vanish meanwhile.
        let old = self.inner().count.fetch_add(1, Ordering::Relaxed);
        assert!(old < u32::MAX / 2, "reference count overflow");
        Self {
            inner: self.inner,
            owns: PhantomData,
        }
    }
}

impl<T> Deref for KArc<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.inner().value
    }
}

impl<T> Drop for KArc<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // Release: our uses happen before the last owner's Acquire below.
        if self.inner().count.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        fence(Ordering::Acquire);
        let source = self.inner().source;
        // SAFETY: the last owner; initialised, and not used after this.
        unsafe { self.inner.drop_in_place() };
        // SAFETY: the memory came from this source, and its value is gone.
        unsafe { source.free_object(self.inner.cast()) };
    }
}

impl<T: fmt::Debug> fmt::Debug for KArc<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
