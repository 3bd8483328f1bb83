//! Taking blocks of another mobility. Linux: `__rmqueue_claim`, `__rmqueue_steal`,
//! `try_to_claim_block` in `mm/page_alloc.c`.
//!
//! A pageblock should hold pages of one mobility, or one unmovable page keeps 2 MiB from ever being
//! free again. So an allocation that finds its own lists empty takes the *largest* foreign block and
//! claims the whole pageblock for its mobility if most of it is free or of its own kind; only if
//! that fails does it take single pages, from the smallest foreign block.

use crate::frames::{Frames, Kind};
use crate::free_area::{FreeAreas, ListEnd};
use vellum_page::{PAGEBLOCK_ORDER, PageState};
use vellum_types::{MigrateType, Order, Pfn};

/// Which mobilities may lend to which, best first.
const fn lenders(to: MigrateType) -> [MigrateType; 2] {
    match to {
        MigrateType::Unmovable | MigrateType::HighAtomic => {
            [MigrateType::Reclaimable, MigrateType::Movable]
        }
        MigrateType::Movable => [MigrateType::Reclaimable, MigrateType::Unmovable],
        MigrateType::Reclaimable => [MigrateType::Unmovable, MigrateType::Movable],
    }
}

/// Takes a block of `order` from a list of another mobility.
#[cold]
pub(crate) fn take(
    areas: &mut FreeAreas,
    frames: Frames<'_>,
    order: Order,
    migrate_type: MigrateType,
) -> Option<Pfn> {
    if claim_largest(areas, frames, order, migrate_type) {
        let kind = Kind::of(migrate_type);
        let from = areas.smallest(order, kind)?;
        return Some(areas.take_from(frames, from, order, kind));
    }
    // The rest of the block stays on the lender's lists: its pageblock was not claimed.
    for from in Order::all().skip(order.index()) {
        for lender in lenders(migrate_type) {
            let kind = Kind::of(lender);
            if areas.is_marked(from, kind) {
                return Some(areas.take_from(frames, from, order, kind));
            }
        }
    }
    None
}

/// True if a foreign block of `order` is worth trying to claim its pageblock. Movable pages pollute
/// least, so for them only large blocks count. Linux: `should_try_claim_block`.
fn worth_claiming(order: Order, migrate_type: MigrateType) -> bool {
    migrate_type != MigrateType::Movable || order.as_u8() >= PAGEBLOCK_ORDER.as_u8() / 2
}

/// Moves a pageblock with a free block of at least `order` to `migrate_type`. True on success.
fn claim_largest(
    areas: &mut FreeAreas,
    frames: Frames<'_>,
    order: Order,
    migrate_type: MigrateType,
) -> bool {
    for from in Order::all().rev().take_while(|from| *from >= order) {
        if !worth_claiming(from, migrate_type) {
            return false;
        }
        for lender in lenders(migrate_type) {
            // The last block: the lender goes on from the head of its list, undisturbed.
            let pfn = areas.list(from, Kind::of(lender)).tail;
            if pfn != Pfn::NONE && claim(areas, frames, pfn, from, migrate_type) {
                return true;
            }
        }
    }
    false
}

/// Claims what surrounds the free block at `pfn`, unless too much of it is in foreign use.
fn claim(
    areas: &mut FreeAreas,
    frames: Frames<'_>,
    pfn: Pfn,
    order: Order,
    migrate_type: MigrateType,
) -> bool {
    if order >= PAGEBLOCK_ORDER {
        areas.unlink(frames, pfn, order);
        frames.set_migrate_type(pfn, order, migrate_type);
        areas.push(frames, pfn, order, Kind::of(migrate_type), ListEnd::Head);
        return true;
    }
    let usage = PageblockUsage::of(frames, pfn);
    let alike = match migrate_type {
        MigrateType::Movable => usage.movable,
        // What is not movable in a movable pageblock is presumably of our kind.
        _ if frames.migrate_type(pfn) == MigrateType::Movable => usage.other,
        _ => 0,
    };
    if usage.free + alike < PAGEBLOCK_ORDER.pages() / 2 {
        return false;
    }
    move_pageblock(areas, frames, pfn, migrate_type);
    true
}

/// Makes the pageblock around `pfn` one of `migrate_type`, its free blocks included. Linux:
/// `move_freepages_block`.
pub(crate) fn move_pageblock(
    areas: &mut FreeAreas,
    frames: Frames<'_>,
    pfn: Pfn,
    migrate_type: MigrateType,
) {
    frames.set_migrate_type(pfn, PAGEBLOCK_ORDER, migrate_type);
    for_free_blocks(frames, pfn, |block, order| {
        areas.unlink(frames, block, order);
        areas.push(frames, block, order, Kind::of(migrate_type), ListEnd::Tail);
    });
}

/// Lists the free blocks of a pageblock anew, after its kind was changed.
pub(crate) fn relist(areas: &mut FreeAreas, frames: Frames<'_>, pfn: Pfn) {
    for_free_blocks(frames, pfn, |block, order| {
        areas.unlink(frames, block, order);
        areas.count_taken(order);
        // It may merge with a neighbour now from which its old kind kept it apart.
        frames.page(block).set_state(PageState::Tail);
        areas.give(frames, block, order, ListEnd::Tail);
    });
}

/// How the frames of a pageblock are used.
#[derive(Default)]
struct PageblockUsage {
    free: u32,
    movable: u32,
    other: u32,
}

impl PageblockUsage {
    fn of(frames: Frames<'_>, pfn: Pfn) -> Self {
        let mut usage = Self::default();
        for_free_blocks(frames, pfn, |_, order| usage.free += order.pages());
        let present = frames.pageblock_frames(pfn);
        for pfn in present.iter().flat_map(vellum_types::PfnRange::iter) {
            if matches!(frames.page(pfn).state(), PageState::Anon | PageState::File) {
                usage.movable += 1;
            }
        }
        usage.other = PAGEBLOCK_ORDER.pages() - usage.free - usage.movable;
        usage
    }
}

/// Visits the free blocks inside the pageblock around `pfn`, none of which may be larger than it.
pub(crate) fn for_free_blocks(frames: Frames<'_>, pfn: Pfn, mut visit: impl FnMut(Pfn, Order)) {
    let Some(range) = frames.pageblock_frames(pfn) else {
        return;
    };
    let mut at = range.start();
    while at < range.end() {
        match frames.free_block(at) {
            Some(order) => {
                visit(at, order);
                at = at + order.pages();
            }
            None => at = at + 1,
        }
    }
}
