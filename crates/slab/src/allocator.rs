//! All caches.

use crate::geometry::Geometry;
use crate::memory::Slot;
use crate::{CacheFlags, KmemCache, SlabInfo};
use core::alloc::Layout;
use core::fmt;
use vellum_machine::{LockRank, SpinLock, VmStat};
use vellum_object::ObjectCache;
use vellum_page::PageSource;
use vellum_types::OutOfMemory;

/// A cache was not destroyed because objects of it are in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LiveObjects {
    /// How many.
    pub count: u64,
}

impl fmt::Display for LiveObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} objects of the cache are in use", self.count)
    }
}

impl core::error::Error for LiveObjects {}

/// The list of caches: it only grows.
struct Registry<'m> {
    newest: Option<&'m KmemCache<'m>>,
    next_id: u32,
}

/// All caches of one system, and where new ones come from.
pub struct SlabAllocator<'m> {
    source: &'m dyn PageSource,
    vmstat: &'m VmStat,
    /// Its objects are the other caches.
    cache_of_caches: KmemCache<'m>,
    registry: SpinLock<Registry<'m>>,
}

impl<'m> SlabAllocator<'m> {
    /// Takes pages for itself, which it never gives back, and has one cache: that of caches.
    ///
    /// # Errors
    /// Out of memory.
    pub fn boot(source: &'m dyn PageSource, vmstat: &'m VmStat) -> Result<&'m Self, OutOfMemory> {
        let slot = Slot::<Self>::in_pages(source)?;
        let geometry = Geometry::new(Layout::new::<KmemCache<'m>>(), CacheFlags::HWCACHE_ALIGN);
        // Ids begin at 1: an owner word of 0 is nobody's.
        let cache_of_caches = KmemCache::new(source, vmstat, "kmem_cache", geometry, 1, None);
        let registry = SpinLock::new(
            LockRank::Slab,
            Registry {
                newest: None,
                next_id: 2,
            },
        );
        Ok(slot.write(Self {
            source,
            vmstat,
            cache_of_caches,
            registry,
        }))
    }

    /// A cache of objects of `layout`. Linux's `kmem_cache_create`. A destroyed cache of the same
    /// name, layout and flags is used again.
    ///
    /// # Errors
    /// Out of memory.
    ///
    /// # Panics
    /// If objects are larger than 32 KiB or aligned to more than a page.
    pub fn create_cache(
        &'m self,
        name: &'static str,
        layout: Layout,
        flags: CacheFlags,
    ) -> Result<&'m KmemCache<'m>, OutOfMemory> {
        let same = |cache: &&KmemCache<'m>| {
            cache.name() == name && cache.layout() == layout && cache.flags() == flags
        };
        if let Some(old) = self.all().filter(same).find(|cache| cache.revive()) {
            return Ok(old);
        }
        let geometry = Geometry::new(layout, flags);
        let slot = Slot::in_cache(&self.cache_of_caches)?;
        let mut registry = self.registry.lock();
        let (id, next) = (registry.next_id, registry.newest);
        registry.next_id += 1;
        let cache: &'m KmemCache<'m> = slot.write(KmemCache::new(
            self.source,
            self.vmstat,
            name,
            geometry,
            id,
            next,
        ));
        registry.newest = Some(cache);
        Ok(cache)
    }

    /// A cache for boxes of `T`.
    ///
    /// # Errors
    /// Out of memory.
    pub fn typed_box<T>(&'m self, name: &'static str) -> Result<ObjectCache<'m, T>, OutOfMemory> {
        let layout = ObjectCache::<T>::BOX_LAYOUT;
        Ok(ObjectCache::new(self.create_cache(
            name,
            layout,
            CacheFlags::empty(),
        )?))
    }

    /// A cache for shared objects `T`.
    ///
    /// # Errors
    /// Out of memory.
    pub fn typed_arc<T>(&'m self, name: &'static str) -> Result<ObjectCache<'m, T>, OutOfMemory> {
        let layout = ObjectCache::<T>::ARC_LAYOUT;
        Ok(ObjectCache::new(self.create_cache(
            name,
            layout,
            CacheFlags::empty(),
        )?))
    }

    /// Gives all pages of `cache` back and lets it refuse from now on. Linux's
    /// `kmem_cache_destroy`.
    ///
    /// # Errors
    /// It has live objects; nothing changed. The cache of caches always has.
    pub fn destroy_cache(&self, cache: &'m KmemCache<'m>) -> Result<(), LiveObjects> {
        if core::ptr::eq(cache, &self.cache_of_caches) {
            return Err(LiveObjects {
                count: cache.info().active_objs.max(1),
            });
        }
        cache.retire().map_err(|count| LiveObjects { count })
    }

    /// Gives all empty slabs back. Returns the pages freed.
    pub fn shrink(&'m self) -> u64 {
        self.caches().map(KmemCache::shrink).sum()
    }

    /// The caches, newest first, the cache of caches last.
    pub fn caches(&'m self) -> impl Iterator<Item = &'m KmemCache<'m>> {
        self.all()
            .filter(|cache| !cache.is_dead())
            .chain([&self.cache_of_caches])
    }

    /// The lines of `/proc/slabinfo`, in the order of [`SlabAllocator::caches`].
    pub fn slabinfo(&'m self) -> impl Iterator<Item = SlabInfo> {
        self.caches().map(KmemCache::info)
    }

    /// Checks all caches.
    ///
    /// # Errors
    /// Which invariant is broken.
    pub fn validate(&'m self) -> Result<(), &'static str> {
        self.cache_of_caches.validate()?;
        self.all().try_for_each(KmemCache::validate)
    }

    /// Living and destroyed caches but the cache of caches.
    fn all(&self) -> impl Iterator<Item = &'m KmemCache<'m>> + use<'m> {
        // Bound here: the lock is not held while the list, which only grows in front, is walked.
        let newest = self.registry.lock().newest;
        core::iter::successors(newest, |cache| cache.next)
    }
}

impl fmt::Debug for SlabAllocator<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.all().filter(|cache| !cache.is_dead()))
            .finish()
    }
}
