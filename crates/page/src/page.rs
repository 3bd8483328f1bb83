//! One frame's descriptor.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use vellum_types::{Order, Pfn};

/// What a frame is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PageState {
    /// Never given to the allocator: firmware, a hole, boot memory.
    Reserved = 0,
    /// On a free list of the buddy allocator, as head of a block.
    Free = 1,
    /// Free, but on a per-CPU list.
    PerCpu = 2,
    /// Allocated, no typed owner yet.
    Allocated = 3,
    /// Part of a slab.
    Slab = 4,
    /// A page table.
    PageTable = 5,
    /// Anonymous memory of programs.
    Anon = 6,
    /// A page of a file in the page cache.
    File = 7,
    /// Second and later frames of a block that is Free or compound.
    Tail = 8,
    /// The shared zero page.
    Zero = 9,
}

impl PageState {
    const ALL: [Self; 10] = [
        Self::Reserved,
        Self::Free,
        Self::PerCpu,
        Self::Allocated,
        Self::Slab,
        Self::PageTable,
        Self::Anon,
        Self::File,
        Self::Tail,
        Self::Zero,
    ];
}

bitflags::bitflags! {
    /// `PG_*` bits that are not states.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct PageFlags: u32 {
        /// Content is newer than the backing store.
        const DIRTY = 1 << 0;
        /// Content is valid.
        const UPTODATE = 1 << 1;
        /// Used lately.
        const REFERENCED = 1 << 2;
        /// On an active list.
        const ACTIVE = 1 << 3;
        /// Being written to the backing store.
        const WRITEBACK = 1 << 4;
        /// Locked in memory.
        const MLOCKED = 1 << 5;
        /// Anonymous and clean since MADV_FREE.
        const LAZYFREE = 1 << 6;
        /// Head of a compound page.
        const HEAD = 1 << 8;
        /// On a list of reclaim. Linux's `PG_lru`.
        const LRU = 1 << 9;
        /// Not to be reclaimed: on the unevictable list.
        const UNEVICTABLE = 1 << 10;
        /// In the swap cache: a slot holds, or will hold, the same content.
        const SWAPCACHE = 1 << 11;
        /// Was in the working set when it was last reclaimed.
        const WORKINGSET = 1 << 12;
        /// Somebody works on the page as a whole. Linux's `PG_locked`.
        const LOCKED = 1 << 14;
        /// Its content is backed by swap rather than by a file.
        const SWAPBACKED = 1 << 16;
        /// Six bits for reclaim's own use: list, and tier, age or the like.
        const POLICY = 0x3f << 18;
    }
}

/// `struct page`. 32 bytes; the columns of the crate's table say what each word means.
#[repr(C, align(32))]
#[derive(Debug)]
pub struct Page {
    /// State in bits 0..4, order in 4..8, flags in 8..32.
    word: AtomicU32,
    refcount: AtomicU32,
    mapcount: AtomicU32,
    next: AtomicU32,
    prev: AtomicU32,
    owner: AtomicU32,
    index: AtomicU64,
}

const _: () = assert!(size_of::<Page>() == 32);

impl Page {
    /// The state.
    #[inline]
    pub fn state(&self) -> PageState {
        let raw = (self.word.load(Ordering::Acquire) & 0xf) as usize;
        PageState::ALL
            .get(raw)
            .copied()
            .unwrap_or(PageState::Reserved)
    }

    /// Changes state: order and flags become zero. Release pairs with the Acquire of `state`, so
    /// that whoever sees the new state sees the words that were set before.
    #[inline]
    pub fn set_state(&self, state: PageState) {
        self.word.store(state as u32, Ordering::Release);
    }

    /// Changes state and sets the order of the block that starts here.
    #[inline]
    pub fn set_state_order(&self, state: PageState, order: Order) {
        self.word.store(
            state as u32 | u32::from(order.as_u8()) << 4,
            Ordering::Release,
        );
    }

