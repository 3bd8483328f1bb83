//! A reserve of pageblocks for blocks that somebody needs who cannot wait. Linux:
//! `reserve_highatomic_pageblock`, `unreserve_highatomic_pageblock`.
//!
//! The first atomic request for a block that is served below the low mark makes the pageblock it came
//! from part of the reserve. What is free there, or freed there later, goes to lists of its own, which
//! other atomic requests look at first and all others not at all, until one that may wait would fail.

use crate::fallback;
use crate::frames::{Frames, Kind, PAGEBLOCK_ORDER};
use crate::free_area::FreeAreas;
use vellum_types::{MigrateType, Order, Pfn};

const KIND: Kind = Kind::of(MigrateType::HighAtomic);

/// Takes a block from the reserve.
pub(crate) fn take(areas: &mut FreeAreas, frames: Frames<'_>, order: Order) -> Option<Pfn> {
    let from = areas.smallest(order, KIND)?;
    Some(areas.take_from(frames, from, order, KIND))
}

/// Makes the pageblock of a block that was just taken part of the reserve, of a zone with `managed`
/// pages. At most one percent, in whole pageblocks; nothing in zones too small for that.
pub(crate) fn reserve(
    areas: &mut FreeAreas,
    frames: Frames<'_>,
    managed: u64,
    pfn: Pfn,
    order: Order,
) {
    let pageblock = u64::from(PAGEBLOCK_ORDER.pages());
    let percent = managed / 100;
    if percent < pageblock
        || areas.highatomic >= percent.next_multiple_of(pageblock)
        || order > PAGEBLOCK_ORDER
        || frames.kind(pfn).keeps_apart()
    {
        return;
    }
    areas.highatomic += pageblock;
    fallback::move_pageblock(areas, frames, pfn, MigrateType::HighAtomic);
}

/// Gives up one pageblock of the reserve that has free pages. False if there is none.
pub(crate) fn unreserve(areas: &mut FreeAreas, frames: Frames<'_>, to: MigrateType) -> bool {
    let Some(order) = areas.smallest(Order::ZERO, KIND) else {
        return false;
    };
    let pfn = areas.list(order, KIND).head;
    areas.highatomic = areas
        .highatomic
        .saturating_sub(u64::from(PAGEBLOCK_ORDER.pages()));
    frames.set_migrate_type(pfn, PAGEBLOCK_ORDER, to);
    fallback::relist(areas, frames, pfn);
    true
}
