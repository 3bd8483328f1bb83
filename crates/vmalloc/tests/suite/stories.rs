//! What people ask of kernel mappings.

use crate::machine::{TestMachine, layout};
use std::sync::atomic::Ordering;
use vellum_machine::{Trace, VmEvent};
use vellum_page_table::{Format, TlbGather, X86_64FiveLevel, X86_64FourLevel, X86Pae, X86TwoLevel};
use vellum_types::{PAGE_SIZE, Pfn, SpaceId};
use vellum_vmalloc::AreaKind;

/// A module is loaded while programs run: each of them sees it when it enters the kernel.
fn later_areas_are_seen_by_every_process<F: Format>(faults: u64) {
    let machine = TestMachine::new(4096, 4096, 1);
    let mut vmalloc = machine.boot::<F>(layout::<F>(32 << 20, 1));
    let mut spaces: Vec<_> = (1..5).map(|id| vmalloc.new_table(id).unwrap()).collect();
    let module = vmalloc.vmalloc(10 << 20).unwrap();
    let pages: Vec<_> = (0..10 << 8).map(|i| module + i * PAGE_SIZE).collect();
    for table in &mut spaces {
        for addr in &pages {
            let va = F::strip(*addr).unwrap();
            if table.walk(va).is_none() {
                assert!(vmalloc.vmalloc_fault(table, *addr));
            }
            let frame = table.walk(va).map(|(pte, _)| pte.pfn());
            assert_eq!(frame, vmalloc.vmalloc_to_page(*addr), "{}", F::NAME);
        }
        // Where nothing is mapped for anybody, the fault is a true one.
        assert!(!vmalloc.vmalloc_fault(table, *pages.last().unwrap() + PAGE_SIZE));
    }
    assert_eq!(
        machine.vmstat.events(VmEvent::VmallocFault),
        faults,
        "{}",
        F::NAME
    );
    // And it is gone from all of them, with the tables still there.
    vmalloc.vfree(module).unwrap();
    vmalloc.purge();
    let va = F::strip(module).unwrap();
    for table in &mut spaces {
        assert!(table.walk(va).is_none_or(|(pte, _)| pte.is_none()));
        vmalloc.with_kernel_table(|kernel| assert_eq!(table.validate_sharing(kernel), Ok(())));
        let mut gather = TlbGather::new(machine, machine, SpaceId(1), Trace::OFF);
        table.destroy(&mut gather);
    }
    drop(spaces);
    assert_eq!(vmalloc.validate(), Ok(()));
    assert_eq!(vmalloc.shutdown(), Ok(()));
    drop(vmalloc);
    assert_eq!(machine.used_pages(), 0);
}

#[test]
fn a_kernel_mapping_made_later_is_seen_by_every_process() {
    // 10 MiB from 64 KiB below a boundary: four root entries of 4 MiB, for each of four spaces.
    later_areas_are_seen_by_every_process::<X86TwoLevel>(4 * 4);
    later_areas_are_seen_by_every_process::<X86Pae>(0);
    later_areas_are_seen_by_every_process::<X86_64FourLevel>(0);
    later_areas_are_seen_by_every_process::<X86_64FiveLevel>(0);
}

#[test]
fn many_frees_share_one_flush() {
    let machine = TestMachine::new(2048, 2048, 1);
    let mut vmalloc = machine.boot::<X86_64FourLevel>(layout::<X86_64FourLevel>(32 << 20, 1));
    vmalloc.set_lazy_max_pages(200);
    for _ in 0..1000 {
        let at = vmalloc.vmalloc(PAGE_SIZE).unwrap();
        vmalloc.write(at, &[1]).unwrap();
        vmalloc.vfree(at).unwrap();
    }
    // Two pages each, the guard counted: one flush for 101 frees.
    assert_eq!(machine.flushes.load(Ordering::Relaxed), 9);
    assert_eq!(vmalloc.purges(), 9);
    assert_eq!(vmalloc.lazy_bytes(), (1000 - 9 * 101) * 2 * PAGE_SIZE);
    assert_eq!(vmalloc.shutdown(), Ok(()));
}

fn huge<F: Format>(level: u8) {
    let machine = TestMachine::new(8192, 8192, 1);
    let mut vmalloc = machine.boot::<F>(layout::<F>(64 << 20, 1));
    // Small areas first, whose leaf tables stand where the huge entries will be.
    let small: Vec<_> = (0..1000)
        .map(|_| vmalloc.vmalloc(PAGE_SIZE).unwrap())
        .collect();
    small.into_iter().for_each(|at| vmalloc.vfree(at).unwrap());
    vmalloc.purge();
    let at = vmalloc.vmalloc_huge((5 << 20) + 1).unwrap();
    let levels: Vec<_> = [0, 2, 4, 5]
        .map(|mib| F::strip(at + (mib << 20)).unwrap())
        .iter()
        .map(|va| vmalloc.with_kernel_table(|table| table.walk(*va).unwrap().1))
        .collect();
    assert_eq!(levels, [level, level, 0, 0], "{}", F::NAME);
    vmalloc.write(at + (3 << 20), b"in the second").unwrap();
    let mut first = None;
    vmalloc
        .for_each_page(at, |va, pfn| {
            let first = *first.get_or_insert(pfn);
            let into = ((va - at) / PAGE_SIZE) as u32;
            if level > 0 && into < 1024 {
                assert_eq!(pfn, first + into);
            }
        })
        .unwrap();
    assert_eq!(vmalloc.validate(), Ok(()));
    vmalloc.vfree(at).unwrap();
    vmalloc.purge();
    // And small ones again where it was.
    let at = vmalloc.vmalloc(700 * PAGE_SIZE).unwrap();
    assert_eq!(vmalloc.validate(), Ok(()));
    vmalloc.vfree(at).unwrap();
    assert_eq!(vmalloc.shutdown(), Ok(()));
    drop(vmalloc);
    assert_eq!((machine.used_pages(), machine.nodes.live()), (0, 0));
}

