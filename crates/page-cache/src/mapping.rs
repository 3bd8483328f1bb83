//! `Mapping`: the cached pages of one file.

use crate::readahead::ReadaheadState;
use crate::{IoError, PageCache};
use core::fmt;
use core::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use vellum_collections::{Mark, RadixTree};
use vellum_machine::{LockRank, SpinGuard, SpinLock, TraceEvent, VmItem};
use vellum_object::KArc;
use vellum_page::{Memmap, PageFlags, PageState};
use vellum_rmap::{MapTree, Mapped};
use vellum_types::{FileId, PAGE_SIZE, Pfn};

/// A counted handle to a [`Mapping`].
pub type MappingRef<'m> = KArc<'m, Mapping<'m>>;

/// The largest page index of a file: its last byte has an offset that fits `loff_t`.
pub(crate) const MAX_INDEX: u64 = i64::MAX as u64 / PAGE_SIZE - 1;

/// The pages of one file, Linux's `struct address_space`.
///
/// Each cached page is a frame of state File whose owner is [`Mapping::id`] and whose index is its
/// page number in the file; the cache holds one reference to it.
pub struct Mapping<'m> {
    id: u32,
    file: FileId,
    memmap: Memmap<'m>,
    /// Bytes. Written under `pages`, so that an insertion sees the latest end of file.
    size: AtomicU64,
    /// The errno of the latest failed write-back that nobody was told about; 0 if there is none.
    wb_err: AtomicI32,
    pages: SpinLock<Pages<'m>>,
    mappers: MapTree<'m>,
}

impl<'m> Mapped<'m> for Mapping<'m> {
    fn mappers(&self) -> &MapTree<'m> {
        &self.mappers
    }
}

/// `i_pages` and what else its lock protects.
pub(crate) struct Pages<'m> {
    pub(crate) tree: RadixTree<'m, Pfn>,
    pub(crate) readahead: ReadaheadState,
    pub(crate) nr_dirty: u64,
}

impl<'m> Mapping<'m> {
    pub(crate) fn new(id: u32, file: FileId, size: u64, memmap: Memmap<'m>) -> Self {
        let pages = Pages {
            tree: RadixTree::new(),
            readahead: ReadaheadState::new(),
            nr_dirty: 0,
        };
        Self {
            id,
            file,
            memmap,
            size: AtomicU64::new(size),
            wb_err: AtomicI32::new(0),
            pages: SpinLock::new(LockRank::Mapping, pages),
            mappers: MapTree::new(),
        }
    }

    /// The number that its pages carry as owner. Never 0, never used twice.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The file, as the backing store knows it.
    pub fn file(&self) -> FileId {
        self.file
    }

    /// Bytes in the file, as programs see it: `i_size`.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Pages in the file, the last perhaps partial.
    pub fn size_pages(&self) -> u64 {
        self.size().div_ceil(PAGE_SIZE)
    }

    /// Sets the size, after a write past the end. Drops nothing: to shrink, [`Mapping::truncate`].
    pub fn set_size(&self, bytes: u64) {
        // Under the lock, whose holders rely on a stable size.
        let _pages = self.lock();
        self.size.store(bytes, Ordering::Release);
    }

    /// Makes the size at least `bytes`, after a write that ended there. Linux's `i_size_write` in
    /// `write_end`.
    ///
    /// A write that begins past the end calls [`Mapping::truncate`] with its start before it copies
    /// anything: that zeroes what a shared mapping may have left behind the old end.
    pub fn extend_size(&self, bytes: u64) {
        let _pages = self.lock();
        if bytes > self.size() {
            self.size.store(bytes, Ordering::Release);
        }
    }

    /// Cached pages.
    pub fn nr_pages(&self) -> u64 {
        self.lock().tree.len()
    }

    /// Cached pages that are newer than the store.
    pub fn nr_dirty(&self) -> u64 {
        self.lock().nr_dirty
    }

    /// The frame of page `index` with a reference taken, if it is cached. To be given back with
    /// [`PageCache::put_page`].
    pub fn find_get(&self, index: u64) -> Option<Pfn> {
        let pages = self.lock();
        let pfn = *pages.tree.get(index)?;
        self.memmap.page(pfn).get();
        Some(pfn)
    }

