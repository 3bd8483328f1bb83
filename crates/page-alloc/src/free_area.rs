//! The free blocks of one order.

use crate::frames::{Frames, Kind};
use vellum_page::PageState;
use vellum_types::{MigrateType, Order, Pfn};

/// A list of free blocks of one order and one mobility, linked through their descriptors.
///
/// # Invariants
/// `head` and `tail` are both none or both the ends of a chain of `count` blocks.
#[derive(Clone, Copy)]
pub(crate) struct FreeList {
    pub(crate) head: Pfn,
    pub(crate) tail: Pfn,
    pub(crate) count: u32,
}

/// Where a freed block goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListEnd {
    /// It is handed out next.
    Head,
    /// It is handed out last.
    Tail,
}

impl FreeList {
    const EMPTY: Self = Self {
        head: Pfn::NONE,
        tail: Pfn::NONE,
        count: 0,
    };

    #[inline]
    fn push(&mut self, frames: Frames<'_>, pfn: Pfn, end: ListEnd) {
        let page = frames.page(pfn);
        match end {
            ListEnd::Head => {
                let next = core::mem::replace(&mut self.head, pfn);
                page.set_prev(Pfn::NONE);
                page.set_next(next);
                if next == Pfn::NONE {
                    self.tail = pfn;
                } else {
                    frames.page(next).set_prev(pfn);
                }
            }
            ListEnd::Tail => {
                let prev = core::mem::replace(&mut self.tail, pfn);
                page.set_prev(prev);
                page.set_next(Pfn::NONE);
                if prev == Pfn::NONE {
                    self.head = pfn;
                } else {
                    frames.page(prev).set_next(pfn);
                }
            }
        }
        self.count += 1;
    }

    /// Takes the first block off the list, which must not be empty.
    #[inline]
    fn pop(&mut self, frames: Frames<'_>) -> Pfn {
        let pfn = self.head;
        let next = frames.page(pfn).next();
        self.head = next;
        if next == Pfn::NONE {
            self.tail = Pfn::NONE;
        } else {
            frames.page(next).set_prev(Pfn::NONE);
        }
        self.count -= 1;
        pfn
    }

    #[inline]
    fn unlink(&mut self, frames: Frames<'_>, pfn: Pfn) {
        let page = frames.page(pfn);
        let (prev, next) = (page.prev(), page.next());
        if prev == Pfn::NONE {
            self.head = next;
        } else {
            frames.page(prev).set_next(next);
        }
        if next == Pfn::NONE {
            self.tail = prev;
        } else {
            frames.page(next).set_prev(prev);
        }
        self.count -= 1;
    }
}

/// All free blocks of one zone: a list per order and kind.
///
/// # Invariants
/// * A block on list (order, kind) has state Free, that order, and `kind` in its owner word; so have
///   the pageblocks it touches. Its other frames have state Tail.
/// * Bit `order` of `nonempty[kind]` is set just if the list is not empty.
/// * `pages` is the sum of all blocks, `pages_of` of those of a kind.
pub(crate) struct FreeAreas {
    lists: [[FreeList; Kind::COUNT]; Order::COUNT],
    nonempty: [u16; Kind::COUNT],
    pages_of: [u64; Kind::COUNT],
    pages: u64,
    /// Pages of the pageblocks that are reserved for atomic blocks, used and free.
    pub(crate) highatomic: u64,
}

impl FreeAreas {
    pub(crate) const EMPTY: Self = Self {
        lists: [[FreeList::EMPTY; Kind::COUNT]; Order::COUNT],
        nonempty: [0; Kind::COUNT],
        pages_of: [0; Kind::COUNT],
        pages: 0,
        highatomic: 0,
    };

    /// Free pages.
    #[inline]
    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    /// Free pages that an allocation may count on. Linux: `__zone_watermark_unusable_free`.
    #[inline]
    pub(crate) fn usable(&self, highatomic: bool) -> u64 {
        let reserve = self.pages_of[Kind::of(MigrateType::HighAtomic).index()];
        let apart = self.pages_of[Kind::ISOLATED.index()] + if highatomic { 0 } else { reserve };
        self.pages - apart
    }

    pub(crate) fn list(&self, order: Order, kind: Kind) -> &FreeList {
        &self.lists[order.index()][kind.index()]
    }

    pub(crate) fn is_marked(&self, order: Order, kind: Kind) -> bool {
        self.nonempty[kind.index()] & (1 << order.as_u8()) != 0
    }

    /// The smallest order from `order` up that has a block of this kind.
    #[inline]
    pub(crate) fn smallest(&self, order: Order, kind: Kind) -> Option<Order> {
        let large_enough = self.nonempty[kind.index()] >> order.as_u8() << order.as_u8();
        Order::new(large_enough.trailing_zeros() as u8)
    }

    /// Notes that so many pages were allocated.
    #[inline]
    pub(crate) fn count_taken(&mut self, order: Order) {
        self.pages -= u64::from(order.pages());
    }

    /// Notes that so many pages were freed.
    #[inline]
    pub(crate) fn count_given(&mut self, order: Order) {
        self.pages += u64::from(order.pages());
    }

    /// Puts a block on its list. Its frames are counted as free already.
    #[inline]
    pub(crate) fn push(
        &mut self,
        frames: Frames<'_>,
        pfn: Pfn,
        order: Order,
        kind: Kind,
        end: ListEnd,
    ) {
        let page = frames.page(pfn);
        page.set_owner(kind.raw());
        page.set_state_order(PageState::Free, order);
        self.lists[order.index()][kind.index()].push(frames, pfn, end);
        self.nonempty[kind.index()] |= 1 << order.as_u8();
        self.pages_of[kind.index()] += u64::from(order.pages());
    }

    /// Takes the first block off a list, which must not be empty; else as `unlink`.
    #[inline]
    pub(crate) fn pop(&mut self, frames: Frames<'_>, order: Order, kind: Kind) -> Pfn {
        let list = &mut self.lists[order.index()][kind.index()];
        let pfn = list.pop(frames);
        if list.count == 0 {
            self.nonempty[kind.index()] &= !(1 << order.as_u8());
        }
        self.pages_of[kind.index()] -= u64::from(order.pages());
        pfn
    }

    /// Takes a block off its list. The caller sets its state; its frames still count as free.
    #[inline]
    pub(crate) fn unlink(&mut self, frames: Frames<'_>, pfn: Pfn, order: Order) {
        let kind = Kind::from_raw(frames.page(pfn).owner());
        let list = &mut self.lists[order.index()][kind.index()];
        list.unlink(frames, pfn);
        if list.count == 0 {
            self.nonempty[kind.index()] &= !(1 << order.as_u8());
        }
        self.pages_of[kind.index()] -= u64::from(order.pages());
    }
}

const _: () = assert!(Order::COUNT <= 16, "one bit for each order");
