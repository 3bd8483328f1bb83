//! Memory of any size.

use crate::cache::Frames;
use crate::class::{CLASSES, SIZES, class_align, class_for};
use crate::debug::Site;
use crate::parts::Head;
use crate::words::{LARGE, class_of};
use crate::{CacheFlags, CacheSpec, KmemCache, SlabAllocator};
use core::alloc::Layout;
use core::panic::Location;
use core::ptr::NonNull;
use vellum_machine::{DirectMap, VmItem};
use vellum_page::{AllocRequest, PageState};
use vellum_types::{GfpFlags, Order, OutOfMemory, PAGE_SIZE, Pfn};

/// What a request for nothing gets: no memory, but something that [`Kmalloc::free`] accepts. Linux's
/// `ZERO_SIZE_PTR`.
pub const ZERO_SIZE_PTR: NonNull<u8> = match NonNull::new(core::ptr::without_provenance_mut(16)) {
    Some(pointer) => pointer,
    None => unreachable!(),
};

/// Kinds of caches, one of each for every size.
const KINDS: usize = 3;
const NORMAL: usize = 0;
const RECLAIMABLE: usize = 1;
const DMA: usize = 2;

/// Lengths of the tables: powers of two, so that an index is cut and not checked.
const ROW: usize = 16;
const OWNERS: usize = 64;

const NAMES: [[&str; CLASSES]; KINDS] = [
    [
        "kmalloc-8",
        "kmalloc-16",
        "kmalloc-32",
        "kmalloc-64",
        "kmalloc-96",
        "kmalloc-128",
        "kmalloc-192",
        "kmalloc-256",
        "kmalloc-512",
        "kmalloc-1k",
        "kmalloc-2k",
        "kmalloc-4k",
        "kmalloc-8k",
    ],
    [
        "kmalloc-rcl-8",
        "kmalloc-rcl-16",
        "kmalloc-rcl-32",
        "kmalloc-rcl-64",
        "kmalloc-rcl-96",
        "kmalloc-rcl-128",
        "kmalloc-rcl-192",
        "kmalloc-rcl-256",
        "kmalloc-rcl-512",
        "kmalloc-rcl-1k",
        "kmalloc-rcl-2k",
        "kmalloc-rcl-4k",
        "kmalloc-rcl-8k",
    ],
    [
        "dma-kmalloc-8",
        "dma-kmalloc-16",
        "dma-kmalloc-32",
        "dma-kmalloc-64",
        "dma-kmalloc-96",
        "dma-kmalloc-128",
        "dma-kmalloc-192",
        "dma-kmalloc-256",
        "dma-kmalloc-512",
        "dma-kmalloc-1k",
        "dma-kmalloc-2k",
        "dma-kmalloc-4k",
        "dma-kmalloc-8k",
    ],
];

/// `kmalloc` and its kin: a cache for each size class, whole pages above.
///
/// Nothing is searched: the class follows from the size, and the cache of an object from the owner
/// word of its page.
pub struct Kmalloc<'m> {
    /// By kind and class; a row is filled up with its last cache.
    caches: [[&'m KmemCache<'m>; ROW]; KINDS],
    /// By the class of the owner word.
    by_owner: [Option<&'m KmemCache<'m>>; OWNERS],
    slab: &'m SlabAllocator<'m>,
    frames: Frames<'m>,
    ram: DirectMap<'m>,
}

