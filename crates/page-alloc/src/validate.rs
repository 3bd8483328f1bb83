//! The lists against the memmap.

use crate::allocator::PageAllocator;
use crate::frames::{Frames, Kind};
use crate::free_area::FreeAreas;
use crate::page_list::PageList;
use crate::pcp;
use crate::zone::Zone;
use vellum_machine::VmItem;
use vellum_page::{PAGEBLOCK_ORDER, Page, PageState};
use vellum_types::{MigrateType, Order, Pfn, PfnRange};

type Check<T = ()> = Result<T, &'static str>;

const PAGEBLOCK: u32 = PAGEBLOCK_ORDER.pages();

impl PageAllocator<'_> {
    /// Checks every list and every descriptor. Slow: it looks at each frame of the machine.
    ///
    /// Nobody else may allocate or free meanwhile; each zone is consistent by itself, yet the sum of
    /// all is compared with a counter that is not under their locks.
    ///
    /// # Errors
    /// What is wrong.
    pub fn validate(&self) -> Check {
        let mut free = 0;
        // Absent ones too: they must be empty.
        for zone in self.nodes.zones() {
            let lists = self
                .sets_near(zone)
                .flat_map(|set| set.lists().iter().enumerate());
            let mut kept = 0;
            for (at, list) in lists {
                if pcp::zone_of(at) == zone.zone_type.index() {
                    kept += per_cpu(list, pcp::order_of(at), zone, self.frames)?;
                }
            }
            free += validate_zone(zone, self.frames, kept)?;
        }
        if free != self.vmstat.item(VmItem::NrFreePages) {
            return Err("nr_free_pages is not the sum of the zones");
        }
        Ok(())
    }
}

/// Walks one per-CPU list. Returns its pages.
fn per_cpu(list: &PageList, order: Order, zone: &Zone, frames: Frames<'_>) -> Check<u64> {
    let mut at = list.head();
    for _ in 0..list.count() {
        let page = frames
            .memmap
            .try_page(at)
            .ok_or("a per-CPU list ends early or leaves memory")?;
        if page.state() != PageState::PerCpu || frames.zone_id(at) != Some(zone.id()) {
            return Err("a page on a per-CPU list is in use or of another zone");
        }
        if page.order() != order {
            return Err("a block on a per-CPU list is of another order");
        }
        if page.prev() != list.tag() {
            return Err("a page on a per-CPU list has the tag of another");
        }
        if !is_unused(page) {
            return Err("a free frame has users");
        }
        at = page.next();
    }
    if at != Pfn::NONE {
        return Err("a per-CPU list is longer than its count");
    }
    Ok(u64::from(list.count()) * u64::from(order.pages()))
}

/// True if nobody holds or maps the frame.
fn is_unused(page: &Page) -> bool {
    page.refcount() == 0 && page.mapcount() == 0
}

/// Returns the free pages. `kept` are on per-CPU lists.
fn validate_zone(zone: &Zone, frames: Frames<'_>, kept: u64) -> Check<u64> {
    let state = zone.lock();
    let mut blocks = 0;
    let mut pages = 0;
    for order in Order::all() {
        for kind in Kind::all() {
            let count = list(&state.areas, frames, zone, order, kind)?;
            blocks += count;
            pages += count * u64::from(order.pages());
        }
    }
    if !sums_agree(&state.areas) {
        return Err("the free pages of a kind are not the sum of its lists");
    }
    if pages != state.areas.pages() {
        return Err("the free pages of a zone are not the sum of its lists");
    }
    let Some(span) = zone.span() else {
        return if pages == 0 {
            Ok(0)
        } else {
            Err("an absent zone has free pages")
        };
    };
    let mut found = Census {
        free_blocks: 0,
        per_cpu: 0,
        frames: 0,
    };
    for run in frames.memmap.runs() {
        if let Some(here) = run.intersect(&span) {
            census(frames, here, zone, &mut found)?;
        }
    }
    if found.free_blocks != blocks {
        return Err("a free block is on no list");
    }
    if found.per_cpu != kept {
        return Err("a per-CPU page is on no list");
    }
    if found.frames != zone.managed() {
        return Err("a managed frame was lost");
    }
    Ok(pages)
}

