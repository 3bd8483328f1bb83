//! What a page costs. Run with `--release`, and under `perf stat -e instructions:u` with different
//! counts to see instructions:
//!
//! `hot_path pair|burst|worst [count]`
//! * `pair`: allocate and free one page; single pages are free, its buddy is not.
//! * `burst`: allocate 4096 pages, then free them in the same order.
//! * `worst`: allocate and free one page; only blocks of the largest order are free.

#[path = "../tests/common/mod.rs"]
mod common;

use common::{MIB, Machine, alloc};
use std::time::Instant;
use vellum_page::PageSource;
use vellum_page_alloc::PageAllocator;
use vellum_types::GfpFlags;

const USER: GfpFlags = GfpFlags::HIGHUSER_MOVABLE;

fn pairs(allocator: &PageAllocator<'_>, count: u64) {
    for _ in 0..count {
        if let Ok(pfn) = alloc(allocator, 0, USER) {
            allocator.free_pages(core::hint::black_box(pfn));
        }
    }
}

fn bursts(allocator: &PageAllocator<'_>, count: u64) {
    let mut pages = Vec::with_capacity(4096);
    for _ in 0..count / 4096 {
        pages.extend((0..4096).map_while(|_| alloc(allocator, 0, USER).ok()));
        pages.drain(..).for_each(|pfn| allocator.free_pages(pfn));
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_else(|| "pair".into());
    let count = arguments
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1 << 22);
    let machine = Machine::new(16 * MIB, 144 * MIB);
    let allocator = machine.boot();
    if what == "pair" {
        let pages: Vec<_> = (0..4096)
            .map_while(|_| alloc(allocator, 0, USER).ok())
            .collect();
        pages
            .iter()
            .step_by(2)
            .for_each(|pfn| allocator.free_pages(*pfn));
    } else {
        // Leave nothing but blocks of the largest order.
        while allocator
            .zones()
            .any(|zone| zone.free_area[..10].iter().any(|blocks| *blocks != 0))
        {
            alloc(allocator, 0, USER).expect("the machine is not that small");
        }
    }
    let start = Instant::now();
    match what.as_str() {
        "burst" => bursts(allocator, count),
        _ => pairs(allocator, count),
    }
    let nanoseconds = start.elapsed().as_nanos() as f64 / count as f64;
    println!("{what}: {nanoseconds:.1} ns for one allocation and one free");
}
