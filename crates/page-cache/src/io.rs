//! Bytes in and out of cached pages.

use crate::{CacheError, Mapping, PageCache, Readahead};
use vellum_machine::{VmEvent, VmItem};
use vellum_page::PageFlags;
use vellum_types::{PAGE_SIZE, Pfn, PhysAddr};

/// The part of a byte range that lies in one page.
pub(crate) struct Piece {
    /// Page number in the file.
    pub(crate) index: u64,
    /// First byte in the page.
    pub(crate) start: u64,
    /// Bytes, at least 1.
    pub(crate) len: u64,
}

/// Cuts `len` bytes from `offset` at page boundaries.
pub(crate) fn pieces(offset: u64, len: u64) -> impl Iterator<Item = Piece> {
    let end = offset.saturating_add(len);
    let mut at = offset;
    core::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let start = at % PAGE_SIZE;
        let len = (end - at).min(PAGE_SIZE - start);
        let piece = Piece {
            index: at / PAGE_SIZE,
            start,
            len,
        };
        at += len;
        Some(piece)
    })
}

impl<'m> Mapping<'m> {
    /// Hands the bytes of the file from `offset` to `out`, page by page, reading on a miss, until
    /// `len` bytes are done, the file ends or `out` returns false. Returns the bytes that `out`
    /// accepted. No lock is held while `out` runs. Linux's `filemap_read`.
    ///
    /// The end of the file is what [`Mapping::size`] says at the call.
    ///
    /// # Errors
    /// As [`Mapping::read_page`], if no byte could be delivered before; else the call is short.
    pub fn read(
        &self,
        cache: &PageCache<'m>,
        offset: u64,
        len: u64,
        out: &mut dyn FnMut(PhysAddr, u64) -> bool,
    ) -> Result<u64, CacheError> {
        self.read_advised(cache, offset, len, Readahead::Normal, out)
    }

    /// [`Mapping::read`] with the reader's advice, as by posix_fadvise(2).
    ///
    /// # Errors
    /// As [`Mapping::read`].
    pub fn read_advised(
        &self,
        cache: &PageCache<'m>,
        offset: u64,
        len: u64,
        hint: Readahead,
        out: &mut dyn FnMut(PhysAddr, u64) -> bool,
    ) -> Result<u64, CacheError> {
        let len = len.min(self.size().saturating_sub(offset));
        let mut done = 0;
        for piece in pieces(offset, len) {
            let want = (piece.start + len - done).div_ceil(PAGE_SIZE);
            let pfn = match self.read_page_of(cache, piece.index, want, hint) {
                Ok((pfn, _)) => pfn,
                // The file shrank under us: as if it had been shorter at the start.
                Err(CacheError::BeyondEof) => break,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            };
            cache.source.mark_accessed(pfn);
            let more = out(pfn.addr() + piece.start, piece.len);
            cache.put_page(pfn);
            if !more {
                break;
            }
            done += piece.len;
        }
        Ok(done)
    }

    /// Refreshes cached pages after `len` bytes at `offset` went to the store by another way: calls
    /// `each(position, address, bytes)` for every cached piece, where `position` counts from
    /// `offset`. Absent pages stay absent, nothing becomes dirty. No lock is held while `each` runs.
    pub fn store_bytes(
        &self,
        cache: &PageCache<'m>,
        offset: u64,
        len: u64,
        each: &mut dyn FnMut(u64, PhysAddr, u64),
    ) {
        let end = offset.saturating_add(len);
        let mut from = offset;
        while from < end {
            let Some((index, pfn)) = self.next_get(cache, from / PAGE_SIZE, (end - 1) / PAGE_SIZE)
            else {
                return;
            };
            let page_start = index * PAGE_SIZE;
            let start = from.max(page_start);
            let stop = end.min(page_start + PAGE_SIZE);
            each(
                start - offset,
                pfn.addr() + (start - page_start),
                stop - start,
            );
            cache.put_page(pfn);
            from = stop;
        }
    }

    /// Notes that page `index` is newer than the store. Returns false if it is not cached. Linux's
    /// `filemap_dirty_folio`.
    pub fn mark_dirty(&self, cache: &PageCache<'m>, index: u64) -> bool {
        let mut pages = self.lock();
        let Some(pfn) = pages.tree.page(index) else {
            return false;
        };
        let page = cache.page(pfn);
        if !page.set_flags(PageFlags::DIRTY).contains(PageFlags::DIRTY) && !self.swap_backed() {
            pages.tree.set_dirty(index);
            cache.vmstat.count(VmEvent::NrDirtied);
            pages.nr_dirty += 1;
            cache.vmstat.add(VmItem::NrDirty, 1);
            if pages.nr_dirty == 1 {
                // The table's lock comes before this one.
                drop(pages);
                cache.note_dirty(self);
            }
        }
        true
    }

    /// The first cached page of `first..=last`, with a reference taken.
    fn next_get(&self, cache: &PageCache<'m>, first: u64, last: u64) -> Option<(u64, Pfn)> {
        let pages = self.lock();
        let (index, pfn) = pages.tree.pages(first, last).next()?;
        cache.page(pfn).get();
        Some((index, pfn))
    }
}

impl PageCache<'_> {
    /// Zeroes bytes `from..to` of a frame.
    pub(crate) fn zero(&self, pfn: Pfn, from: u64, to: u64) {
        const ZEROS: [u8; 256] = [0; 256];
        if from == 0 && to == PAGE_SIZE {
            self.ram.fill_pages(pfn, 1, 0);
            return;
        }
        let mut at = from;
        while at < to {
            let len = (to - at).min(ZEROS.len() as u64);
            self.ram
                .write_bytes(pfn.addr() + at, &ZEROS[..len as usize]);
            at += len;
        }
    }
}