#[test]
fn large_areas_have_huge_entries() {
    huge::<X86Pae>(1);
    huge::<X86_64FourLevel>(1);
    huge::<X86_64FiveLevel>(1);
    // Its huge entries would stand in roots, which nobody can take back.
    huge::<X86TwoLevel>(0);
}

#[test]
fn a_huge_entry_takes_the_place_of_the_table_used_last() {
    let machine = TestMachine::new(4096, 4096, 1);
    let mut vmalloc = machine.boot::<X86_64FourLevel>(layout::<X86_64FourLevel>(32 << 20, 1));
    // The window begins 16 pages below a boundary: the last 4 pages are in the next table.
    let small = vmalloc.vmalloc(20 * PAGE_SIZE).unwrap();
    vmalloc.vfree(small).unwrap();
    vmalloc.purge();
    let at = vmalloc.vmalloc_huge(2 << 20).unwrap();
    assert_eq!(at, small + 16 * PAGE_SIZE);
    let va = X86_64FourLevel::strip(at).unwrap();
    let level = vmalloc.with_kernel_table(|table| table.walk(va).unwrap().1);
    assert_eq!(level, 1);
    vmalloc.vfree(at).unwrap();
    vmalloc.purge();
    assert_eq!(vmalloc.validate(), Ok(()));
    vmalloc.with_kernel_table(|table| assert_eq!(table.walk(va), None));
    assert_eq!(vmalloc.shutdown(), Ok(()));
}

#[test]
fn memory_in_pieces_still_makes_an_area() {
    let machine = TestMachine::new(1024, 1024, 1);
    let mut vmalloc = machine.boot::<X86_64FourLevel>(layout::<X86_64FourLevel>(32 << 20, 1));
    // Every other frame is taken.
    let all = machine.frames(900);
    let (kept, freed): (Vec<Pfn>, Vec<Pfn>) = all.iter().partition(|pfn| pfn.as_u32() % 2 == 0);
    freed
        .iter()
        .for_each(|pfn| vellum_page::PageSource::free_pages(machine, *pfn));
    let at = vmalloc.vmalloc(400 * PAGE_SIZE).expect("single pages do");
    let mut frames = Vec::new();
    vmalloc
        .for_each_page(at, |_, pfn| frames.push(pfn))
        .unwrap();
    assert_eq!(frames.len(), 400);
    assert!(frames.iter().all(|pfn| !kept.contains(pfn)));
    vmalloc.vfree(at).unwrap();
    assert_eq!(vmalloc.shutdown(), Ok(()));
}

#[test]
fn vmallocinfo_names_the_callers() {
    let machine = TestMachine::new(1024, 1024, 1);
    let mut vmalloc = machine.boot::<X86_64FourLevel>(layout::<X86_64FourLevel>(32 << 20, 1));
    let a = vmalloc.vmalloc(3 * PAGE_SIZE).unwrap();
    let line = line!() - 1;
    let b = vmalloc.vmap(&machine.frames(2)).unwrap();
    let c = vmalloc.vmalloc(1).unwrap();
    vmalloc.vfree(c).unwrap();
    let mut text = String::new();
    vmalloc.write_vmallocinfo(&mut text).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let start = a.as_u64();
    let expected = format!(
        "{start:#018x}-{:#018x}   16384 {}:{line} pages=3 vmalloc",
        start + 4 * PAGE_SIZE,
        file!()
    );
    assert_eq!(lines[0], expected);
    assert!(lines[1].ends_with(" pages=2 vmap"), "{}", lines[1]);
    assert!(
        lines[2].ends_with("    8192 unpurged vm_area"),
        "{}",
        lines[2]
    );
    let stats = vmalloc.stats();
    assert_eq!((stats.used, stats.areas), (3 * PAGE_SIZE, 2));
    assert_eq!(stats.total, vmalloc.layout().vmalloc.len());
    assert_eq!(stats.chunk, stats.total - 9 * PAGE_SIZE);
    let mut kinds = Vec::new();
    let _ = vmalloc.for_each_area::<()>(&mut |area| {
        kinds.push((area.kind, area.unpurged));
        std::ops::ControlFlow::Continue(())
    });
    let (alloc, map) = (AreaKind::Alloc, AreaKind::Map);
    assert_eq!(kinds, [(alloc, false), (map, false), (alloc, true)]);
    vmalloc.vfree(a).unwrap();
    vmalloc.vunmap(b).unwrap();
    assert_eq!(vmalloc.shutdown(), Ok(()));
}
