//! Reclaim by its whole way: lists, policy, reverse mapping, tables, swap cache or page cache, and back.
//! Devices and the compressor take no time.

use crate::machine::BenchMachine;
use crate::swap::{NoCompressor, NoDevice};
use vellum_page::{AllocRequest, PageSource};
use vellum_reclaim::{ReclaimHost, ReclaimRequest};
use vellum_system::{FaultInfo, MmRef, MmapRequest, SwapOn, System};
use vellum_types::{Access, FileId, GfpFlags, Order, PAGE_SIZE, Pfn, VirtAddr};

type Bench<'m> = System<'m, BenchMachine>;

/// Pages that there are to reclaim, more than are.
const PAGES: u64 = 12_000;

/// Free frames of the machine that is short of memory.
const SHORT: usize = 8192;

/// Makes each frame hold something that is not one word all over, and keeps all of them but `free`.
fn prepare(system: &Bench<'_>, free: usize) {
    let pages = system.pages();
    let request = AllocRequest::user_movable(Order::ZERO);
    let mut frames: Vec<Pfn> = Vec::new();
    while let Ok(pfn) = pages.alloc_pages(request) {
        pages
            .ram()
            .write_u64(pfn.addr() + (PAGE_SIZE - 8), 0x1234 + frames.len() as u64);
        frames.push(pfn);
    }
    for pfn in frames.drain(frames.len().saturating_sub(free)..) {
        pages.free_pages(pfn);
    }
}

fn map<'m>(system: &Bench<'m>, pages: u64) -> (MmRef<'m>, VirtAddr) {
    let mm = system.mm_create().expect("an address space");
    let request = MmapRequest {
        addr: 0,
        len: pages * PAGE_SIZE,
        prot: 3,
        flags: 0x22,
        file: None,
        offset: 0,
    };
    let at = VirtAddr::new(system.mmap(&mm, request).expect("mmap"));
    (mm, at)
}

fn touch<'m>(system: &Bench<'m>, mm: &MmRef<'m>, addr: VirtAddr) {
    let info = FaultInfo {
        addr,
        access: Access::Write,
        sp: None,
    };
    let outcome = system.fault(mm, info);
    assert!(outcome.is_served(), "{outcome:?}");
}

/// Reclaims so many pages.
fn reclaim(system: &Bench<'_>, pages: u64) {
    let host: &dyn ReclaimHost = &**system;
    let mut left = pages;
    while left > 0 {
        let request = ReclaimRequest {
            order: Order::ZERO,
            gfp: GfpFlags::HIGHUSER_MOVABLE,
            target: left.min(64),
        };
        let freed = system.reclaim().try_to_free_pages(host, request);
        assert!(freed > 0, "{left} pages left");
        left = left.saturating_sub(freed);
    }
}

/// A clean page of a file that nobody maps.
pub(crate) fn reclaim_file(system: &Bench<'_>, n: u64) {
    let mapping = system.mapping(FileId(1)).expect("a file");
    let mut byte = [0];
    for page in 0..PAGES {
        let read = system.kernel_read(&mapping, page * PAGE_SIZE, &mut byte);
        assert_eq!(read, Ok(1));
    }
    reclaim(system, n);
}

fn fill<'m>(system: &Bench<'m>) -> (MmRef<'m>, VirtAddr) {
    prepare(system, usize::MAX);
    let (mm, at) = map(system, PAGES);
    for page in 0..PAGES {
        touch(system, &mm, at + page * PAGE_SIZE);
    }
    (mm, at)
}

fn swapon_zram(system: &Bench<'_>) {
    let room = 256 << 20;
    let area = system.swapon_zram(&NoCompressor, room, room, SwapOn::default());
    area.expect("an area");
}

/// A page of a program to compressed memory.
pub(crate) fn swap_out_zram(system: &Bench<'_>, n: u64) {
    let (_mm, _) = fill(system);
    swapon_zram(system);
    reclaim(system, n);
}

/// And back, by a fault.
pub(crate) fn swap_in_zram(system: &Bench<'_>, n: u64) {
    let (mm, at) = fill(system);
    swapon_zram(system);
    reclaim(system, PAGES - 100);
    for page in 0..n {
        touch(system, &mm, at + page * PAGE_SIZE);
    }
}

/// A step of a program that goes through twice its memory again and again.
pub(crate) fn thrash(system: &Bench<'_>, n: u64) {
    system
        .swap()
        .swapon(&NoDevice, SwapOn::default())
        .expect("an area");
    prepare(system, SHORT);
    let pages = 2 * SHORT as u64;
    let (mm, at) = map(system, pages);
    for step in 0..pages + n {
        touch(system, &mm, at + step % pages * PAGE_SIZE);
    }
}
