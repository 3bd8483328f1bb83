//! Making large free blocks by moving what is in the way. Linux: `mm/compaction.c`.
//!
//! Linux's two scanners move pages from one end of a zone to the other until a block has come to be. Here
//! one scan finds the aligned blocks that cost least to empty, which are then isolated, so that what is free in
//! them stays free, and emptied. Where the pages go is the allocator's choice, which takes the smallest
//! holes first. Each compaction looks at each frame of a zone once and empties a few blocks, no more.

use crate::context::MmContext;
use vellum_machine::{Machine, VmEvent};
use vellum_page::{PageFlags, PageState};
use vellum_page_alloc::{ContigError, IsolatedRange, PageAllocator};
use vellum_types::{GfpFlags, Order, Pfn, PfnRange};

/// Blocks that one compaction of a zone tries to empty.
const TRIES: usize = 4;
/// How often what is in the way is moved: a page may be busy for a moment.
const ROUNDS: u32 = 2;

/// A block and how many pages must leave it.
type Candidate = (u32, Pfn);

/// What a scan found, the cheapest first.
struct Candidates {
    best: [Option<Candidate>; TRIES],
}

impl Candidates {
    fn add(&mut self, new: Candidate) {
        let mut new = Some(new);
        for slot in &mut self.best {
            if slot.is_none() || new.is_some_and(|new| slot.is_some_and(|old| new.0 < old.0)) {
                core::mem::swap(slot, &mut new);
            }
        }
    }
}

impl<'m, M: Machine> MmContext<'m, M> {
    /// Tries to make a free block of `order` for a request with these flags, in the zones it can use.
    /// True if it did, so that the request is worth repeating. No lock is held; nothing is
    /// done for those who must not wait. Linux: `try_to_compact_pages`.
    pub fn compact(&self, pages: &PageAllocator<'m>, order: Order, gfp: GfpFlags) -> bool {
        if order == Order::ZERO || !gfp.contains(GfpFlags::DIRECT_RECLAIM) {
            return false;
        }
        self.vmstat.count(VmEvent::CompactStall);
        let mut done = false;
        for zone in (0..=gfp.highest_zone().index()).rev() {
            let info = pages.zones().find(|info| info.zone_type.index() == zone);
            let span = info.and_then(|info| PfnRange::from_len(info.start, info.spanned as u32));
            if let Some(span) = span {
                done = done || self.compact_zone(pages, span, order);
            }
        }
        self.vmstat.count(if done {
            VmEvent::CompactSuccess
        } else {
            VmEvent::CompactFail
        });
        done
    }

    fn compact_zone(&self, pages: &PageAllocator<'m>, span: PfnRange, order: Order) -> bool {
        let size = order.pages();
        let mut found = Candidates {
            best: [None; TRIES],
        };
        let mut at = span.start().as_u32().next_multiple_of(size);
        while at + size <= span.end().as_u32() {
            let block = Pfn::new(at);
            if let Some(cost) = self.cost_to_empty(block, size) {
                found.add((cost, block));
            }
            at += size;
        }
        found.best.into_iter().flatten().any(|(_, block)| {
            let range = PfnRange::from_len(block, size);
            let isolated = range.and_then(|range| pages.isolate_range(range).ok());
            isolated.is_some_and(|isolated| self.empty(&isolated))
        })
    }

    /// How many pages must leave a block; `None` if something in it cannot.
    fn cost_to_empty(&self, block: Pfn, size: u32) -> Option<u32> {
        let (mut cost, mut free, mut offset) = (0, 0, 0);
        let mut movable = true;
        while offset < size {
            let page = self.page(block + offset);
            let pages = page.order().pages();
            match page.state() {
                PageState::Free | PageState::PerCpu => {
                    free += pages;
                    offset += pages;
                }
                PageState::Anon | PageState::File if !page.flags().contains(PageFlags::HEAD) => {
                    cost += 1;
                    offset += 1;
                }
                _ => {
                    movable = false;
                    break;
                }
            }
        }
        let scanned = u64::from(offset.min(size));
        self.vmstat
            .count_many(VmEvent::CompactMigrateScanned, scanned);
        self.vmstat
            .count_many(VmEvent::CompactFreeScanned, u64::from(free));
        movable.then_some(cost)
    }

    /// Moves away what is in an isolated range. True if nothing is left in it.
    fn empty(&self, isolated: &IsolatedRange<'_, '_>) -> bool {
        for _ in 0..ROUNDS {
            for pfn in isolated.busy() {
                let moved = self.migrate(pfn);
                self.vmstat.count(VmEvent::CompactIsolated);
                self.vmstat.count(if moved {
                    VmEvent::PgMigrateSuccess
                } else {
                    VmEvent::PgMigrateFail
                });
            }
            if isolated.busy().next().is_none() {
                return true;
            }
        }
        false
    }

    /// Takes exactly the frames of `range`, each an allocated page of its own, after what was in them
    /// moved away. No lock is held. Linux: `alloc_contig_range`.
    ///
    /// # Errors
    /// The range cannot be isolated; or, as `Ok(Some)`, the first frame that would not be emptied: then
    /// nothing was taken.
    pub fn alloc_contig_range(
        &self,
        pages: &PageAllocator<'m>,
        range: PfnRange,
    ) -> Result<Option<Pfn>, ContigError> {
        let isolated = pages.isolate_range(range)?;
        self.empty(&isolated);
        Ok(match isolated.take() {
            Ok(()) => None,
            Err(isolated) => isolated.busy().next(),
        })
    }
}
