//! The invariants, checked.

use crate::{Format, PageTable};
use vellum_page::PageState;
use vellum_types::Pfn;

impl<F: Format> PageTable<'_, F> {
    /// Checks every table and every link. Costs as much as there are tables.
    ///
    /// # Errors
    /// Which invariant is broken.
    pub fn validate(&self) -> Result<(), &'static str> {
        let found = if self.root == Pfn::NONE {
            0
        } else {
            self.check(self.root, F::LEVELS - 1)?
        };
        if found != self.nr_tables {
            return Err("nr_tables differs from the tables that are linked");
        }
        Ok(())
    }

    /// Checks `table` and all below; returns how many tables these are.
    fn check(&self, table: Pfn, level: u8) -> Result<u64, &'static str> {
        let Some(page) = self.source.memmap().try_page(table) else {
            return Err("a link leads out of RAM");
        };
        if page.state() != PageState::PageTable {
            return Err("a linked frame is not a page table");
        }
        if page.owner() != self.owner {
            return Err("a linked table belongs to another space");
        }
        if page.refcount() != 1 {
            return Err("a table has not exactly one reference");
        }
        let mut found = 1;
        if level == 0 {
            return Ok(found);
        }
        for index in 0..self.own_entries(level) {
            let pte = F::load(self.ram, table, index);
            if pte.is_none() {
                continue;
            }
            if pte.is_huge() {
                if level > F::MAX_HUGE_LEVEL {
                    return Err("a huge entry at a level that has none");
                }
                if !pte.pfn().addr().as_u64().is_multiple_of(F::span(level)) {
                    return Err("a huge entry maps an unaligned frame");
                }
                continue;
            }
            if pte.flags() != F::link_flags(level) {
                return Err("a link has the wrong flags");
            }
            found += self.check(pte.pfn(), level - 1)?;
        }
        Ok(found)
    }
}
