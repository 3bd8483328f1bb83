//! A naive address space: an array with one entry per page.

use vellum_object::{HeapSource, ObjectCache};
use vellum_types::{PAGE_SIZE, VirtAddr, VirtRange, VmFlags};
use vellum_vma::{Backing, GapRequest, Inner, Leaf, Vma, VmaCaches, VmaSet};

/// Like anonymous memory with an `anon_vma` that appears later: areas without a tag go with any,
/// which makes mergeability not transitive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Object {
    pub(crate) id: u8,
    pub(crate) linear: bool,
    pub(crate) tag: Option<u8>,
}

impl Backing for Object {
    fn can_merge(&self, other: &Self) -> bool {
        self.id == other.id
            && self.linear == other.linear
            && (self.tag.is_none() || other.tag.is_none() || self.tag == other.tag)
    }
    fn is_linear(&self) -> bool {
        self.linear
    }
    fn absorb(&mut self, other: &Self) {
        self.tag = self.tag.or(other.tag);
    }
}

pub(crate) type Set<'m> = VmaSet<'m, Object>;

/// A source for each kind of object.
pub(crate) struct Heaps {
    pub(crate) areas: HeapSource,
    pub(crate) leaves: HeapSource,
    pub(crate) inners: HeapSource,
}

impl Heaps {
    pub(crate) fn new() -> Self {
        Self {
            areas: HeapSource::new(ObjectCache::<Vma<Object>>::BOX_LAYOUT),
            leaves: HeapSource::new(ObjectCache::<Leaf<'_, Object>>::BOX_LAYOUT),
            inners: HeapSource::new(ObjectCache::<Inner<'_, Object>>::BOX_LAYOUT),
        }
    }
    pub(crate) fn caches(&self) -> VmaCaches<'_, Object> {
        VmaCaches {
            areas: ObjectCache::new(&self.areas),
            leaves: ObjectCache::new(&self.leaves),
            inners: ObjectCache::new(&self.inners),
        }
    }
    /// Lets each kind fail after so many more allocations.
    pub(crate) fn fail_after(&self, counts: [i64; 3]) {
        self.areas.fail_after(counts[0]);
        self.leaves.fail_after(counts[1]);
        self.inners.fail_after(counts[2]);
    }
    pub(crate) fn live(&self) -> [usize; 3] {
        [self.areas.live(), self.leaves.live(), self.inners.live()]
    }
}

pub(crate) struct Rng(pub u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }
}

/// Page zero of the model has this page number.
const BASE: u64 = 0x7f_0000;

pub(crate) fn addr(page: usize) -> VirtAddr {
    VirtAddr::from_page_number(BASE + page as u64)
}

pub(crate) fn page_of(addr: VirtAddr) -> usize {
    (addr.page_number() - BASE) as usize
}

pub(crate) fn range(first: usize, end: usize) -> VirtRange {
    VirtRange::new(addr(first), addr(end)).unwrap()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Page {
    pub(crate) flags: VmFlags,
    pub(crate) pgoff: u64,
    pub(crate) object: Object,
    /// True on the first page of an area.
    pub(crate) begins: bool,
}

#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) pages: Vec<Option<Page>>,
}

impl Model {
    pub(crate) fn new(pages: usize) -> Self {
        Self {
            pages: vec![None; pages],
        }
    }

    pub(crate) fn is_free(&self, first: usize, end: usize) -> bool {
        self.pages[first..end].iter().all(Option::is_none)
    }

    /// First page and end of the area that has `page`.
    pub(crate) fn area(&self, page: usize) -> Option<(usize, usize)> {
        self.pages.get(page)?.as_ref()?;
        let first = (0..=page)
            .rev()
            .find(|p| self.pages[*p].unwrap().begins)
            .unwrap();
        let end = (page + 1..self.pages.len())
            .find(|p| self.pages[*p].is_none_or(|p| p.begins))
            .unwrap_or(self.pages.len());
        Some((first, end))
    }

    pub(crate) fn areas(&self) -> Vec<(usize, usize)> {
        let mut areas = Vec::new();
        let mut page = 0;
        while page < self.pages.len() {
            match self.pages[page] {
                None => page += 1,
                Some(_) => {
                    let end = (page + 1..self.pages.len())
                        .find(|p| self.pages[*p].is_none_or(|p| p.begins))
                        .unwrap_or(self.pages.len());
                    areas.push((page, end));
                    page = end;
                }
            }
        }
        areas
    }

    pub(crate) fn set(
        &mut self,
        first: usize,
        end: usize,
        flags: VmFlags,
        pgoff: u64,
        object: Object,
    ) {
        for page in first..end {
            self.pages[page] = Some(Page {
                flags,
                pgoff: pgoff + (page - first) as u64,
                object,
                begins: page == first,
            });
        }
    }

