//! A chain of free blocks that belongs to one CPU.
//!
//! ```text
//!   head ─▶ 40 ─▶ 41 ─▶ 42 ─▶ 17 ─▶ 93      freeing 43: it continues the run 40..43, so it goes
//!                      run_end = 43         behind 42; freeing any other page: to the head
//! ```
//! Lists are last in, first out, for warm caches, except that pages freed in ascending order stay so:
//! then whoever allocates them again gets neighbours, and a drain gives the zone whole blocks.

use crate::frames::Frames;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU32, AtomicU64};
use vellum_page::{PAGEBLOCK_ORDER, Page, PageState};
use vellum_types::{Order, Pfn};

const NONE: u32 = Pfn::NONE.as_u32();

/// Blocks that one CPU keeps, of one zone, mobility and order, linked through their descriptors.
///
/// Words are atomics so that anybody may read them, yet only their CPU writes: plain loads and stores.
///
/// # Invariants
/// * `head` starts a chain of `count()` frames, each of state PerCpu with no users.
/// * A frame of state PerCpu whose `prev` is `tag` is on this chain.
pub(crate) struct PageList {
    head: AtomicU32,
    /// One past the page that was freed last. It may be gone again.
    pub(crate) run_end: AtomicU32,
    /// Pages ever put here, by frees and refills.
    pub(crate) put: AtomicU64,
    /// Pages ever taken, by allocations and drains.
    pub(crate) taken: AtomicU64,
    /// When so many pages are here, the list is relieved. Zero while a drain is asked for.
    pub(crate) limit: AtomicU32,
    /// The CPU and the list, as one number.
    tag: u32,
}

impl PageList {
    pub(crate) fn new(tag: u32, limit: u32) -> Self {
        Self {
            head: AtomicU32::new(NONE),
            run_end: AtomicU32::new(NONE),
            put: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            limit: AtomicU32::new(limit),
            tag,
        }
    }

    /// Takes up to `out.len()` blocks of `order`. Returns how many.
    pub(crate) fn pop_many(&self, frames: Frames<'_>, order: Order, out: &mut [Pfn]) -> usize {
        let (mut at, mut got) = (self.head(), 0);
        for slot in out {
            let Some(page) = frames.memmap.try_page(at) else {
                break;
            };
            *slot = at;
            at = page.next();
            page.set_refcount(1);
            page.set_state_order(PageState::Allocated, order);
            got += 1;
        }
        self.head.store(at.as_u32(), Relaxed);
        add(&self.taken, got);
        got as usize
    }

    /// How many pages it has.
    pub(crate) fn count(&self) -> u32 {
        (self
            .put
            .load(Relaxed)
            .wrapping_sub(self.taken.load(Relaxed))) as u32
    }

    /// The first block.
    #[inline(always)]
    pub(crate) fn head(&self) -> Pfn {
        Pfn::new(self.head.load(Relaxed))
    }

    #[inline(always)]
    pub(crate) fn tag(&self) -> Pfn {
        Pfn::new(self.tag)
    }

    #[inline(always)]
    pub(crate) fn pop(&self, frames: Frames<'_>, order: Order) -> Option<Pfn> {
        let pfn = self.head();
        // The end of a list is outside of every memmap.
        let page = frames.memmap.try_page(pfn)?;
        Some(self.take_head(page, pfn, order))
    }

    /// As `pop`, if the first block is in the largest run.
    #[inline(always)]
    pub(crate) fn quick_pop(&self, frames: Frames<'_>, order: Order) -> Option<Pfn> {
        let pfn = self.head();
        let page = frames.memmap.in_largest_run(pfn)?;
        Some(self.take_head(page, pfn, order))
    }

    #[inline(always)]
    fn take_head(&self, page: &Page, pfn: Pfn, order: Order) -> Pfn {
        self.head.store(page.next().as_u32(), Relaxed);
        self.taken.store(self.taken.load(Relaxed) + 1, Relaxed);
        page.set_refcount(1);
        page.set_state_order(PageState::Allocated, order);
        pfn
    }

    /// Takes a block that nobody uses any more. True if the list is long enough to be relieved.
    #[inline(always)]
    pub(crate) fn push(&self, frames: Frames<'_>, page: &Page, pfn: Pfn, order: Order) -> bool {
        if self.run_end.load(Relaxed) == pfn.as_u32() {
            return self.push_run(frames, page, pfn, order);
        }
        self.wipe(page);
        self.push_head(page, pfn, order)
    }

    /// Clears what an owner wrote into a descriptor, all but the state.
    #[inline(always)]
    pub(crate) fn wipe(&self, page: &Page) {
        page.set_refcount(0);
        page.set_mapcount(0);
        page.set_owner(0);
        page.set_index(0);
        page.set_prev(self.tag());
    }

    #[inline(always)]
    pub(crate) fn push_head(&self, page: &Page, pfn: Pfn, order: Order) -> bool {
        page.set_next(self.head());
        self.head.store(pfn.as_u32(), Relaxed);
        self.pushed(page, pfn, order)
    }

