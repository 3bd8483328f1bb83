//! A page moves to another frame. Linux: `filemap_migrate_folio`.

use crate::slots::Held;
use crate::{Mapping, PageCache};
use vellum_page::{PageFlags, PageState};
use vellum_types::Pfn;

impl<'m> Mapping<'m> {
    /// Puts the frame `new` (state Allocated, one reference, the caller's) in the place of `old`, with its
    /// bytes and marks. The cache's reference moves too: `old` then belongs to no file and is the
    /// caller's. Refused, with nothing changed, if `old` is mapped or being written, not this file's any more,
    /// or if anybody but the cache and the caller has a reference.
    ///
    /// The caller holds the page lock of `old` and a reference. Nobody can find the page meanwhile, for
    /// it is found under the lock that is held here.
    pub fn replace_page(&self, cache: &PageCache<'m>, old: Pfn, new: Pfn) -> bool {
        const KEPT: PageFlags = PageFlags::DIRTY
            .union(PageFlags::UPTODATE)
            .union(PageFlags::REFERENCED)
            .union(PageFlags::WORKINGSET)
            .union(PageFlags::SWAPBACKED)
            .union(PageFlags::MLOCKED);
        let (page, copy) = (cache.page(old), cache.page(new));
        let mut pages = self.lock();
        let index = page.index();
        if page.owner() != self.id() || pages.tree.page(index) != Some(old) || !page.freeze(2) {
            return false;
        }
        // Looked at after the freeze: whoever mapped or dirtied it had a reference.
        let busy = PageFlags::WRITEBACK | PageFlags::SWAPCACHE;
        if page.mapcount() != 0 || page.flags().intersects(busy) {
            page.unfreeze(2);
            return false;
        }
        cache.ram.copy_page(new, old);
        copy.set_owner(self.id());
        copy.set_index(index);
        copy.set_state(PageState::File);
        copy.set_flags(page.flags() & KEPT);
        copy.get();
        let dirty = pages.tree.is_dirty(index);
        pages.tree.replace_page(cache, index, Held::Page(new));
        if dirty {
            pages.tree.set_dirty(index);
        }
        page.clear_flags(KEPT);
        page.set_owner(0);
        page.unfreeze(1);
        true
    }
}
