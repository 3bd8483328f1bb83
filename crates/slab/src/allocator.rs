//! All caches.

use crate::cache::{Ground, Identity};
use crate::flags::SlabDebug;
use crate::geometry::Geometry;
use crate::parts::{Head, Shape, Slot};
use crate::sheaf::Block;
use crate::words::{MAX_CACHES, class_of, owner_word};
use crate::{CacheFlags, KmemCache, SlabInfo};
use core::alloc::Layout;
use core::fmt;
use core::ptr::NonNull;
use vellum_machine::{Cpus, LockRank, SpinLock, VmStat};
use vellum_object::ObjectCache;
use vellum_page::PageSource;
use vellum_types::{CpuId, OutOfMemory};

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

/// Makes an object of the memory it is given, which has the layout of its cache and is used by nobody.
pub type Ctor = unsafe fn(NonNull<u8>);

/// What a cache is to be.
#[derive(Clone, Copy, Debug)]
pub struct CacheSpec {
    /// Under which it is reported.
    pub name: &'static str,
    /// Of each object: at most 32 KiB, aligned to at most a page.
    pub layout: Layout,
    /// How objects are treated.
    pub flags: CacheFlags,
    /// Called once for each object of a new slab, not for each allocation: a free object stays
    /// constructed, and is given back in that state.
    pub ctor: Option<Ctor>,
}

/// The list of caches: it only grows.
struct Registry<'m> {
    newest: Option<&'m KmemCache<'m>>,
    next_id: u32,
}

/// All caches of one system, and where new ones come from.
pub struct SlabAllocator<'m> {
    ground: Ground<'m>,
    shape: Shape<'m>,
    debug: SlabDebug<'m>,
    /// Its objects are the other caches.
    caches: &'m KmemCache<'m>,
    registry: SpinLock<Registry<'m>>,
}

