//! From the store into the cache: a miss and its window.

use crate::mapping::{MAX_INDEX, Pages};
use crate::readahead::{HISTORY, MAX_WINDOW, Miss, Window};
use crate::slots::Held;
use crate::{CacheError, IoError, Mapping, PageCache, Readahead};
use vellum_machine::{TraceEvent, VmEvent, VmItem};
use vellum_page::{AllocRequest, PageFlags, PageState};
use vellum_types::{Order, OutOfMemory, PAGE_SIZE, Pfn, SwapEntry};

/// What became of a run of frames.
struct Inserted {
    /// The wanted page, with a reference taken, if the run covered it.
    target: Option<Pfn>,
    /// The wanted page is in swap.
    swapped: Option<SwapEntry>,
    /// All found their place, or were not needed; false if memory for the tree ran out.
    complete: bool,
}

impl<'m> Mapping<'m> {
    /// The frame of page `index` with a reference taken, read from the store if need be, and
    /// whether that took I/O (a major fault). Neighbours are read along with it: see [`Readahead`].
    /// Give the reference back with [`PageCache::put_page`]. Linux's `filemap_fault`.
    ///
    /// # Errors
    /// * [`CacheError::BeyondEof`]: the page lies wholly past the end of the file.
    /// * [`CacheError::OutOfMemory`]: not even this page alone could be had.
    /// * [`CacheError::Io`]: the store failed on this page; failures beside it are not reported.
    pub fn read_page(
        &self,
        cache: &PageCache<'m>,
        index: u64,
        hint: Readahead,
    ) -> Result<(Pfn, bool), CacheError> {
        self.read_page_of(cache, index, 1, hint)
    }

    /// Reads the pages of `first..=last` that are not cached, and no others, as far as memory goes:
    /// `MADV_WILLNEED`, `POSIX_FADV_WILLNEED`, readahead(2). Pages in swap stay there. Linux's
    /// `force_page_cache_readahead`.
    ///
    /// # Errors
    /// As [`Mapping::read_page`] but for a range that reaches past the end of the file.
    pub fn will_need(
        &self,
        cache: &PageCache<'m>,
        first: u64,
        last: u64,
    ) -> Result<(), CacheError> {
        let mut from = first;
        while let Some(hole) = self.next_hole(from, last.saturating_add(1).min(self.size_pages())) {
            let want = hole.end - hole.start;
            match self.read_page_of(cache, hole.start, want, Readahead::Random) {
                Ok((pfn, _)) => cache.put_page(pfn),
                Err(CacheError::BeyondEof) => return Ok(()),
                Err(CacheError::Swapped(_)) => {}
                Err(error) => return Err(error),
            }
            from = hole.start + 1;
        }
        Ok(())
    }

    /// [`Mapping::read_page`] for a caller who wants `want` pages from `index`.
    pub(crate) fn read_page_of(
        &self,
        cache: &PageCache<'m>,
        index: u64,
        want: u64,
        hint: Readahead,
    ) -> Result<(Pfn, bool), CacheError> {
        let file_pages = self.size_pages();
        if index >= file_pages {
            return Err(CacheError::BeyondEof);
        }
        let window = {
            let mut pages = self.lock();
            match pages.tree.held(index) {
                Some(Held::Page(pfn)) => {
                    cache.page(pfn).get();
                    pages.readahead.hits(1);
                    return Ok((pfn, false));
                }
                Some(Held::Swapped(entry)) => {
                    drop(pages);
                    return Ok((self.bring_in(cache, index, entry)?, false));
                }
                Some(Held::Shadow(_)) | None => {}
            }
            let limit = cache.readahead_limit();
            let history = if hint == Readahead::Random || pages.readahead.continues(index) {
                0
            } else {
                pages.tree.history(index, HISTORY)
            };
            let miss = Miss {
                index,
                want,
                file_pages,
                limit,
                hint,
                history,
            };
            pages.readahead.window(&miss)
        };
        if window.end - window.start > 1
            && let Some(found) = self.read_window(cache, window, index)
        {
            return Ok((found, true));
        }
        self.read_single(cache, index)
    }

