//! Dropping pages. Linux: `mm/truncate.c`.

use crate::io::pieces;
use crate::slots::Held;
use crate::{CacheError, Mapping, PageCache};
use vellum_machine::VmEvent;
use vellum_page::PageFlags;
use vellum_types::{PAGE_SIZE, Pfn, SwapEntry};

/// Pages that one step of an invalidation reads again.
const BATCH: usize = 64;

impl<'m> Mapping<'m> {
    /// Sets the size to `new_size` bytes, after the store did the same. When the file shrinks, calls
    /// `unmap(first, last)` for the pages that are wholly past the new end, drops them, dirty or
    /// not, and zeroes the rest of the last page. When it grows, zeroes what a shared mapping may
    /// have left past the old end. Linux's `truncate_setsize`.
    ///
    /// `unmap` removes every table entry of these pages, copies of private mappings too; no lock is
    /// held while it runs.
    pub fn truncate(&self, cache: &PageCache<'m>, new_size: u64, unmap: &mut dyn FnMut(u64, u64)) {
        let old_size = {
            let mut pages = self.lock();
            let old_size = self.size();
            // From here on nobody inserts a page past the new end.
            self.store_size(&mut pages, new_size);
            old_size
        };
        let end = old_size.min(new_size);
        self.zero_cached(cache, end, end.next_multiple_of(PAGE_SIZE) - end);
        if new_size <= old_size {
            self.unmap_and_drop(cache, new_size.div_ceil(PAGE_SIZE), u64::MAX, unmap);
        }
    }

    /// Makes a hole of `len` bytes at `offset`, after the store did the same: unmaps and drops the
    /// whole pages in it, and zeroes the cached parts of the pages at its ends. Linux's
    /// `truncate_pagecache_range`.
    ///
    /// Write the range back before the store makes its hole, as Linux's file systems do: a dirty
    /// page that is dropped here may be the only one that knows how long the file has become.
    pub fn punch(
        &self,
        cache: &PageCache<'m>,
        offset: u64,
        len: u64,
        unmap: &mut dyn FnMut(u64, u64),
    ) {
        let end = offset.saturating_add(len);
        let first = offset.div_ceil(PAGE_SIZE);
        let past = end / PAGE_SIZE;
        if first < past {
            self.unmap_and_drop(cache, first, past - 1, unmap);
        }
        // Whole pages are gone now, so that only the ends can be found.
        let head_end = end.min(first.saturating_mul(PAGE_SIZE));
        self.zero_cached(cache, offset, head_end - offset);
        let tail_start = (past * PAGE_SIZE).max(head_end);
        self.zero_cached(cache, tail_start, end.saturating_sub(tail_start));
    }

    /// Drops page `index` if it is clean and nobody but the cache has it. For a caller of
    /// [`Mapping::get_for_write`] who wrote nothing, after it gave its reference back.
    pub fn discard(&self, cache: &PageCache<'m>, index: u64) -> bool {
        let mut pages = self.lock();
        let Some(pfn) = pages.tree.page(index) else {
            return false;
        };
        let free = cache.is_idle(pfn);
        if free {
            self.remove(cache, &mut pages, index);
        }
        free
    }

    /// The store changed by another way: takes over its size (unless dirty pages here say more),
    /// drops clean pages that nobody holds, and reads those that are mapped or held again, in
    /// place. Dirty pages stay: the last writer wins. `unmap` as for [`Mapping::truncate`].
    ///
    /// # Errors
    /// The store failed on a page that is still mapped, which keeps what it got; the first such
    /// error, after all pages were tried.
    pub fn invalidate(
        &self,
        cache: &PageCache<'m>,
        unmap: &mut dyn FnMut(u64, u64),
    ) -> Result<(), CacheError> {
        let actual = cache.store.size(self.file());
        if actual > self.size() || (actual < self.size() && self.nr_dirty() == 0) {
            self.truncate(cache, actual, unmap);
        }
        let mut result = Ok(());
        let mut frames = [Pfn::NONE; BATCH];
        let mut from = 0;
        while let Some((start, count)) = self.drop_idle(cache, from, &mut frames) {
            let held = &frames[..count];
            result = result.and(
                self.read_frames(cache, start, held)
                    .map_err(CacheError::from),
            );
            for &pfn in held {
                cache.put_page(pfn);
            }
            from = start + count as u64;
        }
        result
    }

