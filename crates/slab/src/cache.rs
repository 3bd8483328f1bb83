//! One cache: what it is, and the paths that are taken each time.

use crate::debug::Site;
use crate::geometry::Geometry;
use crate::node::Lists;
use crate::parts::Parts;
use crate::sheaf::{CAPACITY, CpuPublic, CpuSheaves};
use crate::{CacheFlags, Ctor, SlabInfo};
use core::alloc::Layout;
use core::panic::Location;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering};
use vellum_machine::{Cpus, DirectMap, PerCpu, SpinLock, VmItem, VmStat};
use vellum_object::ObjectSource;
use vellum_page::{Memmap, Page, PageSource};
use vellum_types::{GfpFlags, PAGE_SHIFT, Pfn};

/// What all caches of a system share.
#[derive(Clone, Copy)]
pub(crate) struct Ground<'m> {
    pub(crate) source: &'m dyn PageSource,
    pub(crate) vmstat: &'m VmStat,
    /// The cache of sheaves; none for the caches that sheaves depend on.
    pub(crate) sheaves: Option<&'m KmemCache<'m>>,
}

/// What tells a cache from others.
pub(crate) struct Identity<'m> {
    pub(crate) name: &'static str,
    /// The owner word of its slabs on node 0.
    pub(crate) owner: u32,
    pub(crate) ctor: Option<Ctor>,
    /// The cache that was made before it.
    pub(crate) next: Option<&'m KmemCache<'m>>,
}

/// The descriptors of all frames, found by address.
#[derive(Clone, Copy)]
pub(crate) struct Frames<'m> {
    pub(crate) memmap: Memmap<'m>,
    ram: DirectMap<'m>,
    /// The address at which the first of the largest run of frames is seen; behind all others if it has
    /// none.
    first: usize,
}

impl<'m> Frames<'m> {
    pub(crate) fn new(source: &'m dyn PageSource) -> Self {
        let memmap = source.memmap();
        let ram = source.ram();
        let (start, len) = (ram.span().start(), ram.span().len());
        let behind = ram.ptr(start, len).as_ptr().addr() + len as usize;
        let first = ram.try_ptr(memmap.largest_run().start().addr(), 1);
        Self {
            memmap,
            ram,
            first: first.map_or(behind, |first| first.as_ptr().addr()),
        }
    }

    /// The descriptor of the page that `object` is in.
    #[inline(always)]
    pub(crate) fn page_of(&self, object: NonNull<u8>) -> Option<&'m Page> {
        // An address below the first wraps to one far above.
        let into = object.as_ptr().addr().wrapping_sub(self.first);
        match self.memmap.nth(into >> PAGE_SHIFT) {
            Some(page) => Some(page),
            None => self.elsewhere(object),
        }
    }

    /// As `page_of`, outside the largest run.
    #[inline(never)]
    fn elsewhere(&self, object: NonNull<u8>) -> Option<&'m Page> {
        let frame = Pfn::containing(self.ram.phys_of(object)?)?;
        self.memmap.try_page(frame)
    }
}

/// Bytes of the free objects that a node keeps in sheaves.
const BARN_BYTES: u32 = 64 << 10;

/// How much a cache keeps outside of its slabs.
#[derive(Clone, Copy)]
pub(crate) struct Tunables {
    /// Objects of a CPU's full sheaf: at first, and at most after many misses. 0: no sheaves.
    pub(crate) first_limit: u32,
    pub(crate) max_limit: u32,
    /// Full sheaves that a node keeps, and empty ones.
    pub(crate) barn: u32,
}

impl Tunables {
    fn new(geometry: &Geometry, has_sheaves: bool) -> Self {
        let max_limit = match geometry.stride {
            _ if !has_sheaves || geometry.flags.intersects(CacheFlags::DEBUG) => 0,
            0..=1024 => CAPACITY,
            1025..=4096 => 12,
            _ => 4,
        };
        // Free objects that a node keeps whole are worth 64 KiB at most, as with Linux's ten sheaves.
        let sheaf_bytes = (max_limit * geometry.stride).max(1);
        Self {
            first_limit: max_limit.min(8),
            max_limit,
            barn: (BARN_BYTES / sheaf_bytes).clamp(2, 40),
        }
    }
}

