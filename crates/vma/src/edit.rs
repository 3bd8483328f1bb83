//! Changes that split and merge areas.

use crate::reserve::Spare;
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
        if let Some(prev) = prev {
            // The offsets of all three are contiguous; only the backings may not agree.
            let joins = next.is_some_and(|next| prev.backing.can_merge(&next.backing));
            let start = prev.start();
            let middle = self.merge_up(start, &area);
            return Ok(if joins {
                self.rejoin(start, middle.end())
            } else {
                middle
            });
        }
        if let Some(next) = next {
            let (start, end) = (next.start(), next.end());
            let range = join(area.start(), end);
            self.resized(0, area.nr_pages());
            self.update(start, |next| {
                next.set_bounds(range, area.pgoff());
                next.backing.absorb(&area.backing);
            });
            return Ok(range);
        }
        let range = area.range();
        self.insert(area)?;
        Ok(range)
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
        let start = area.start();
        let upper = join(at, area.end());
        let upper = Vma::new(upper, area.flags, area.page_index(at), area.backing.clone());
        let upper = self.caches.areas.boxed(upper)?;
        let plan = self.plan(at);
        let spare = Spare::reserve(&self.caches, &plan)?;
        self.resized(upper.nr_pages(), 0);
        self.commit(upper, &plan, spare);
        Ok(Some(start))
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
                self.rejoin(lower, range.start());
            }
        })
    }

    /// Merges all neighbours that can be merged, at every boundary in `range`, its two ends
    /// included. Allocates nothing. Linux: `vma_merge_existing_range`, after a change of flags.
    pub fn merge_around(&mut self, range: VirtRange) {
        let before = VirtAddr::new(range.start().as_u64().saturating_sub(1));
        let mut from = before;
        loop {
            // A merge leaves the tree another, so that the walk starts anew behind each.
            let mut areas = self.overlapping(join(from, VirtAddr::new(u64::MAX)));
            let Some(mut lower) = areas.next() else {
                return;
            };
            let found = loop {
                if lower.end() > range.end() {
                    return;
                }
                let Some(upper) = areas.next() else { return };
                if lower.can_merge(upper) {
                    break (lower.start(), lower.end());
                }
                lower = upper;
            };
            self.rejoin(found.0, found.1);
            from = found.0;
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
        let all = join(start.min(new.start()), area.end().max(new.end()));
        if self.overlapping(all).any(|other| other.start() != start) {
            return Err(VmaError::Overlap);
        }
        self.update(start, |area| area.set_bounds(new, pgoff));
        self.resized(pages, new.nr_pages());
        Ok(())
    }

    /// Makes the areas that start at `start` and `middle`, which touch, one area.
    fn rejoin(&mut self, start: VirtAddr, middle: VirtAddr) -> VirtRange {
        // Nearly always both are in the same leaf.
        let upper = self.remove_by(start, |leaf, at| {
            leaf.area(at + 1)?;
            let upper = leaf.remove(at + 1)?;
            leaf.update(at, |lower| lower.extend(&upper));
            Some(upper)
        });
        if let Some(upper) = upper {
            self.resized(0, upper.nr_pages());
            return join(start, upper.end());
        }
        match self.remove(middle) {
            Some(upper) => self.merge_up(start, &upper),
            None => join(start, middle),
        }
    }

    /// Extends the area that starts at `start` by `upper`, which lies right above it and is not in
    /// the set.
    fn merge_up(&mut self, start: VirtAddr, upper: &Vma<B>) -> VirtRange {
        self.resized(0, upper.nr_pages());
        self.update(start, |lower| lower.extend(upper));
        join(start, upper.end())
    }
}

/// `start..end` of bounds that come from areas and are in order.
fn join(start: VirtAddr, end: VirtAddr) -> VirtRange {
    VirtRange::new(start, end).expect("bounds in order")
}