    /// Changes the state of a single page that is in use, and keeps its flags. For whoever may change
    /// what it is used for: it is of no two owners at once.
    #[inline]
    pub fn retype(&self, state: PageState) {
        let change = |word: u32| word & !0xf | state as u32;
        self.word
            .update(Ordering::AcqRel, Ordering::Relaxed, change);
    }

    /// The order of the block that starts here.
    #[inline]
    pub fn order(&self) -> Order {
        let raw = (self.word.load(Ordering::Relaxed) >> 4) as u8 & 0xf;
        Order::new(raw).unwrap_or(Order::MAX)
    }

    /// The order of the allocated block that starts here, by one look at the word.
    ///
    /// # Errors
    /// The state, if no allocated block starts here.
    #[inline]
    pub fn allocated_order(&self) -> Result<Order, PageState> {
        /// A bit for each state of a frame that is not the head of an allocated block.
        const NOT_ALLOCATED: u32 = 1 << PageState::Reserved as u32
            | 1 << PageState::Free as u32
            | 1 << PageState::PerCpu as u32
            | 1 << PageState::Tail as u32;
        let word = self.word.load(Ordering::Acquire);
        if NOT_ALLOCATED & (1 << (word & 0xf)) != 0 {
            return Err(self.state());
        }
        Ok(Order::new((word >> 4) as u8 & 0xf).unwrap_or(Order::MAX))
    }

    /// True if this is an allocated block of one page, of whatever state but Zero. Cheaper than
    /// [`Page::allocated_order`], for the many who free single pages.
    #[inline]
    pub fn is_single(&self) -> bool {
        const FIRST: u32 = PageState::Allocated as u32;
        const LAST: u32 = PageState::File as u32;
        // Order and state are the low byte; order 0 is no bits.
        let low = self.word.load(Ordering::Acquire) & 0xff;
        low.wrapping_sub(FIRST) <= LAST - FIRST
    }

    /// The flags.
    #[inline]
    pub fn flags(&self) -> PageFlags {
        PageFlags::from_bits_retain(self.word.load(Ordering::Acquire) >> 8)
    }

    /// Sets flags; returns those that were set before.
    #[inline]
    pub fn set_flags(&self, flags: PageFlags) -> PageFlags {
        let old = self.word.fetch_or(flags.bits() << 8, Ordering::AcqRel);
        PageFlags::from_bits_retain(old >> 8)
    }

    /// Clears flags; returns those that were set before.
    #[inline]
    pub fn clear_flags(&self, flags: PageFlags) -> PageFlags {
        let old = self.word.fetch_and(!(flags.bits() << 8), Ordering::AcqRel);
        PageFlags::from_bits_retain(old >> 8)
    }

    /// Clears the flags `clear`, then sets the flags `set`, as one step; returns those that were set
    /// before.
    #[inline]
    pub fn replace_flags(&self, clear: PageFlags, set: PageFlags) -> PageFlags {
        let change = |word: u32| word & !(clear.bits() << 8) | set.bits() << 8;
        let old = self
            .word
            .update(Ordering::AcqRel, Ordering::Relaxed, change);
        PageFlags::from_bits_retain(old >> 8)
    }

    /// References: each handle, table entry and cache slot holds one.
    #[inline]
    pub fn refcount(&self) -> u32 {
        self.refcount.load(Ordering::Acquire)
    }
    /// Sets the reference count, of a frame that nobody else can reach.
    #[inline]
    pub fn set_refcount(&self, n: u32) {
        self.refcount.store(n, Ordering::Release);
    }
    /// One more reference, for somebody who already has one.
    #[inline]
    pub fn get(&self) {
        let old = self.refcount.fetch_add(1, Ordering::Relaxed);
        debug_assert!(old != 0, "get on a free page");
    }
    /// One reference fewer. True if it was the last: the caller must free the frame.
    #[inline]
    #[must_use]
    pub fn put(&self) -> bool {
        // AcqRel: our uses happen before the free, and the freer sees everybody's.
        let old = self.refcount.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(old != 0, "put on a free page");
        old == 1
    }

