//! Objects out of slabs and back, slabs out of pages and back.

use crate::debug::{Site, Users};
use crate::list::SlabList;
use crate::memory::{END, LIVE, Slab};
use crate::node::Lists;
use crate::sheaf::{Block, Sheaf};
use crate::words::{self, FreeWord, all_free};
use crate::{CacheFlags, KmemCache};
use core::alloc::Layout;
use core::panic::Location;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;
use vellum_page::{AllocRequest, Page, PageState};
use vellum_types::{GfpFlags, OutOfMemory, Pfn, PhysAddr};

/// An object that was free in its slab.
pub(crate) struct Taken<'c> {
    pub(crate) object: NonNull<u8>,
    slab: Slab<'c>,
    index: u16,
}

impl<'m> KmemCache<'m> {
    /// An object from the slabs, with a new slab if need be.
    pub(crate) fn take_direct(&self, gfp: GfpFlags, site: Site) -> Option<NonNull<u8>> {
        if self.is_dead() {
            return None;
        }
        let home = words::node_index(self.cpus.cpus().local_node(), self.nodes.len());
        // A node without memory of its own lives on its neighbours' partial slabs.
        let poor = self.poor_nodes.load(Ordering::Relaxed) & 1 << home != 0;
        let nearby = if poor { self.nodes.len() } else { 1 };
        if let Some(object) = self.take_existing(home, nearby, site) {
            return Some(object);
        }
        let Ok((head, node)) = self.grow(gfp, home) else {
            return self.take_existing(home, self.nodes.len(), site);
        };
        let taken = {
            let mut lists = self.nodes[node].lock();
            if self.is_dead() {
                drop(lists);
                self.release(head);
                return None;
            }
            lists.partial.push(self.memmap, head);
            self.take_one(&mut lists)?
        };
        Some(self.hand_out(taken, site))
    }

    /// An object from slabs that exist, of `count` nodes from `home` on.
    fn take_existing(&self, home: usize, count: usize, site: Site) -> Option<NonNull<u8>> {
        (home..home + count).find_map(|node| {
            let taken = self.take_one(&mut self.nodes[node % self.nodes.len()].lock());
            Some(self.hand_out(taken?, site))
        })
    }

    /// What debugging aids do with an object that leaves its slab.
    fn hand_out(&self, taken: Taken<'_>, site: Site) -> NonNull<u8> {
        if self.geometry.flags.intersects(CacheFlags::DEBUG)
            && let Err(what) = taken.slab.mark_live(taken.index, site)
        {
            let users = taken.slab.users(taken.index);
            self.corrupt(what, taken.object, Some(users), site);
        }
        taken.object
    }

