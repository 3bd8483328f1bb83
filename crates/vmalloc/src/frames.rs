//! The frames of an area: blocks from anywhere, linked by their first pages.

use vellum_page::{AllocRequest, PageSource};
use vellum_types::{GfpFlags, Order, OutOfMemory, Pfn};

/// Blocks that together have a number of pages, in order. Each block's first [`vellum_page::Page`]
/// links to the next: no array of pages is needed.
///
/// Large blocks are asked for first and taken as they are: they cost less to take, to map and to
/// free, and leave less fragmentation than as many single pages. If there are none, smaller ones do.
pub(crate) fn take(source: &dyn PageSource, pages: u32, gfp: GfpFlags) -> Result<Pfn, OutOfMemory> {
    let memmap = source.memmap();
    let (mut first, mut last) = (Pfn::NONE, Pfn::NONE);
    let mut left = pages;
    let mut most = Order::MAX;
    while left > 0 {
        let order = Order::new(left.ilog2() as u8).map_or(most, |order| order.min(most));
        let eager = if order == Order::ZERO {
            gfp
        } else {
            gfp | GfpFlags::NORETRY | GfpFlags::NOWARN
        };
        let block = match source.alloc_pages(AllocRequest { order, gfp: eager }) {
            Ok(block) => block,
            Err(error) => match order.down() {
                Some(smaller) => {
                    most = smaller;
                    continue;
                }
                None => {
                    give(source, first);
                    return Err(error);
                }
            },
        };
        memmap.page(block).set_next(Pfn::NONE);
        if first == Pfn::NONE {
            first = block;
        } else {
            memmap.page(last).set_next(block);
        }
        last = block;
        left -= order.pages();
    }
    Ok(first)
}

/// Frees the blocks from `first` on.
pub(crate) fn give(source: &dyn PageSource, first: Pfn) {
    let memmap = source.memmap();
    let mut block = first;
    while block != Pfn::NONE {
        let next = memmap.page(block).next();
        source.free_pages(block);
        block = next;
    }
}

/// The blocks from `first` on: first frame and pages.
pub(crate) fn blocks(source: &dyn PageSource, first: Pfn) -> impl Iterator<Item = (Pfn, u32)> {
    let memmap = source.memmap();
    let next = move |block: Pfn| (block != Pfn::NONE).then_some(block);
    core::iter::successors(next(first), move |block| next(memmap.page(*block).next()))
        .map(move |block| (block, memmap.page(block).order().pages()))
}
