//! Pages of shared memory on their way to swap and back. Linux: `mm/shmem.c`, `shmem_writeout` and
//! `shmem_swapin_folio`.

use crate::slots::Held;
use crate::{CacheError, Mapping, PageCache};
use vellum_page::{PageFlags, PageState};
use vellum_types::{Pfn, SwapEntry};

/// The swap slots that pages of shared memory go to, and the cache of their pages. Each method is one
/// of `Swap`'s. None may take a lock of lower rank than Swap.
pub trait SwapSlots: Sync {
    /// The page in the swap cache for this slot, with a reference, if its bytes are right: `lookup`.
    fn lookup(&self, entry: SwapEntry) -> Option<Pfn>;
    /// The file no longer refers to this slot: the reference that [`Mapping::swap_out`] was given is
    /// dropped: `free`. No lock is held.
    fn free(&self, entry: SwapEntry);
    /// Takes the page out of the swap cache if nobody refers to its slot: `try_to_free_swap`. No lock is
    /// held; the caller has a reference.
    fn try_to_free_swap(&self, pfn: Pfn);
    /// Gives back a reference to a page that may be in the swap cache: `put_page`.
    fn put_page(&self, pfn: Pfn);
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
    /// The caller holds a reference. Nothing is allocated.
    pub(crate) fn insert_swapped_in(
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

    /// Brings page `index` in from `entry` if the swap cache has it, and returns it with a reference.
    /// No lock is held.
    pub(crate) fn bring_in(
        &self,
        cache: &PageCache<'m>,
        index: u64,
        entry: SwapEntry,
    ) -> Result<Pfn, CacheError> {
        let missing = CacheError::Swapped(entry);
        let swap = cache.swap.ok_or(missing)?;
        let pfn = swap.lookup(entry).ok_or(missing)?;
        if !self.insert_swapped_in(cache, index, pfn, entry) {
            // Somebody was faster, or truncated it: the next attempt sees what there is.
            swap.put_page(pfn);
            return Err(missing);
        }
        swap.free(entry);
        // In vain while its write has not ended: then it leaves with its last user.
        swap.try_to_free_swap(pfn);
        Ok(pfn)
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