    /// One more reference, unless the last one is gone. True if it was taken. For those who found the
    /// page on a list or in a tree that holds no reference for them. Linux's `folio_try_get`.
    #[inline]
    #[must_use]
    pub fn try_get(&self) -> bool {
        let more = |n: u32| (n != 0).then(|| n + 1);
        // Acquire: what the owner wrote before it published the page is seen.
        self.refcount
            .try_update(Ordering::Acquire, Ordering::Relaxed, more)
            .is_ok()
    }
    /// Sets the count to zero if it is `expected`, so that nobody can take another reference. True
    /// if so: the page is the caller's alone. Linux's `folio_ref_freeze`.
    #[inline]
    #[must_use]
    pub fn freeze(&self, expected: u32) -> bool {
        // AcqRel: everybody's uses happen before ours.
        self.refcount
            .compare_exchange(expected, 0, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }
    /// Undoes [`Page::freeze`] with `count` references.
    #[inline]
    pub fn unfreeze(&self, count: u32) {
        debug_assert!(self.refcount() == 0, "unfreeze of a page in use");
        self.refcount.store(count, Ordering::Release);
    }
    /// Takes the page lock if it is free. Linux's `folio_trylock`.
    #[inline]
    #[must_use]
    pub fn try_lock(&self) -> bool {
        !self
            .set_flags(PageFlags::LOCKED)
            .contains(PageFlags::LOCKED)
    }
    /// Opens the page lock.
    #[inline]
    pub fn unlock(&self) {
        let old = self.clear_flags(PageFlags::LOCKED);
        debug_assert!(old.contains(PageFlags::LOCKED), "unlock of an open page");
    }

    /// Table entries that map this frame.
    #[inline]
    pub fn mapcount(&self) -> u32 {
        self.mapcount.load(Ordering::Acquire)
    }
    /// Sets the map count, of a frame that nobody else can reach.
    #[inline]
    pub fn set_mapcount(&self, n: u32) {
        self.mapcount.store(n, Ordering::Release);
    }
    /// One more entry maps it. Returns the new count.
    #[inline]
    pub fn map(&self) -> u32 {
        self.mapcount.fetch_add(1, Ordering::AcqRel) + 1
    }
    /// One entry fewer maps it. Returns the new count.
    #[inline]
    pub fn unmap(&self) -> u32 {
        let old = self.mapcount.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(old != 0, "unmap of an unmapped page");
        old.wrapping_sub(1)
    }

    /// The owner word.
    #[inline]
    pub fn owner(&self) -> u32 {
        self.owner.load(Ordering::Relaxed)
    }
    /// Sets the owner word.
    #[inline]
    pub fn set_owner(&self, owner: u32) {
        self.owner.store(owner, Ordering::Relaxed);
    }
    /// The index word.
    #[inline]
    pub fn index(&self) -> u64 {
        self.index.load(Ordering::Relaxed)
    }
    /// Sets the index word.
    #[inline]
    pub fn set_index(&self, index: u64) {
        self.index.store(index, Ordering::Relaxed);
    }
    /// The next frame of the list this one is on.
    #[inline]
    pub fn next(&self) -> Pfn {
        Pfn::new(self.next.load(Ordering::Relaxed))
    }
    /// Sets the next frame.
    #[inline]
    pub fn set_next(&self, pfn: Pfn) {
        self.next.store(pfn.as_u32(), Ordering::Relaxed);
    }
    /// The previous frame of the list this one is on.
    #[inline]
    pub fn prev(&self) -> Pfn {
        Pfn::new(self.prev.load(Ordering::Relaxed))
    }
    /// Sets the previous frame.
    #[inline]
    pub fn set_prev(&self, pfn: Pfn) {
        self.prev.store(pfn.as_u32(), Ordering::Relaxed);
    }
}
