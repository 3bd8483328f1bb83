//! One cache.

use crate::geometry::Geometry;
use crate::list::SlabList;
use crate::memory::{END, LIVE, Slab};
use crate::{CacheFlags, SlabInfo};
use core::alloc::Layout;
use core::ptr::NonNull;
use vellum_machine::{DirectMap, LockRank, SpinGuard, SpinLock, VmItem, VmStat};
use vellum_page::{AllocRequest, Memmap, Page, PageSource, PageState};
use vellum_types::{OutOfMemory, Pfn, PhysAddr};

/// What the lock of a cache protects, besides the `Page` words and index lists of its slabs.
#[derive(Debug)]
pub(crate) struct Lists {
    pub(crate) partial: SlabList,
    pub(crate) full: SlabList,
    /// A slab without live objects, or `Pfn::NONE`.
    pub(crate) empty: Pfn,
    pub(crate) live: u64,
    /// Destroyed: grows no more.
    pub(crate) dead: bool,
}

/// A cache of objects of one layout. Linux's `struct kmem_cache`.
///
/// Made by [`crate::SlabAllocator::create_cache`]; used as a [`vellum_object::ObjectSource`].
pub struct KmemCache<'m> {
    pub(crate) lists: SpinLock<Lists>,
    pub(crate) geometry: Geometry,
    pub(crate) memmap: Memmap<'m>,
    pub(crate) ram: DirectMap<'m>,
    /// The owner word of its slabs.
    pub(crate) id: u32,
    source: &'m dyn PageSource,
    vmstat: &'m VmStat,
    name: &'static str,
    /// The cache that was made before this one.
    pub(crate) next: Option<&'m KmemCache<'m>>,
}

