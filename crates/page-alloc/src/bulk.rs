//! Many single pages with one call. Linux: `alloc_pages_bulk`, `free_unref_folios`.

use crate::allocator::PageAllocator;
use crate::pcp::{self, CpuSet};
use vellum_types::{GfpFlags, Order, Pfn};

impl PageAllocator<'_> {
    /// Fills `out` from this CPU's lists, which fetch what is missing above the low marks. Returns how
    /// many there are.
    pub(crate) fn take_bulk(&self, gfp: GfpFlags, out: &mut [Pfn]) -> usize {
        self.with_set(|own| {
            let mut got = 0;
            loop {
                got += own.pop_many(self.frames, gfp, &mut out[got..]);
                let missing = u32::try_from(out.len() - got).unwrap_or(u32::MAX);
                if missing == 0 {
                    break;
                }
                let Some(pfn) = self.refill(own, Order::ZERO, gfp, missing) else {
                    break;
                };
                out[got] = pfn;
                got += 1;
            }
            got
        })
    }

    /// Gives single pages to this CPU's lists, up to the first that is something else. Returns how
    /// many it took.
    pub(crate) fn give_bulk(&self, pages: &[Pfn]) -> usize {
        self.with_set(|own| {
            let mut given = 0;
            while given < pages.len() {
                let list = pages
                    .get(given)
                    .map_or(pcp::NO_LIST, |pfn| self.frames.list_of(*pfn));
                let list = usize::from(list);
                if list >= pcp::PER_ORDER {
                    break;
                }
                let run = own.push_pages(self.frames, self.near_prefix(own, &pages[given..]), list);
                if run == 0 {
                    break;
                }
                given += run;
                if own.is_long(list) {
                    self.relieve(list);
                }
            }
            given
        })
    }

    /// The first of `pages`, as far as they belong to the node whose blocks this CPU keeps.
    fn near_prefix<'p>(&self, own: &CpuSet, pages: &'p [Pfn]) -> &'p [Pfn] {
        let far = if self.nodes.are_several() {
            pages.iter().position(|pfn| !self.is_near(own, *pfn))
        } else {
            None
        };
        &pages[..far.unwrap_or(pages.len())]
    }
}
