//! A cached page moves to another frame. Linux: `folio_migrate_mapping`.

use crate::Swap;
use vellum_page::PageFlags;
use vellum_types::{Pfn, SwapEntry};

impl Swap<'_> {
    /// Makes `new`, which has the same content, the page of the slot that `old` is cached for. The cache's
    /// reference moves too. Refused if `old` is not in the cache or is being written. The caller
    /// holds a reference to each and the page lock of `old`, and nobody can write to the page.
    pub fn replace_page(&self, old: Pfn, new: Pfn) -> bool {
        let Some(entry) = self.entry_of(old) else {
            return false;
        };
        let (page, copy) = (self.page(old), self.page(new));
        let replaced = self.with_slot(entry, |area, slot| {
            let word = area.word(slot);
            if word.cached() != Some(old) || page.flags().contains(PageFlags::WRITEBACK) {
                return false;
            }
            copy.get();
            copy.set_flags(PageFlags::SWAPCACHE | PageFlags::SWAPBACKED);
            self.set_side(new, entry);
            let moved = word.with_page(new);
            area.set_word(
                slot,
                if word.is_ahead() {
                    moved.ahead()
                } else {
                    moved
                },
            );
            self.set_side(old, SwapEntry::NONE);
            page.clear_flags(PageFlags::SWAPCACHE);
            true
        });
        let replaced = replaced.unwrap_or(false);
        if replaced {
            let last = page.put();
            debug_assert!(!last, "the caller holds a reference");
        }
        replaced
    }
}