    /// Drops idle pages from `from` on, up to the first that is clean but held; returns the run of
    /// such pages that begins there, with a reference each, or `None` at the end of the file.
    fn drop_idle(
        &self,
        cache: &PageCache<'m>,
        from: u64,
        frames: &mut [Pfn; BATCH],
    ) -> Option<(u64, usize)> {
        let mut pages = self.lock();
        let mut run: Option<(u64, usize)> = None;
        let mut from = from;
        while let Some((index, pfn)) = pages.tree.next_page(from) {
            from = index + 1;
            let page = cache.page(pfn);
            let idle = cache.is_idle(pfn);
            let held = !idle && !page.flags().contains(PageFlags::DIRTY);
            match &mut run {
                None if held => {
                    frames[0] = pfn;
                    run = Some((index, 1));
                }
                None if idle => {
                    self.remove(cache, &mut pages, index);
                    cache.vmstat.count(VmEvent::PgInvalidate);
                    continue;
                }
                None => continue,
                Some((start, count)) => {
                    if !held || *count == BATCH || index != *start + *count as u64 {
                        break;
                    }
                    frames[*count] = pfn;
                    *count += 1;
                }
            }
            page.get();
        }
        run
    }

    /// Frees up to `target` idle pages and takes the mark of use from those it passes by.
    pub(crate) fn shrink(&self, cache: &PageCache<'m>, target: u64) -> u64 {
        let mut pages = self.lock();
        let mut freed = 0;
        let mut from = 0;
        while let Some((index, pfn)) = pages.tree.next_page(from)
            && freed < target
        {
            from = index + 1;
            let old = cache.page(pfn).clear_flags(PageFlags::REFERENCED);
            if !old.contains(PageFlags::REFERENCED) && cache.is_idle(pfn) {
                self.remove(cache, &mut pages, index);
                freed += 1;
            }
        }
        freed
    }

    fn unmap_and_drop(
        &self,
        cache: &PageCache<'m>,
        first: u64,
        last: u64,
        unmap: &mut dyn FnMut(u64, u64),
    ) {
        unmap(first, last);
        // A fault that had looked a page up before may have mapped it after the first pass.
        if self.drop_range(cache, first, last) {
            unmap(first, last);
        }
    }

    /// Drops what the cache has of `first..=last`: pages, shadows, and swap slots. True if one of the
    /// pages is still mapped.
    pub(crate) fn drop_range(&self, cache: &PageCache<'m>, first: u64, last: u64) -> bool {
        let mut mapped = false;
        let mut slots = [SwapEntry::NONE; BATCH];
        loop {
            let count = self.drop_some(cache, first, last, &mut mapped, &mut slots);
            // Without the lock: a device may be told of it.
            for &entry in &slots[..count] {
                cache.free_swap_slot(entry);
            }
            if count < BATCH {
                return mapped;
            }
        }
    }

    /// [`Mapping::drop_range`] until `slots` is full of swap slots to be freed; returns how many
    /// there are.
    fn drop_some(
        &self,
        cache: &PageCache<'m>,
        first: u64,
        last: u64,
        mapped: &mut bool,
        slots: &mut [SwapEntry; BATCH],
    ) -> usize {
        let mut pages = self.lock();
        let mut count = 0;
        while count < BATCH
            && let Some((index, held)) = pages.tree.next(first).filter(|(index, _)| *index <= last)
        {
            match held {
                Held::Page(pfn) => {
                    *mapped |= cache.page(pfn).mapcount() > 0;
                    self.remove(cache, &mut pages, index);
                    cache.vmstat.count(VmEvent::PgInvalidate);
                    continue;
                }
                Held::Shadow(_) => {}
                Held::Swapped(entry) => {
                    slots[count] = entry;
                    count += 1;
                }
            }
            pages.tree.remove(cache, index);
        }
        count
    }

    /// Zeroes the cached parts of `len` bytes from `offset`.
    fn zero_cached(&self, cache: &PageCache<'m>, offset: u64, len: u64) {
        for piece in pieces(offset, len) {
            let pages = self.lock();
            if let Some(pfn) = pages.tree.page(piece.index) {
                cache.zero(pfn, piece.start, piece.start + piece.len);
            }
        }
    }
}

impl PageCache<'_> {
    /// True if a cached page can go without anybody noticing: clean, unmapped, only the cache's.
    fn is_idle(&self, pfn: Pfn) -> bool {
        let page = self.page(pfn);
        page.mapcount() == 0 && page.refcount() == 1 && !page.flags().contains(PageFlags::DIRTY)
    }
}
