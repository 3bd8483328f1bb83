//! Changes that split and merge areas.

use crate::{Backing, Vma, VmaError, VmaSet};
use vellum_object::OutOfMemory;
use vellum_types::{VirtAddr, VirtRange};

impl<B: Backing> VmaSet<'_, B> {
    /// Adds an area, as part of a neighbour where it can be. Linux: `vma_merge_new_range`.
    ///
    /// Extends the area below, the area above, or joins the two; with either there is no allocation.
    /// If both would take it but not each other, the one below does. Returns the range of the area
    /// that it is in now.
    ///
    /// # Errors
    /// [`VmaError::Overlap`], [`VmaError::OutOfMemory`]; the area is dropped and the set is as it
    /// was.
    pub fn insert_merged(&mut self, area: Vma<B>) -> Result<VirtRange, VmaError> {
        let (prev, next) = self.find_prev(area.start());
        if next.is_some_and(|next| next.start() < area.end()) {
            return Err(VmaError::Overlap);
        }
        let prev = prev.filter(|prev| prev.can_merge(&area));
        let next = next.filter(|next| area.can_merge(next));
        match (prev, next) {
            (Some(prev), next) => {
                // The offsets of all three are contiguous; only the backings may not agree.
                let joins = next.is_some_and(|next| prev.backing.can_merge(&next.backing));
                let start = prev.start();
                self.extend_up(start, area.end());
                self.absorb(start, &area.backing);
                if joins {
                    self.rejoin(start);
                }
                Ok(self.range_at(start).unwrap_or(area.range()))
            }
            (None, Some(next)) => {
                let (old, pages) = (next.start(), next.nr_pages());
                let range = VirtRange::new(area.start(), next.end()).unwrap_or(area.range());
                self.move_bounds(old, pages, range, area.pgoff());
                self.absorb(area.start(), &area.backing);
                Ok(range)
            }
            (None, None) => {
                let range = area.range();
                self.allocate_and_insert(area)?;
                Ok(range)
            }
        }
    }

    /// Makes `at` a boundary: the area that contains it becomes two. Does nothing if it is a
    /// boundary already, or not mapped. Linux: `split_vma`.
    ///
    /// # Errors
    /// Out of memory; the set is as it was.
    ///
    /// # Panics
    /// If `at` is not page aligned and inside an area.
    pub fn split(&mut self, at: VirtAddr) -> Result<(), OutOfMemory> {
        self.split_at(at).map(|_| ())
    }

    /// [`split`](Self::split); returns the start of the lower area if there are two now.
    fn split_at(&mut self, at: VirtAddr) -> Result<Option<VirtAddr>, OutOfMemory> {
        let Some(area) = self.lookup(at).filter(|area| area.start() < at) else {
            return Ok(None);
        };
        let (Some(lower), Some(upper)) = (
            VirtRange::new(area.start(), at),
            VirtRange::new(at, area.end()),
        ) else {
            return Ok(None);
        };
        let (pgoff, pages) = (area.pgoff(), area.nr_pages());
        let upper = Vma::new(upper, area.flags, area.page_index(at), area.backing.clone());
        let upper = self.caches.areas.boxed(upper)?;
        let spare = self.reserve(at)?;
        self.move_bounds(lower.start(), pages, lower, pgoff);
        self.commit(upper, spare);
        Ok(Some(lower.start()))
    }

    /// Splits at both ends of `range`, after which every area is either inside or outside of it.
    ///
    /// # Errors
    /// Out of memory; the set is as it was.
    ///
    /// # Panics
    /// If an end of `range` is not page aligned and inside an area.
    pub fn isolate(&mut self, range: VirtRange) -> Result<(), OutOfMemory> {
        let first = self.split_at(range.start())?;
        self.split_at(range.end()).map(|_| ()).inspect_err(|_| {
            if let Some(lower) = first {
                self.rejoin(lower);
            }
        })
    }

    /// Merges all neighbours that can be merged, at every boundary in `range`, its two ends
    /// included. Allocates nothing. Linux: `vma_merge` after a change of flags.
    pub fn merge_around(&mut self, range: VirtRange) {
        let before = VirtAddr::new(range.start().as_u64().saturating_sub(1));
        let Some(mut at) = self.lookup(before).map(Vma::start) else {
            return;
        };
        loop {
            let Some(area) = self.lookup(at) else { return };
            if area.end() > range.end() {
                return;
            }
            let Some(next) = self.lookup(area.end()) else {
                return;
            };
            if area.can_merge(next) {
                self.rejoin(at);
            } else {
                at = next.start();
            }
        }
    }

    /// Grows or shrinks the area that starts at `start` to `new`, at either end. The page offset
    /// follows the start. Allocates nothing.
    ///
    /// # Errors
    /// [`VmaError::NotFound`]; [`VmaError::Overlap`] if another area lies within the old and new
    /// range or between them; [`VmaError::InvalidRange`] if `new` is not page aligned or would
    /// begin before offset zero of the object. The set is as it was.
    pub fn set_range(&mut self, start: VirtAddr, new: VirtRange) -> Result<(), VmaError> {
        let area = self.lookup(start).filter(|area| area.start() == start);
        let area = area.ok_or(VmaError::NotFound)?;
        let pgoff = if new.start() < start {
            area.pgoff()
                .checked_sub(start.page_number() - new.start().page_number())
        } else {
            area.pgoff()
                .checked_add(new.start().page_number() - start.page_number())
        };
        let pgoff = pgoff
            .filter(|_| new.is_page_aligned())
            .ok_or(VmaError::InvalidRange)?;
        let pages = area.nr_pages();
        let all = VirtRange::new(start.min(new.start()), area.end().max(new.end()));
        let all = all.ok_or(VmaError::InvalidRange)?;
        if self.overlapping(all).any(|other| other.start() != start) {
            return Err(VmaError::Overlap);
        }
        self.move_bounds(start, pages, new, pgoff);
        Ok(())
    }

    /// Moves the end of the area at `start` up to `end`.
    fn extend_up(&mut self, start: VirtAddr, end: VirtAddr) {
        let Some(area) = self.lookup(start) else {
            return;
        };
        let (pages, pgoff) = (area.nr_pages(), area.pgoff());
        if let Some(range) = VirtRange::new(start, end) {
            self.move_bounds(start, pages, range, pgoff);
        }
    }

    /// Makes the area at `start` and the one right above it one area.
    fn rejoin(&mut self, start: VirtAddr) {
        let Some(end) = self.range_at(start).map(|range| range.end()) else {
            return;
        };
        if let Some(upper) = self.remove(end) {
            self.extend_up(start, upper.end());
            self.absorb(start, &upper.backing);
        }
    }

    fn absorb(&mut self, start: VirtAddr, backing: &B) {
        if let Some(area) = self.find_mut(start) {
            area.backing.absorb(backing);
        }
    }

    fn range_at(&self, start: VirtAddr) -> Option<VirtRange> {
        self.lookup(start).map(Vma::range)
    }
}
