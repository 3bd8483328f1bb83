//! The set: searching, inserting, removing.

use crate::entries::Entries;
use crate::iter::Areas;
use crate::last_hit::LastHit;
use crate::node::Node;
use crate::path::Path;
use crate::reserve::{Plan, Spare};
use crate::{CacheStats, Inner, Leaf, Vma, VmaCaches, VmaError};
use core::fmt;
use vellum_object::KBox;
use vellum_types::{VirtAddr, VirtRange};

/// The areas of an address space, disjoint and in order. Linux: `mm->mm_mt`.
pub struct VmaSet<'m, B> {
    pub(crate) caches: VmaCaches<'m, B>,
    pub(crate) root: Option<Node<'m, B>>,
    /// Levels of inner nodes.
    levels: usize,
    len: usize,
    total_pages: u64,
    last_hit: LastHit,
}

impl<'m, B> VmaSet<'m, B> {
    /// An empty set; nothing is allocated.
    pub fn new(caches: VmaCaches<'m, B>) -> Self {
        let last_hit = LastHit::default();
        Self {
            caches,
            root: None,
            levels: 0,
            len: 0,
            total_pages: 0,
            last_hit,
        }
    }

    /// How many areas there are. Linux: `map_count`.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// True without any area.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many pages all areas have together. Linux: `total_vm`.
    pub const fn total_pages(&self) -> u64 {
        self.total_pages
    }

    /// How often [`find`](Self::find) and [`find_containing`](Self::find_containing) were answered
    /// by the last area found.
    pub fn cache_stats(&self) -> CacheStats {
        self.last_hit.stats()
    }

    /// The first area that ends after `addr`: the one that contains it, or the next above. Linux:
    /// `find_vma`.
    pub fn find(&self, addr: VirtAddr) -> Option<&Vma<B>> {
        if let Some(area) = self.at_last_hit(addr.as_u64()) {
            self.last_hit.count(true);
            return Some(area);
        }
        self.last_hit.count(false);
        let (area, path) = self.descend(addr.as_u64())?;
        if area.start() <= addr {
            self.last_hit.store(path);
        }
        Some(area)
    }

    /// The area that contains `addr`.
    #[inline]
    pub fn find_containing(&self, addr: VirtAddr) -> Option<&Vma<B>> {
        self.find(addr).filter(|area| area.start() <= addr)
    }

    /// Follows the way of the last search, and checks that it leads to `addr`.
    #[inline]
    fn at_last_hit(&self, addr: u64) -> Option<&Vma<B>> {
        let mut steps = self.last_hit.steps();
        let mut node = self.root.as_ref()?;
        loop {
            match node {
                Node::Inner(inner) => node = inner.child(steps.next())?,
                Node::Leaf(leaf) => return leaf.area_if_contains(steps.next(), addr),
            }
        }
    }

    fn descend(&self, addr: u64) -> Option<(&Vma<B>, Path)> {
        let mut path = Path::default();
        let mut node = self.root.as_ref()?;
        loop {
            match node {
                Node::Inner(inner) => {
                    let at = inner.first_ending_after(addr);
                    path.push(at);
                    node = inner.child(at)?;
                }
                Node::Leaf(leaf) => {
                    let at = leaf.first_ending_after(addr);
                    path.push(at);
                    return Some((leaf.area(at)?, path));
                }
            }
        }
    }

    /// [`find`](Self::find) for the set's own needs: neither uses nor changes the last hit.
    pub(crate) fn lookup(&self, addr: VirtAddr) -> Option<&Vma<B>> {
        self.descend(addr.as_u64()).map(|(area, _)| area)
    }

    /// The last area that ends at or before `addr`, and what [`find`](Self::find) finds. Linux:
    /// `find_vma_prev`.
    pub fn find_prev(&self, addr: VirtAddr) -> (Option<&Vma<B>>, Option<&Vma<B>>) {
        let addr = addr.as_u64();
        let mut below: Option<&Node<'m, B>> = None;
        let Some(mut node) = self.root.as_ref() else {
            return (None, None);
        };
        loop {
            match node {
                Node::Inner(inner) => {
                    let at = inner.first_ending_after(addr);
                    below = at.checked_sub(1).and_then(|at| inner.child(at)).or(below);
                    match inner.child(at) {
                        Some(child) => node = child,
                        None => return (below.and_then(Node::last), None),
                    }
                }
                Node::Leaf(leaf) => {
                    let at = leaf.first_ending_after(addr);
                    let prev = match at.checked_sub(1) {
                        Some(at) => leaf.area(at),
                        None => below.and_then(Node::last),
                    };
                    return (prev, leaf.area(at));
                }
            }
        }
    }

    /// The area that contains `addr`, to have its flags or backing changed.
    pub fn find_mut(&mut self, addr: VirtAddr) -> Option<&mut Vma<B>> {
        let known = self.at_last_hit(addr.as_u64()).is_some();
        let mut steps = self.last_hit.steps();
        let addr = addr.as_u64();
        let mut node = self.root.as_mut()?;
        loop {
            match node {
                Node::Inner(inner) => {
                    let at = if known {
                        steps.next()
                    } else {
                        inner.first_ending_after(addr)
                    };
                    node = inner.child_mut(at)?;
                }
                Node::Leaf(leaf) => {
                    let at = if known {
                        steps.next()
                    } else {
                        leaf.first_ending_after(addr)
                    };
                    return leaf
                        .area_mut(at)
                        .filter(|area| area.start().as_u64() <= addr);
                }
            }
        }
    }