    /// Calls `each` for the cached pages of `first..=last`, in order, with a reference taken for it;
    /// Linux's `filemap_map_pages`. `each` runs under this mapping's lock: it may set table entries
    /// that keep the reference, or put it, but must not take a lock of a lower rank.
    pub fn find_get_range(&self, first: u64, last: u64, each: &mut dyn FnMut(u64, Pfn)) {
        let pages = self.lock();
        for (index, &pfn) in pages.tree.range(first..=last) {
            self.memmap.page(pfn).get();
            each(index, pfn);
        }
    }

    /// True if a table entry maps a cached page of `first..=last`.
    pub fn any_mapped_in(&self, first: u64, last: u64) -> bool {
        let pages = self.lock();
        pages
            .tree
            .range(first..=last)
            .any(|(_, &pfn)| self.memmap.page(pfn).mapcount() > 0)
    }

    /// Reports the latest write-back error, once. Linux's `filemap_check_errors`.
    ///
    /// # Errors
    /// Write-back failed since the last call.
    pub fn check_error(&self) -> Result<(), IoError> {
        // Relaxed: the value stands for itself.
        match self.wb_err.swap(0, Ordering::Relaxed) {
            0 => Ok(()),
            errno => Err(IoError { errno }),
        }
    }

    /// Checks the tree and the descriptor of each page.
    ///
    /// # Errors
    /// What is wrong.
    pub fn validate(&self) -> Result<(), &'static str> {
        self.mappers.validate()?;
        let pages = self.lock();
        pages.tree.validate()?;
        let (mut total, mut dirty) = (0, 0);
        for (index, &pfn) in pages.tree.range(0..=u64::MAX) {
            let page = self.memmap.page(pfn);
            let flags = page.flags();
            let marked = pages.tree.is_marked(index, Mark::Dirty);
            total += 1;
            dirty += u64::from(marked);
            if page.state() != PageState::File {
                return Err("a cached page is not a File page");
            }
            if page.owner() != self.id || page.index() != index {
                return Err("a cached page belongs elsewhere");
            }
            if !flags.contains(PageFlags::UPTODATE) {
                return Err("a cached page is not up to date");
            }
            if flags.contains(PageFlags::DIRTY) != marked {
                return Err("dirty flag and dirty mark differ");
            }
            if page.refcount() < 1 + page.mapcount() {
                return Err("a cached page has too few references");
            }
        }
        if total != pages.tree.len() {
            return Err("the tree miscounts its pages");
        }
        if dirty != pages.nr_dirty {
            return Err("nr_dirty is wrong");
        }
        Ok(())
    }

    pub(crate) fn lock(&self) -> SpinGuard<'_, Pages<'m>> {
        self.pages.lock()
    }

    /// `set_size` for those who hold the lock.
    pub(crate) fn store_size(&self, _pages: &mut Pages<'m>, bytes: u64) {
        self.size.store(bytes, Ordering::Release);
    }

    pub(crate) fn set_error(&self, error: IoError) {
        self.wb_err.store(error.errno, Ordering::Relaxed);
    }

    /// Takes page `index` out of the tree, if it is there, and drops the cache's reference.
    pub(crate) fn remove(&self, cache: &PageCache<'m>, pages: &mut Pages<'m>, index: u64) {
        let Some(pfn) = pages.tree.remove(index) else {
            return;
        };
        let page = cache.page(pfn);
        let old = page.clear_flags(PageFlags::DIRTY | PageFlags::REFERENCED);
        if old.contains(PageFlags::DIRTY) {
            pages.nr_dirty -= 1;
            cache.vmstat.sub(VmItem::NrDirty, 1);
        }
        // Whoever still holds the page can see that it left the file, as by `page->mapping` in Linux.
        page.set_owner(0);
        cache.vmstat.sub(VmItem::NrFilePages, 1);
        let file = self.file;
        cache
            .trace
            .emit(TraceEvent::MmFilemapDeleteFromPageCache { file, index, pfn });
        cache.put_page(pfn);
    }
}

impl fmt::Debug for Mapping<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping")
            .field("id", &self.id)
            .field("file", &self.file)
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}