impl<'m> KmemCache<'m> {
    pub(crate) fn new(
        source: &'m dyn PageSource,
        vmstat: &'m VmStat,
        name: &'static str,
        geometry: Geometry,
        id: u32,
        next: Option<&'m KmemCache<'m>>,
    ) -> Self {
        let lists = Lists {
            partial: SlabList::new(),
            full: SlabList::new(),
            empty: Pfn::NONE,
            live: 0,
            dead: false,
        };
        Self {
            lists: SpinLock::new(LockRank::Slab, lists),
            geometry,
            memmap: source.memmap(),
            ram: source.ram(),
            id,
            source,
            vmstat,
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
    /// The flags that it was made with.
    pub const fn flags(&self) -> CacheFlags {
        self.geometry.flags
    }

    /// Uninitialised memory of one object.
    #[inline]
    pub(crate) fn take(&self) -> Option<NonNull<u8>> {
        let lists = self.lists.lock();
        let head = lists.partial.first();
        if head == Pfn::NONE {
            drop(lists);
            return self.take_after_refill();
        }
        Some(self.take_from(lists, head))
    }

    /// As `take`, when no slab is partial.
    #[cold]
    fn take_after_refill(&self) -> Option<NonNull<u8>> {
        let mut lists = self.lists.lock();
        while lists.partial.first() == Pfn::NONE {
            if lists.empty != Pfn::NONE {
                let slab = core::mem::replace(&mut lists.empty, Pfn::NONE);
                lists.partial.push(self.memmap, slab);
                break;
            }
            if lists.dead {
                return None;
            }
            drop(lists);
            let fresh = self.grow().ok()?;
            lists = self.lists.lock();
            if lists.dead {
                drop(lists);
                self.release(fresh);
                return None;
            }
            lists.partial.push(self.memmap, fresh);
        }
        let head = lists.partial.first();
        Some(self.take_from(lists, head))
    }

    /// A free object of `head`, the first partial slab.
    #[inline]
    fn take_from(&self, mut lists: SpinGuard<'_, Lists>, head: Pfn) -> NonNull<u8> {
        let page = self.memmap.page(head);
        let slab = Slab::at(self.ram, head, &self.geometry);
        let (index, is_full) = if self.geometry.bitmap {
            let free = page.mapcount();
            page.set_mapcount(free & (free - 1));
            (free.trailing_zeros() as u16, free & (free - 1) == 0)
        } else {
            let word = FreeWord::of(page);
            let next = slab.link(word.first);
            slab.set_link(word.first, LIVE);
            FreeWord {
                first: next,
                live: word.live + 1,
            }
            .set(page);
            (word.first, next == END)
        };
        lists.live += 1;
        let object = slab.object(index);
        if is_full || self.geometry.flags.intersects(CacheFlags::DEBUG) {
            self.take_seldom(lists, slab, head, index, is_full);
        }
        object
    }

    /// What taking an object seldom needs: the slab became full, or there are debugging aids.
    #[cold]
    #[inline(never)]
    fn take_seldom(
        &self,
        mut lists: SpinGuard<'_, Lists>,
        slab: Slab<'_>,
        head: Pfn,
        index: u16,
        is_full: bool,
    ) {
        if is_full {
            lists.partial.unlink(self.memmap, head);
            lists.full.push(self.memmap, head);
        }
        drop(lists);
        if let Err(what) = slab.mark_live(index) {
            self.corrupt(what);
        }
    }

    /// Takes one object's memory back.
    ///
    /// # Safety
    /// `object` came from `take` of this cache, and nobody uses it any more.
    ///
    /// # Panics
    /// If it is not a live object of this cache: the caller broke the first half of the promise.
    #[inline]
    pub(crate) unsafe fn give_back(&self, object: NonNull<u8>) {
        let Some((head, page, index, slab)) = self.locate(object) else {
            self.corrupt("free of something that is no object of it")
        };
        let mut lists = self.lists.lock();
        let (was_full, is_empty) = if self.geometry.bitmap {
            let free = page.mapcount();
            if free & 1 << index != 0 {
                self.corrupt("double free");
            }
            self.check_freed(slab, index);
            page.set_mapcount(free | 1 << index);
            (
                free == 0,
                free | 1 << index == all_free(self.geometry.objects),
            )
        } else {
            if slab.link(index) != LIVE {
                self.corrupt("double free");
            }
            self.check_freed(slab, index);
            let word = FreeWord::of(page);
            slab.set_link(index, word.first);
            FreeWord {
                first: index,
                live: word.live - 1,
            }
            .set(page);
            (word.first == END, word.live == 1)
        };
        lists.live -= 1;
        if was_full || is_empty {
            self.relist(lists, head, was_full, is_empty);
        }
    }

    /// Moves a slab that gained a free object to the list it belongs on now.
    #[cold]
    #[inline(never)]
    fn relist(&self, mut lists: SpinGuard<'_, Lists>, head: Pfn, was_full: bool, is_empty: bool) {
        if was_full {
            lists.full.unlink(self.memmap, head);
        } else {
            lists.partial.unlink(self.memmap, head);
        }
        if !is_empty {
            lists.partial.push(self.memmap, head);
        } else if lists.empty == Pfn::NONE {
            lists.empty = head;
        } else {
            drop(lists);
            self.release(head);
        }
    }

    #[inline]
    fn check_freed(&self, slab: Slab<'_>, index: u16) {
        if self.geometry.flags.intersects(CacheFlags::DEBUG) {
            if let Err(what) = slab.check_live(index) {
                self.corrupt(what);
            }
            slab.mark_free(index);
        }
    }

    /// The slab of an object, and its place there; `None` if this cache has no such object.
    #[inline]
    fn locate(&self, object: NonNull<u8>) -> Option<(Pfn, &'m Page, u16, Slab<'_>)> {
        let phys = self.ram.phys_of(object)?;
        let into = phys.as_u64() & (self.geometry.bytes - 1);
        let head = Pfn::containing(PhysAddr::new(phys.as_u64() - into))?;
        let page = self.memmap.try_page(head)?;
        if page.state() != PageState::Slab || page.owner() != self.id {
            return None;
        }
        let index = self.geometry.index_of(into)?;
        Some((
            head,
            page,
            index,
            Slab::around(object, into, &self.geometry),
        ))
    }

    #[cold]
    #[inline(never)]
    fn corrupt(&self, what: &str) -> ! {
        panic!("slab cache {}: {what}", self.name)
    }

    /// A new slab, on no list yet.
    #[cold]
    fn grow(&self) -> Result<Pfn, OutOfMemory> {
        let order = self.geometry.order;
        let head = self.source.alloc_pages(AllocRequest::kernel(order))?;
        let page = self.memmap.page(head);
        page.set_owner(self.id);
        page.set_mapcount(if self.geometry.bitmap {
            all_free(self.geometry.objects)
        } else {
            0
        });
        FreeWord { first: 0, live: 0 }.set(page);
        page.set_state_order(PageState::Slab, order);
        Slab::at(self.ram, head, &self.geometry).init();
        self.vmstat
            .add(VmItem::NrSlabUnreclaimable, u64::from(order.pages()));
        Ok(head)
    }

    /// Gives a slab that is on no list back.
    #[cold]
    fn release(&self, head: Pfn) {
        let page = self.memmap.page(head);
        page.set_mapcount(0);
        page.set_index(0);
        page.set_owner(0);
        let pages = u64::from(self.geometry.order.pages());
        self.vmstat.sub(VmItem::NrSlabUnreclaimable, pages);
        self.source.free_pages(head);
    }

    /// Gives the empty slab back, if there is one. Returns the pages freed.
    pub fn shrink(&self) -> u64 {
        let empty = core::mem::replace(&mut self.lists.lock().empty, Pfn::NONE);
        if empty == Pfn::NONE {
            return 0;
        }
        self.release(empty);
        u64::from(self.geometry.order.pages())
    }

    /// Stops the cache if it has no live objects; else says how many it has.
    pub(crate) fn retire(&self) -> Result<(), u64> {
        {
            let mut lists = self.lists.lock();
            if lists.live != 0 {
                return Err(lists.live);
            }
            lists.dead = true;
        }
        self.shrink();
        Ok(())
    }

    /// Makes a destroyed cache usable again. False if it was not destroyed.
    pub(crate) fn revive(&self) -> bool {
        core::mem::replace(&mut self.lists.lock().dead, false)
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.lists.lock().dead
    }

    /// Its line of `/proc/slabinfo`.
    pub fn info(&self) -> SlabInfo {
        let lists = self.lists.lock();
        let active_slabs = lists.partial.len() + lists.full.len();
        let num_slabs = active_slabs + u64::from(lists.empty != Pfn::NONE);
        SlabInfo {
            name: self.name,
            active_objs: lists.live,
            num_objs: num_slabs * u64::from(self.geometry.objects),
            obj_size: self.geometry.stride,
            objs_per_slab: u32::from(self.geometry.objects),
            pages_per_slab: self.geometry.order.pages(),
            active_slabs,
            num_slabs,
        }
    }
}

impl core::fmt::Debug for KmemCache<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.info().fmt(f)
    }
}

/// The bitmap of a slab with no live object.
pub(crate) const fn all_free(objects: u16) -> u32 {
    u32::MAX >> (u32::BITS - objects as u32)
}

/// The `index` word of a slab's first `Page`.
#[derive(Clone, Copy)]
pub(crate) struct FreeWord {
    /// The first free object, or `END`.
    pub(crate) first: u16,
    /// How many are live.
    pub(crate) live: u16,
}

impl FreeWord {
    #[inline]
    pub(crate) fn of(page: &Page) -> Self {
        let raw = page.index();
        Self {
            first: raw as u16,
            live: (raw >> 16) as u16,
        }
    }
    #[inline]
    fn set(self, page: &Page) {
        page.set_index(u64::from(self.live) << 16 | u64::from(self.first));
    }
}
