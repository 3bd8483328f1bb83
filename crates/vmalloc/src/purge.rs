//! What was freed becomes free.

use crate::Vmalloc;
use crate::frames;
use crate::node::Link;
use core::sync::atomic::Ordering;
use vellum_machine::Machine;
use vellum_page_table::Format;
use vellum_types::{PAGE_SIZE, VirtAddr, VirtRange};

impl<M: Machine, F: Format> Vmalloc<'_, M, F> {
    /// Unmaps all areas that were freed, flushes all CPUs once, and gives frames and addresses back.
    /// Returns the pages of address space that became free. Linux's `purge_vmap_area_lazy`.
    ///
    /// If another CPU is at it, waits for that one first: its frames and addresses are free then.
    pub fn purge(&self) -> u64 {
        let mut waited = 0;
        let mut state = loop {
            let state = self.lock();
            if !state.purging {
                break state;
            }
            drop(state);
            waited = 1;
            // Without the lock, which the other needs to come to an end. Relaxed: only a hint.
            while self.purge_runs.load(Ordering::Relaxed) {
                core::hint::spin_loop();
            }
        };
        let pages = state.arena.lazy_pages();
        if pages == 0 {
            return waited;
        }
        let list = state.arena.take_lazy();
        state.purging = true;
        self.purge_runs.store(true, Ordering::Relaxed);
        let (mut low, mut high) = (u64::MAX, 0);
        let mut link = list.as_deref();
        while let Some(node) = link {
            // Neighbours that were freed one after the other, guards included, are one stretch.
            let (mut start, mut end) = (node.start, node.end);
            link = node.right.as_deref();
            while let Some(next) = link {
                if next.end == start {
                    start = next.start;
                } else if next.start == end {
                    end = next.end;
                } else {
                    break;
                }
                link = next.right.as_deref();
            }
            (low, high) = (low.min(start), high.max(end));
            let pages = (end - start) / PAGE_SIZE;
            state.tables.unmap(VirtAddr::new(start), pages);
        }
        drop(state);
        if let Some(range) = VirtRange::new(VirtAddr::new(low), VirtAddr::new(high)) {
            let start = F::canonical(range.start());
            if let Some(range) = VirtRange::from_len(start, range.len()) {
                self.machine.flush_tlb_kernel_range(range);
            }
        }
        self.free_frames(&list);
        let mut state = self.lock();
        state.arena.give_back(list);
        state.purging = false;
        self.purge_runs.store(false, Ordering::Relaxed);
        drop(state);
        // Relaxed: for the reader's eyes.
        self.purges.fetch_add(1, Ordering::Relaxed);
        pages
    }

    fn free_frames(&self, list: &Link<'_>) {
        let mut link = list.as_deref();
        while let Some(node) = link {
            frames::give(self.source, self.memmap, node.area.first);
            link = node.right.as_deref();
        }
    }

    /// Bytes of address space that wait for a flush.
    pub fn lazy_bytes(&self) -> u64 {
        self.lock().arena.lazy_pages() * PAGE_SIZE
    }

    /// How many purges there were, each with one flush of all CPUs.
    pub fn purges(&self) -> u64 {
        self.purges.load(Ordering::Relaxed)
    }
}