    /// A free object of the first slab that has one.
    #[inline]
    pub(crate) fn take_one(&self, lists: &mut Lists) -> Option<Taken<'_>> {
        let head = self.first_with_free(lists)?;
        let page = self.memmap.page(head);
        let word = FreeWord::of(page);
        let slab = Slab::at(self.ram, head, word.colour, &self.geometry);
        let (index, next, is_full) = if self.geometry.bitmap {
            let free = page.mapcount();
            page.set_mapcount(free & (free - 1));
            (free.trailing_zeros() as u16, END, free & (free - 1) == 0)
        } else {
            let next = slab.link(word.first);
            slab.set_link(word.first, LIVE);
            (word.first, next, next == END)
        };
        FreeWord {
            first: next,
            live: word.live + 1,
            ..word
        }
        .set(page);
        lists.live += 1;
        if is_full {
            lists.partial.unlink(self.memmap, head);
            lists.full.push(self.memmap, head);
        }
        Some(Taken {
            object: slab.object(index),
            slab,
            index,
        })
    }

    /// A slab of the partial list; if there is none, one of the others becomes such.
    #[inline]
    pub(crate) fn first_with_free(&self, lists: &mut Lists) -> Option<Pfn> {
        let mut head = lists.partial.first();
        if head == Pfn::NONE {
            head = core::mem::replace(&mut lists.empty, Pfn::NONE);
            if head == Pfn::NONE {
                head = lists.deferred.first();
                if head == Pfn::NONE {
                    return None;
                }
                lists.deferred.unlink(self.memmap, head);
            }
            lists.partial.push(self.memmap, head);
        }
        Some(head)
    }

    /// Takes an object back into its slab; the slab goes to `surplus` if it is not wanted any more.
    ///
    /// # Panics
    /// If it is not a live object of this cache.
    #[inline]
    pub(crate) fn put_one(
        &self,
        lists: &mut Lists,
        object: NonNull<u8>,
        site: Site,
        surplus: &mut SlabList,
    ) {
        let Some((head, page, slab, index)) = self.locate(object) else {
            self.foreign(object, site)
        };
        let word = FreeWord::of(page);
        let bit = 1u32.checked_shl(u32::from(index)).unwrap_or(0);
        let is_free = if self.geometry.bitmap {
            page.mapcount() & bit != 0
        } else {
            slab.link(index) != LIVE
        };
        if is_free {
            self.corrupt("double free", object, Some(slab.users(index)), site);
        }
        self.check_freed(slab, index, object, site);
        let was_full = if self.geometry.bitmap {
            page.set_mapcount(page.mapcount() | bit);
            page.mapcount() == bit
        } else {
            slab.set_link(index, word.first);
            word.first == END
        };
        FreeWord {
            first: if self.geometry.bitmap { END } else { index },
            live: word.live - 1,
            ..word
        }
        .set(page);
        lists.live -= 1;
        if was_full || word.live == 1 {
            self.relist(lists, head, was_full, word.live == 1, surplus);
        }
    }

    /// Moves a slab that gained a free object to the list it belongs on now.
    pub(crate) fn relist(
        &self,
        lists: &mut Lists,
        head: Pfn,
        was_full: bool,
        is_empty: bool,
        surplus: &mut SlabList,
    ) {
        if was_full {
            lists.full.unlink(self.memmap, head);
        } else {
            lists.partial.unlink(self.memmap, head);
        }
        if !is_empty {
            lists.partial.push(self.memmap, head);
        } else if lists.empty == Pfn::NONE && !self.is_dead() {
            lists.empty = head;
        } else if self.geometry.flags.contains(CacheFlags::TYPESAFE) {
            lists.deferred.push(self.memmap, head);
        } else {
            surplus.push(self.memmap, head);
        }
    }

    #[inline]
    fn check_freed(&self, slab: Slab<'_>, index: u16, object: NonNull<u8>, site: Site) {
        if self.geometry.flags.intersects(CacheFlags::DEBUG) {
            if let Err(what) = slab.check_live(index) {
                self.corrupt(what, object, Some(slab.users(index)), site);
            }
            slab.mark_free(index, site);
        }
    }

    /// The slab of an object, and its place there; `None` if this cache has no such object.
    #[inline]
    fn locate(&self, object: NonNull<u8>) -> Option<(Pfn, &'m Page, Slab<'_>, u16)> {
        let (head, page, into) = self.slab_of(object)?;
        let colour = FreeWord::of(page).colour;
        let index = self.geometry.index_of(into, colour)?;
        let slab = Slab::at(self.ram, head, colour, &self.geometry);
        Some((head, page, slab, index))
    }

    /// The slab of this cache that an address lies in, and how many bytes into it.
    #[inline]
    pub(crate) fn slab_of(&self, object: NonNull<u8>) -> Option<(Pfn, &'m Page, u64)> {
        let phys = self.ram.phys_of(object)?;
        let into = phys.as_u64() & (self.geometry.bytes - 1);
        let head = Pfn::containing(PhysAddr::new(phys.as_u64() - into))?;
        let page = self.memmap.try_page(head)?;
        let ours = page.state() == PageState::Slab && words::on_node(page.owner(), 0) == self.owner;
        ours.then_some((head, page, into))
    }

    /// A new slab, on no list yet, and the node it is on.
    #[cold]
    fn grow(&self, gfp: GfpFlags, home: usize) -> Result<(Pfn, usize), OutOfMemory> {
        let flags = self.geometry.flags;
        // Zeroing is the caller's matter, object by object.
        let mut gfp = gfp.difference(GfpFlags::ZERO);
        gfp.set(GfpFlags::DMA, flags.contains(CacheFlags::CACHE_DMA));
        let reclaimable = flags.contains(CacheFlags::RECLAIM_ACCOUNT);
        gfp.set(GfpFlags::RECLAIMABLE, reclaimable);
        let order = self.geometry.order;
        let head = self
            .ground
            .source
            .alloc_pages(AllocRequest { order, gfp })?;
        let node = words::node_index(self.ground.source.node_of(head), self.nodes.len());
        // Relaxed: a hint.
        if node == home {
            self.poor_nodes.fetch_and(!(1 << home), Ordering::Relaxed);
        } else {
            self.poor_nodes.fetch_or(1 << home, Ordering::Relaxed);
        }
        let page = self.memmap.page(head);
        page.set_mapcount(if self.geometry.bitmap {
            all_free(self.geometry.objects)
        } else {
            0
        });
        let colour = self.next_colour.fetch_add(1, Ordering::Relaxed) % self.geometry.colours;
        FreeWord {
            first: if self.geometry.bitmap { END } else { 0 },
            live: 0,
            colour: colour as u8,
        }
        .set(page);
        page.set_state_order(PageState::Slab, order);
        Slab::at(self.ram, head, colour as u8, &self.geometry).init(self.ctor);
        self.set_owners(head, words::on_node(self.owner, node));
        self.ground
            .vmstat
            .add(self.vm_item(), u64::from(order.pages()));
        Ok((head, node))
    }

    /// Every page of a slab says whose it is, so that an object's own page tells.
    fn set_owners(&self, head: Pfn, owner: u32) {
        for at in 0..self.geometry.order.pages() {
            self.memmap.page(head + at).set_owner(owner);
        }
    }

    /// Gives a slab that is on no list back.
    #[cold]
    pub(crate) fn release(&self, head: Pfn) {
        let page = self.memmap.page(head);
        page.set_mapcount(0);
        page.set_index(0);
        self.set_owners(head, 0);
        let pages = u64::from(self.geometry.order.pages());
        self.ground.vmstat.sub(self.vm_item(), pages);
        self.ground.source.free_pages(head);
    }

    /// Gives slabs back that were taken off their node's lists. Returns the pages freed. Call it
    /// with no lock held.
    pub(crate) fn release_all(&self, mut slabs: SlabList) -> u64 {
        let pages = slabs.len() * u64::from(self.geometry.order.pages());
        while slabs.first() != Pfn::NONE {
            let head = slabs.first();
            slabs.unlink(self.memmap, head);
            self.release(head);
        }
        pages
    }

    /// An empty sheaf.
    pub(crate) fn new_sheaf(&self, gfp: GfpFlags) -> Option<Sheaf> {
        let cache = self.ground.sheaves?;
        assert!(cache.layout() == Layout::new::<Block>());
        let memory = cache.alloc_at(gfp.difference(GfpFlags::ZERO), Location::caller())?;
        // SAFETY: just allocated, of the layout of a block.
        Some(unsafe { Sheaf::new(memory) })
    }

    /// Gives an empty sheaf's memory back.
    pub(crate) fn drop_sheaf(&self, sheaf: Sheaf) {
        if let Some(cache) = self.ground.sheaves {
            // SAFETY: sheaves come from that cache, and this one is consumed.
            unsafe { cache.free_at(sheaf.into_memory(), Location::caller()) };
        }
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn foreign(&self, object: NonNull<u8>, site: Site) -> ! {
        self.corrupt(
            "free of something that is no object of it",
            object,
            None,
            site,
        )
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn corrupt(
        &self,
        what: &str,
        object: NonNull<u8>,
        users: Option<Users>,
        site: Site,
    ) -> ! {
        let users = users.unwrap_or_default();
        panic!(
            "slab cache {}: {what}: object {object:p}, noticed at {site}{}{}",
            self.name(),
            By(", last allocated at", users.allocated),
            By(", last freed at", users.freed)
        )
    }
}

/// A call site in a report, if it is known.
struct By(&'static str, Option<Site>);

impl core::fmt::Display for By {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.1 {
            Some(site) => write!(f, "{} {site}", self.0),
            None => Ok(()),
        }
    }
}
