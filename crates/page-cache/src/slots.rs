//! What a file's tree has at an index.

use crate::PageCache;
use vellum_collections::{Mark, RadixTree};
use vellum_machine::VmItem;
use vellum_types::{OutOfMemory, Pfn, SwapEntry};

/// An entry of a file's tree: a page, or a value that stands where one was. Linux: a folio or a value
/// entry of `i_pages`.
///
/// Public only so that a cache of tree nodes can be created.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CacheSlot(u64);

/// A [`CacheSlot`], taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Held {
    /// The page.
    Page(Pfn),
    /// What reclaim left when it took the page.
    Shadow(u32),
    /// Where a page of shared memory went.
    Swapped(SwapEntry),
}

const KIND_SHIFT: u32 = 32;
const SHADOW: u64 = 1;
const SWAPPED: u64 = 2;

impl CacheSlot {
    fn new(held: Held) -> Self {
        Self(match held {
            Held::Page(pfn) => u64::from(pfn.as_u32()),
            Held::Shadow(shadow) => SHADOW << KIND_SHIFT | u64::from(shadow),
            Held::Swapped(entry) => SWAPPED << KIND_SHIFT | u64::from(entry.raw()),
        })
    }

    #[inline]
    pub(crate) fn held(self) -> Held {
        let payload = self.0 as u32;
        match self.0 >> KIND_SHIFT {
            0 => Held::Page(Pfn::new(payload)),
            SHADOW => Held::Shadow(payload),
            _ => Held::Swapped(SwapEntry::from_raw(payload)),
        }
    }

    #[inline]
    fn page(self) -> Option<Pfn> {
        match self.held() {
            Held::Page(pfn) => Some(pfn),
            Held::Shadow(_) | Held::Swapped(_) => None,
        }
    }
}

impl core::fmt::Debug for CacheSlot {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.held().fmt(f)
    }
}

/// The tree of a file, with its entries counted by kind.
///
/// Shadows, and only they, have the mark Shadow, so that they are found, and so that a leaf with nothing
/// else in it can be told by two words of it.
pub(crate) struct FileTree<'m> {
    tree: RadixTree<'m, CacheSlot>,
    shadows: u64,
    swapped: u64,
    /// Leaves with nothing but shadows.
    shadow_nodes: u64,
}

impl<'m> FileTree<'m> {
    pub(crate) const fn new() -> Self {
        Self {
            tree: RadixTree::new(),
            shadows: 0,
            swapped: 0,
            shadow_nodes: 0,
        }
    }

    pub(crate) const fn nr_pages(&self) -> u64 {
        self.tree.len() - self.shadows - self.swapped
    }

    pub(crate) const fn nr_shadows(&self) -> u64 {
        self.shadows
    }

    pub(crate) const fn nr_swapped(&self) -> u64 {
        self.swapped
    }

    pub(crate) const fn shadow_nodes(&self) -> u64 {
        self.shadow_nodes
    }

    pub(crate) fn held(&self, index: u64) -> Option<Held> {
        self.tree.get(index).map(|slot| slot.held())
    }

    #[inline]
    pub(crate) fn page(&self, index: u64) -> Option<Pfn> {
        self.tree.get(index)?.page()
    }

    /// The first entry of any kind at or after `from`.
    pub(crate) fn next(&self, from: u64) -> Option<(u64, Held)> {
        self.tree.next(from).map(|(i, slot)| (i, slot.held()))
    }

    /// The first page at or after `from`.
    pub(crate) fn next_page(&self, from: u64) -> Option<(u64, Pfn)> {
        self.pages(from, u64::MAX).next()
    }