    /// Reads the missing pages of `window` as far as memory and the store allow. Returns page
    /// `index` if it came in.
    fn read_window(&self, cache: &PageCache<'m>, window: Window, index: u64) -> Option<Pfn> {
        let mut frames = [Pfn::NONE; MAX_WINDOW as usize];
        let mut target = None;
        let mut from = window.start;
        while let Some(hole) = self.next_hole(from, window.end) {
            let wanted = (hole.end - hole.start) as usize;
            let got = cache.alloc_frames(&mut frames[..wanted]);
            let run = &frames[..got];
            // Frames that end before the wanted page would only keep it from being read alone.
            let wants = (hole.start..hole.end).contains(&index);
            if got == 0 || (wants && index >= hole.start + got as u64) {
                cache.free_frames(run);
                break;
            }
            if self.read_frames(cache, hole.start, run).is_err() {
                cache.free_frames(run);
                break;
            }
            let inserted = self.insert(cache, hole.start, run, index, Self::size_pages);
            target = target.or(inserted.target);
            if !inserted.complete || got < wanted {
                break;
            }
            from = hole.end;
        }
        target
    }

    /// Reads page `index` alone; the way out when memory is short or a neighbour cannot be read.
    fn read_single(&self, cache: &PageCache<'m>, index: u64) -> Result<(Pfn, bool), CacheError> {
        let frame = cache
            .source
            .alloc_pages(AllocRequest::new(Order::ZERO, cache.gfp))?;
        if let Err(error) = self.read_frames(cache, index, &[frame]) {
            cache.free_frames(&[frame]);
            return Err(error.into());
        }
        let inserted = self.insert(cache, index, &[frame], index, Self::size_pages);
        match inserted.target {
            Some(pfn) => Ok((pfn, true)),
            None if let Some(entry) = inserted.swapped => Err(CacheError::Swapped(entry)),
            // Truncated meanwhile.
            None if inserted.complete => Err(CacheError::BeyondEof),
            None => Err(CacheError::OutOfMemory),
        }
    }

    /// The frame of page `index` with a reference taken, for a caller who is about to write into it
    /// and then calls [`Mapping::mark_dirty`] and [`Mapping::extend_size`]. Linux's `write_begin`.
    ///
    /// The page is read first unless it lies past the end of the file or the caller will write
    /// `whole_page`: such a page comes zeroed. Who then fails to write the whole page must drop it
    /// again with [`Mapping::discard`], as it hides what the store has.
    ///
    /// # Errors
    /// As [`Mapping::read_page`]; [`CacheError::BeyondEof`] only past the largest file offset.
    pub fn get_for_write(
        &self,
        cache: &PageCache<'m>,
        index: u64,
        whole_page: bool,
    ) -> Result<Pfn, CacheError> {
        if index > MAX_INDEX {
            return Err(CacheError::BeyondEof);
        }
        if let Some(pfn) = self.find_get(index) {
            return Ok(pfn);
        }
        if let Some(entry) = self.swap_entry(index) {
            return self.bring_in(cache, index, entry);
        }
        if !whole_page {
            match self.read_single_if_inside(cache, index) {
                Err(CacheError::BeyondEof) => {}
                result => return result,
            }
        }
        let frame = cache
            .source
            .alloc_pages(AllocRequest::new(Order::ZERO, cache.gfp))?;
        cache.ram.fill_pages(frame, 1, 0);
        let inserted = self.insert(cache, index, &[frame], index, |_| u64::MAX);
        let missing = inserted
            .swapped
            .map_or(CacheError::OutOfMemory, CacheError::Swapped);
        inserted.target.ok_or(missing)
    }

    fn read_single_if_inside(&self, cache: &PageCache<'m>, index: u64) -> Result<Pfn, CacheError> {
        if index >= self.size_pages() {
            return Err(CacheError::BeyondEof);
        }
        self.read_single(cache, index).map(|(pfn, _)| pfn)
    }

