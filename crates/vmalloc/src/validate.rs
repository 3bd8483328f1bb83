//! The invariants, checked.

use crate::Vmalloc;
use crate::area::AreaKind;
use crate::frames;
use crate::vmalloc::State;
use core::ops::ControlFlow;
use vellum_machine::Machine;
use vellum_page_table::{Format, Mapped};
use vellum_types::{PAGE_SIZE, VirtAddr, VirtRange};

impl<'m, M: Machine, F: Format> Vmalloc<'m, M, F> {
    /// Checks the arena, the kernel's tables, and that exactly the pages of areas are mapped.
    ///
    /// # Errors
    /// What is wrong.
    pub fn validate(&self) -> Result<(), &'static str> {
        let state = self.lock();
        state.arena.validate(state.purging)?;
        state.tables.table.validate()?;
        let mut pages = 0;
        let areas = state.arena.busy.for_each(&mut |node| {
            if node.area.kind == AreaKind::Alloc {
                pages += u64::from(node.area.pages);
            }
            match self.check_area(&state, node.start, node.area.pages, node.area.first) {
                Ok(()) => ControlFlow::Continue(()),
                Err(what) => ControlFlow::Break(what),
            }
        });
        if let ControlFlow::Break(what) = areas {
            return Err(what);
        }
        if pages != state.alloc_pages {
            return Err("vmalloc: wrong number of pages in use");
        }
        match state.arena.free.for_each(&mut |node| {
            let range = VirtRange::new(VirtAddr::new(node.start), VirtAddr::new(node.end));
            if range.is_some_and(|range| is_mapped(&state, range)) {
                ControlFlow::Break("vmalloc: a free address is mapped")
            } else {
                ControlFlow::Continue(())
            }
        }) {
            ControlFlow::Break(what) => Err(what),
            ControlFlow::Continue(()) => Ok(()),
        }
    }

    fn check_area(
        &self,
        state: &State<'m, F>,
        start: u64,
        pages: u32,
        first: vellum_types::Pfn,
    ) -> Result<(), &'static str> {
        let mut at = VirtAddr::new(start);
        for (block, pages) in frames::blocks(self.memmap, first) {
            for page in 0..pages {
                if state.tables.frame(at) != Some(block + page) {
                    return Err("vmalloc: an area does not map its frames");
                }
                at = at + PAGE_SIZE;
            }
        }
        let guard = VirtAddr::new(start) + u64::from(pages) * PAGE_SIZE;
        while at < guard {
            if state.tables.frame(at).is_none() {
                return Err("vmalloc: a page of an area is not mapped");
            }
            at = at + PAGE_SIZE;
        }
        if at != guard || state.tables.frame(guard).is_some() {
            return Err("vmalloc: a guard page is mapped");
        }
        Ok(())
    }
}

fn is_mapped<F: Format>(state: &State<'_, F>, range: VirtRange) -> bool {
    state.tables.table.entries(range).any(|found| match found {
        Mapped::Leaf(leaf, part) => leaf.iter(part).next().is_some(),
        Mapped::Huge(..) => true,
    })
}