    /// All areas that have a byte in `range`, in order.
    pub fn overlapping(&self, range: VirtRange) -> Areas<'_, 'm, B> {
        Areas::new(
            self.root.as_ref(),
            range.start().as_u64(),
            range.end().as_u64(),
        )
    }

    /// All areas, in order.
    pub fn iter(&self) -> Areas<'_, 'm, B> {
        Areas::new(self.root.as_ref(), 0, u64::MAX)
    }

    /// The lowest area.
    pub fn first(&self) -> Option<&Vma<B>> {
        self.root.as_ref()?.first()
    }

    /// The highest area.
    pub fn last(&self) -> Option<&Vma<B>> {
        self.root.as_ref()?.last()
    }

    /// Adds an area as it is, without merging it.
    ///
    /// # Errors
    /// [`VmaError::Overlap`], [`VmaError::OutOfMemory`]; the area is dropped and the set is as it
    /// was.
    pub fn insert(&mut self, area: Vma<B>) -> Result<(), VmaError> {
        let plan = self.plan(area.start());
        if area.start().as_u64() < plan.prev_end || area.end().as_u64() > plan.next_start {
            return Err(VmaError::Overlap);
        }
        let area = self.caches.areas.boxed(area)?;
        let spare = Spare::reserve(&self.caches, &plan)?;
        self.commit(area, &plan, spare);
        Ok(())
    }

    /// Looks for the place of an area that starts at `start`.
    pub(crate) fn plan(&self, start: VirtAddr) -> Plan {
        Plan::new(self.root.as_ref(), start.as_u64())
    }

    /// Adds an area where `plan` says. An area that reaches into it from below is cut off there, and
    /// the caller corrects the total of pages with [`resized`](Self::resized).
    pub(crate) fn commit(&mut self, area: KBox<'m, Vma<B>>, plan: &Plan, mut spare: Spare<'m, B>) {
        self.len += 1;
        self.total_pages += area.nr_pages();
        let Some(root) = &mut self.root else {
            let mut leaf = spare.take_leaf();
            leaf.put(0, area);
            self.root = Some(Node::Leaf(leaf));
            return;
        };
        if let Some(upper) = root.insert(area, &mut plan.steps(), &mut spare).upper {
            let mut top: KBox<'m, Inner<'m, B>> = spare.take_inner();
            if let Some(lower) = self.root.take() {
                top.put(0, lower);
                top.put(1, upper);
            }
            self.root = Some(Node::Inner(top));
            self.levels += 1;
        }
    }

    /// Takes out the area that starts at `start`. Never fails for want of memory.
    pub fn remove(&mut self, start: VirtAddr) -> Option<KBox<'m, Vma<B>>> {
        self.remove_by(start, Leaf::remove)
    }

    /// Takes out the area that `take` chooses in the leaf of the one that starts at `start`.
    pub(crate) fn remove_by<F>(&mut self, start: VirtAddr, take: F) -> Option<KBox<'m, Vma<B>>>
    where
        F: FnOnce(&mut Leaf<'m, B>, usize) -> Option<KBox<'m, Vma<B>>>,
    {
        let root = self.root.as_mut()?;
        let (area, _) = root.remove(start.as_u64(), take)?;
        self.len -= 1;
        self.total_pages -= area.nr_pages();
        match root {
            Node::Leaf(leaf) if leaf.len() == 0 => self.root = None,
            Node::Leaf(_) => {}
            Node::Inner(inner) => {
                if let Some(only) = inner.take_only_child() {
                    self.root = Some(only);
                    self.levels -= 1;
                }
            }
        }
        Some(area)
    }

    /// Changes the area that starts at `start`, perhaps with its bounds, if no other area is in the
    /// way. The caller corrects the total of pages with [`resized`](Self::resized).
    pub(crate) fn update(&mut self, start: VirtAddr, change: impl FnOnce(&mut Vma<B>)) {
        if let Some(root) = &mut self.root {
            root.update(start.as_u64(), change);
        }
    }

    /// Says that an area grew or shrank.
    pub(crate) fn resized(&mut self, old_pages: u64, new_pages: u64) {
        self.total_pages = self.total_pages - old_pages + new_pages;
    }

    /// Checks every invariant of the set; for tests and debugging.
    ///
    /// # Errors
    /// What is wrong.
    pub fn validate(&self) -> Result<(), &'static str> {
        let (areas, pages) = match &self.root {
            None if self.levels == 0 => (0, 0),
            None => return Err("vma: levels without a root"),
            Some(root) => {
                let entries = match root {
                    Node::Leaf(leaf) => leaf.len() + 1,
                    Node::Inner(inner) => inner.len(),
                };
                if entries < 2 {
                    return Err("vma: root is not needed");
                }
                root.validate(0, self.levels)?
            }
        };
        if areas != self.len {
            return Err("vma: wrong number of areas");
        }
        if pages != self.total_pages {
            return Err("vma: wrong number of pages");
        }
        Ok(())
    }
}

impl<B: fmt::Debug> fmt::Debug for VmaSet<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