    /// Reads `frames` for the pages from `first`, zeroing what the store or the file does not have.
    pub(crate) fn read_frames(
        &self,
        cache: &PageCache<'m>,
        first: u64,
        frames: &[Pfn],
    ) -> Result<(), IoError> {
        let offset = first * PAGE_SIZE;
        let bytes = cache.store.read(self.file(), offset, frames, cache.ram)?;
        cache
            .vmstat
            .count_many(VmEvent::PgPgIn, bytes.div_ceil(1024));
        // The store may be longer than the file is for programs, which then must not see the rest.
        let valid = bytes.min(self.size().saturating_sub(offset));
        for (frame, start) in frames.iter().zip((0u64..).step_by(PAGE_SIZE as usize)) {
            let keep = valid.saturating_sub(start).min(PAGE_SIZE);
            cache.zero(*frame, keep, PAGE_SIZE);
        }
        Ok(())
    }

    /// Puts `frames` into the tree as the pages from `first`; they belong to the cache from here on
    /// or are free. A frame whose place was taken meanwhile, or lies at or past `bound`, is freed.
    fn insert(
        &self,
        cache: &PageCache<'m>,
        first: u64,
        frames: &[Pfn],
        wanted: u64,
        bound: impl Fn(&Self) -> u64,
    ) -> Inserted {
        let mut result = Inserted {
            target: None,
            swapped: None,
            complete: true,
        };
        let mut pages = self.lock();
        // Under the lock, so that no truncation can come between this and the insertions.
        let bound = bound(self);
        for (done, (index, &pfn)) in (first..).zip(frames).enumerate() {
            if index >= bound {
                cache.free_frames(&frames[done..]);
                break;
            }
            let winner = match pages.tree.held(index) {
                Some(Held::Page(other)) => {
                    cache.free_frames(&[pfn]);
                    other
                }
                // It was there meanwhile, and went to swap.
                Some(Held::Swapped(entry)) => {
                    cache.free_frames(&[pfn]);
                    if index == wanted {
                        result.swapped = Some(entry);
                    }
                    continue;
                }
                Some(Held::Shadow(_)) | None => {
                    cache.page(pfn).set_state(PageState::File);
                    if self.adopt(cache, &mut pages, index, pfn).is_err() {
                        cache.free_frames(&frames[done..]);
                        result.complete = false;
                        break;
                    }
                    pfn
                }
            };
            if index == wanted {
                cache.page(winner).get();
                result.target = Some(winner);
            }
        }
        result
    }

    /// Makes a frame page `index`, where there is none: a frame of state File whose bytes are right and
    /// that nobody else changes. The caller's reference becomes the cache's.
    pub(crate) fn adopt(
        &self,
        cache: &PageCache<'m>,
        pages: &mut Pages<'m>,
        index: u64,
        pfn: Pfn,
    ) -> Result<(), OutOfMemory> {
        let page = cache.page(pfn);
        page.set_owner(self.id());
        page.set_index(index);
        page.set_flags(self.class() | PageFlags::UPTODATE);
        let shadow = pages.tree.insert_page(cache, index, pfn)?;
        cache.vmstat.add(VmItem::NrFilePages, 1);
        if self.swap_backed() {
            cache.vmstat.add(VmItem::NrShmem, 1);
        }
        if let Some(shadow) = shadow {
            cache.source.lru_refault(pfn, shadow);
        }
        cache.source.lru_add(pfn);
        let file = self.file();
        cache
            .trace
            .emit(TraceEvent::MmFilemapAddToPageCache { file, index, pfn });
        Ok(())
    }

    /// The flag that tells reclaim where its pages go.
    fn class(&self) -> PageFlags {
        if self.swap_backed() {
            PageFlags::SWAPBACKED
        } else {
            PageFlags::empty()
        }
    }

    /// The first run of missing pages in `from..end`.
    fn next_hole(&self, from: u64, end: u64) -> Option<Window> {
        let (start, end) = self.lock().tree.next_hole(from, end)?;
        Some(Window { start, end })
    }
}
