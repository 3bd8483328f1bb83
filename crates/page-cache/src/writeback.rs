//! From the cache to the store. Linux: `mm/page-writeback.c`, `write_cache_pages`.

use crate::{ErrSeq, IoError, Mapping, PageCache};
use vellum_machine::{VmEvent, VmItem};
use vellum_page::PageFlags;
use vellum_types::{PAGE_SIZE, Pfn};

/// Consecutive dirty pages that go to the store in one write.
const CLUSTER: usize = 64;

/// What to do about pages that somebody else is writing at the moment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Others {
    /// Wait for them, and write what became dirty meanwhile: `WB_SYNC_ALL`.
    Wait,
    /// Leave them: `WB_SYNC_NONE`.
    Skip,
}

/// What [`Mapping::take_dirty`] found.
enum Taken {
    /// A run from this page on, so many pages.
    Run(u64, usize),
    /// A dirty page that is being written, with a reference.
    Busy(u64, Pfn),
    /// Nothing.
    End,
}

impl<'m> Mapping<'m> {
    /// Writes the dirty pages of `first..=last` to the store, in order, waits for those that somebody
    /// else is writing, and reports a failure, this one's or an earlier one's that nobody was told
    /// about; returns how many pages it wrote. What
    /// fsync(2) and msync(2) do before they ask the store to [`sync`](crate::BackingStore::sync).
    /// Linux's `file_write_and_wait_range`.
    ///
    /// For each run of pages the dirty marks are cleared first, then `clean(index, frames)` is called,
    /// which write-protects every table entry of these pages (Linux's `folio_mkclean`) and must not mark
    /// them dirty: a store before `clean` is in what is written, a store after it faults and marks its
    /// page anew. No lock is held while `clean` runs or the store writes.
    ///
    /// Nothing is written past [`Mapping::size`], and pages wholly past it stay dirty. No page is
    /// written by two at a time, so that an older content never follows a newer one.
    ///
    /// # Errors
    /// A write failed; its pages are dirty again, all others were written. The error counts as
    /// reported.
    pub fn writeback(
        &self,
        cache: &PageCache<'m>,
        first: u64,
        last: u64,
        clean: &mut dyn FnMut(u64, &[Pfn]),
    ) -> Result<u64, IoError> {
        let written = self.write_range(cache, first, last, u64::MAX, Others::Wait, clean);
        self.check_error()?;
        Ok(written)
    }

    /// [`Mapping::writeback`] for one who has the file open, and is told of each error once, whoever
    /// else was told of it.
    ///
    /// # Errors
    /// A write failed, this one's or an earlier one's that this opener was not told about.
    pub fn writeback_since(
        &self,
        cache: &PageCache<'m>,
        first: u64,
        last: u64,
        since: &mut ErrSeq,
        clean: &mut dyn FnMut(u64, &[Pfn]),
    ) -> Result<u64, IoError> {
        let written = self.write_range(cache, first, last, u64::MAX, Others::Wait, clean);
        self.check_error_since(since)?;
        Ok(written)
    }

    /// [`Mapping::writeback`] for somebody who has nobody to report to, and who leaves pages that are
    /// being written: a failure is remembered. Linux's `filemap_flush`.
    pub fn start_writeback(
        &self,
        cache: &PageCache<'m>,
        first: u64,
        last: u64,
        clean: &mut dyn FnMut(u64, &[Pfn]),
    ) -> u64 {
        self.write_range(cache, first, last, u64::MAX, Others::Skip, clean)
    }

    /// Writes about `target` dirty pages, from where the last call stopped round to there again; at
    /// most a cluster more.
    pub(crate) fn write_some(
        &self,
        cache: &PageCache<'m>,
        target: u64,
        clean: &mut dyn FnMut(u64, &[Pfn]),
    ) -> u64 {
        let from = self.lock().writeback_hand;
        let mut written = self.write_range(cache, from, u64::MAX, target, Others::Skip, clean);
        if written < target && from > 0 {
            let target = target - written;
            written += self.write_range(cache, 0, from - 1, target, Others::Skip, clean);
        }
        written
    }