/// A cache of objects of one layout. Linux's `struct kmem_cache`.
///
/// Made by [`crate::SlabAllocator::create_cache`]; used directly or as an
/// [`vellum_object::ObjectSource`].
pub struct KmemCache<'m> {
    pub(crate) cpus: PerCpu<'m, CpuSheaves<'m>>,
    pub(crate) memmap: Memmap<'m>,
    pub(crate) ram: DirectMap<'m>,
    frames: Frames<'m>,
    pub(crate) geometry: Geometry,
    /// The owner word of its slabs on node 0.
    pub(crate) owner: u32,
    pub(crate) tunables: Tunables,
    pub(crate) nodes: &'m [SpinLock<Lists>],
    pub(crate) publics: &'m [CpuPublic],
    pub(crate) ground: Ground<'m>,
    pub(crate) ctor: Option<Ctor>,
    /// Asked for pages of these nodes, it got some of others.
    pub(crate) poor_nodes: AtomicU8,
    pub(crate) next_colour: AtomicU16,
    /// Destroyed: grows no more. Set before the locks of the nodes are taken to empty them.
    pub(crate) dead: AtomicBool,
    name: &'static str,
    /// The cache that was made before this one.
    pub(crate) next: Option<&'m KmemCache<'m>>,
}

impl<'m> KmemCache<'m> {
    pub(crate) fn new(
        ground: Ground<'m>,
        identity: Identity<'m>,
        geometry: Geometry,
        parts: Parts<'m>,
        cpus: Cpus<'m>,
    ) -> Self {
        let Identity {
            name,
            owner,
            ctor,
            next,
        } = identity;
        let frames = Frames::new(ground.source);
        let tunables = Tunables::new(&geometry, ground.sheaves.is_some());
        Self {
            cpus: PerCpu::new(cpus, parts.slots),
            memmap: frames.memmap,
            ram: ground.source.ram(),
            frames,
            geometry,
            owner,
            tunables,
            nodes: parts.nodes,
            publics: parts.publics,
            ground,
            ctor,
            poor_nodes: AtomicU8::new(0),
            next_colour: AtomicU16::new(0),
            dead: AtomicBool::new(false),
            name,
            next,
        }
    }

