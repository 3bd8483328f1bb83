//! `Mapping`: the cached pages of one file.

use crate::dirty::Dirtied;
use crate::errseq::ErrorSequence;
use crate::readahead::ReadaheadState;
use crate::slots::{FileTree, Held};
use crate::{ErrSeq, IoError, PageCache};
use core::fmt;
use core::sync::atomic::{AtomicI32, AtomicU64, Ordering};
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
    /// Its pages go to swap, not to the store.
    swap_backed: bool,
    memmap: Memmap<'m>,
    /// Bytes. Written under `pages`, so that an insertion sees the latest end of file.
    size: AtomicU64,
    /// The errno of the latest failed write-back that nobody was told about; 0 if there is none.
    wb_err: AtomicI32,
    /// What each opener is told.
    errors: ErrorSequence,
    /// When it became dirty, if it is.
    pub(crate) dirtied: Dirtied,
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
    pub(crate) tree: FileTree<'m>,
    pub(crate) readahead: ReadaheadState,
    pub(crate) nr_dirty: u64,
    /// Pages that are being written.
    pub(crate) nr_writeback: u64,
    /// Where the next turn of background write-back begins: `writeback_index`.
    pub(crate) writeback_hand: u64,
}

impl<'m> Mapping<'m> {
    pub(crate) fn new(
        id: u32,
        file: FileId,
        size: u64,
        swap_backed: bool,
        memmap: Memmap<'m>,
    ) -> Self {
        let pages = Pages {
            tree: FileTree::new(),
            readahead: ReadaheadState::new(),
            nr_dirty: 0,
            nr_writeback: 0,
            writeback_hand: 0,
        };
        Self {
            id,
            file,
            swap_backed,
            memmap,
            size: AtomicU64::new(size),
            wb_err: AtomicI32::new(0),
            errors: ErrorSequence::new(),
            dirtied: Dirtied::new(),
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

    /// True for shared memory: its pages are backed by swap.
    pub fn swap_backed(&self) -> bool {
        self.swap_backed
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
        self.lock().tree.nr_pages()
    }

    /// Shadows: places that remember a page which was reclaimed.
    pub fn nr_shadows(&self) -> u64 {
        self.lock().tree.nr_shadows()
    }

    /// Pages of shared memory that are in swap.
    pub fn nr_swapped(&self) -> u64 {
        self.lock().tree.nr_swapped()
    }

    /// Cached pages that are newer than the store. None of shared memory, which has no store.
    pub fn nr_dirty(&self) -> u64 {
        self.lock().nr_dirty
    }

    /// The frame of page `index` with a reference taken, if it is cached. To be given back with
    /// [`PageCache::put_page`].
    pub fn find_get(&self, index: u64) -> Option<Pfn> {
        let pages = self.lock();
        let pfn = pages.tree.page(index)?;
        self.memmap.page(pfn).get();
        Some(pfn)
    }

    /// Calls `each` for the cached pages of `first..=last`, in order, with a reference taken for it;
    /// Linux's `filemap_map_pages`. `each` runs under this mapping's lock: it may set table entries
    /// that keep the reference, or put it, but must not take a lock of a lower rank.
    pub fn find_get_range(&self, first: u64, last: u64, each: &mut dyn FnMut(u64, Pfn)) {
        let mut pages = self.lock();
        let mut hits = 0;
        for (index, pfn) in pages.tree.pages(first, last) {
            self.memmap.page(pfn).get();
            // Reading around pages that are evicted again and again is in vain, however often
            // they are found: they say nothing for it. Linux does the same.
            let evicted = self
                .memmap
                .page(pfn)
                .flags()
                .contains(PageFlags::WORKINGSET);
            each(index, pfn);
            hits += u32::from(!evicted);
        }
        pages.readahead.hits(hits);
    }

    /// True if a table entry maps a cached page of `first..=last`.
    pub fn any_mapped_in(&self, first: u64, last: u64) -> bool {
        let pages = self.lock();
        pages
            .tree
            .pages(first, last)
            .any(|(_, pfn)| self.memmap.page(pfn).mapcount() > 0)
    }

    /// What who opens the file now knows of its write errors. Linux's `filemap_sample_wb_err`.
    pub fn sample_error(&self) -> ErrSeq {
        self.errors.sample()
    }

    /// Reports a write error that this opener was not told of. Linux's
    /// `file_check_and_advance_wb_err`.
    ///
    /// # Errors
    /// Write-back failed since this opener asked last, or opened the file.
    pub fn check_error_since(&self, since: &mut ErrSeq) -> Result<(), IoError> {
        self.errors.check_since(since)
    }

    /// Reports the latest write-back error, once, to whoever asks first: for those who are no opener,
    /// and independent of what openers are told. Linux's `filemap_check_errors`.
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
        if pages.tree.shadow_nodes() > pages.tree.nr_shadows() {
            return Err("more nodes of shadows than shadows");
        }
        let (mut total, mut dirty, mut writeback) = (0, 0, 0);
        for (index, pfn) in pages.tree.pages(0, u64::MAX) {
            let page = self.memmap.page(pfn);
            let flags = page.flags();
            let marked = pages.tree.is_dirty(index);
            writeback += u64::from(flags.contains(PageFlags::WRITEBACK));
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
            // A page of shared memory has nowhere to be written to, so that nobody looks for it.
            if (flags.contains(PageFlags::DIRTY) && !self.swap_backed) != marked {
                return Err("dirty flag and dirty mark differ");
            }
            if flags.contains(PageFlags::SWAPBACKED) != self.swap_backed {
                return Err("a cached page is of the wrong class");
            }
            if page.refcount() < 1 + page.mapcount() {
                return Err("a cached page has too few references");
            }
        }
        if total != pages.tree.nr_pages() {
            return Err("the tree miscounts its pages");
        }
        if pages.tree.nr_swapped() != 0 && !self.swap_backed {
            return Err("a page of a file with a store is in swap");
        }
        // Those that were truncated meanwhile are being written all the same.
        if writeback > pages.nr_writeback {
            return Err("nr_writeback is wrong");
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
        self.errors.set(error);
    }

    /// Takes page `index` out of the tree and drops the cache's reference. Something else that is
    /// there stays.
    pub(crate) fn remove(&self, cache: &PageCache<'m>, pages: &mut Pages<'m>, index: u64) {
        let Some(pfn) = pages.tree.page(index) else {
            return;
        };
        if pages.tree.clear_dirty(index) {
            pages.nr_dirty -= 1;
            cache.vmstat.sub(VmItem::NrDirty, 1);
        }
        cache
            .page(pfn)
            .clear_flags(PageFlags::DIRTY | PageFlags::REFERENCED);
        self.forget(cache, pages, index, pfn);
        cache.put_page(pfn);
    }

    /// Puts `by` in the place of page `index`, which is not dirty. The cache's reference is the
    /// caller's now.
    pub(crate) fn replace(
        &self,
        cache: &PageCache<'m>,
        pages: &mut Pages<'m>,
        index: u64,
        pfn: Pfn,
        by: Held,
    ) {
        pages.tree.replace_page(cache, index, by);
        self.left(cache, index, pfn);
    }

    /// Takes page `index` out, which is not dirty, and leaves nothing. The cache's reference is the
    /// caller's now.
    pub(crate) fn forget(
        &self,
        cache: &PageCache<'m>,
        pages: &mut Pages<'m>,
        index: u64,
        pfn: Pfn,
    ) {
        pages.tree.remove(cache, index);
        self.left(cache, index, pfn);
    }

    /// Accounts for a page that is in the tree no more.
    fn left(&self, cache: &PageCache<'m>, index: u64, pfn: Pfn) {
        let page = cache.page(pfn);
        // Whoever still holds the page can see that it left the file, as by `page->mapping` in Linux.
        page.set_owner(0);
        cache.vmstat.sub(VmItem::NrFilePages, 1);
        if self.swap_backed {
            cache.vmstat.sub(VmItem::NrShmem, 1);
        }
        let file = self.file;
        cache
            .trace
            .emit(TraceEvent::MmFilemapDeleteFromPageCache { file, index, pfn });
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
