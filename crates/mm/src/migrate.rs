//! Pages move to other frames under running programs. Linux: `mm/migrate.c`, without entries that stand
//! for pages on their way.
//!
//! Such entries are not needed, for no page is ever away. There are three ways:
//! * A private page that one entry may write moves under the lock of that entry's space.
//! * A private page with several entries, or with a slot in swap that others refer to, can be written
//!   by nobody. So old and new frame have the same bytes, and its entries are turned one after another, in
//!   as many steps as there are spaces. The mover's references to both frames keep either from being
//!   taken for its owner's alone, so that a write meanwhile makes a copy.
//! * A page of a file leaves all tables, and its place in the file is given to the new frame, if nobody
//!   has found it again meanwhile. Whoever needs it next finds the new frame by an ordinary fault.
//!
//! What running I/O uses stays: a machine pins the words of a system call until it ends, which
//! holds for a futex that somebody waits on, too.

use crate::context::MmContext;
use vellum_machine::Machine;
use vellum_page::{AllocRequest, Page, PageFlags, PageState};
use vellum_page_table::{Pte, PteFlags};
use vellum_types::{GfpFlags, Order, Pfn};

/// Flags that a page takes with it.
const KEPT: PageFlags = PageFlags::DIRTY
    .union(PageFlags::UPTODATE)
    .union(PageFlags::REFERENCED)
    .union(PageFlags::WORKINGSET)
    .union(PageFlags::SWAPBACKED)
    .union(PageFlags::LAZYFREE)
    .union(PageFlags::MLOCKED);

impl<'m, M: Machine> MmContext<'m, M> {
    /// Moves what is in the frame `old` to one that the page source gives. True if it did: the frame is
    /// free. No lock is held. Linux: `migrate_pages`, for one.
    pub fn migrate(&self, old: Pfn) -> bool {
        if !self.source.isolate_page(old) {
            return false;
        }
        let page = self.page(old);
        let mut request = AllocRequest::user_opportunistic(Order::ZERO);
        if page.state() == PageState::File && self.local.is_some() {
            request.gfp = request.gfp.difference(GfpFlags::HIGHMEM);
        }
        let moved = page.try_lock() && {
            let moved = match self.source.alloc_pages(request) {
                Ok(new) => {
                    let moved = self.migrate_page(old, new);
                    self.swap.put_page(new);
                    moved
                }
                Err(_) => false,
            };
            page.unlock();
            moved
        };
        if !moved {
            self.source.lru_add(old);
        }
        // The last one, if it moved.
        self.swap.put_page(old);
        moved
    }

    /// Moves a page to the frame `new`, which is freshly allocated. True if nothing is left of it in `old`
    /// but the caller's reference. If not, some of its entries may have moved all the same. In any case the
    /// caller then drops his references to both by `Swap::put_page`, under no lock but the page lock of
    /// `old`, which he holds. Linux: `migrate_folio`.
    pub fn migrate_page(&self, old: Pfn, new: Pfn) -> bool {
        let page = self.page(old);
        match page.state() {
            PageState::Anon => self.migrate_anon(page, old, new),
            // Stores read and write there.
            PageState::File if self.ram.covers(new) => self.migrate_file(page, old, new),
            _ => return false,
        }
        if self.page(new).refcount() > 1 {
            self.source.lru_add(new);
        } else {
            self.page(new).set_state(PageState::Allocated);
        }
        page.mapcount() == 0 && page.refcount() == 1 && page.owner() == 0
    }

    /// Makes `new` a private page like `old`, without entries.
    fn copy_anon(&self, page: &Page, old: Pfn, new: Pfn) {
        let copy = self.page(new);
        self.copy_page(new, old);
        copy.set_owner(page.owner());
        copy.set_index(page.index());
        copy.set_mapcount(0);
        copy.set_state(PageState::Anon);
        copy.set_flags(page.flags() & KEPT);
    }

    fn migrate_anon(&self, page: &Page, old: Pfn, new: Pfn) {
        let flags = page.flags();
        let mut copied = false;
        if flags.contains(PageFlags::WRITEBACK) {
            return;
        }
        // Without other references to the slot there is no use for it.
        if flags.contains(PageFlags::SWAPCACHE) && !self.swap.try_to_free_swap(old) {
            // With them, nobody may write to the page.
            self.copy_anon(page, old, new);
            if !self.swap.replace_page(old, new) {
                return;
            }
            copied = true;
        }
        let copy = self.page(new);
        self.for_each_entry(old, &mut |_, found| {
            // Each entry has a reference, and the caller. Another one is I/O, or somebody's look.
            let others = page.refcount() > page.mapcount() + 1;
            let shared = copied || page.mapcount() != 1;
            let writable = found.pte.contains(PteFlags::WRITE);
            if others || (shared && writable) || self.machine.must_stay(found.space, found.va) {
                return false;
            }
            let entry = found.leaf.replace(found.va, Pte::NONE);
            self.flush_page(found);
            if !copied {
                self.copy_anon(page, old, new);
                copied = true;
            } else if copy.owner() == 0 {
                copy.set_owner(page.owner());
                copy.set_index(page.index());
            }
            copy.get();
            self.rmap_add(new);
            found.leaf.set(found.va, Pte::new(new, entry.flags()));
            self.rmap_remove(old);
            let last = page.put();
            debug_assert!(!last, "the caller holds a reference");
            true
        });
        if page.mapcount() == 0 && page.refcount() == 1 {
            page.set_owner(0);
        }
    }

    fn migrate_file(&self, page: &Page, old: Pfn, new: Pfn) {
        if let Some(mapping) = self.cache.find_by_id(page.owner())
            && self.unmap_to_move(old)
        {
            mapping.replace_page(&self.cache, old, new);
        }
    }
}
