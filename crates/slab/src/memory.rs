//! The bytes of slabs and objects. All `unsafe` of the crate is here.

use crate::KmemCache;
use crate::flags::CacheFlags;
use crate::geometry::{Geometry, RED_BYTES};
use core::alloc::Layout;
use core::marker::PhantomData;
use core::ptr::NonNull;
use vellum_machine::DirectMap;
use vellum_object::ObjectSource;
use vellum_page::{AllocRequest, PageSource};
use vellum_types::{Order, OutOfMemory, PAGE_SIZE, Pfn};

/// End of the index list.
pub(crate) const END: u16 = u16::MAX;
/// In the index list: this object is live.
pub(crate) const LIVE: u16 = u16::MAX - 1;

/// Linux's `POISON_FREE`, `POISON_END` and `POISON_INUSE`.
const POISON_FREE: u8 = 0x6b;
const POISON_END: u8 = 0xa5;
const POISON_NEW: u8 = 0x5a;
/// Linux's `RED_INACTIVE` and `RED_ACTIVE`.
const RED_FREE: u64 = 0x09f9_1102_9d74_e35b;
const RED_LIVE: u64 = 0xd84a_156c_5635_688c;

/// The bytes of one slab.
///
/// # Invariants
/// `base` is the first of `geometry.bytes` mapped bytes that belong to one slab of the cache
/// of this geometry: the cache makes it only from blocks it took and has not given back. The index
/// list is touched only under the lock of the cache, or before the slab is on a list.
#[derive(Clone, Copy)]
pub(crate) struct Slab<'c> {
    base: NonNull<u8>,
    geometry: &'c Geometry,
}

impl<'c> Slab<'c> {
    /// The slab at `head`, which must belong to the cache of `geometry`.
    #[inline]
    pub(crate) fn at(ram: DirectMap<'_>, head: Pfn, geometry: &'c Geometry) -> Self {
        // INVARIANT: `ptr` checks that the bytes are mapped; the caller vouches for the owner.
        Self {
            base: ram.ptr(head.addr(), geometry.bytes),
            geometry,
        }
    }

    /// The slab into which `object` points `into` bytes deep, where a slab of the cache of
    /// `geometry` is: the caller found it in the memmap.
    #[inline]
    pub(crate) fn around(object: NonNull<u8>, into: u64, geometry: &'c Geometry) -> Self {
        // SAFETY: `object` and the start of its slab lie in the same mapping of RAM.
        let base = unsafe { object.sub(into as usize) };
        // INVARIANT: the slab's bytes are mapped as one, and the caller vouches for the owner.
        Self { base, geometry }
    }

    /// A pointer into the slab.
    ///
    /// # Panics
    /// If that is outside: the index came from damaged memory.
    #[inline]
    fn pointer(&self, offset: usize) -> NonNull<u8> {
        assert!(
            offset < self.geometry.bytes as usize,
            "slab index list is damaged"
        );
        // SAFETY: in bounds of the slab's mapped bytes, by the invariant and the assertion.
        unsafe { self.base.add(offset) }
    }

    /// The object with this index.
    #[inline]
    pub(crate) fn object(&self, index: u16) -> NonNull<u8> {
        let geometry = self.geometry;
        assert!(index < geometry.objects, "slab index list is damaged");
        let offset = geometry.offset + u32::from(index) * geometry.stride;
        // SAFETY: the geometry places `objects` objects inside the slab.
        unsafe { self.base.add(offset as usize) }
    }

    /// Entry `index` of the index list.
    #[inline]
    pub(crate) fn link(&self, index: u16) -> u16 {
        let entry = self.link_pointer(index);
        // SAFETY: in bounds, aligned, initialised by `init_links`, and the lock is held.
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

    /// Makes every object of a new slab free.
    pub(crate) fn init(&self) {
        let objects = self.geometry.objects;
        for index in 0..objects {
            if !self.geometry.bitmap {
                self.set_link(index, if index + 1 == objects { END } else { index + 1 });
            }
            if self.geometry.flags.intersects(CacheFlags::DEBUG) {
                self.mark_free(index);
            }
        }
    }

    /// Debugging aids of an object that is about to be given out. Says what is wrong with it.
    #[cold]
    pub(crate) fn mark_live(&self, index: u16) -> Result<(), &'static str> {
        let object = self.object(index);
        if self.geometry.flags.contains(CacheFlags::RED_ZONE) {
            self.check_red(index, RED_FREE)?;
            self.write_red(index, RED_LIVE);
        }
        if self.geometry.flags.contains(CacheFlags::POISON) {
            let size = self.geometry.layout.size();
            for i in 0..size {
                let expected = if i + 1 == size {
                    POISON_END
                } else {
                    POISON_FREE
                };
                let byte = self.byte(index, i);
                // SAFETY: inside the object, which is free and was filled when it became so.
                if unsafe { byte.read() } != expected {
                    return Err("object was written after it was freed");
                }
            }
            // SAFETY: the object is free and has `size` bytes.
            unsafe { object.write_bytes(POISON_NEW, size) };
        }
        Ok(())
    }