    /// Writes a dirty page together with the dirty pages beside it, as one request; returns how many
    /// pages that were, 0 if the page is not dirty, not this file's any more, past its end, or being
    /// written. For reclaim, whose victims have neighbours that would be next. Linux 2.4's
    /// `page_launder` wrote one; this is swap's and ext4's clustering.
    ///
    /// The caller holds a reference, and may hold the lock of this page and of no other: a page that
    /// somebody else has locked ends the run. `clean` as for [`Mapping::writeback`].
    ///
    /// # Errors
    /// The store failed; the pages are dirty again, and openers will be told.
    pub fn writeback_around(
        &self,
        cache: &PageCache<'m>,
        pfn: Pfn,
        clean: &mut dyn FnMut(u64, &[Pfn]),
    ) -> Result<u64, IoError> {
        let Some(file_last) = self.size_pages().checked_sub(1) else {
            return Ok(0);
        };
        let mut frames = [Pfn::NONE; CLUSTER];
        let (start, count) = {
            let mut pages = self.lock();
            let page = cache.page(pfn);
            let index = page.index();
            let here = page.owner() == self.id() && pages.tree.page(index) == Some(pfn);
            if !here || index > file_last || !self.is_writable(cache, &pages, index, pfn) {
                return Ok(0);
            }
            let most = CLUSTER as u64 / 2;
            let back = (1..=most.min(index))
                .take_while(|back| self.is_writable(cache, &pages, index - back, pfn))
                .count() as u64;
            let start = index - back;
            let mut count = 0;
            while count < CLUSTER
                && start + count as u64 <= file_last
                && self.is_writable(cache, &pages, start + count as u64, pfn)
            {
                frames[count] = self.begin_write(cache, &mut pages, start + count as u64);
                count += 1;
            }
            (start, count)
        };
        self.write_run(cache, start, &frames[..count], clean)?;
        Ok(count as u64)
    }

    /// True if page `index` is dirty and nobody writes or locks it; `mine` may be locked.
    fn is_writable(
        &self,
        cache: &PageCache<'m>,
        pages: &crate::mapping::Pages<'m>,
        index: u64,
        mine: Pfn,
    ) -> bool {
        pages.tree.is_dirty(index)
            && pages.tree.page(index).is_some_and(|pfn| {
                let flags = cache.page(pfn).flags();
                !flags.contains(PageFlags::WRITEBACK)
                    && (pfn == mine || !flags.contains(PageFlags::LOCKED))
            })
    }

    /// Writes dirty pages of a range until `target` pages or more are written.
    fn write_range(
        &self,
        cache: &PageCache<'m>,
        first: u64,
        last: u64,
        target: u64,
        others: Others,
        clean: &mut dyn FnMut(u64, &[Pfn]),
    ) -> u64 {
        let Some(file_last) = self.size_pages().checked_sub(1) else {
            return 0;
        };
        let last = last.min(file_last);
        let mut frames = [Pfn::NONE; CLUSTER];
        let mut written = 0;
        let mut from = first;
        while written < target {
            match self.take_dirty(cache, from, last, &mut frames) {
                Taken::Run(start, count) => {
                    let run = &frames[..count];
                    // An error is noted, and told to those who ask.
                    if self.write_run(cache, start, run, clean).is_ok() {
                        written += count as u64;
                    }
                    from = start + count as u64;
                }
                Taken::Busy(index, pfn) => {
                    if others == Others::Wait {
                        wait_on_writeback(cache, pfn);
                    }
                    cache.put_page(pfn);
                    from = index + u64::from(others == Others::Skip);
                }
                Taken::End => break,
            }
        }
        self.lock().writeback_hand = from;
        if others == Others::Wait {
            self.wait_for_others(cache, first, last);
        }
        written
    }

    /// Takes the next run of dirty pages: clean afterwards, under write-back, a reference each.
    fn take_dirty(
        &self,
        cache: &PageCache<'m>,
        from: u64,
        last: u64,
        frames: &mut [Pfn; CLUSTER],
    ) -> Taken {
        let mut pages = self.lock();
        let Some(start) = pages.tree.next_dirty(from).filter(|start| *start <= last) else {
            return Taken::End;
        };
        let mut count = 0;
        for index in start..=last {
            let Some(pfn) = pages.tree.page(index).filter(|_| count < CLUSTER) else {
                break;
            };
            if !pages.tree.is_dirty(index) {
                break;
            }
            if cache.page(pfn).flags().contains(PageFlags::WRITEBACK) {
                if count == 0 {
                    cache.page(pfn).get();
                    return Taken::Busy(index, pfn);
                }
                break;
            }
            frames[count] = self.begin_write(cache, &mut pages, index);
            count += 1;
        }
        Taken::Run(start, count)
    }