    pub(crate) fn clear(&mut self, first: usize, end: usize) {
        self.pages[first..end].fill(None);
    }

    pub(crate) fn split(&mut self, at: usize) {
        if let Some(Some(page)) = self.pages.get_mut(at) {
            page.begins = true;
        }
    }

    /// True if the areas on both sides of the boundary at `at` may be one.
    pub(crate) fn can_merge(&self, at: usize) -> bool {
        if at == 0 || at >= self.pages.len() {
            return false;
        }
        let (Some(low), Some(high)) = (self.pages[at - 1], self.pages[at]) else {
            return false;
        };
        low.flags == high.flags
            && (!low.object.linear || low.pgoff + 1 == high.pgoff)
            && low.object.can_merge(&high.object)
    }

    /// Joins the areas on both sides of `at`; the lower one's identity stays, or the upper's.
    pub(crate) fn merge(&mut self, at: usize, keep_lower: bool) {
        let (first, _) = self.area(at - 1).unwrap();
        let (_, end) = self.area(at).unwrap();
        let (low, high) = (self.pages[at - 1].unwrap(), self.pages[at].unwrap());
        let (mut object, other) = if keep_lower {
            (low.object, high.object)
        } else {
            (high.object, low.object)
        };
        object.absorb(&other);
        // Where the offset has no meaning that of the first page counts.
        let pgoff = self.pages[first].unwrap().pgoff;
        self.set(first, end, low.flags, pgoff, object);
    }

    /// The rule of `insert_merged`; returns the area that results.
    pub(crate) fn insert_merged(
        &mut self,
        first: usize,
        end: usize,
        flags: VmFlags,
        pgoff: u64,
        object: Object,
    ) -> (usize, usize) {
        let mut alone = self.clone();
        alone.set(first, end, flags, pgoff, object);
        let (with_prev, with_next) = (alone.can_merge(first), alone.can_merge(end));
        let agree = !with_prev
            || !with_next
            || self.pages[first - 1]
                .unwrap()
                .object
                .can_merge(&self.pages[end].unwrap().object);
        self.set(first, end, flags, pgoff, object);
        if with_prev {
            self.merge(first, true);
        }
        if with_next && agree {
            self.merge(end, with_prev);
        }
        self.area(first).unwrap()
    }

    pub(crate) fn merge_around(&mut self, first: usize, end: usize) {
        for at in first..=end {
            if self
                .pages
                .get(at)
                .copied()
                .flatten()
                .is_some_and(|p| p.begins)
                && self.can_merge(at)
            {
                self.merge(at, true);
            }
        }
    }

    /// Compares everything.
    pub(crate) fn check(&self, set: &Set<'_>) {
        set.validate().unwrap();
        let areas = self.areas();
        assert_eq!(set.len(), areas.len());
        assert_eq!(
            set.total_pages(),
            self.pages.iter().flatten().count() as u64
        );
        for (area, (first, end)) in set.iter().zip(areas) {
            let page = self.pages[first].unwrap();
            assert_eq!(area.range(), range(first, end));
            assert_eq!((area.flags, area.pgoff()), (page.flags, page.pgoff));
            assert_eq!(area.backing, page.object);
        }
    }

    /// `unmapped_area` by trying every page.
    pub(crate) fn gap(&self, request: &GapRequest) -> Option<VirtAddr> {
        let align = request.align.max(PAGE_SIZE);
        self.gap_of(request, request.len + align - PAGE_SIZE)
            .or_else(|| self.gap_of(request, request.len))
    }

    fn gap_of(&self, request: &GapRequest, need: u64) -> Option<VirtAddr> {
        let low = page_of(request.low);
        let high = page_of(request.high).min(self.pages.len());
        let len = (request.len / PAGE_SIZE) as usize;
        let guard = (request.guard_gap / PAGE_SIZE) as usize;
        let mut found = None;
        let mut first = low;
        while first < high {
            if self.pages[first].is_some() {
                first += 1;
                continue;
            }
            // The gap from here, within bounds, and what is above it.
            let end = (first..self.pages.len()).find(|p| self.pages[*p].is_some());
            let grows_down =
                end.is_some_and(|p| self.pages[p].unwrap().flags.contains(VmFlags::GROWSDOWN));
            let end = end.unwrap_or(self.pages.len());
            let usable = if grows_down {
                end.saturating_sub(guard)
            } else {
                end
            }
            .min(high);
            if usable.saturating_sub(first) as u64 * PAGE_SIZE >= need {
                let mut places = (first..=usable - len)
                    .filter(|p| addr(*p).align_down(request.align) == addr(*p));
                found = if request.top_down {
                    places.next_back().or(found)
                } else {
                    found.or(places.min())
                };
            }
            first = end;
        }
        found.map(addr)
    }
}
