//! Every n-th allocation fails: no leak, no half state.

use crate::machine::{TestMachine, layout};
use vellum_object::ObjectCache;
use vellum_page_table::{Format, X86_64FourLevel, X86TwoLevel};
use vellum_types::PAGE_SIZE;
use vellum_vmalloc::{Vmalloc, VmallocError};

/// A few calls, each of which may fail; all that succeeded is undone.
fn scenario<F: Format>(machine: &'static TestMachine, vmalloc: &Vmalloc<'static, TestMachine, F>) {
    let frames = machine_frames(machine);
    let areas = [
        vmalloc.vmalloc(5 * PAGE_SIZE),
        vmalloc.vzalloc(40 * PAGE_SIZE),
        vmalloc.vmalloc_huge(1030 * PAGE_SIZE),
        vmalloc.vmalloc(1),
    ];
    assert_eq!(vmalloc.validate(), Ok(()));
    let mapped = vmalloc.vmap(&frames);
    for area in areas {
        match area {
            Ok(at) => assert_eq!(vmalloc.vfree(at), Ok(())),
            Err(error) => assert_eq!(error, VmallocError::OutOfMemory),
        }
    }
    if let Ok(at) = mapped {
        assert_eq!(vmalloc.vunmap(at), Ok(()));
    }
    vmalloc.purge();
    assert_eq!(vmalloc.validate(), Ok(()));
    assert_eq!(vmalloc.stats().areas, 0);
}

fn machine_frames(machine: &'static TestMachine) -> Vec<vellum_types::Pfn> {
    // Any frames do: they are never read.
    let first = vellum_page::PageSource::memmap(machine).span().start();
    (0..20).map(|i| first + i * 3).collect()
}

fn frames_fail<F: Format>() {
    let machine = TestMachine::new(4096, 2048, 1);
    for n in 0..120 {
        let mut vmalloc = machine.boot::<F>(layout::<F>(32 << 20, 1));
        machine.fail_after(n);
        scenario(machine, &vmalloc);
        machine.fail_after(i64::MAX);
        // And whatever failed, all works again.
        let at = vmalloc.vmalloc(100 * PAGE_SIZE).expect("memory");
        assert_eq!(vmalloc.vfree(at), Ok(()));
        assert_eq!(vmalloc.shutdown(), Ok(()));
        drop(vmalloc);
        assert_eq!((machine.used_pages(), machine.nodes.live()), (0, 0), "{n}");
    }
}

#[test]
fn every_frame_may_be_refused() {
    frames_fail::<X86_64FourLevel>();
    frames_fail::<X86TwoLevel>();
}

#[test]
fn every_node_may_be_refused() {
    let machine = TestMachine::new(4096, 4096, 1);
    for n in 0..20 {
        let mut vmalloc = machine.boot::<X86_64FourLevel>(layout::<X86_64FourLevel>(32 << 20, 1));
        machine.nodes.fail_after(n);
        scenario(machine, &vmalloc);
        machine.nodes.fail_after(i64::MAX);
        assert_eq!(vmalloc.shutdown(), Ok(()));
        drop(vmalloc);
        assert_eq!((machine.used_pages(), machine.nodes.live()), (0, 0), "{n}");
    }
}

#[test]
fn boot_undoes_itself() {
    let machine = TestMachine::new(256, 256, 1);
    let layout = layout::<X86_64FourLevel>(32 << 20, 1);
    let boot = || {
        let nodes = ObjectCache::new(&machine.nodes);
        Vmalloc::<_, X86_64FourLevel>::boot(machine, machine, &machine.vmstat, layout, nodes)
    };
    for n in 0..2 {
        machine.fail_after(n);
        assert!(boot().is_err());
        machine.fail_after(i64::MAX);
        assert_eq!((machine.used_pages(), machine.nodes.live()), (0, 0));
    }
    machine.nodes.fail_after(0);
    assert!(boot().is_err());
    assert_eq!((machine.used_pages(), machine.nodes.live()), (0, 0));
}

#[test]
fn frames_that_wait_are_found_when_none_are_left() {
    let machine = TestMachine::new(1024, 1024, 1);
    let mut vmalloc = machine.boot::<X86_64FourLevel>(layout::<X86_64FourLevel>(32 << 20, 1));
    vmalloc.set_lazy_max_pages(1 << 20);
    for _ in 0..20 {
        // Each needs most of memory.
        let at = vmalloc.vmalloc(700 * PAGE_SIZE).expect("after a purge");
        assert_eq!(vmalloc.vfree(at), Ok(()));
    }
    assert_eq!(vmalloc.purges(), 19);
    assert_eq!(vmalloc.shutdown(), Ok(()));
}

#[test]
fn addresses_that_wait_are_found_when_none_are_left() {
    let machine = TestMachine::new(1024, 1024, 1);
    let mut layout = layout::<X86_64FourLevel>(32 << 20, 1);
    let start = layout.vmalloc.start();
    layout.vmalloc = vellum_types::VirtRange::from_len(start, 12 * PAGE_SIZE).unwrap();
    let mut vmalloc = machine.boot::<X86_64FourLevel>(layout);
    vmalloc.set_lazy_max_pages(1 << 20);
    let kept = vmalloc.vmalloc(1).unwrap();
    for _ in 0..10 {
        let at = vmalloc.vmalloc(6 * PAGE_SIZE).expect("after a purge");
        assert_eq!(vmalloc.vmalloc(4 * PAGE_SIZE), Err(VmallocError::NoSpace));
        assert_eq!(vmalloc.vfree(at), Ok(()));
    }
    assert_eq!(vmalloc.shutdown(), Err(1));
    assert_eq!(vmalloc.vfree(kept), Ok(()));
    assert_eq!(vmalloc.shutdown(), Ok(()));
}

#[test]
fn bad_requests_are_refused() {
    let machine = TestMachine::new(256, 256, 1);
    let mut vmalloc = machine.boot::<X86_64FourLevel>(layout::<X86_64FourLevel>(32 << 20, 1));
    assert_eq!(vmalloc.vmalloc(0), Err(VmallocError::Invalid));
    assert_eq!(vmalloc.vmap(&[]), Err(VmallocError::Invalid));
    let outside = vellum_types::Pfn::new(1 << 30);
    assert_eq!(vmalloc.vmap(&[outside]), Err(VmallocError::Invalid));
    assert_eq!(vmalloc.vmalloc(u64::MAX), Err(VmallocError::OutOfMemory));
    let foreign = vellum_types::VirtAddr::new(0x1000);
    assert_eq!(vmalloc.vfree(foreign), Err(VmallocError::NotFound));
    let not_canonical = vellum_types::VirtAddr::new(1 << 50);
    assert_eq!(vmalloc.vfree(not_canonical), Err(VmallocError::NotFound));
    for align in [0, 1, 3 * PAGE_SIZE] {
        let request = vellum_vmalloc::VmallocRequest {
            size: 1,
            align,
            gfp: vellum_types::GfpFlags::KERNEL,
            huge: false,
        };
        assert_eq!(vmalloc.vmalloc_with(request), Err(VmallocError::Invalid));
    }
    assert_eq!(vmalloc.shutdown(), Ok(()));
}
