//! From the cache to the store. Linux: `mm/page-writeback.c`, `write_cache_pages`.

use crate::{IoError, Mapping, PageCache};
use vellum_machine::{VmEvent, VmItem};
use vellum_page::PageFlags;
use vellum_types::{PAGE_SIZE, Pfn};

/// Consecutive dirty pages that go to the store in one write.
const CLUSTER: usize = 64;

impl<'m> Mapping<'m> {
    /// Writes the dirty pages of `first..=last` to the store, in order, and reports a failure, this
    /// one's or an earlier one's that nobody was told about; returns how many pages it wrote. What
    /// fsync(2) and msync(2) do before they ask the store to [`sync`](crate::BackingStore::sync).
    /// Linux's `file_write_and_wait_range`.
    ///
    /// For each run of pages the dirty marks are cleared first, then `clean(index, frames)` is called,
    /// which write-protects every table entry of these pages (Linux's `folio_mkclean`) and must not mark
    /// them dirty: a store before `clean` is in what is written, a store after it faults and marks its
    /// page anew. No lock is held while `clean` runs or the store writes.
    ///
    /// Nothing is written past [`Mapping::size`], and pages wholly past it stay dirty. Only one
    /// write-back of a range may run at a time.
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
        let written = self.start_writeback(cache, first, last, clean);
        self.check_error()?;
        Ok(written)
    }

    /// [`Mapping::writeback`] for somebody who has nobody to report to: a failure is remembered for
    /// [`Mapping::check_error`]. Linux's `filemap_flush`.
    pub fn start_writeback(
        &self,
        cache: &PageCache<'m>,
        first: u64,
        last: u64,
        clean: &mut dyn FnMut(u64, &[Pfn]),
    ) -> u64 {
        let Some(file_last) = self.size_pages().checked_sub(1) else {
            return 0;
        };
        let last = last.min(file_last);
        let mut frames = [Pfn::NONE; CLUSTER];
        let mut written = 0;
        let mut from = first;
        while let Some((start, count)) = self.take_dirty(cache, from, last, &mut frames) {
            let cluster = &frames[..count];
            clean(start, cluster);
            match self.write_cluster(cache, start, cluster) {
                Ok(()) => written += count as u64,
                Err(error) => {
                    self.set_error(error);
                    self.redirty(cache, start, cluster);
                }
            }
            for &pfn in cluster {
                cache.page(pfn).clear_flags(PageFlags::WRITEBACK);
                cache.put_page(pfn);
            }
            from = start + count as u64;
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
    ) -> Option<(u64, usize)> {
        let mut pages = self.lock();
        let start = pages.tree.next_dirty(from)?;
        let mut count = 0;
        for index in start..=last {
            let Some(slot) = frames.get_mut(count) else {
                break;
            };
            let Some(pfn) = pages.tree.page(index) else {
                break;
            };
            if !pages.tree.clear_dirty(index) {
                break;
            }
            let page = cache.page(pfn);
            page.get();
            page.set_flags(PageFlags::WRITEBACK);
            page.clear_flags(PageFlags::DIRTY);
            pages.nr_dirty -= 1;
            cache.vmstat.sub(VmItem::NrDirty, 1);
            *slot = pfn;
            count += 1;
        }
        (count > 0).then_some((start, count))
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