    /// The end of a push, when the block is on the chain.
    #[inline(always)]
    fn pushed(&self, page: &Page, pfn: Pfn, order: Order) -> bool {
        self.run_end
            .store(pfn.as_u32().wrapping_add(order.pages()), Relaxed);
        // After the tag: see `continue_run`.
        page.set_state_order(PageState::PerCpu, order);
        let put = self.put.load(Relaxed) + 1;
        self.put.store(put, Relaxed);
        put.wrapping_sub(self.taken.load(Relaxed)) >= u64::from(self.limit.load(Relaxed))
    }

    /// As `push`, for a block that follows the one freed before. Out of line, so that the rest needs
    /// no stack.
    #[inline(never)]
    fn push_run(&self, frames: Frames<'_>, page: &Page, pfn: Pfn, order: Order) -> bool {
        let before = pfn.as_u32().checked_sub(order.pages());
        let before = before.and_then(|raw| frames.memmap.try_page(Pfn::new(raw)));
        self.push_behind(before, page, pfn, order)
    }

    /// As `push_run`, for a single page of the largest run. Whoever calls it needs no stack.
    #[inline(always)]
    pub(crate) fn quick_push_run(&self, frames: Frames<'_>, page: &Page, pfn: Pfn) -> bool {
        // The page before the first is outside of every memmap.
        let before = Pfn::new(pfn.as_u32().wrapping_sub(1));
        let before = frames.memmap.in_largest_run(before);
        self.push_behind(before, page, pfn, Order::ZERO)
    }

    #[inline(always)]
    fn push_behind(&self, before: Option<&Page>, page: &Page, pfn: Pfn, order: Order) -> bool {
        self.wipe(page);
        if self.continue_run(before, page, pfn) {
            self.pushed(page, pfn, order)
        } else {
            self.push_head(page, pfn, order)
        }
    }

    /// Puts `pfn` behind the block before it, if that is on this list. False if it is not.
    #[inline(always)]
    fn continue_run(&self, before: Option<&Page>, page: &Page, pfn: Pfn) -> bool {
        let Some(before) = before else {
            return false;
        };
        // State before tag, as they are written in the other order: a page that another CPU has
        // meanwhile freed shows that CPU's tag.
        if before.state() != PageState::PerCpu || before.prev() != self.tag() {
            return false;
        }
        page.set_next(before.next());
        before.set_next(pfn);
        true
    }

    /// Puts single pages at the head of the list, in their order, as long as each is allocated and in
    /// the pageblock of the first. Returns how many.
    pub(crate) fn push_pages(&self, frames: Frames<'_>, pages: &[Pfn]) -> usize {
        let Some(first) = pages.first() else {
            return 0;
        };
        let pageblock = |pfn: Pfn| pfn.as_u32() >> PAGEBLOCK_ORDER.as_u8();
        let block = pageblock(*first);
        let mut last: Option<&Page> = None;
        let mut pushed = 0;
        for pfn in pages {
            let Some(page) = frames.memmap.try_page(*pfn) else {
                break;
            };
            if !page.is_single() || pageblock(*pfn) != block {
                break;
            }
            self.wipe(page);
            page.set_state(PageState::PerCpu);
            if let Some(last) = last {
                last.set_next(*pfn);
            }
            last = Some(page);
            pushed += 1;
        }
        if let Some(last) = last {
            last.set_next(self.head());
            self.head.store(first.as_u32(), Relaxed);
            self.run_end.store(NONE, Relaxed);
            add(&self.put, pushed);
        }
        pushed as usize
    }

    /// Appends the parts of a block that was just taken from the zone, in ascending order: `parts`
    /// blocks of `order`. `last` is the present end of the chain. Returns the new one.
    pub(crate) fn append(
        &self,
        frames: Frames<'_>,
        last: Pfn,
        block: Pfn,
        order: Order,
        parts: u32,
    ) -> Pfn {
        frames.page(block).set_owner(0);
        let mut at = block;
        for _ in 0..parts {
            let page = frames.page(at);
            page.set_prev(self.tag());
            page.set_next(at + order.pages());
            page.set_state_order(PageState::PerCpu, order);
            at = at + order.pages();
        }
        let end = block + (parts - 1) * order.pages();
        frames.page(end).set_next(Pfn::NONE);
        if last == Pfn::NONE {
            self.head.store(block.as_u32(), Relaxed);
        } else {
            frames.page(last).set_next(block);
        }
        add(&self.put, parts);
        end
    }

    /// Cuts all but the first `keep` pages off; returns the first of the rest and how many they are.
    pub(crate) fn cut(&self, frames: Frames<'_>, keep: u32) -> (Pfn, u32) {
        let count = self.count();
        if keep >= count {
            return (Pfn::NONE, 0);
        }
        let rest = if keep == 0 {
            let all = self.head();
            self.head.store(NONE, Relaxed);
            all
        } else {
            let mut last = frames.page(self.head());
            for _ in 1..keep {
                last = frames.page(last.next());
            }
            let rest = last.next();
            last.set_next(Pfn::NONE);
            rest
        };
        let cut = count - keep;
        add(&self.taken, cut);
        (rest, cut)
    }
}

/// Adds to a word that only this CPU writes.
pub(crate) fn add(word: &AtomicU64, n: u32) {
    word.store(word.load(Relaxed) + u64::from(n), Relaxed);
}