impl<'m> Kmalloc<'m> {
    /// Makes the caches. Call it once for a system; a second call uses the same caches.
    ///
    /// # Errors
    /// Out of memory.
    pub fn boot(slab: &'m SlabAllocator<'m>) -> Result<&'m Self, OutOfMemory> {
        let flags = [
            CacheFlags::empty(),
            CacheFlags::RECLAIM_ACCOUNT,
            CacheFlags::CACHE_DMA,
        ];
        // Filled below; any cache will do until then.
        let mut caches = [[slab.cache_of_caches(); ROW]; KINDS];
        let mut by_owner = [None; OWNERS];
        for (kind, row) in caches.iter_mut().enumerate() {
            for class in 0..CLASSES {
                let tag = kind * CLASSES + class + 1;
                let size = SIZES[class] as usize;
                let layout = Layout::from_size_align(size, class_align(class));
                let spec = CacheSpec {
                    name: NAMES[kind][class],
                    layout: layout.map_err(|_| OutOfMemory)?,
                    flags: flags[kind],
                    ctor: None,
                };
                let cache = slab.create_class(spec, tag as u8)?;
                row[class..].fill(cache);
                by_owner[tag] = Some(cache);
            }
        }
        let source = slab.source();
        // The first object of its own.
        let own = class_for(size_of::<Self>() - 1).ok_or(OutOfMemory)?;
        Ok(Head::in_cache(caches[NORMAL][own])?.write(Self {
            caches,
            by_owner,
            slab,
            frames: Frames::new(source),
            ram: source.ram(),
        }))
    }

    /// At least `size` bytes: of a slab up to 8 KiB, whole pages above, 4 MiB at most. Aligned to 8
    /// bytes, and to `size` if that is a power of two (for more than a page: as far as the direct map
    /// itself is). [`ZERO_SIZE_PTR`] for nothing. `None` without memory. With [`GfpFlags::DMA`] from
    /// ZONE_DMA, with [`GfpFlags::ZERO`] zeroed. Linux's `kmalloc`.
    #[inline]
    #[track_caller]
    pub fn alloc(&self, size: usize, gfp: GfpFlags) -> Option<NonNull<u8>> {
        let site = Location::caller();
        // Wraps for 0, which is seldom too.
        let Some(class) = class_for(size.wrapping_sub(1)) else {
            return self.alloc_pages(size, gfp);
        };
        let kind = if !gfp.intersects(GfpFlags::DMA.union(GfpFlags::RECLAIMABLE)) {
            NORMAL
        } else if gfp.contains(GfpFlags::DMA) {
            DMA
        } else {
            RECLAIMABLE
        };
        self.caches[kind][class % ROW].alloc_at(gfp, site)
    }

    /// Zeroed memory. Linux's `kzalloc`.
    #[inline]
    #[track_caller]
    pub fn alloc_zeroed(&self, size: usize, gfp: GfpFlags) -> Option<NonNull<u8>> {
        self.alloc(size, gfp.union(GfpFlags::ZERO))
    }

    /// Zeroed memory of `count` times `size` bytes; `None` also if that is no number. Linux's
    /// `kcalloc`.
    #[inline]
    #[track_caller]
    pub fn alloc_array(&self, count: usize, size: usize, gfp: GfpFlags) -> Option<NonNull<u8>> {
        self.alloc_zeroed(count.checked_mul(size)?, gfp)
    }

    /// Memory of `layout`; `None` if it is larger or aligned to more than 4 MiB, or more aligned
    /// than the direct map is.
    #[inline]
    #[track_caller]
    pub fn alloc_layout(&self, layout: Layout, gfp: GfpFlags) -> Option<NonNull<u8>> {
        let (size, align) = (layout.size(), layout.align());
        // Classes between powers of two are less aligned than they are large.
        let fits = |class| align <= class_align(class);
        if align <= 8 || size == 0 || class_for(size - 1).is_some_and(fits) {
            return self.alloc(size, gfp);
        }
        let size = size.max(align).checked_next_power_of_two()?;
        if align as u64 <= PAGE_SIZE {
            return self.alloc(size, gfp);
        }
        let memory = self.alloc_pages(size, gfp)?;
        if memory.as_ptr().addr() & (align - 1) != 0 {
            // SAFETY: allocated above, and nobody was told.
            unsafe { self.free(memory) };
            return None;
        }
        Some(memory)
    }

    /// Whole pages, or nothing at all.
    #[cold]
    #[inline(never)]
    fn alloc_pages(&self, size: usize, gfp: GfpFlags) -> Option<NonNull<u8>> {
        if size == 0 {
            return Some(ZERO_SIZE_PTR);
        }
        let order = Order::for_bytes(size as u64)?;
        let gfp = gfp.union(GfpFlags::COMP);
        let source = self.slab.source();
        let head = source.alloc_pages(AllocRequest { order, gfp }).ok()?;
        self.frames.memmap.page(head).set_owner(LARGE);
        let pages = u64::from(order.pages());
        self.slab.vmstat().add(VmItem::NrSlabUnreclaimable, pages);
        Some(self.ram.ptr(head.addr(), order.bytes()))
    }

    /// Takes memory back; [`ZERO_SIZE_PTR`] is nothing. Linux's `kfree`.
    ///
    /// # Safety
    /// `memory` came from this allocator, and nobody uses it any more.
    ///
    /// # Panics
    /// If a broken promise is noticed, as with [`KmemCache::free`].
    #[inline]
    #[track_caller]
    pub unsafe fn free(&self, memory: NonNull<u8>) {
        let site = Location::caller();
        match self.cache_of(memory) {
            // SAFETY: the owner word of its page says that the object is this cache's.
            Some((cache, owner)) => unsafe { cache.free_owned(memory, owner, site) },
            None => self.free_pages(memory, site),
        }
    }

    /// The cache that `memory` is an object of, and the owner word of its page.
    #[inline(always)]
    fn cache_of(&self, memory: NonNull<u8>) -> Option<(&'m KmemCache<'m>, u32)> {
        let owner = self.frames.page_of(memory)?.owner();
        let cache = self.by_owner[class_of(owner) as usize % OWNERS]?;
        Some((cache, owner))
    }

    /// The order of the pages that start at `memory`.
    fn order_of(&self, memory: NonNull<u8>) -> Option<(Pfn, Order)> {
        let phys = self.ram.phys_of(memory)?;
        let head = Pfn::containing(phys)?;
        let page = self.frames.memmap.try_page(head)?;
        let whole = page.owner() == LARGE && page.state() == PageState::Allocated;
        (phys.is_page_aligned() && whole).then(|| (head, page.order()))
    }

    #[cold]
    #[inline(never)]
    fn free_pages(&self, memory: NonNull<u8>, site: Site) {
        if memory == ZERO_SIZE_PTR {
            return;
        }
        let Some((head, order)) = self.order_of(memory) else {
            panic!("kfree of {memory:p}, which kmalloc did not give out, at {site}")
        };
        self.frames.memmap.page(head).set_owner(0);
        let pages = u64::from(order.pages());
        self.slab.vmstat().sub(VmItem::NrSlabUnreclaimable, pages);
        self.slab.source().free_pages(head);
    }

    /// How many bytes may be used at `memory`: what was asked for, and what its class has more. 0 for
    /// [`ZERO_SIZE_PTR`]. Linux's `ksize`.
    ///
    /// # Panics
    /// If kmalloc did not give it out.
    #[track_caller]
    pub fn usable_size(&self, memory: NonNull<u8>) -> usize {
        if memory == ZERO_SIZE_PTR {
            return 0;
        }
        if let Some((cache, _)) = self.cache_of(memory) {
            return cache.layout().size();
        }
        match self.order_of(memory) {
            Some((_, order)) => order.bytes() as usize,
            None => panic!("ksize of {memory:p}, which kmalloc did not give out"),
        }
    }

    /// Memory of `size` bytes with the content of `memory`, as much as fits both; `memory` itself if
    /// it is large enough. `None` without memory, and `memory` stays. Size 0 frees. With
    /// [`GfpFlags::ZERO`], bytes that are new are zero if all earlier requests for this memory asked
    /// for it too. Linux's `krealloc`.
    ///
    /// # Safety
    /// `memory` came from this allocator; if `Some` is returned, only that is used from now on.
    #[track_caller]
    pub unsafe fn realloc(
        &self,
        memory: NonNull<u8>,
        size: usize,
        gfp: GfpFlags,
    ) -> Option<NonNull<u8>> {
        let have = self.usable_size(memory);
        if size != 0 && size <= have {
            return Some(memory);
        }
        let new = self.alloc(size, gfp)?;
        // SAFETY: both are this long at least, and they are different.
        unsafe { new.copy_from_nonoverlapping(memory, have.min(size)) };
        // SAFETY: the caller gives it up.
        unsafe { self.free(memory) };
        Some(new)
    }

    /// The caches of the size classes: plain, reclaimable, DMA.
    pub fn caches(&self) -> impl Iterator<Item = &'m KmemCache<'m>> {
        self.by_owner.iter().copied().flatten()
    }
}

impl core::fmt::Debug for Kmalloc<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.caches()).finish()
    }
}
