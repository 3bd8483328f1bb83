//! Pages of shared memory on their way to swap and back. Linux: `mm/shmem.c`, `shmem_writeout` and
//! `shmem_swapin_folio`.

use crate::slots::Held;
use crate::{Mapping, PageCache};
use vellum_page::{PageFlags, PageState};
use vellum_types::{Pfn, SwapEntry};

/// Whoever has the swap slots that pages of shared memory went to.
pub trait SwapSlots: Sync {
    /// Nobody will ask for this slot's content any more: the reference that
    /// [`Mapping::swap_out`] was given is dropped. No lock is held.
    fn free(&self, entry: SwapEntry);
}

impl<'m> Mapping<'m> {
    /// Puts `entry` in the place of a page of shared memory. True if so: the file refers to the slot
    /// now, with the reference that the caller took for it, and to the page no more; the page is
    /// dirty, and the swap cache's and the caller's. Refused if it is mapped, or not this file's any
    /// more, or if anybody but the cache, the swap cache and the caller has a reference.
    ///
    /// The caller holds the page lock and a reference, put the page into the swap cache before
    /// (`Swap::add_to_swap`) and took a reference to the slot (`Swap::dup`). If this is refused he
    /// drops that (`Swap::free`) and takes the page out again (`Swap::try_to_free_swap`).
    pub fn swap_out(&self, cache: &PageCache<'m>, pfn: Pfn, entry: SwapEntry) -> bool {
        let page = cache.page(pfn);
        let mut pages = self.lock();
        let index = page.index();
        // The caller's, the cache's, and the swap cache's.
        let expected = 2 + u32::from(page.flags().contains(PageFlags::SWAPCACHE));
        if !self.swap_backed()
            || page.owner() != self.id()
            || pages.tree.page(index) != Some(pfn)
            || page.mapcount() != 0
            || page.refcount() != expected
        {
            return false;
        }
        self.replace(cache, &mut pages, index, pfn, Held::Swapped(entry));
        page.set_flags(PageFlags::DIRTY);
        // Never the last: the caller holds one.
        let last = page.put();
        debug_assert!(!last, "swap_out without a reference");
        true
    }

    /// Puts a page that was read from `entry` back in its place. True if so: the file refers to the
    /// page, with a reference of its own, and to the slot no more, whose reference the caller now
    /// drops (`Swap::free`, then `Swap::try_to_free_swap`). The page is dirty: its content will soon be
    /// nowhere else. False if somebody else brought it in or truncated it meanwhile: the caller
    /// lets go of his page and looks again.
    ///
    /// The caller holds the page lock and a reference. Nothing is allocated.
    pub fn insert_swapped_in(
        &self,
        cache: &PageCache<'m>,
        index: u64,
        pfn: Pfn,
        entry: SwapEntry,
    ) -> bool {
        let mut pages = self.lock();
        if pages.tree.held(index) != Some(Held::Swapped(entry)) {
            return false;
        }
        let page = cache.page(pfn);
        page.retype(PageState::File);
        page.get();
        let adopted = self.adopt(cache, &mut pages, index, pfn);
        debug_assert!(adopted.is_ok(), "replacing allocates nothing");
        page.set_flags(PageFlags::DIRTY);
        true
    }

    /// The slot that page `index` is in, if it is in swap.
    pub fn swap_entry(&self, index: u64) -> Option<SwapEntry> {
        match self.lock().tree.held(index) {
            Some(Held::Swapped(entry)) => Some(entry),
            _ => None,
        }
    }

    /// Calls `each` for the pages of `first..=last` that are in swap, in order, without a lock; a
    /// snapshot page by page. For swapoff and for truncation, which wants the pages at its ends.
    pub fn for_each_swapped(&self, first: u64, last: u64, each: &mut dyn FnMut(u64, SwapEntry)) {
        let mut from = Some(first);
        while let Some(at) = from {
            let found = self.lock().tree.next_swapped(at);
            let Some((index, entry)) = found.filter(|(index, _)| *index <= last) else {
                return;
            };
            each(index, entry);
            from = index.checked_add(1);
        }
    }
}
