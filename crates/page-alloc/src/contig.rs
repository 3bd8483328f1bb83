//! An exact range of frames. Linux: `alloc_contig_range`, `start_isolate_page_range`.
//!
//! First the pageblocks around the range are *isolated*: their free blocks go to lists from which
//! nothing is allocated, and so does what is freed there from now on. Then whoever can move pages
//! empties the range, while nothing new gets in. When all of it is free, it can be taken.

use crate::allocator::PageAllocator;
use crate::fallback;
use crate::frames::{Kind, PAGEBLOCK_ORDER};
use crate::free_area::{FreeAreas, ListEnd};
use crate::zone::Zone;
use vellum_machine::VmItem;
use vellum_page::PageState;
use vellum_types::{Order, Pfn, PfnRange};

/// Why a range cannot be isolated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContigError {
    /// This frame of the range does not belong to the allocator.
    NotMemory(Pfn),
    /// The pageblocks around the range are not all in one zone.
    SeveralZones,
    /// Somebody else has isolated one of the pageblocks.
    Isolated,
}

/// Isolated pageblocks around a range of frames. Dropping it makes them ordinary again.
#[must_use]
pub struct IsolatedRange<'a, 'm> {
    pages: &'a PageAllocator<'m>,
    range: PfnRange,
    /// The range, widened to whole pageblocks, as far as there are frames.
    around: PfnRange,
}

impl<'m> PageAllocator<'m> {
    /// Isolates the pageblocks around `range` and drains the per-CPU lists.
    ///
    /// # Errors
    /// See [`ContigError`]; nothing has changed then.
    pub fn isolate_range(&self, range: PfnRange) -> Result<IsolatedRange<'_, 'm>, ContigError> {
        let frames = self.frames;
        let is_ours = |pfn: &Pfn| {
            let page = frames.memmap.try_page(*pfn);
            page.is_some_and(|page| page.state() != PageState::Reserved)
        };
        if let Some(pfn) = range.iter().find(|pfn| !is_ours(pfn)) {
            return Err(ContigError::NotMemory(pfn));
        }
        let last = Pfn::new(range.end().as_u32() - 1);
        let ends = frames.pageblock_frames(range.start());
        let ends = ends.zip(frames.pageblock_frames(last));
        let around = ends.and_then(|(low, high)| PfnRange::new(low.start(), high.end()));
        let around = around.ok_or(ContigError::NotMemory(range.start()))?;
        let zone = self.zone_of(around.start());
        let high = self.zone_of(Pfn::new(around.end().as_u32() - 1));
        if self.zone_index(zone) != self.zone_index(high) {
            return Err(ContigError::SeveralZones);
        }
        let mut state = zone.lock();
        if pageblocks(around).any(|pfn| frames.kind(pfn) == Kind::ISOLATED) {
            return Err(ContigError::Isolated);
        }
        for pfn in pageblocks(around) {
            self.split_above_pageblock(&mut state.areas, pfn);
            frames.set_isolated(pfn, true);
            fallback::relist(&mut state.areas, frames, pfn);
        }
        drop(state);
        self.drain_all();
        Ok(IsolatedRange {
            pages: self,
            range,
            around,
        })
    }

    /// Takes exactly the frames of `range`, each a block of its own. Free them one by one.
    ///
    /// # Errors
    /// The range cannot be isolated; or, as `Ok(Some)`, the first frame that is in use: then nothing
    /// was taken, and [`PageAllocator::isolate_range`] gives a migrator the time to empty it.
    pub fn alloc_contig_range(&self, range: PfnRange) -> Result<Option<Pfn>, ContigError> {
        let isolated = self.isolate_range(range)?;
        Ok(match isolated.take() {
            Ok(()) => None,
            Err(isolated) => isolated.busy().next(),
        })
    }

