//! How tables go away.

use crate::{Format, PageTable, Pte, TlbGather};
use core::sync::atomic::Ordering;
use vellum_machine::Machine;
use vellum_types::{Pfn, VirtAddr, VirtRange};

/// What may be freed.
#[derive(Clone, Copy)]
struct Bounds {
    range: VirtRange,
    floor: VirtAddr,
    ceiling: VirtAddr,
    /// All below the ceiling is known to be unmapped: nobody needs to look.
    empty: bool,
}

impl<F: Format> PageTable<'_, F> {
    /// Gives to `gather` the tables that overlap `range`, lie wholly inside `floor..ceiling`, and are
    /// empty. The root stays.
    ///
    /// As in Linux's `free_pgtables`, `range` is what was unmapped, `floor` the end of the area below
    /// it and `ceiling` the start of the area above. A table that still maps something is kept,
    /// whatever the bounds say.
    pub fn free_tables<M: Machine>(
        &mut self,
        range: VirtRange,
        floor: VirtAddr,
        ceiling: VirtAddr,
        gather: &mut TlbGather<'_, M>,
    ) {
        let all = VirtRange::new(VirtAddr::ZERO, self.own_end);
        let Some(range) = all.and_then(|all| all.intersect(&range)) else {
            return;
        };
        if self.root != Pfn::NONE {
            let bounds = Bounds {
                range,
                floor,
                ceiling,
                empty: false,
            };
            self.free_below(self.root, F::LEVELS - 1, VirtAddr::ZERO, bounds, gather);
        }
    }

    /// Gives to `gather` the tables that overlap `range` and end at or below `ceiling`, under which nothing
    /// is mapped any more. For the end of an address space, area by area: it costs in proportion to
    /// the tables, where a search for them would look at every entry.
    pub fn free_tables_below<M: Machine>(
        &mut self,
        range: VirtRange,
        ceiling: VirtAddr,
        gather: &mut TlbGather<'_, M>,
    ) {
        let all = VirtRange::new(VirtAddr::ZERO, self.own_end);
        if let Some(range) = all.and_then(|all| all.intersect(&range))
            && self.root != Pfn::NONE
        {
            let bounds = Bounds {
                range,
                floor: VirtAddr::ZERO,
                ceiling,
                empty: true,
            };
            self.free_below(self.root, F::LEVELS - 1, VirtAddr::ZERO, bounds, gather);
        }
    }

    /// Gives all tables, the root too, to `gather`, which will flush the whole space. Entries that
    /// still map memory are forgotten: unmap first. Calling it twice is harmless.
    pub fn destroy<M: Machine>(&mut self, gather: &mut TlbGather<'_, M>) {
        if self.root == Pfn::NONE {
            return;
        }
        if self.nr_tables > 1 {
            self.destroy_below(self.root, F::LEVELS - 1, gather);
        }
        let root = core::mem::replace(&mut self.root, Pfn::NONE);
        self.forget_table();
        gather.note_flush_all();
        gather.remove_frame(root);
    }

    /// Frees what `bounds` allow below `table`, which stands at `level` and translates from `base`.
    fn free_below<M: Machine>(
        &mut self,
        table: Pfn,
        level: u8,
        base: VirtAddr,
        bounds: Bounds,
        gather: &mut TlbGather<'_, M>,
    ) {
        // Depth is LEVELS at most.
        let span = F::span(level);
        let first = bounds.range.start().max(base).as_u64() - base.as_u64();
        let end = bounds.range.end().as_u64() - base.as_u64();
        for index in first / span..end.div_ceil(span).min(F::entries(level)) {
            let pte = F::load(self.ram, table, index);
            if pte.is_none() || pte.is_huge() {
                continue;
            }
            let child = pte.pfn();
            let start = base + index * span;
            let Some(covered) = VirtRange::from_len(start, span) else {
                continue;
            };
            if level > 1 {
                self.free_below(child, level - 1, start, bounds, gather);
            }
            if start < bounds.floor
                || covered.end() > bounds.ceiling
                || !(bounds.empty || self.is_empty(child, level - 1))
            {
                continue;
            }
            debug_assert!(self.is_empty(child, level - 1), "a table in use is freed");
            F::store(self.ram, table, index, Pte::NONE);
            self.forget_table();
            // The unmapped part is enough: an invalidation of any address below a table drops what
            // a processor remembers of the table itself.
            gather.remove_table(covered.intersect(&bounds.range).unwrap_or(covered), child);
        }
    }

    fn destroy_below<M: Machine>(&mut self, table: Pfn, level: u8, gather: &mut TlbGather<'_, M>) {
        for index in 0..self.own_entries(level) {
            let pte = F::load(self.ram, table, index);
            if pte.is_none() {
                continue;
            }
            F::store(self.ram, table, index, Pte::NONE);
            if pte.is_huge() {
                continue;
            }
            if level > 1 {
                self.destroy_below(pte.pfn(), level - 1, gather);
            }
            self.forget_table();
            // Each time: a gather that was full has flushed and begun anew.
            gather.note_flush_all();
            gather.remove_frame(pte.pfn());
        }
    }

    fn is_empty(&self, table: Pfn, level: u8) -> bool {
        if F::ENTRY_BYTES == 8 {
            // Eight at a time: this is asked of every table that an unmapping leaves alone.
            let words = self.ram.words_u64(table.addr(), F::entries(level) as u32);
            return words.chunks(8).all(|entries| {
                // Relaxed: the lock of the address space keeps others from filling it.
                let all = entries
                    .iter()
                    .fold(0, |all, e| all | e.load(Ordering::Relaxed));
                all == 0
            });
        }
        (0..F::entries(level)).all(|index| F::load(self.ram, table, index).is_none())
    }
}
