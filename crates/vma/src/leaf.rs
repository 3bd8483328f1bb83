//! Leaves: the areas, in order.

use crate::Vma;
use crate::entries::{Entries, pull, put, to_left, to_right};
use crate::node::Summary;
use core::fmt;
use vellum_object::KBox;
use vellum_types::VirtAddr;

/// Areas in a leaf.
pub(crate) const LEAF_AREAS: usize = 16;

/// A leaf of a [`VmaSet`](crate::VmaSet). Public only so that a cache of leaves can be created.
///
/// The bounds are repeated in rows of their own, so that a search stays within the leaf.
pub struct Leaf<'m, B> {
    len: usize,
    starts: [u64; LEAF_AREAS],
    ends: [u64; LEAF_AREAS],
    areas: [Option<KBox<'m, Vma<B>>>; LEAF_AREAS],
}

impl<'m, B> Leaf<'m, B> {
    pub(crate) fn empty() -> Self {
        Self {
            len: 0,
            starts: [0; LEAF_AREAS],
            ends: [0; LEAF_AREAS],
            areas: [const { None }; LEAF_AREAS],
        }
    }

    #[inline]
    pub(crate) fn starts(&self) -> &[u64] {
        &self.starts[..self.len]
    }

    #[inline]
    pub(crate) fn ends(&self) -> &[u64] {
        &self.ends[..self.len]
    }

    #[inline]
    pub(crate) fn area(&self, at: usize) -> Option<&Vma<B>> {
        self.areas.get(at)?.as_deref()
    }

    pub(crate) fn area_mut(&mut self, at: usize) -> Option<&mut Vma<B>> {
        self.areas.get_mut(at)?.as_deref_mut()
    }

    /// The area at `at` if it contains `addr`. `at` may be any number.
    #[inline]
    pub(crate) fn area_if_contains(&self, at: usize, addr: u64) -> Option<&Vma<B>> {
        let inside = *self.starts().get(at)? <= addr && addr < *self.ends().get(at)?;
        if inside { self.area(at) } else { None }
    }

    /// Slot of the first area that ends after `addr`; the length if none does.
    #[inline]
    pub(crate) fn first_ending_after(&self, addr: u64) -> usize {
        self.ends().partition_point(|end| *end <= addr)
    }

    /// Slot of the area that starts at `start`.
    pub(crate) fn position(&self, start: u64) -> Option<usize> {
        self.starts().binary_search(&start).ok()
    }

    /// Slot where an area that starts at `start` belongs.
    pub(crate) fn place_for(&self, start: u64) -> usize {
        self.starts().partition_point(|other| *other < start)
    }

    /// Ends the area below the slot `at` at `end`, if it reaches beyond.
    pub(crate) fn cut_below(&mut self, at: usize, end: VirtAddr) {
        let Some(below) = at
            .checked_sub(1)
            .filter(|below| self.ends[*below] > end.as_u64())
        else {
            return;
        };
        self.update(below, |area| area.set_end(end));
    }

    /// Takes out the area at `at`.
    pub(crate) fn remove(&mut self, at: usize) -> Option<KBox<'m, Vma<B>>> {
        pull(&mut self.starts, self.len, at, 0);
        pull(&mut self.ends, self.len, at, 0);
        let area = pull(&mut self.areas, self.len, at, None);
        self.len -= 1;
        area
    }

    pub(crate) fn update(&mut self, at: usize, change: impl FnOnce(&mut Vma<B>)) {
        if let Some(area) = &mut self.areas[at] {
            change(area);
            (self.starts[at], self.ends[at]) = (area.start().as_u64(), area.end().as_u64());
        }
    }

    pub(crate) fn summary(&self) -> Summary {
        Summary::of(self.starts(), self.ends(), 0)
    }

    /// Checks this leaf, whose areas must lie at or above `floor`; returns areas and pages.
    pub(crate) fn validate(&self, floor: u64) -> Result<(usize, u64), &'static str> {
        let mut floor = floor;
        let mut pages = 0;
        for at in 0..self.len {
            let area = self.area(at).ok_or("vma: vacant slot in a leaf")?;
            if (area.start().as_u64(), area.end().as_u64()) != (self.starts[at], self.ends[at]) {
                return Err("vma: bounds of an area differ from its leaf's");
            }
            if !area.range().is_page_aligned() {
                return Err("vma: area not page aligned");
            }
            if self.starts[at] < floor {
                return Err("vma: areas overlap or are out of order");
            }
            floor = self.ends[at];
            pages += area.nr_pages();
        }
        if self.areas[self.len..].iter().any(Option::is_some) {
            return Err("vma: area behind the end of a leaf");
        }
        Ok((self.len, pages))
    }
}

impl<'m, B> Entries for Leaf<'m, B> {
    type Entry = KBox<'m, Vma<B>>;
    const CAPACITY: usize = LEAF_AREAS;

    fn len(&self) -> usize {
        self.len
    }

    fn put(&mut self, at: usize, area: Self::Entry) {
        put(&mut self.starts, self.len, at, area.start().as_u64());
        put(&mut self.ends, self.len, at, area.end().as_u64());
        put(&mut self.areas, self.len, at, Some(area));
        self.len += 1;
    }

    fn move_right(&mut self, right: &mut Self, count: usize) {
        let lens = (self.len, right.len);
        to_right(&mut self.starts, &mut right.starts, lens, count);
        to_right(&mut self.ends, &mut right.ends, lens, count);
        to_right(&mut self.areas, &mut right.areas, lens, count);
        (self.len, right.len) = (lens.0 - count, lens.1 + count);
    }

    fn move_left(&mut self, right: &mut Self, count: usize) {
        let lens = (self.len, right.len);
        to_left(&mut self.starts, &mut right.starts, lens, count);
        to_left(&mut self.ends, &mut right.ends, lens, count);
        to_left(&mut self.areas, &mut right.areas, lens, count);
        (self.len, right.len) = (lens.0 + count, lens.1 - count);
    }
}

impl<B> fmt::Debug for Leaf<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Leaf({} areas, {:?})", self.len, self.summary())
    }
}
