//! Kernel mappings in a whole system: seen by all address spaces, reported, accounted for.

use vellum_machine::{Machine, VmItem};
use vellum_sim::{SimConfig, SimHost, SimMachine, SimStore};
use vellum_system::{BackingStore, System, SystemConfig, proc};
use vellum_types::PAGE_SIZE;

const MIB: u64 = 1 << 20;

fn boot<'m>(machine: &'m SimMachine, store: &'m dyn BackingStore) -> System<'m, SimMachine> {
    let config = SystemConfig {
        trace: machine.trace(),
        ..SystemConfig::default()
    };
    System::boot(machine, store, config).expect("a boot")
}

#[test]
fn the_numbers_of_vmalloc_are_those_of_its_areas() {
    let machine = SimMachine::new(SimConfig::with_ram(32 * MIB));
    let store = SimStore::new();
    let system = boot(&machine, &store);
    let kb = |name| system.meminfo().get(name).expect("a line of meminfo");
    assert_eq!((kb("VmallocTotal"), kb("VmallocUsed")), (512 << 20, 0));
    assert_eq!(kb("VmallocChunk"), kb("VmallocTotal"));

    let at = system.vmalloc().vmalloc(3 * MIB + 1).expect("memory");
    let line = line!() - 1;
    assert_eq!(kb("VmallocUsed"), 3 * 1024 + 4);
    // The area, the rest of its last page, and its guard page.
    assert_eq!(kb("VmallocChunk"), kb("VmallocTotal") - 3 * 1024 - 8);
    let mut text = String::new();
    proc::vmallocinfo(&system, &mut text).unwrap();
    let wanted = format!("kernel_mappings.rs:{line} pages=769 vmalloc\n");
    assert!(text.ends_with(&wanted), "{text}");
    assert!(text.starts_with("0xffffc90000000000-0xffffc90000302000"));
    assert_eq!(system.validate_all(), Ok(()));

    system.vmalloc().vfree(at).expect("an area");
    assert_eq!(kb("VmallocUsed"), 0);
    assert_eq!(system.validate_all(), Ok(()));
    let leaks = system.shutdown();
    assert_eq!(
        (leaks.frames, leaks.objects, leaks.areas),
        (0, 0, 0),
        "{leaks:?}"
    );
}

#[test]
fn an_area_that_nobody_freed_is_a_leak() {
    let machine = SimMachine::new(SimConfig::with_ram(32 * MIB));
    let store = SimStore::new();
    let system = boot(&machine, &store);
    let _lost = system.vmalloc().vmalloc(5 * PAGE_SIZE).expect("memory");
    let leaks = system.shutdown();
    assert_eq!(leaks.areas, 1);
    assert!(leaks.frames >= 5, "{leaks:?}");
}

#[test]
fn the_kernels_tables_come_back_with_the_system() {
    let machine = SimMachine::new(SimConfig::with_ram(32 * MIB));
    let store = SimStore::new();
    let system = boot(&machine, &store);
    let (pages, vmstat) = (system.pages(), system.vmstat());
    // The root and the one table below it that all address spaces share.
    assert_eq!(vmstat.item(VmItem::NrPageTablePages), 2);
    let at = system.vmalloc().vmalloc(MIB).expect("memory");
    assert!(vmstat.item(VmItem::NrPageTablePages) > 2);
    system.vmalloc().vfree(at).expect("an area");
    let leaks = system.shutdown();
    assert_eq!((leaks.frames, leaks.areas), (0, 0), "{leaks:?}");
    assert_eq!(vmstat.item(VmItem::NrPageTablePages), 0);
    assert_eq!(pages.validate(), Ok(()));
}

/// What is mapped after a space was made is seen there too, by its own tables, and no space is
/// visited for that.
#[test]
fn a_later_mapping_is_seen_in_every_address_space() {
    let machine = SimMachine::new(SimConfig::with_ram(64 * MIB));
    let store = SimStore::new();
    let mut host = SimHost::boot(&machine, &store, 1).expect("a boot");
    let before: Vec<usize> = (0..8).map(|_| host.spawn().expect("a process")).collect();
    let at = host
        .system()
        .vmalloc()
        .vmalloc(3 * PAGE_SIZE)
        .expect("memory");
    host.fork(before[0], before.len()).expect("a process");
    let mut roots = Vec::new();
    host.system().for_each_mm(&mut |mm| {
        roots.push(mm.root());
        true
    });
    assert_eq!(roots.len(), before.len() + 1);
    let ram = machine.direct_map();
    let kernel = host.system().vmalloc();
    for page in 0..3 {
        let va = at + page * PAGE_SIZE;
        let frame = kernel.vmalloc_to_page(va).expect("mapped");
        for root in &roots {
            // By the manual: nine bits of the address for each level.
            let mut table = root.addr();
            for level in (1..4).rev() {
                let entry = ram.read_u64(table + (va.as_u64() >> (12 + 9 * level) & 511) * 8);
                assert_eq!(entry & 1, 1, "level {level}");
                table = vellum_types::PhysAddr::new(entry & 0x000f_ffff_ffff_f000);
            }
            let entry = ram.read_u64(table + (va.as_u64() >> 12 & 511) * 8);
            assert_eq!(entry & 0x000f_ffff_ffff_f000, frame.addr().as_u64());
            // For the kernel alone: the user bit is not set in the entry.
            assert_eq!(entry & 4, 0);
        }
    }
    kernel.vfree(at).expect("an area");
    for pid in 0..=before.len() {
        host.exit(pid);
    }
    host.shutdown().expect("everything back");
}

/// Frames of areas that were freed wait for a flush; when a program needs them they do not.
#[test]
fn memory_that_waits_for_a_flush_is_not_lost_to_programs() {
    let machine = SimMachine::new(SimConfig::with_ram(16 * MIB));
    let store = SimStore::new();
    let mut host = SimHost::boot(&machine, &store, 1).expect("a boot");
    let pid = host.spawn().expect("a process");
    host.system().vmalloc().set_lazy_max_pages(u64::MAX);
    let mut areas = Vec::new();
    while let Ok(at) = host.system().vmalloc().vmalloc(256 << 10) {
        areas.push(at);
    }
    assert!(areas.len() > 32, "most of memory");
    for at in areas {
        host.system().vmalloc().vfree(at).expect("an area");
    }
    assert!(host.system().vmalloc().lazy_bytes() > 8 * MIB);
    let request = vellum_system::MmapRequest {
        addr: 0x1000_0000,
        len: 8 * MIB,
        prot: 3,
        flags: 0x32,
        file: None,
        offset: 0,
    };
    host.mmap(pid, request).expect("a mapping");
    for page in 0..8 * MIB / PAGE_SIZE {
        let wrote = host.write(pid, 0x1000_0000 + page * PAGE_SIZE, &[1]);
        assert_eq!(wrote, Ok(()), "page {page}");
    }
    assert_eq!(host.system().vmalloc().lazy_bytes(), 0);
    host.exit(pid);
    host.shutdown().expect("everything back");
}
