//! How frames are had.

use crate::{Memmap, PageFlags, PageState};
use vellum_machine::DirectMap;
use vellum_types::{GfpFlags, NodeId, Order, OutOfMemory, Pfn};

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AllocRequest {
    /// How many pages.
    pub order: Order,
    /// Under which conditions.
    pub gfp: GfpFlags,
}

impl AllocRequest {
    /// So many pages under these conditions.
    pub const fn new(order: Order, gfp: GfpFlags) -> Self {
        Self { order, gfp }
    }
    /// For the kernel's own data.
    pub const fn kernel(order: Order) -> Self {
        Self {
            order,
            gfp: GfpFlags::KERNEL,
        }
    }
    /// For the kernel's own data, zeroed.
    pub const fn kernel_zeroed(order: Order) -> Self {
        Self {
            order,
            gfp: GfpFlags::KERNEL.union(GfpFlags::ZERO),
        }
    }
    /// For a program's memory. Not zeroed: the machine's `zero_pages` does that.
    pub const fn user_movable(order: Order) -> Self {
        Self {
            order,
            gfp: GfpFlags::HIGHUSER_MOVABLE,
        }
    }
    /// An attempt at a larger block that must be cheap to refuse.
    pub const fn user_opportunistic(order: Order) -> Self {
        Self {
            order,
            gfp: GfpFlags::HIGHUSER_MOVABLE
                .union(GfpFlags::NORETRY)
                .union(GfpFlags::NOWARN),
        }
    }
}

/// Somebody who gives and takes frames.
///
/// A frame handed out has state Allocated, refcount 1, mapcount 0, owner and index 0, no flags, and
/// the order of its block in its first page. The other pages of a block have state Tail and all other
/// words zero, and its owner leaves them so: giving a block back touches its first page only. An owner
/// that writes there sets [`PageFlags::HEAD`] in the first page, or its state is Slab.
pub trait PageSource: Sync {
    /// Takes a block of `request.order`.
    ///
    /// # Errors
    /// There is none under these conditions. Never waits.
    fn alloc_pages(&self, request: AllocRequest) -> Result<Pfn, OutOfMemory>;

    /// As [`PageSource::alloc_pages`], from `node` by preference instead of the node of the CPU that asks;
    /// with [`GfpFlags::THISNODE`] from no other. Linux's `alloc_pages_node`. A source that knows no nodes
    /// has one.
    ///
    /// # Errors
    /// As [`PageSource::alloc_pages`].
    fn alloc_pages_node(&self, request: AllocRequest, node: NodeId) -> Result<Pfn, OutOfMemory> {
        let _ = node;
        self.alloc_pages(request)
    }

    /// Gives a block back. Its size is known from its first page. Whatever its refcount and state
    /// are, the block is free afterwards: the caller was its last user.
    ///
    /// # Panics
    /// If `pfn` does not start an allocated block: a double or foreign free.
    fn free_pages(&self, pfn: Pfn);

    /// Takes single pages until `out` is full or there are no more; returns how many. They are often
    /// neighbours, in ascending order. Linux's `alloc_pages_bulk`.
    fn alloc_pages_bulk(&self, gfp: GfpFlags, out: &mut [Pfn]) -> usize {
        let order = Order::ZERO;
        for (got, slot) in out.iter_mut().enumerate() {
            match self.alloc_pages(AllocRequest { order, gfp }) {
                Ok(pfn) => *slot = pfn,
                Err(OutOfMemory) => return got,
            }
        }
        out.len()
    }

    /// Gives blocks back, as [`PageSource::free_pages`] does with each.
    ///
    /// # Panics
    /// If one of them does not start an allocated block; those before it are free then.
    fn free_pages_bulk(&self, blocks: &[Pfn]) {
        blocks.iter().for_each(|pfn| self.free_pages(*pfn));
    }

    /// Makes each page of an allocated block a block of its own, refcount 1 each.
    ///
    /// # Panics
    /// If `pfn` does not start an allocated block.
    fn split_page(&self, pfn: Pfn);

    /// A page of programs or of a file is ready for reclaim to look at. Linux's `folio_add_lru`. A
    /// plain allocator does not care.
    fn lru_add(&self, pfn: Pfn) {
        let _ = pfn;
    }

    /// Takes a page off its list, with a reference for the caller, who gives it back to
    /// [`PageSource::lru_add`] unless he freed it. False if it is on none: it is being freed, or somebody
    /// else works on it, or it is not a page of programs or of a file. Linux's `folio_isolate_lru`.
    ///
    /// A plain allocator has no lists. There the caller sees to it that nobody frees the page meanwhile.
    fn isolate_page(&self, pfn: Pfn) -> bool {
        let Some(page) = self.memmap().try_page(pfn) else {
            return false;
        };
        matches!(page.state(), PageState::Anon | PageState::File) && page.try_get()
    }

    /// A page became mlocked, or is no longer ([`PageFlags::MLOCKED`]). Linux's `mlock_folio`. A plain
    /// allocator does not care.
    fn reconsider(&self, pfn: Pfn) {
        let _ = pfn;
    }

    /// A page came back to where reclaim had left `shadow`; before [`PageSource::lru_add`]. Linux's
    /// `workingset_refault`. A plain allocator leaves no shadows.
    fn lru_refault(&self, pfn: Pfn, shadow: u32) {
        let _ = (pfn, shadow);
    }

    /// A page was used other than through a table entry. Linux's `folio_mark_accessed`.
    fn mark_accessed(&self, pfn: Pfn) {
        let page = self.memmap().page(pfn);
        // Looking first keeps the line shared among readers.
        if !page.flags().contains(PageFlags::REFERENCED) {
            page.set_flags(PageFlags::REFERENCED);
        }
    }

    /// The node that a frame belongs to.
    fn node_of(&self, pfn: Pfn) -> NodeId {
        let _ = pfn;
        NodeId(0)
    }

    /// All descriptors.
    fn memmap(&self) -> Memmap<'_>;

    /// All bytes.
    fn ram(&self) -> DirectMap<'_>;
}

/// A block that somebody owns; given back on drop.
#[must_use]
pub struct OwnedPages<'a, S: PageSource + ?Sized> {
    source: &'a S,
    pfn: Pfn,
}

impl<'a, S: PageSource + ?Sized> OwnedPages<'a, S> {
    /// Takes a block.
    ///
    /// # Errors
    /// See [`PageSource::alloc_pages`].
    pub fn alloc(source: &'a S, request: AllocRequest) -> Result<Self, OutOfMemory> {
        Ok(Self {
            source,
            pfn: source.alloc_pages(request)?,
        })
    }
    /// The first frame.
    pub const fn pfn(&self) -> Pfn {
        self.pfn
    }
    /// Gives up ownership: whoever takes the frame number frees the block.
    pub fn into_pfn(self) -> Pfn {
        let pfn = self.pfn;
        core::mem::forget(self);
        pfn
    }
}

impl<S: PageSource + ?Sized> Drop for OwnedPages<'_, S> {
    fn drop(&mut self) {
        self.source.free_pages(self.pfn);
    }
}
