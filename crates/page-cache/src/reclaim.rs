//! Pages that reclaim takes, and what remains of them. Linux: `__remove_mapping`, `mm/workingset.c`.

use crate::slots::Held;
use crate::{Mapping, MappingRef, PageCache};
use vellum_machine::{VmEvent, VmItem};
use vellum_page::{PageFlags, PageState};
use vellum_types::Pfn;

/// Frames for each tree node that may hold nothing but shadows, as Linux: 3 or 4 % of memory.
const FRAMES_PER_SHADOW_NODE: u64 = 8;

impl<'m> Mapping<'m> {
    /// Takes a page out of the cache for good: `shadow` takes its place, and the frame is the caller's
    /// alone, refcount 0, to be given to `free_pages`. Refused if the page is dirty, being written or
    /// mapped, if it is not this file's any more, or if anybody besides the cache and the caller has a
    /// reference. Linux's `__remove_mapping`.
    ///
    /// The caller holds a reference and the page lock. Nobody can find the page meanwhile, as it is
    /// found under the lock that is held here.
    pub fn remove_for_reclaim(&self, cache: &PageCache<'m>, pfn: Pfn, shadow: Option<u32>) -> bool {
        let page = cache.page(pfn);
        let mut pages = self.lock();
        let index = page.index();
        if page.owner() != self.id() || pages.tree.page(index) != Some(pfn) || !page.freeze(2) {
            return false;
        }
        // Looked at after the freeze: whoever dirtied or mapped it had a reference.
        let busy = PageFlags::DIRTY | PageFlags::WRITEBACK;
        if page.mapcount() != 0 || page.flags().intersects(busy) {
            page.unfreeze(2);
            return false;
        }
        match shadow.filter(|_| cache.may_remember(&pages.tree, index)) {
            Some(shadow) => {
                self.replace(cache, &mut pages, index, pfn, Held::Shadow(shadow));
            }
            None => self.forget(cache, &mut pages, index, pfn),
        }
        true
    }
}

impl<'m> PageCache<'m> {
    /// The file that a page belongs to, for a holder of a reference. The page may leave it at any
    /// time: [`Mapping`]'s methods look again under its lock. Linux's `folio_mapping`.
    pub fn mapping_of(&self, pfn: Pfn) -> Option<MappingRef<'m>> {
        let page = self.page(pfn);
        match page.owner() {
            0 => None,
            id if page.state() == PageState::File => self.find_by_id(id),
            _ => None,
        }
    }

    /// Tree nodes that may hold nothing but shadows.
    pub fn shadow_node_limit(&self) -> u64 {
        self.nr_frames() / FRAMES_PER_SHADOW_NODE
    }

    /// Frees up to `target` tree nodes that hold nothing but shadows; returns how many it freed. The
    /// programs lose nothing: a page that comes back is taken for a new one. For a shrinker; Linux's
    /// `scan_shadow_nodes`.
    pub fn shrink_shadows(&self, target: u64) -> u64 {
        let mut freed = 0;
        if self.vmstat.item(VmItem::WorkingsetNodes) > 0 {
            self.for_each_mapping(&mut |mapping| {
                if freed < target {
                    let left = target - freed;
                    freed += mapping.lock().tree.drop_shadow_nodes(self, left);
                }
            });
        }
        self.vmstat
            .count_many(VmEvent::WorkingsetNodeReclaim, freed);
        freed
    }

    /// True if a shadow may stay at `index`: at the limit, only beside something else.
    fn may_remember(&self, tree: &crate::slots::FileTree<'m>, index: u64) -> bool {
        self.vmstat.item(VmItem::WorkingsetNodes) < self.shadow_node_limit()
            || !tree.only_shadows_beside(index)
    }
}
