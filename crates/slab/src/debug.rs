//! Debugging aids of objects: poison, red zones, call sites.

use crate::flags::CacheFlags;
use crate::geometry::RED_BYTES;
use crate::memory::Slab;
use core::panic::Location;
use core::ptr::NonNull;

/// Linux's `POISON_FREE`, `POISON_END` and `POISON_INUSE`.
const POISON_FREE: u8 = 0x6b;
const POISON_END: u8 = 0xa5;
const POISON_NEW: u8 = 0x5a;
/// Linux's `SLUB_RED_INACTIVE` and `SLUB_RED_ACTIVE`.
const RED_FREE: u8 = 0xbb;
const RED_LIVE: u8 = 0xcc;

/// A line of source.
pub(crate) type Site = &'static Location<'static>;

/// Who used an object last.
#[derive(Clone, Copy, Default)]
pub(crate) struct Users {
    pub(crate) allocated: Option<Site>,
    pub(crate) freed: Option<Site>,
}

impl Slab<'_> {
    fn has(&self, flag: CacheFlags) -> bool {
        self.geometry().flags.contains(flag)
    }

    /// An object that was never used.
    #[cold]
    pub(crate) fn mark_new(&self, index: u16) {
        self.set_users(index, Users::default());
        self.fill_free(index);
    }

    /// An object that is about to be given out. Says what is wrong with it.
    #[cold]
    pub(crate) fn mark_live(&self, index: u16, site: Site) -> Result<(), &'static str> {
        if self.has(CacheFlags::RED_ZONE) {
            self.check_red(index, RED_FREE)?;
            self.write_red(index, RED_LIVE);
        }
        if self.has(CacheFlags::POISON) {
            let size = self.geometry().layout.size();
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
            unsafe { self.object(index).write_bytes(POISON_NEW, size) };
        }
        let freed = self.users(index).freed;
        self.set_users(
            index,
            Users {
                allocated: Some(site),
                freed,
            },
        );
        Ok(())
    }

    /// Checks the red zones of a live object. Says what is wrong with it.
    #[cold]
    pub(crate) fn check_live(&self, index: u16) -> Result<(), &'static str> {
        if self.has(CacheFlags::RED_ZONE) {
            self.check_red(index, RED_LIVE)?;
        }
        Ok(())
    }

    /// An object that is free from now on.
    #[cold]
    pub(crate) fn mark_free(&self, index: u16, site: Site) {
        let allocated = self.users(index).allocated;
        self.set_users(
            index,
            Users {
                allocated,
                freed: Some(site),
            },
        );
        self.fill_free(index);
    }

    fn fill_free(&self, index: u16) {
        if self.has(CacheFlags::RED_ZONE) {
            self.write_red(index, RED_FREE);
        }
        let size = self.geometry().layout.size();
        if self.has(CacheFlags::POISON) && size > 0 {
            // SAFETY: nobody uses the object any more, and it has `size` bytes.
            unsafe { self.object(index).write_bytes(POISON_FREE, size) };
            let last = self.byte(index, size - 1);
            // SAFETY: the last byte of the object, which nobody uses any more.
            unsafe { last.write(POISON_END) };
        }
    }

    /// Byte `i` of an object.
    fn byte(&self, index: u16, i: usize) -> NonNull<u8> {
        self.pointer(self.offset_of(index) + i)
    }

    /// Both red zones of an object, with their lengths: the second starts with the first byte
    /// behind the object and is longer if the object's size is no multiple of 8.
    fn red_zones(&self, index: u16) -> [(NonNull<u8>, usize); 2] {
        let start = self.offset_of(index);
        let size = self.geometry().layout.size();
        let end = size.max(1).next_multiple_of(8) + RED_BYTES;
        [
            (self.pointer(start - RED_BYTES), RED_BYTES),
            (self.pointer(start + size), end - size),
        ]
    }

    fn check_red(&self, index: u16, expected: u8) -> Result<(), &'static str> {
        let whats = [
            "object was written before its start",
            "object was written beyond its end",
        ];
        for ((zone, len), what) in self.red_zones(index).into_iter().zip(whats) {
            for i in 0..len {
                // SAFETY: with the flag the geometry has room for `len` bytes there.
                let byte = unsafe { zone.add(i) };
                // SAFETY: inside the slab, written by `init`, and no part of an object.
                if unsafe { byte.read() } != expected {
                    return Err(what);
                }
            }
        }
        Ok(())
    }

    fn write_red(&self, index: u16, value: u8) {
        for (zone, len) in self.red_zones(index) {
            // SAFETY: inside the slab by the geometry, and no part of an object.
            unsafe { zone.write_bytes(value, len) };
        }
    }

    fn users_pointer(&self, index: u16) -> NonNull<Users> {
        let offset = self.offset_of(index) + self.geometry().user_offset as usize;
        self.pointer(offset).cast()
    }

    /// Who used the object last; nobody without STORE_USER.
    pub(crate) fn users(&self, index: u16) -> Users {
        if !self.has(CacheFlags::STORE_USER) {
            return Users::default();
        }
        // SAFETY: with the flag the geometry has room for it, aligned to 8 as strides and offsets
        // are, and `mark_new` wrote it.
        unsafe { self.users_pointer(index).read() }
    }

    fn set_users(&self, index: u16, users: Users) {
        if self.has(CacheFlags::STORE_USER) {
            // SAFETY: as in `users`; no part of an object.
            unsafe { self.users_pointer(index).write(users) };
        }
    }
}