    /// Its name.
    pub const fn name(&self) -> &'static str {
        self.name
    }
    /// The layout that was asked for.
    pub const fn layout(&self) -> Layout {
        self.geometry.layout
    }
    /// The flags that it was made with, and those that the system's debug switch added.
    pub const fn flags(&self) -> CacheFlags {
        self.geometry.flags
    }

    /// Memory of one object: constructed if the cache has a constructor, else uninitialised. `None`
    /// if there is no memory, or the cache is destroyed. Linux's `kmem_cache_alloc(GFP_KERNEL)`.
    #[inline]
    #[track_caller]
    pub fn alloc(&self) -> Option<NonNull<u8>> {
        self.alloc_at(GfpFlags::KERNEL, Location::caller())
    }

    /// As [`KmemCache::alloc`], under these conditions: they hold if the cache must grow. With
    /// [`GfpFlags::ZERO`] the object is zeroed.
    #[inline]
    #[track_caller]
    pub fn alloc_gfp(&self, gfp: GfpFlags) -> Option<NonNull<u8>> {
        self.alloc_at(gfp, Location::caller())
    }

    #[inline(always)]
    pub(crate) fn alloc_at(&self, gfp: GfpFlags, site: Site) -> Option<NonNull<u8>> {
        // SAFETY: `pop` calls nobody.
        let object = match unsafe { self.cpus.with_leaf(CpuSheaves::pop) } {
            Some(object) => object,
            None => self.alloc_slow(gfp, site)?,
        };
        if gfp.contains(GfpFlags::ZERO) {
            // SAFETY: the object is the caller's alone and has `size` bytes.
            unsafe { object.write_bytes(0, self.geometry.layout.size()) };
        }
        Some(object)
    }

    /// Takes one object's memory back. Linux's `kmem_cache_free`.
    ///
    /// # Safety
    /// `object` came from this cache, and nobody uses it any more. With a constructor, it is in the
    /// state that the constructor leaves.
    ///
    /// # Panics
    /// If a broken promise is noticed: see the crate's table of what is caught when.
    #[inline]
    #[track_caller]
    pub unsafe fn free(&self, object: NonNull<u8>) {
        // SAFETY: the same promise.
        unsafe { self.free_at(object, Location::caller()) };
    }

    /// As `free`, on behalf of `site`.
    ///
    /// # Safety
    /// As `free`.
    #[inline(always)]
    pub(crate) unsafe fn free_at(&self, object: NonNull<u8>, site: Site) {
        let Some(page) = self.frames.page_of(object) else {
            // 0 is nobody's owner word.
            return self.free_slow(object, 0, site);
        };
        let owner = page.owner();
        // SAFETY: the same promise.
        if !unsafe { self.try_free(object, owner) } {
            self.free_slow(object, owner, site);
        }
    }

    /// Takes the object back if that is simple. False, and nothing happened, if not; so with an
    /// `owner`, the owner word of the object's page, that is another cache's.
    ///
    /// # Safety
    /// As `free`, if the object is of this cache.
    #[inline(always)]
    pub(crate) unsafe fn try_free(&self, object: NonNull<u8>, owner: u32) -> bool {
        let push = |cpu: &mut CpuSheaves<'_>| cpu.push(object, owner).then_some(());
        // SAFETY: `push` calls nobody.
        unsafe { self.cpus.with_leaf(push) }.is_some()
    }

    /// The counter that its pages are counted in.
    pub(crate) const fn vm_item(&self) -> VmItem {
        if self.geometry.flags.contains(CacheFlags::RECLAIM_ACCOUNT) {
            VmItem::NrSlabReclaimable
        } else {
            VmItem::NrSlabUnreclaimable
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        // Relaxed: who must not miss it takes a node's lock behind `retire`.
        self.dead.load(Ordering::Relaxed)
    }

    /// Free objects in the sheaves of CPUs.
    pub(crate) fn cached_by_cpus(&self) -> u64 {
        self.publics.iter().map(CpuPublic::cached).sum()
    }

    /// Its line of `/proc/slabinfo`.
    pub fn info(&self) -> SlabInfo {
        let mut info = SlabInfo {
            name: self.name,
            active_objs: 0,
            num_objs: 0,
            obj_size: self.geometry.stride,
            objs_per_slab: u32::from(self.geometry.objects),
            pages_per_slab: self.geometry.order.pages(),
            limit: self.tunables.max_limit,
            batchcount: self.tunables.first_limit,
            sharedfactor: if self.tunables.max_limit == 0 {
                0
            } else {
                self.tunables.barn
            },
            active_slabs: 0,
            num_slabs: 0,
            sharedavail: 0,
            cached_objs: self.cached_by_cpus(),
            deferred_slabs: 0,
            colours: u32::from(self.geometry.colours),
            off_slab: self.geometry.bitmap,
        };
        let mut live = 0;
        for node in self.nodes {
            let lists = node.lock();
            live += lists.live;
            info.active_slabs += lists.active_slabs();
            info.num_slabs += lists.num_slabs();
            info.deferred_slabs += lists.deferred.len();
            info.sharedavail += lists.in_barn;
        }
        info.num_objs = info.num_slabs * u64::from(self.geometry.objects);
        info.cached_objs += info.sharedavail;
        // While others work, what is cached and what is live are of different moments.
        info.active_objs = live.saturating_sub(info.cached_objs);
        info
    }
}

impl core::fmt::Debug for KmemCache<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.info().fmt(f)
    }
}

// SAFETY: objects of a slab are disjoint, of the layout or larger. An index is handed out only while
// it is on its slab's free list, from which that takes it, under the lock; a sheaf owns the objects
// it names, and gives each to one taker. Slabs with live objects are never given back.
unsafe impl ObjectSource for KmemCache<'_> {
    #[inline]
    fn alloc_object(&self) -> Option<NonNull<u8>> {
        self.alloc_at(GfpFlags::KERNEL, Location::caller())
    }
    #[inline]
    fn alloc_object_at(&self, site: &'static Location<'static>) -> Option<NonNull<u8>> {
        self.alloc_at(GfpFlags::KERNEL, site)
    }
    #[inline]
    unsafe fn free_object(&self, object: NonNull<u8>) {
        // SAFETY: the caller's promise is the same.
        unsafe { self.free_at(object, Location::caller()) };
    }
    fn object_layout(&self) -> Layout {
        self.layout()
    }
    fn name(&self) -> &str {
        KmemCache::name(self)
    }
}
