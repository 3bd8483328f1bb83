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
            let nr = out.len();
            for slot in out {
                let page = own.pop(self.frames, gfp).or_else(|| {
                    let missing = u32::try_from(nr - got).unwrap_or(u32::MAX);
                    self.refill(own, Order::ZERO, gfp, missing)
                });
                let Some(pfn) = page else {
                    break;
                };
                *slot = pfn;
                got += 1;
            }
            got
        })
    }

    /// Gives single pages to this CPU's lists, up to the first that is something else. Returns how
    /// many it took.
    pub(crate) fn give_bulk(&self, pages: &[Pfn]) -> usize {
        self.with_set(|own| {
            let taken = pages.iter().position(|pfn| !self.give_one(own, *pfn));
            taken.unwrap_or(pages.len())
        })
    }

    #[inline(always)]
    fn give_one(&self, own: &CpuSet, pfn: Pfn) -> bool {
        let Some(page) = self.frames.memmap.try_page(pfn) else {
            return false;
        };
        let list = usize::from(self.frames.list_of(pfn));
        if !page.is_single() || list >= pcp::PER_ORDER {
            return false;
        }
        if own.push(self.frames, page, pfn, list, Order::ZERO) {
            self.relieve(list);
        }
        true
    }
}