    /// Makes a free block that is larger than a pageblock two, if `pfn`'s pageblock is part of one.
    fn split_above_pageblock(&self, areas: &mut FreeAreas, pfn: Pfn) {
        let frames = self.frames;
        let Some(order) = PAGEBLOCK_ORDER.up() else {
            return;
        };
        let head = Pfn::new(pfn.as_u32() & !(order.pages() - 1));
        if frames.free_block(head) == Some(order) {
            let kind = Kind::from_raw(frames.page(head).owner());
            areas.unlink(frames, head, order);
            for half in [head + PAGEBLOCK_ORDER.pages(), head] {
                areas.push(frames, half, PAGEBLOCK_ORDER, kind, ListEnd::Head);
            }
        }
    }

    /// The free block that `pfn` is in.
    fn free_block_around(&self, pfn: Pfn) -> Option<(Pfn, Order)> {
        Order::all().find_map(|order| {
            let head = Pfn::new(pfn.as_u32() & !(order.pages() - 1));
            let found = self.frames.free_block(head)?;
            (found >= order).then_some((head, found))
        })
    }
}

impl IsolatedRange<'_, '_> {
    /// Frames of the range that are in the way: the first of each block that is in use, or kept by a
    /// CPU that has not yet drained its lists. A snapshot; what is freed does not come back into use.
    pub fn busy(&self) -> impl Iterator<Item = Pfn> {
        let mut at = self.range.start();
        core::iter::from_fn(move || {
            while at < self.range.end() {
                let pfn = at;
                if let Some((head, order)) = self.pages.free_block_around(pfn) {
                    at = head + order.pages();
                    continue;
                }
                let page = self.pages.frames.page(pfn);
                at = match page.state() {
                    PageState::Tail => pfn + 1,
                    _ => pfn + page.order().pages(),
                };
                return Some(pfn);
            }
            None
        })
    }

    /// Takes the range if all of it is free: each frame becomes an allocated page of its own.
    ///
    /// # Errors
    /// `self`, if something is in the way.
    pub fn take(self) -> Result<(), Self> {
        let (pages, frames) = (self.pages, self.pages.frames);
        let mut state = self.zone().lock();
        if self.busy().next().is_some() {
            drop(state);
            return Err(self);
        }
        let mut at = self.range.start();
        while let Some((head, order)) = pages
            .free_block_around(at)
            .filter(|_| at < self.range.end())
        {
            let areas = &mut state.areas;
            areas.unlink(frames, head, order);
            areas.count_taken(order);
            frames.page(head).set_owner(0);
            frames.page(head).set_state(PageState::Tail);
            for pfn in (0..order.pages()).map(|offset| head + offset) {
                if self.range.contains(pfn) {
                    frames.page(pfn).set_refcount(1);
                    frames
                        .page(pfn)
                        .set_state_order(PageState::Allocated, Order::ZERO);
                }
            }
            // What of the block lies outside the range is free again.
            for pfn in (0..order.pages()).map(|offset| head + offset) {
                if !self.range.contains(pfn) {
                    areas.give(frames, pfn, Order::ZERO, ListEnd::Tail);
                }
            }
            at = head + order.pages();
        }
        drop(state);
        let taken = u64::from(self.range.len());
        pages.vmstat.sub(VmItem::NrFreePages, taken);
        pages
            .vmstat
            .count_many(crate::allocator::alloc_event(self.zone().zone_type), taken);
        pages.check_poison(self.range);
        Ok(())
    }

    fn zone(&self) -> &Zone {
        self.pages.zone_of(self.range.start())
    }
}

impl Drop for IsolatedRange<'_, '_> {
    fn drop(&mut self) {
        let frames = self.pages.frames;
        let mut state = self.zone().lock();
        for pfn in pageblocks(self.around) {
            frames.set_isolated(pfn, false);
            fallback::relist(&mut state.areas, frames, pfn);
        }
    }
}

impl core::fmt::Debug for IsolatedRange<'_, '_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "IsolatedRange({:?})", self.range)
    }
}

/// The first frame of each pageblock of `around`.
fn pageblocks(around: PfnRange) -> impl Iterator<Item = Pfn> {
    around.iter().step_by(PAGEBLOCK_ORDER.pages() as usize)
}
