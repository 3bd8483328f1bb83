//! The frames of an area: blocks from anywhere, linked by their first pages.

use vellum_page::{AllocRequest, Memmap, PageSource};
use vellum_types::{GfpFlags, Order, OutOfMemory, Pfn};

/// Blocks that together have a number of pages, in order. Each block's first [`vellum_page::Page`]
/// links to the next: no array of pages is needed.
///
/// Large blocks are asked for first and taken as they are: they cost less to take, to map and to
/// free, and leave less fragmentation than as many single pages. If there are none, smaller ones do.
#[inline]
pub(crate) fn take(
    source: &dyn PageSource,
    memmap: Memmap<'_>,
    pages: u32,
    gfp: GfpFlags,
) -> Result<Pfn, OutOfMemory> {
    if pages > 1 {
        return take_blocks(source, memmap, pages, gfp);
    }
    let order = Order::ZERO;
    let frame = source.alloc_pages(AllocRequest { order, gfp })?;
    memmap.page(frame).set_next(Pfn::NONE);
    Ok(frame)
}

fn take_blocks(
    source: &dyn PageSource,
    memmap: Memmap<'_>,
    pages: u32,
    gfp: GfpFlags,
) -> Result<Pfn, OutOfMemory> {
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
                    give(source, memmap, first);
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
#[inline]
pub(crate) fn give(source: &dyn PageSource, memmap: Memmap<'_>, first: Pfn) {
    let mut block = first;
    while block != Pfn::NONE {
        let next = memmap.page(block).next();
        source.free_pages(block);
        block = next;
    }
}

/// The blocks from `first` on: first frame and pages.
#[inline]
pub(crate) fn blocks(memmap: Memmap<'_>, first: Pfn) -> impl Iterator<Item = (Pfn, u32)> {
    let mut block = first;
    core::iter::from_fn(move || {
        if block == Pfn::NONE {
            return None;
        }
        let page = memmap.page(block);
        let this = core::mem::replace(&mut block, page.next());
        Some((this, page.order().pages()))
    })
}
