//! The bytes of slabs.

use crate::Ctor;
use crate::flags::CacheFlags;
use crate::geometry::Geometry;
use core::ptr::NonNull;
use vellum_machine::DirectMap;
use vellum_types::Pfn;

/// End of the index list.
pub(crate) const END: u16 = u16::MAX;
/// In the index list: this object is live, or in a sheaf.
pub(crate) const LIVE: u16 = u16::MAX - 1;

/// The bytes of one slab.
///
/// # Invariants
/// `base` is the first of `geometry.bytes` mapped bytes that belong to one slab of the cache
/// of this geometry: the cache makes it only from blocks it took and has not given back. The index
/// list is touched only under the lock of its node, or before the slab is on a list. `first` is the
/// geometry's for a colour that it has.
#[derive(Clone, Copy)]
pub(crate) struct Slab<'c> {
    base: NonNull<u8>,
    /// Of the first object.
    first: u32,
    geometry: &'c Geometry,
}

impl<'c> Slab<'c> {
    /// The slab at `head`, which must belong to the cache of `geometry`.
    #[inline]
    pub(crate) fn at(ram: DirectMap<'_>, head: Pfn, colour: u8, geometry: &'c Geometry) -> Self {
        assert!(
            u16::from(colour) < geometry.colours,
            "slab descriptor is damaged"
        );
        // INVARIANT: `ptr` checks that the bytes are mapped, the assertion the colour; the caller
        // vouches for the owner.
        Self {
            base: ram.ptr(head.addr(), geometry.bytes),
            first: geometry.first(colour),
            geometry,
        }
    }

    pub(crate) const fn geometry(&self) -> &'c Geometry {
        self.geometry
    }

    /// A pointer into the slab.
    ///
    /// # Panics
    /// If that is outside: the index came from damaged memory.
    #[inline]
    pub(crate) fn pointer(&self, offset: usize) -> NonNull<u8> {
        assert!(
            offset < self.geometry.bytes as usize,
            "slab index list is damaged"
        );
        // SAFETY: in bounds of the slab's mapped bytes, by the invariant and the assertion.
        unsafe { self.base.add(offset) }
    }

    /// How many bytes into the slab `object` is; `None` if it lies outside.
    #[inline]
    pub(crate) fn offset_in(&self, object: NonNull<u8>) -> Option<u64> {
        let into = object
            .as_ptr()
            .addr()
            .wrapping_sub(self.base.as_ptr().addr()) as u64;
        (into < self.geometry.bytes).then_some(into)
    }

    /// Where the object with this index begins.
    #[inline]
    pub(crate) fn offset_of(&self, index: u16) -> usize {
        self.first as usize + usize::from(index) * self.geometry.stride as usize
    }

    /// The object with this index.
    #[inline]
    pub(crate) fn object(&self, index: u16) -> NonNull<u8> {
        assert!(index < self.geometry.objects, "slab index list is damaged");
        // SAFETY: the geometry places `objects` objects inside the slab, in every colour.
        unsafe { self.base.add(self.offset_of(index)) }
    }

    /// Entry `index` of the index list.
    #[inline]
    pub(crate) fn link(&self, index: u16) -> u16 {
        let entry = self.link_pointer(index);
        // SAFETY: in bounds, aligned, initialised by `init`, and the lock is held.
        unsafe { entry.read() }
    }

    /// Sets entry `index` of the index list.
    #[inline]
    pub(crate) fn set_link(&self, index: u16, link: u16) {
        let entry = self.link_pointer(index);
        // SAFETY: in bounds, aligned, and the lock is held.
        unsafe { entry.write(link) }
    }

    #[inline]
    fn link_pointer(&self, index: u16) -> NonNull<u16> {
        assert!(index < self.geometry.objects, "slab index list is damaged");
        debug_assert!(!self.geometry.bitmap);
        // SAFETY: the geometry begins the slab with `objects` entries; a slab is page aligned.
        unsafe { self.base.cast::<u16>().add(usize::from(index)) }
    }

    /// Makes every object of a new slab free, and constructed if `ctor` is given.
    pub(crate) fn init(&self, ctor: Option<Ctor>) {
        let objects = self.geometry.objects;
        for index in 0..objects {
            if !self.geometry.bitmap {
                self.set_link(index, if index + 1 == objects { END } else { index + 1 });
            }
            if let Some(ctor) = ctor {
                // SAFETY: an object of a new slab, of the layout that the constructor was given for.
                unsafe { ctor(self.object(index)) };
            }
            if self.geometry.flags.intersects(CacheFlags::DEBUG) {
                self.mark_new(index);
            }
        }
    }
}