    /// Makes a dirty page clean, and one that is being written, with a reference.
    fn begin_write(
        &self,
        cache: &PageCache<'m>,
        pages: &mut crate::mapping::Pages<'m>,
        index: u64,
    ) -> Pfn {
        let Some(pfn) = pages.tree.page(index) else {
            unreachable!("a dirty page is cached")
        };
        pages.tree.clear_dirty(index);
        pages.nr_dirty -= 1;
        pages.nr_writeback += 1;
        let page = cache.page(pfn);
        page.get();
        page.replace_flags(PageFlags::DIRTY, PageFlags::WRITEBACK);
        cache.vmstat.sub(VmItem::NrDirty, 1);
        cache.vmstat.add(VmItem::NrWriteback, 1);
        pfn
    }

    /// Writes pages that [`Mapping::begin_write`] took, and gives them back.
    fn write_run(
        &self,
        cache: &PageCache<'m>,
        start: u64,
        run: &[Pfn],
        clean: &mut dyn FnMut(u64, &[Pfn]),
    ) -> Result<(), IoError> {
        clean(start, run);
        let result = self.write_cluster(cache, start, run);
        if let Err(error) = result {
            self.set_error(error);
            self.redirty(cache, start, run);
        } else {
            cache
                .vmstat
                .count_many(VmEvent::NrWritten, run.len() as u64);
        }
        // Under the lock, so that who finds none being written sees what became of them.
        let mut pages = self.lock();
        for &pfn in run {
            cache.page(pfn).clear_flags(PageFlags::WRITEBACK);
        }
        pages.nr_writeback -= run.len() as u64;
        drop(pages);
        cache.vmstat.sub(VmItem::NrWriteback, run.len() as u64);
        for &pfn in run {
            cache.put_page(pfn);
        }
        result
    }

    /// Waits for the pages of `first..=last` that somebody else was writing. Linux's
    /// `filemap_fdatawait_range`.
    fn wait_for_others(&self, cache: &PageCache<'m>, first: u64, last: u64) {
        let mut from = first;
        loop {
            let found = {
                let pages = self.lock();
                if pages.nr_writeback == 0 {
                    return;
                }
                let busy = |pfn| cache.page(pfn).flags().contains(PageFlags::WRITEBACK);
                let found = pages.tree.pages(from, last).find(|(_, pfn)| busy(*pfn));
                if let Some((_, pfn)) = found {
                    cache.page(pfn).get();
                }
                found
            };
            let Some((index, pfn)) = found else {
                return;
            };
            wait_on_writeback(cache, pfn);
            cache.put_page(pfn);
            from = index + 1;
        }
    }

    fn write_cluster(
        &self,
        cache: &PageCache<'m>,
        start: u64,
        frames: &[Pfn],
    ) -> Result<(), IoError> {
        let offset = start * PAGE_SIZE;
        let bytes = (frames.len() as u64 * PAGE_SIZE).min(self.size().saturating_sub(offset));
        // Zero if the file was truncated since the pages were taken: then there is nothing to keep.
        if bytes > 0 {
            // Those past the end that it has now are gone.
            let frames = &frames[..bytes.div_ceil(PAGE_SIZE) as usize];
            cache
                .store
                .write(self.file(), offset, frames, bytes, cache.ram)?;
            cache
                .vmstat
                .count_many(VmEvent::PgPgOut, bytes.div_ceil(1024));
        }
        Ok(())
    }

    /// Makes pages dirty again whose write failed, if they are still in the file.
    fn redirty(&self, cache: &PageCache<'m>, start: u64, frames: &[Pfn]) {
        for (index, &pfn) in (start..).zip(frames) {
            if cache.page(pfn).owner() == self.id() {
                self.mark_dirty(cache, index);
            }
        }
    }
}

/// Returns when nobody writes the page. The caller holds a reference and no lock. Whoever writes it is
/// another CPU, in its store.
fn wait_on_writeback(cache: &PageCache<'_>, pfn: Pfn) {
    while cache.page(pfn).flags().contains(PageFlags::WRITEBACK) {
        core::hint::spin_loop();
    }
}