    /// Checks the red zones of a live object. Says what is wrong with it.
    #[cold]
    pub(crate) fn check_live(&self, index: u16) -> Result<(), &'static str> {
        if self.geometry.flags.contains(CacheFlags::RED_ZONE) {
            self.check_red(index, RED_LIVE)?;
        }
        Ok(())
    }

    /// Debugging aids of an object that is free from now on.
    #[cold]
    pub(crate) fn mark_free(&self, index: u16) {
        if self.geometry.flags.contains(CacheFlags::RED_ZONE) {
            self.write_red(index, RED_FREE);
        }
        let size = self.geometry.layout.size();
        if self.geometry.flags.contains(CacheFlags::POISON) && size > 0 {
            let object = self.object(index);
            // SAFETY: nobody uses the object any more, and it has `size` bytes.
            unsafe { object.write_bytes(POISON_FREE, size) };
            let last = self.byte(index, size - 1);
            // SAFETY: the last byte of the object, which nobody uses any more.
            unsafe { last.write(POISON_END) };
        }
    }

    /// Byte `i` of an object.
    fn byte(&self, index: u16, i: usize) -> NonNull<u8> {
        let stride = self.geometry.stride as usize;
        self.pointer(self.geometry.offset as usize + usize::from(index) * stride + i)
    }

    /// Both red zones of an object: with the flag the geometry has room for them.
    fn red_pointers(&self, index: u16) -> [NonNull<u64>; 2] {
        let start =
            self.geometry.offset as usize + usize::from(index) * self.geometry.stride as usize;
        let end = start + self.geometry.layout.size().max(1).next_multiple_of(8);
        [
            self.pointer(start - RED_BYTES).cast(),
            self.pointer(end).cast(),
        ]
    }

    fn check_red(&self, index: u16, expected: u64) -> Result<(), &'static str> {
        let [before, behind] = self.red_pointers(index);
        // SAFETY: aligned to 8 as strides and offsets are, inside the slab, written by `init`.
        if unsafe { before.read() } != expected {
            return Err("object was written before its start");
        }
        // SAFETY: as above.
        if unsafe { behind.read() } != expected {
            return Err("object was written beyond its end");
        }
        Ok(())
    }

    fn write_red(&self, index: u16, value: u64) {
        for zone in self.red_pointers(index) {
            // SAFETY: aligned to 8, inside the slab, and no part of an object.
            unsafe { zone.write(value) };
        }
    }
}

// SAFETY: objects of a slab are disjoint, of the layout or larger, and an index is handed out only
// while it is on its slab's free list, from which that takes it, under the lock. Slabs with live
// objects are never given back.
unsafe impl ObjectSource for KmemCache<'_> {
    #[inline]
    fn alloc_object(&self) -> Option<NonNull<u8>> {
        self.take()
    }
    #[inline]
    unsafe fn free_object(&self, object: NonNull<u8>) {
        // SAFETY: the caller's promise is the same.
        unsafe { self.give_back(object) };
    }
    fn object_layout(&self) -> Layout {
        self.layout()
    }
    fn name(&self) -> &str {
        KmemCache::name(self)
    }
}

/// Room for one value that stays until the end of the machine.
pub(crate) struct Slot<'m, T> {
    memory: NonNull<T>,
    ram: PhantomData<&'m T>,
}

impl<'m, T> Slot<'m, T> {
    /// In pages of its own.
    pub(crate) fn in_pages(source: &'m dyn PageSource) -> Result<Self, OutOfMemory> {
        const { assert!(align_of::<T>() as u64 <= PAGE_SIZE) };
        let order = Order::for_bytes(size_of::<T>() as u64).ok_or(OutOfMemory)?;
        let pfn = source.alloc_pages(AllocRequest::kernel(order))?;
        Ok(Self {
            memory: source.ram().ptr(pfn.addr(), order.bytes()).cast(),
            ram: PhantomData,
        })
    }

    /// In an object of `cache`.
    pub(crate) fn in_cache(cache: &'m KmemCache<'m>) -> Result<Self, OutOfMemory> {
        let (have, need) = (cache.layout(), Layout::new::<T>());
        assert!(have.size() >= need.size() && have.align() >= need.align());
        let memory = cache.take().ok_or(OutOfMemory)?.cast();
        Ok(Self {
            memory,
            ram: PhantomData,
        })
    }

    /// Fills it.
    pub(crate) fn write(self, value: T) -> &'m T {
        // SAFETY: both constructors made sure of size and alignment, and of sole ownership.
        unsafe { self.memory.write(value) };
        // SAFETY: initialised, never freed and never written again, in memory mapped for 'm.
        unsafe { self.memory.as_ref() }
    }
}