/// True if what requests may count on is the sum of the lists they may take from.
fn sums_agree(areas: &FreeAreas) -> bool {
    let of = |kind: Kind| -> u64 {
        let blocks = |order: Order| u64::from(areas.list(order, kind).count);
        Order::all()
            .map(|order| blocks(order) * u64::from(order.pages()))
            .sum()
    };
    let all: u64 = Kind::all().map(of).sum();
    let atomic = of(Kind::of(MigrateType::HighAtomic));
    areas.usable(true) == all - of(Kind::ISOLATED)
        && areas.usable(false) == areas.usable(true) - atomic
}

/// Walks one list. Returns its length.
fn list(
    areas: &FreeAreas,
    frames: Frames<'_>,
    zone: &Zone,
    order: Order,
    kind: Kind,
) -> Check<u64> {
    let list = areas.list(order, kind);
    if areas.is_marked(order, kind) != (list.count != 0) {
        return Err("the mark of a list is wrong");
    }
    let (mut prev, mut at) = (Pfn::NONE, list.head);
    for _ in 0..list.count {
        let page = frames
            .memmap
            .try_page(at)
            .ok_or("a list ends early or leaves memory")?;
        if page.prev() != prev {
            return Err("a backward link is wrong");
        }
        if page.owner() != kind.raw() {
            return Err("a block is on the list of another mobility");
        }
        free_block(frames, at, order, kind)?;
        if frames.zone_id(at) != Some(zone.id()) {
            return Err("a block is in the wrong zone");
        }
        (prev, at) = (at, page.next());
    }
    if at != Pfn::NONE || list.tail != prev {
        return Err("a list is longer than its count");
    }
    Ok(u64::from(list.count))
}

/// Checks one free block.
fn free_block(frames: Frames<'_>, pfn: Pfn, order: Order, kind: Kind) -> Check {
    if frames.free_block(pfn) != Some(order) {
        return Err("a block on a list is not free or of another order");
    }
    if !order.is_aligned(pfn) {
        return Err("a free block is not aligned");
    }
    let buddy = order.buddy_of(pfn);
    if order < Order::MAX
        && frames.free_block(buddy) == Some(order)
        && (frames.kind(buddy) == kind || !kind.keeps_apart() && !frames.kind(buddy).keeps_apart())
    {
        return Err("two buddies are both free");
    }
    for at in 0..order.pages() {
        let page = frames
            .memmap
            .try_page(pfn + at)
            .ok_or("a free block leaves memory")?;
        if at != 0 && page.state() != PageState::Tail {
            return Err("blocks overlap: a frame inside a free block is not Tail");
        }
        if !is_unused(page) {
            return Err("a free frame has users");
        }
        if at % PAGEBLOCK_ORDER.pages() == 0 && frames.kind(pfn + at) != kind {
            return Err("a free block and its pageblock differ in mobility");
        }
    }
    Ok(())
}

/// What a walk over the descriptors finds.
struct Census {
    free_blocks: u64,
    per_cpu: u64,
    /// Frames that are not Reserved.
    frames: u64,
}

/// Walks the descriptors of `span` block by block, those of other zones left out.
fn census(frames: Frames<'_>, span: PfnRange, zone: &Zone, census: &mut Census) -> Check {
    let mut at = span.start();
    while at < span.end() {
        if frames.zone_id(at) != Some(zone.id()) {
            at = Pfn::new(at.as_u32() / PAGEBLOCK * PAGEBLOCK + PAGEBLOCK);
            continue;
        }
        let page = frames.page(at);
        let pages = match page.state() {
            PageState::Reserved => {
                at = at + 1;
                continue;
            }
            PageState::Tail => return Err("a frame belongs to no block"),
            PageState::Free => {
                census.free_blocks += 1;
                page.order().pages()
            }
            PageState::PerCpu => {
                census.per_cpu += u64::from(page.order().pages());
                page.order().pages()
            }
            _ => {
                if page.refcount() == 0 {
                    return Err("an allocated frame has no users");
                }
                page.order().pages()
            }
        };
        census.frames += u64::from(pages);
        at = at + pages;
    }
    Ok(())
}
