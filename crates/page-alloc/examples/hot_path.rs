//! What a page costs. For `valgrind --tool=callgrind` or `perf stat -e instructions:u`: the difference
//! between two counts is the operations alone.
//!
//! `hot_path WHAT COUNT [dyn]`
//! * `0` to `10`: allocate and free one block of that order.
//! * `bulk`: allocate and free 64 pages with one call each; `COUNT` pages in all.
//! * `burst`: allocate 4096 single pages, then free them in the same order; `COUNT` pages in all.
//! * `scatter`: the same, freed in random order.
//!
//! With `dyn`, the CPU is asked for each time, as a machine with several does.

#[path = "../tests/common/mod.rs"]
mod common;

use common::{MIB, Machine, Rng, alloc, one_cpu};
use core::hint::black_box;
use vellum_machine::{Cpus, Trace};
use vellum_page::{AllocRequest, PageSource};
use vellum_page_alloc::PageAllocator;
use vellum_types::{GfpFlags, Pfn};

const USER: GfpFlags = GfpFlags::HIGHUSER_MOVABLE;

fn pairs(allocator: &PageAllocator<'_>, order: u8, count: u64) {
    let order = common::order(order);
    for _ in 0..count {
        let request = AllocRequest { order, gfp: USER };
        if let Ok(pfn) = allocator.alloc_pages(black_box(request)) {
            allocator.free_pages(black_box(pfn));
        }
    }
}

fn bursts(allocator: &PageAllocator<'_>, count: u64, scatter: bool) {
    let order: Vec<usize> = {
        let mut rng = Rng(88_172_645_463_325_252);
        let mut order: Vec<usize> = (0..4096).collect();
        (1..4096)
            .rev()
            .for_each(|at| order.swap(at, rng.below(at as u64 + 1) as usize));
        if scatter { order } else { (0..4096).collect() }
    };
    for _ in 0..count / 4096 {
        let pages: Vec<Pfn> = (0..4096)
            .map_while(|_| alloc(allocator, 0, USER).ok())
            .collect();
        order.iter().for_each(|at| allocator.free_pages(pages[*at]));
    }
}

fn bulk(allocator: &PageAllocator<'_>, count: u64) {
    let mut pages = [Pfn::NONE; 64];
    for _ in 0..count / 64 {
        let got = allocator.alloc_pages_bulk(USER, black_box(&mut pages));
        allocator.free_pages_bulk(black_box(&pages[..got]));
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_else(|| "0".into());
    let count = arguments
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1 << 22);
    let machine = Machine::new(16 * MIB, 528 * MIB);
    let cpus = match arguments.next() {
        Some(_) => one_cpu(),
        // SAFETY: this program has one thread.
        None => unsafe { Cpus::single() },
    };
    let allocator = machine.boot_cpus(machine.memblock(), cpus, Trace::OFF);
    match what.as_str() {
        "burst" => bursts(allocator, count, false),
        "bulk" => bulk(allocator, count),
        "scatter" => bursts(allocator, count, true),
        order => pairs(allocator, order.parse().expect("an order"), count),
    }
}
