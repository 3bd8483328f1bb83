//! From a page to those who map it, among 10 000 processes that do not.

use crate::machine::BenchMachine;
use crate::ops::{fault, map};
use std::hint::black_box;
use vellum_page::PageSource;
use vellum_system::{FileRef, MmRef, MmapRequest, System};
use vellum_types::{Access, FileId, PAGE_SIZE, Pfn, VirtAddr};

type Bench<'m> = System<'m, BenchMachine>;

/// Processes with an area and a page of their own.
const OTHERS: usize = 10_000;

struct Rig<'m> {
    mappers: Vec<MmRef<'m>>,
    at: VirtAddr,
    pfn: Pfn,
    /// They only have to be there.
    _others: Vec<MmRef<'m>>,
}

/// A page of one area, mapped by `mappers` processes that were forked from each other's parent.
fn rig<'m>(system: &Bench<'m>, mappers: usize, file: bool) -> Rig<'m> {
    let create = || system.mm_create().expect("mm");
    let others = (0..OTHERS).map(|_| {
        let mm = create();
        let at = map(system, &mm, 1);
        fault(system, &mm, at, Access::Write);
        mm
    });
    let others = others.collect();
    let parent = create();
    let at = if file {
        let file = FileRef {
            mapping: system.mapping(FileId(1)).expect("mapping"),
            readable: true,
            writable: false,
            exec_ok: true,
        };
        let request = MmapRequest {
            addr: 0,
            len: PAGE_SIZE,
            prot: 1,
            flags: 2,
            file: Some(file),
            offset: 0,
        };
        VirtAddr::new(system.mmap(&parent, request).expect("mmap"))
    } else {
        map(system, &parent, 1)
    };
    let access = if file { Access::Read } else { Access::Write };
    fault(system, &parent, at, access);
    let children = (1..mappers).map(|_| system.mm_fork(&parent).expect("fork"));
    let mut all: Vec<_> = children.collect();
    all.push(parent);
    let word = system.pagemap_entry(&all[0], at.page_number());
    Rig {
        pfn: Pfn::new(word as u32),
        mappers: all,
        at,
        _others: others,
    }
}

/// One mapping of the page is looked at.
pub(crate) fn referenced<const MAPPERS: usize>(system: &Bench<'_>, n: u64) {
    let rig = rig(system, MAPPERS, false);
    for _ in 0..n.div_ceil(MAPPERS as u64) {
        black_box(system.page_referenced(rig.pfn));
    }
}

/// One mapping of the page is taken away.
pub(crate) fn unmap<const MAPPERS: usize>(system: &Bench<'_>, n: u64) {
    let rig = rig(system, MAPPERS, true);
    let page = system.pages().memmap().page(rig.pfn);
    page.get();
    for _ in 0..n.div_ceil(MAPPERS as u64) {
        assert!(page.try_lock());
        black_box(system.try_to_unmap(rig.pfn, None));
        page.unlock();
        for mm in &rig.mappers {
            fault(system, mm, rig.at, Access::Read);
        }
    }
}

/// What [`unmap`] does besides: a fault on the cached page, after the area's pages were dropped.
pub(crate) fn fault_again(system: &Bench<'_>, n: u64) {
    let rig = rig(system, 1, true);
    for _ in 0..n {
        system
            .madvise(&rig.mappers[0], rig.at.as_u64(), PAGE_SIZE, 4)
            .expect("madvise");
        fault(system, &rig.mappers[0], rig.at, Access::Read);
    }
}
