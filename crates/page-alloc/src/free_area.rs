//! The free blocks of one order.

use crate::frames::Frames;
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

/// All free blocks of one zone: a list per order and mobility.
///
/// # Invariants
/// * A block on list (order, type) has state Free, that order, and `type` in its owner word; so have
///   the pageblocks it touches. Its other frames have state Tail.
/// * Bit `order` of `nonempty[type]` is set just if the list is not empty.
/// * `pages` is the sum of all blocks.
pub(crate) struct FreeAreas {
    lists: [[FreeList; MigrateType::COUNT]; Order::COUNT],
    nonempty: [u16; MigrateType::COUNT],
    pages: u64,
}

impl FreeAreas {
    pub(crate) const EMPTY: Self = Self {
        lists: [[FreeList::EMPTY; MigrateType::COUNT]; Order::COUNT],
        nonempty: [0; MigrateType::COUNT],
        pages: 0,
    };

    /// Free pages.
    #[inline]
    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    pub(crate) fn list(&self, order: Order, migrate_type: MigrateType) -> &FreeList {
        &self.lists[order.index()][migrate_type.index()]
    }

    pub(crate) fn is_marked(&self, order: Order, migrate_type: MigrateType) -> bool {
        self.nonempty[migrate_type.index()] & (1 << order.as_u8()) != 0
    }

    /// The smallest order from `order` up that has a block of this mobility.
    #[inline]
    pub(crate) fn smallest(&self, order: Order, migrate_type: MigrateType) -> Option<Order> {
        let large_enough = self.nonempty[migrate_type.index()] >> order.as_u8() << order.as_u8();
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
        migrate_type: MigrateType,
        end: ListEnd,
    ) {
        let page = frames.page(pfn);
        page.set_owner(migrate_type as u32);
        page.set_state_order(PageState::Free, order);
        self.lists[order.index()][migrate_type.index()].push(frames, pfn, end);
        self.nonempty[migrate_type.index()] |= 1 << order.as_u8();
    }

    /// Takes the first block off a list, which must not be empty; else as `unlink`.
    #[inline]
    pub(crate) fn pop(
        &mut self,
        frames: Frames<'_>,
        order: Order,
        migrate_type: MigrateType,
    ) -> Pfn {
        let list = &mut self.lists[order.index()][migrate_type.index()];
        let pfn = list.pop(frames);
        if list.count == 0 {
            self.nonempty[migrate_type.index()] &= !(1 << order.as_u8());
        }
        pfn
    }

    /// Takes a block off its list. The caller sets its state; its frames still count as free.
    #[inline]
    pub(crate) fn unlink(&mut self, frames: Frames<'_>, pfn: Pfn, order: Order) {
        let migrate_type = frames.page(pfn).owner() as usize & (MigrateType::COUNT - 1);
        let list = &mut self.lists[order.index()][migrate_type];
        list.unlink(frames, pfn);
        if list.count == 0 {
            self.nonempty[migrate_type] &= !(1 << order.as_u8());
        }
    }
}

const _: () = assert!(Order::COUNT <= 16, "one bit for each order");