    /// The pages of `first..=last`, in order.
    pub(crate) fn pages(&self, first: u64, last: u64) -> impl Iterator<Item = (u64, Pfn)> + '_ {
        let entries = self.tree.range(first..=last);
        entries.filter_map(|(index, slot)| slot.page().map(|pfn| (index, pfn)))
    }

    /// The first run of indices in `from..end` that a reader would have to fill.
    pub(crate) fn next_hole(&self, from: u64, end: u64) -> Option<(u64, u64)> {
        let is_shadow = |index| matches!(self.held(index), Some(Held::Shadow(_)));
        let mut start = from;
        while start < end && self.tree.get(start).is_some() && !is_shadow(start) {
            start += 1;
        }
        if start >= end {
            return None;
        }
        let mut stop = start;
        while stop < end {
            match self.next(stop) {
                Some((index, Held::Shadow(_))) if index < end => stop = index + 1,
                Some((index, _)) => return Some((start, index.min(end))),
                None => break,
            }
        }
        Some((start, end))
    }

    /// The first page at or after `from` that is in swap.
    pub(crate) fn next_swapped(&self, from: u64) -> Option<(u64, SwapEntry)> {
        if self.swapped == 0 {
            return None;
        }
        let mut entries = self.tree.range(from..=u64::MAX);
        entries.find_map(|(index, slot)| match slot.held() {
            Held::Swapped(entry) => Some((index, entry)),
            Held::Page(_) | Held::Shadow(_) => None,
        })
    }

    /// Pages that are cached without a gap before `index`, up to `most`. Linux's
    /// `count_history_pages`.
    pub(crate) fn history(&self, index: u64, most: u64) -> u64 {
        let most = most.min(index);
        let cached = |back: &u64| self.page(index - back).is_some();
        (1..=most).take_while(cached).count() as u64
    }

    /// Puts a page where there is none; returns the shadow that was there.
    pub(crate) fn insert_page(
        &mut self,
        cache: &PageCache<'m>,
        index: u64,
        pfn: Pfn,
    ) -> Result<Option<u32>, OutOfMemory> {
        let slot = CacheSlot::new(Held::Page(pfn));
        let old = self.change(cache, index, |tree| {
            let old = tree.insert(index, slot, cache.nodes);
            tree.clear_mark(index, Mark::Shadow);
            old
        });
        match old.map_err(|(_, error)| error)?.map(CacheSlot::held) {
            Some(Held::Shadow(shadow)) => {
                self.shadows -= 1;
                Ok(Some(shadow))
            }
            Some(Held::Swapped(_)) => {
                self.swapped -= 1;
                Ok(None)
            }
            Some(Held::Page(_)) => unreachable!("a page was put over another"),
            None => Ok(None),
        }
    }

    /// Puts something in the place of a page. Never allocates.
    pub(crate) fn replace_page(&mut self, cache: &PageCache<'m>, index: u64, by: Held) {
        let shadow = matches!(by, Held::Shadow(_));
        self.shadows += u64::from(shadow);
        self.swapped += u64::from(matches!(by, Held::Swapped(_)));
        self.change(cache, index, |tree| {
            if let Some(slot) = tree.get_mut(index) {
                *slot = CacheSlot::new(by);
            }
            tree.clear_mark(index, Mark::Dirty);
            if shadow {
                tree.set_mark(index, Mark::Shadow);
            }
        });
    }

    /// Takes out whatever is there.
    pub(crate) fn remove(&mut self, cache: &PageCache<'m>, index: u64) -> Option<Held> {
        let held = self.change(cache, index, |tree| tree.remove(index))?.held();
        match held {
            Held::Page(_) => {}
            Held::Shadow(_) => self.shadows -= 1,
            Held::Swapped(_) => self.swapped -= 1,
        }
        Some(held)
    }

    /// True if a shadow at `index` would be alone with other shadows in its leaf.
    pub(crate) fn only_shadows_beside(&self, index: u64) -> bool {
        let first = index & !63;
        let entries = self.tree.range(first..=first | 63);
        entries
            .filter(|(other, _)| *other != index)
            .all(|(_, slot)| matches!(slot.held(), Held::Shadow(_)))
    }

    /// Frees up to `target` leaves that hold only shadows; returns how many it freed.
    pub(crate) fn drop_shadow_nodes(&mut self, cache: &PageCache<'m>, target: u64) -> u64 {
        let mut freed = 0;
        let mut from = 0;
        while freed < target
            && self.shadow_nodes > 0
            && let Some((index, _)) = self.tree.next_marked(from, Mark::Shadow)
        {
            let last = index | 63;
            if self.tree.leaf_is_marked(index, Mark::Shadow) {
                while let Some((shadow, _)) = self.tree.next(index & !63)
                    && shadow <= last
                {
                    self.remove(cache, shadow);
                }
                freed += 1;
            }
            match last.checked_add(1) {
                Some(next) => from = next,
                None => break,
            }
        }
        freed
    }

    /// Changes the entry at `index` and counts what this makes of its leaf. Without shadows there is
    /// nothing to count.
    fn change<R>(
        &mut self,
        cache: &PageCache<'m>,
        index: u64,
        change: impl FnOnce(&mut RadixTree<'m, CacheSlot>) -> R,
    ) -> R {
        if self.shadows == 0 {
            return change(&mut self.tree);
        }
        let before = self.tree.leaf_is_marked(index, Mark::Shadow);
        let result = change(&mut self.tree);
        let after = self.tree.leaf_is_marked(index, Mark::Shadow);
        match (before, after) {
            (false, true) => {
                self.shadow_nodes += 1;
                cache.vmstat.add(VmItem::WorkingsetNodes, 1);
            }
            (true, false) => {
                self.shadow_nodes -= 1;
                cache.vmstat.sub(VmItem::WorkingsetNodes, 1);
            }
            _ => {}
        }
        result
    }

    pub(crate) fn set_dirty(&mut self, index: u64) {
        self.tree.set_mark(index, Mark::Dirty);
    }

    /// Takes the mark from the page at `index`; true if it had it.
    pub(crate) fn clear_dirty(&mut self, index: u64) -> bool {
        self.tree.clear_mark(index, Mark::Dirty)
    }

    pub(crate) fn is_dirty(&self, index: u64) -> bool {
        self.tree.is_marked(index, Mark::Dirty)
    }

    /// The first dirty page at or after `from`.
    pub(crate) fn next_dirty(&self, from: u64) -> Option<u64> {
        Some(self.tree.next_marked(from, Mark::Dirty)?.0)
    }

    /// Checks the tree, its marks and its counts.
    pub(crate) fn validate(&self) -> Result<(), &'static str> {
        self.tree.validate()?;
        let (mut shadows, mut swapped, mut nodes) = (0, 0, 0);
        let mut leaf = None;
        for (index, slot) in self.tree.range(0..=u64::MAX) {
            let shadow = matches!(slot.held(), Held::Shadow(_));
            shadows += u64::from(shadow);
            swapped += u64::from(matches!(slot.held(), Held::Swapped(_)));
            if shadow != self.tree.is_marked(index, Mark::Shadow) {
                return Err("shadow and its mark differ");
            }
            if slot.page().is_none() && self.is_dirty(index) {
                return Err("something that is no page is dirty");
            }
            if leaf != Some(index >> 6) {
                leaf = Some(index >> 6);
                nodes += u64::from(shadow && self.only_shadows_beside(index));
            }
        }
        if (shadows, swapped, nodes) != (self.shadows, self.swapped, self.shadow_nodes) {
            return Err("the tree miscounts its shadows or swapped pages");
        }
        Ok(())
    }
}
