//! The buddy system proper: split and merge. Linux: `__rmqueue_smallest`, `expand`,
//! `__free_one_page`.

use crate::fallback;
use crate::frames::{Frames, Kind};
use crate::free_area::{FreeAreas, ListEnd};
use vellum_page::{PAGEBLOCK_ORDER, PageState};
use vellum_types::{MigrateType, Order, Pfn};

impl FreeAreas {
    /// Takes a block, from a block of another mobility if need be. Its first page's state is still
    /// Free; the caller changes it before the lock is released.
    #[inline]
    pub(crate) fn take(
        &mut self,
        frames: Frames<'_>,
        order: Order,
        migrate_type: MigrateType,
    ) -> Option<Pfn> {
        // Apart from the general case, because nearly all requests for single pages end here.
        let kind = Kind::of(migrate_type);
        if self.is_marked(order, kind) {
            self.count_taken(order);
            return Some(self.pop(frames, order, kind));
        }
        match self.smallest(order, kind) {
            Some(from) => Some(self.take_from(frames, from, order, kind)),
            None => fallback::take(self, frames, order, migrate_type),
        }
    }

    /// Takes the first block of list (`from`, `kind`), which must not be empty, and splits
    /// it down to `to`.
    ///
    /// The lowest part is handed out and the upper halves go to the heads of their lists, so that
    /// the next allocation continues right behind this one.
    #[inline(never)]
    pub(crate) fn take_from(
        &mut self,
        frames: Frames<'_>,
        from: Order,
        to: Order,
        kind: Kind,
    ) -> Pfn {
        self.count_taken(to);
        let pfn = self.pop(frames, from, kind);
        let mut order = from;
        while order > to
            && let Some(half) = order.down()
        {
            self.push(frames, pfn + half.pages(), half, kind, ListEnd::Head);
            order = half;
        }
        pfn
    }

    /// Frees a block: merges it with its buddy as long as that is free, then lists it.
    ///
    /// The frames of the block must not be Free; those behind the first must be Tail.
    #[inline]
    pub(crate) fn give(&mut self, frames: Frames<'_>, pfn: Pfn, order: Order, end: ListEnd) {
        if order > PAGEBLOCK_ORDER && frames.kind(pfn) != frames.kind(pfn + PAGEBLOCK_ORDER.pages())
        {
            // One of its pageblocks was isolated while the block was in use.
            for half in [pfn, pfn + PAGEBLOCK_ORDER.pages()] {
                self.give(frames, half, PAGEBLOCK_ORDER, end);
            }
            return;
        }
        self.count_given(order);
        if free_buddy(frames, pfn, order).is_some() {
            self.merge(frames, pfn, order, end);
        } else {
            self.push(frames, pfn, order, frames.kind(pfn), end);
        }
    }

    /// The rest of `give`, for a block whose buddy is free.
    #[inline(never)]
    fn merge(&mut self, frames: Frames<'_>, mut pfn: Pfn, mut order: Order, end: ListEnd) {
        let kind = frames.kind(pfn);
        while let Some(up) = order.up()
            && let Some(buddy) = free_buddy(frames, pfn, order)
        {
            if order >= PAGEBLOCK_ORDER {
                let other = frames.kind(buddy);
                if other != kind && (other.keeps_apart() || kind.keeps_apart()) {
                    break;
                }
                if other != kind {
                    // The merged block is on one list, so its pageblocks must agree.
                    frames.set_migrate_type(buddy, order, frames.migrate_type(pfn));
                }
            }
            self.unlink(frames, buddy, order);
            // The upper one is inside a block from now on; the lower one gets its words from push.
            let inner = frames.page(pfn.max(buddy));
            inner.set_owner(0);
            inner.set_state(PageState::Tail);
            pfn = pfn.min(buddy);
            order = up;
        }
        self.push(frames, pfn, order, kind, end);
    }
}

/// The buddy of the block at `pfn`, if it is free and can merge.
#[inline]
fn free_buddy(frames: Frames<'_>, pfn: Pfn, order: Order) -> Option<Pfn> {
    let buddy = order.buddy_of(pfn);
    (order < Order::MAX && frames.free_block(buddy) == Some(order)).then_some(buddy)
}

const _: () = assert!(
    Order::MAX.as_u8() <= PAGEBLOCK_ORDER.as_u8() + 1,
    "a block has two pageblocks"
);
