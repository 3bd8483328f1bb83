//! Reading pages from swap, those beside the one that is needed too. Linux: `swap_cluster_readahead`.

use crate::MmError;
use crate::context::MmContext;
use crate::mm::Mm;
use vellum_machine::Machine;
use vellum_page::AllocRequest;
use vellum_swap::SwapInError;
use vellum_types::{Order, PAGE_SIZE, Pfn, SwapEntry, VirtRange};

/// Entries looked up at once.
const BATCH: usize = 32;

impl<M: Machine> MmContext<'_, M> {
    /// Brings a page into the swap cache, where the next attempt finds it, and then its neighbours in the
    /// area, as far as there are frames to spare. No lock is held. Linux: `swapin_readahead`.
    ///
    /// # Errors
    /// NoFrames; Io if the device failed on the page itself.
    pub(crate) fn swap_in_around(&self, entry: SwapEntry) -> Result<(), MmError> {
        let request = AllocRequest::user_movable(Order::ZERO);
        let mut alloc = || self.source.alloc_pages(request);
        match self.swap.swapin(entry, &mut alloc) {
            Ok(page) => {
                if page.read {
                    self.came_back(page.pfn, page.shadow);
                    self.swap_in_near(entry);
                }
                self.swap.put_page(page.pfn);
                Ok(())
            }
            // Whoever reads it, or has taken it away, is done when we look again.
            Err(SwapInError::Busy | SwapInError::Gone) => Ok(()),
            Err(SwapInError::OutOfMemory) => Err(MmError::NoFrames),
            Err(SwapInError::Io { error, .. }) => Err(error.into()),
        }
    }

    /// Reads what lies beside `entry` in its area. It may turn out that nobody wanted it.
    fn swap_in_near(&self, entry: SwapEntry) {
        self.swap.readahead(entry, &mut |pfn, shadow| {
            self.came_back(pfn, shadow);
            self.swap.put_page(pfn);
        });
    }

    /// Reads what a range of an address space has in swap into the swap cache, until frames end. No lock is
    /// held. Linux: `madvise_willneed` with `swapin_walk_ops`.
    pub(crate) fn swap_in_range(&self, mm: &Mm<'_>, range: VirtRange) {
        let mut rest = Some(range);
        while let Some(range) = rest.take() {
            let mut entries = [SwapEntry::NONE; BATCH];
            let mut found = 0;
            let inner = mm.lock();
            if inner.swap_entries == 0 {
                return;
            }
            'tables: for (leaf, part) in inner.table.leaves(range) {
                for va in part.pages() {
                    if let Some(entry) = leaf.get(va).swap_entry() {
                        entries[found] = entry;
                        found += 1;
                        if found == BATCH {
                            rest = VirtRange::new(va + PAGE_SIZE, range.end());
                            break 'tables;
                        }
                    }
                }
            }
            drop(inner);
            let read = |entry: &SwapEntry| self.swap_in_around(*entry).is_ok();
            if !entries[..found].iter().all(read) {
                return;
            }
        }
    }

    /// A page was read from swap: reclaim hears of it.
    fn came_back(&self, pfn: Pfn, shadow: Option<u32>) {
        if let Some(shadow) = shadow {
            self.source.lru_refault(pfn, shadow);
        }
        self.source.lru_add(pfn);
    }
}
