//! Where objects come from.

use crate::handle::{ArcInner, BoxInner, KArc, KBox};
use core::alloc::Layout;
use core::marker::PhantomData;
use core::panic::Location;
use core::pin::Pin;
use core::ptr::NonNull;
use vellum_types::OutOfMemory;

/// A provider of equal-sized pieces of memory.
///
/// # Safety
/// Memory returned by `alloc_object` must have at least the layout of `object_layout`, overlap no
/// other live object, and stay mapped until it is given back to `free_object` of the same source.
pub unsafe trait ObjectSource: Sync {
    /// Uninitialised memory for one object, or `None` if there is none.
    fn alloc_object(&self) -> Option<NonNull<u8>>;

    /// As [`ObjectSource::alloc_object`], on behalf of a line of source, which a source with
    /// debugging aids remembers.
    #[inline]
    fn alloc_object_at(&self, site: &'static Location<'static>) -> Option<NonNull<u8>> {
        let _ = site;
        self.alloc_object()
    }

    /// Takes one object's memory back.
    ///
    /// # Safety
    /// `object` came from `alloc_object` of this source, and nobody uses it any more.
    unsafe fn free_object(&self, object: NonNull<u8>);

    /// Size and alignment of each object.
    fn object_layout(&self) -> Layout;

    /// The name under which it is reported.
    fn name(&self) -> &str;
}

/// A source that is known to fit objects of type `T`.
pub struct ObjectCache<'m, T> {
    source: &'m dyn ObjectSource,
    object: PhantomData<fn() -> T>,
}

impl<T> Clone for ObjectCache<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for ObjectCache<'_, T> {}

impl<'m, T> ObjectCache<'m, T> {
    /// The layout that a source must offer to hold a [`KBox`] of `T`.
    pub const BOX_LAYOUT: Layout = Layout::new::<BoxInner<'static, T>>();
    /// The layout that a source must offer to hold a [`KArc`] of `T`.
    pub const ARC_LAYOUT: Layout = Layout::new::<ArcInner<'static, T>>();

    /// Types a source.
    pub const fn new(source: &'m dyn ObjectSource) -> Self {
        Self {
            source,
            object: PhantomData,
        }
    }

    /// The source.
    pub const fn source(&self) -> &'m dyn ObjectSource {
        self.source
    }

    #[track_caller]
    fn place<I>(&self, inner: I) -> Result<NonNull<I>, (I, OutOfMemory)> {
        let have = self.source.object_layout();
        let need = Layout::new::<I>();
        // A constant of each cache: a wrong one is a bug at its creation, seen at the first use.
        assert!(
            have.size() >= need.size() && have.align() >= need.align(),
            "cache {} is too small for its objects",
            self.source.name()
        );
        match self.source.alloc_object_at(Location::caller()) {
            Some(memory) => {
                let object = memory.cast::<I>();
                // SAFETY: the source promises exclusive memory of its layout, which was just
                // checked to hold an `I`.
                unsafe { object.write(inner) };
                Ok(object)
            }
            None => Err((inner, OutOfMemory)),
        }
    }

    /// Moves `value` into a new object with one owner.
    ///
    /// # Errors
    /// Out of memory; `value` is dropped.
    ///
    /// # Panics
    /// If the source was made for smaller objects.
    #[track_caller]
    pub fn boxed(&self, value: T) -> Result<KBox<'m, T>, OutOfMemory> {
        self.try_boxed(value).map_err(|(_, error)| error)
    }

    /// Like [`ObjectCache::boxed`], for a value that must not just be dropped.
    ///
    /// # Errors
    /// Out of memory, with the value.
    ///
    /// # Panics
    /// If the source was made for smaller objects.
    #[track_caller]
    pub fn try_boxed(&self, value: T) -> Result<KBox<'m, T>, (T, OutOfMemory)> {
        let inner = BoxInner {
            source: self.source,
            value,
        };
        match self.place(inner) {
            Ok(inner) => Ok(KBox::from_inner(inner)),
            Err((inner, error)) => Err((inner.value, error)),
        }
    }

    /// Like [`ObjectCache::boxed`], for a value that is never moved again.
    ///
    /// # Errors
    /// Out of memory; `value` is dropped.
    ///
    /// # Panics
    /// If the source was made for smaller objects.
    #[track_caller]
    pub fn pinned(&self, value: T) -> Result<Pin<KBox<'m, T>>, OutOfMemory> {
        self.boxed(value).map(KBox::into_pin)
    }

    /// Moves `value` into a new object with a reference count of one.
    ///
    /// # Errors
    /// Out of memory; `value` is dropped.
    ///
    /// # Panics
    /// If the source was made for smaller objects.
    #[track_caller]
    pub fn shared(&self, value: T) -> Result<KArc<'m, T>, OutOfMemory> {
        self.try_shared(value).map_err(|(_, error)| error)
    }

    /// Like [`ObjectCache::shared`], for a value that must not just be dropped.
    ///
    /// # Errors
    /// Out of memory, with the value.
    ///
    /// # Panics
    /// If the source was made for smaller objects.
    #[track_caller]
    pub fn try_shared(&self, value: T) -> Result<KArc<'m, T>, (T, OutOfMemory)> {
        match self.place(ArcInner::new(self.source, value)) {
            Ok(inner) => Ok(KArc::from_inner(inner)),
            Err((inner, error)) => Err((inner.into_value(), error)),
        }
    }
}