impl<'m> SlabAllocator<'m> {
    /// Takes pages for itself, which it never gives back, and has two caches: that of caches and
    /// that of sheaves. The CPUs are those that will ever use it.
    ///
    /// # Errors
    /// Out of memory.
    pub fn boot(
        source: &'m dyn PageSource,
        vmstat: &'m VmStat,
        cpus: Cpus<'m>,
    ) -> Result<&'m Self, OutOfMemory> {
        Self::boot_debug(source, vmstat, cpus, SlabDebug::OFF)
    }

    /// As [`SlabAllocator::boot`], with debugging aids for all caches or for some. Linux's
    /// `slub_debug`.
    ///
    /// # Errors
    /// Out of memory.
    pub fn boot_debug(
        source: &'m dyn PageSource,
        vmstat: &'m VmStat,
        cpus: Cpus<'m>,
        debug: SlabDebug<'m>,
    ) -> Result<&'m Self, OutOfMemory> {
        let shape = Shape::new(cpus);
        let ground = Ground {
            source,
            vmstat,
            sheaves: None,
        };
        // Ids begin at 1.
        let owner = owner_word(1, 0);
        let layout = shape.cache_layout();
        let (slot, pages) = Slot::<KmemCache<'m>>::in_pages(source, shape)?;
        let (parts, place) = slot.lay_out(owner);
        let caches = place.write(KmemCache::new(
            ground,
            Identity {
                name: "kmem_cache",
                owner,
                ctor: None,
                next: None,
            },
            Geometry::new(layout, debug.flags_for("kmem_cache")),
            parts,
            cpus,
        ));
        let finish = || {
            let owner = owner_word(2, 0);
            let (parts, place) = Slot::<KmemCache<'m>>::in_cache(caches, shape)?.lay_out(owner);
            let flags = debug.flags_for("kmem_sheaf");
            let sheaves = place.write(KmemCache::new(
                ground,
                Identity {
                    name: "kmem_sheaf",
                    owner,
                    ctor: None,
                    next: None,
                },
                Geometry::new(Layout::new::<Block>(), flags),
                parts,
                cpus,
            ));
            let registry = Registry {
                newest: Some(sheaves),
                next_id: 3,
            };
            Ok(Head::in_cache(caches)?.write(Self {
                ground: Ground {
                    sheaves: Some(sheaves),
                    ..ground
                },
                shape,
                debug,
                caches,
                registry: SpinLock::new(LockRank::Slab, registry),
            }))
        };
        // What was laid out in the pages is known to nobody if the rest fails.
        finish().inspect_err(|_| source.free_pages(pages))
    }

    /// A cache. Linux's `kmem_cache_create`. A destroyed cache of the same description is used
    /// again.
    ///
    /// # Errors
    /// Out of memory, or a million caches exist.
    ///
    /// # Panics
    /// If objects are larger than 32 KiB or aligned to more than a page; with
    /// [`CacheFlags::PANIC`], instead of an error.
    pub fn create(&'m self, spec: CacheSpec) -> Result<&'m KmemCache<'m>, OutOfMemory> {
        self.create_class(spec, 0)
    }

    /// A cache without constructor; see [`SlabAllocator::create`].
    ///
    /// # Errors
    /// As `create`.
    ///
    /// # Panics
    /// As `create`.
    pub fn create_cache(
        &'m self,
        name: &'static str,
        layout: Layout,
        flags: CacheFlags,
    ) -> Result<&'m KmemCache<'m>, OutOfMemory> {
        self.create(CacheSpec {
            name,
            layout,
            flags,
            ctor: None,
        })
    }

    /// As `create`; `class` is the cache's place in kmalloc's table plus one, or 0.
    pub(crate) fn create_class(
        &'m self,
        spec: CacheSpec,
        class: u8,
    ) -> Result<&'m KmemCache<'m>, OutOfMemory> {
        let mut flags = spec.flags | self.debug.flags_for(spec.name);
        if spec.ctor.is_some() || flags.contains(CacheFlags::TYPESAFE) {
            // The content of a free object is somebody's.
            flags.remove(CacheFlags::POISON);
        }
        let spec = CacheSpec { flags, ..spec };
        let cache = self.make(spec, class);
        assert!(
            cache.is_ok() || !flags.contains(CacheFlags::PANIC),
            "no memory for slab cache {}",
            spec.name
        );
        cache
    }

    fn make(&'m self, spec: CacheSpec, class: u8) -> Result<&'m KmemCache<'m>, OutOfMemory> {
        let same = |cache: &&KmemCache<'m>| {
            let ctor = |f: Option<Ctor>| f.map(|f| f as usize);
            cache.name() == spec.name
                && cache.layout() == spec.layout
                && cache.flags() == spec.flags
                && ctor(cache.ctor) == ctor(spec.ctor)
                && class_of(cache.owner) == u32::from(class)
                // What is in the objects of a slab that waits may be another type's: two
                // constructors can be one piece of code.
                && (spec.ctor.is_none() || cache.info().num_slabs == 0)
        };
        if let Some(old) = self.all().filter(same).find(|cache| cache.revive()) {
            return Ok(old);
        }
        let geometry = Geometry::new(spec.layout, spec.flags);
        let slot = Slot::<KmemCache<'m>>::in_cache(self.caches, self.shape)?;
        let mut registry = self.registry.lock();
        let (id, next) = (registry.next_id, registry.newest);
        if id == MAX_CACHES {
            drop(registry);
            slot.give_back(self.caches);
            return Err(OutOfMemory);
        }
        registry.next_id += 1;
        let owner = owner_word(id, class);
        let (parts, place) = slot.lay_out(owner);
        let cache: &'m KmemCache<'m> = place.write(KmemCache::new(
            self.ground,
            Identity {
                name: spec.name,
                owner,
                ctor: spec.ctor,
                next,
            },
            geometry,
            parts,
            self.shape.cpus,
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

    /// Gives the pages of `cache` back and lets it refuse from now on. Linux's
    /// `kmem_cache_destroy`. Slabs whose free objects wait on other CPUs follow when those drain,
    /// slabs of a type-safe cache at the next grace point.
    ///
    /// # Errors
    /// It has live objects; nothing changed. The cache of caches always has.
    pub fn destroy_cache(&self, cache: &'m KmemCache<'m>) -> Result<(), LiveObjects> {
        let own = self.ground.sheaves.into_iter().chain([self.caches]);
        if own.into_iter().any(|own| core::ptr::eq(cache, own)) {
            return Err(LiveObjects {
                count: cache.info().active_objs.max(1),
            });
        }
        cache.retire().map_err(|count| LiveObjects { count })
    }

    /// Gives back what all caches can spare: see [`KmemCache::shrink`]. Returns the pages freed.
    pub fn shrink(&'m self) -> u64 {
        // The cache of sheaves comes after those that use it.
        self.caches().map(KmemCache::shrink).sum()
    }

    /// Gives this CPU's free objects of all caches back to their slabs. A kernel calls it now and
    /// then on each CPU, say from its timer, so that an idle CPU does not sit on memory that others
    /// asked for.
    pub fn drain_local(&'m self) {
        self.caches().for_each(KmemCache::drain_local);
    }

    /// Gives the free objects of a CPU that does not run back to their slabs.
    ///
    /// # Safety
    /// As [`KmemCache::drain_stopped`].
    pub unsafe fn drain_stopped(&'m self, cpu: CpuId) {
        for cache in self.caches() {
            // SAFETY: the caller's promise is the same.
            unsafe { cache.drain_stopped(cpu) };
        }
    }

    /// The grace point of type-safe caches: their slabs that became empty before may now be
    /// used for something else. Returns the pages freed.
    ///
    /// # Safety
    /// Nobody holds a pointer, to be followed later, to an object of a [`CacheFlags::TYPESAFE`]
    /// cache that was freed before this call. RCU's grace period gives that.
    pub unsafe fn quiesce(&'m self) -> u64 {
        self.all().map(KmemCache::release_deferred).sum()
    }

    /// The caches, newest first, those of sheaves and of caches last.
    pub fn caches(&'m self) -> impl Iterator<Item = &'m KmemCache<'m>> {
        self.all()
            .filter(|cache| !cache.is_dead())
            .chain([self.caches])
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
        self.caches.validate()?;
        self.all().try_for_each(KmemCache::validate)
    }

    pub(crate) const fn source(&self) -> &'m dyn PageSource {
        self.ground.source
    }
    pub(crate) const fn vmstat(&self) -> &'m VmStat {
        self.ground.vmstat
    }
    pub(crate) const fn cache_of_caches(&self) -> &'m KmemCache<'m> {
        self.caches
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
