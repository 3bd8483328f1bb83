//! Use after free: pages are filled when freed and looked at when allocated. Linux: `page_poison=1`.

use crate::allocator::PageAllocator;
use crate::hooks::Hook;
use vellum_page::Page;
use vellum_types::{Order, PAGE_SIZE, Pfn, PfnRange};

/// What freed pages are filled with when [`PageAllocator::set_poison`] is on. Linux's `PAGE_POISON`.
pub const PAGE_POISON: u8 = 0xaa;

/// In the index word of a free frame that was filled. Zero in all others.
const FILLED: u64 = u64::from_ne_bytes([PAGE_POISON; 8]);

impl PageAllocator<'_> {
    /// For debugging: fill pages with [`PAGE_POISON`] as they are freed, and look at them when they are
    /// allocated. Whoever wrote there meanwhile used memory that was not his: then the allocation
    /// panics, naming frame and offset. Can be switched at any time; single pages take the long way
    /// to their zone meanwhile.
    pub fn set_poison(&self, on: bool) {
        self.hooks.set(Hook::Poison, on);
        if on {
            // For good: pages that were filled may be found long after.
            self.hooks.set(Hook::Poisoned, true);
        }
    }

    /// Fills a block that is being freed, if it has an address.
    pub(crate) fn poison(&self, pfn: Pfn, order: Order) {
        if !self.ram.covers(pfn) {
            return;
        }
        self.ram.fill_pages(pfn, order.pages(), PAGE_POISON);
    }

    /// Notes that a block was filled, when its descriptors are clean.
    pub(crate) fn mark_poisoned(&self, pfn: Pfn, order: Order) {
        if !self.ram.covers(pfn) {
            return;
        }
        let pages = (0..order.pages()).map(|at| self.frames.page(pfn + at));
        pages.for_each(|page| page.set_index(FILLED));
    }

    /// Looks at frames that were just allocated.
    ///
    /// # Panics
    /// If somebody wrote to one of them while it was free.
    pub(crate) fn check_poison(&self, range: PfnRange) {
        if !self.hooks.has(Hook::Poisoned) {
            return;
        }
        let filled = |page: &Page| page.index() == FILLED;
        for pfn in range.iter().filter(|pfn| filled(self.frames.page(*pfn))) {
            self.frames.page(pfn).set_index(0);
            for offset in (0..PAGE_SIZE).step_by(8) {
                let word = self.ram.read_u64(pfn.addr() + offset);
                assert!(
                    word == FILLED,
                    "use after free: {pfn:?} has {word:#x} at offset {offset}"
                );
            }
        }
    }
}
