//! The kernel half: one mapping, seen by all.

use crate::machine::{Event, Recorder};
use crate::ram::HostRam;
use vellum_machine::{Trace, VmEvent, VmStat};
use vellum_page::{AllocRequest, PageSource};
use vellum_page_table::{
    Format, PageTable, Pte, PteFlags, TlbGather, X86_64FiveLevel, X86_64FourLevel, X86Pae,
    X86TwoLevel,
};
use vellum_types::{Order, PAGE_SIZE, Pfn, SpaceId, VirtAddr, VirtRange};

const KERNEL: PteFlags = PteFlags::PRESENT.union(PteFlags::WRITE);

fn half<F: Format>() -> VirtAddr {
    // 3 GiB of 4 for the 32-bit formats, half for the others.
    VirtAddr::new(if F::VA_BITS == 32 {
        0xc000_0000
    } else {
        1 << (F::VA_BITS - 1)
    })
}

fn destroy<F: Format>(table: &mut PageTable<'_, F>, machine: &Recorder<'_>, ram: &HostRam) {
    let mut gather = TlbGather::new(machine, ram, SpaceId(table.owner()), Trace::OFF);
    table.destroy(&mut gather);
}

fn later_mappings_are_seen<F: Format>() {
    let ram = HostRam::new(256);
    let (machine, vmstat) = (Recorder::new(ram), VmStat::new());
    let start = half::<F>();
    let mut kernel =
        PageTable::<F>::new_kernel(ram, &vmstat, SpaceId::KERNEL.0, start).expect("memory");
    let window = VirtRange::from_len(start, 64 << 20).expect("a window");
    kernel.prealloc_root(window).expect("memory");
    let mut spaces: Vec<_> = (1..4)
        .map(|id| PageTable::<F>::new_sharing(ram, &vmstat, id, &kernel).expect("memory"))
        .collect();
    let tables: Vec<_> = spaces.iter().map(PageTable::nr_tables).collect();
    // Mapped after the spaces were made, in several root entries of the 2-level format.
    let frame = ram.alloc_pages(AllocRequest::kernel(Order::ZERO)).unwrap();
    for (i, va) in window.pages().enumerate().step_by(1000) {
        let leaf = kernel.leaf_or_alloc(va).expect("memory");
        leaf.set(va, Pte::new(frame + i as u32 % 7, KERNEL));
        for space in &spaces {
            assert_eq!(space.walk(va), kernel.walk(va), "{} {va:?}", F::NAME);
        }
        leaf.set(va, Pte::NONE);
        assert!(
            spaces
                .iter()
                .all(|space| space.walk(va).is_none_or(|(pte, _)| pte.is_none()))
        );
    }
    for (space, had) in spaces.iter_mut().zip(tables) {
        assert_eq!(space.nr_tables(), had, "the kernel's tables are not theirs");
        assert_eq!(space.validate(), Ok(()));
        assert_eq!(space.validate_sharing(&kernel), Ok(()));
        // What is there already is not the cause of a fault.
        assert!(!space.sync_kernel_entry(&kernel, window.start()));
        // Memory of its own does not touch the kernel's.
        space.leaf_or_alloc(VirtAddr::new(0x1000)).expect("memory");
        destroy(space, &machine, ram);
        assert_eq!(kernel.validate(), Ok(()));
    }
    assert_eq!(vmstat.events(VmEvent::VmallocFault), 0);
    destroy(&mut kernel, &machine, ram);
    drop((spaces, kernel));
    assert!(machine.take().iter().any(|e| matches!(e, Event::Kernel(_))));
    ram.free_pages(frame);
    assert_eq!(ram.used_pages(), 0);
}

#[test]
fn a_later_kernel_mapping_is_seen_in_every_space() {
    later_mappings_are_seen::<X86TwoLevel>();
    later_mappings_are_seen::<X86Pae>();
    later_mappings_are_seen::<X86_64FourLevel>();
    later_mappings_are_seen::<X86_64FiveLevel>();
}

fn faults_bring_what_is_missing<F: Format>() {
    let ram = HostRam::new(64);
    let (machine, vmstat) = (Recorder::new(ram), VmStat::new());
    let start = half::<F>();
    let mut kernel =
        PageTable::<F>::new_kernel(ram, &vmstat, SpaceId::KERNEL.0, start).expect("memory");
    let mut space = PageTable::<F>::new_sharing(ram, &vmstat, 1, &kernel).expect("memory");
    assert!(
        !space.sync_kernel_entry(&kernel, start),
        "nothing there yet"
    );
    let leaf = kernel.leaf_or_alloc(start).expect("memory");
    leaf.set(start, Pte::new(Pfn::new(5), KERNEL));
    assert_eq!(space.walk(start), None);
    assert!(space.sync_kernel_entry(&kernel, start));
    assert_eq!(space.walk(start), kernel.walk(start));
    assert!(!space.sync_kernel_entry(&kernel, start), "once is enough");
    assert!(!space.sync_kernel_entry(&kernel, VirtAddr::new(PAGE_SIZE)));
    assert_eq!(vmstat.events(VmEvent::VmallocFault), 1);
    assert_eq!(space.validate_sharing(&kernel), Ok(()));
    destroy(&mut space, &machine, ram);
    assert_eq!(
        kernel.walk(start).map(|(pte, _)| pte.pfn()),
        Some(Pfn::new(5))
    );
    destroy(&mut kernel, &machine, ram);
    drop((space, kernel));
    assert_eq!(ram.used_pages(), 0);
}

#[test]
fn a_root_entry_that_appears_later_is_copied_by_the_fault() {
    faults_bring_what_is_missing::<X86TwoLevel>();
    faults_bring_what_is_missing::<X86Pae>();
    faults_bring_what_is_missing::<X86_64FourLevel>();
    faults_bring_what_is_missing::<X86_64FiveLevel>();
}

#[test]
#[should_panic(expected = "or the kernel's")]
fn a_space_cannot_map_in_the_kernel_half() {
    let ram = HostRam::new(16);
    let vmstat = VmStat::new();
    let start = half::<X86Pae>();
    let kernel = PageTable::<X86Pae>::new_kernel(ram, &vmstat, 0, start).unwrap();
    let mut space = PageTable::<X86Pae>::new_sharing(ram, &vmstat, 1, &kernel).unwrap();
    let _ = space.leaf_or_alloc(start);
}

#[test]
fn canonical_addresses_come_back() {
    let high = VirtAddr::new(0xc900_0000_1000);
    let canonical = X86_64FourLevel::canonical(high);
    assert_eq!(canonical.as_u64(), 0xffff_c900_0000_1000);
    assert_eq!(X86_64FourLevel::strip(canonical), Some(high));
    assert_eq!(X86_64FourLevel::strip(high), None);
    let low = VirtAddr::new(0x7fff_0000_0000);
    assert_eq!(X86_64FourLevel::canonical(low), low);
    assert_eq!(X86_64FourLevel::strip(low), Some(low));
    let x86 = VirtAddr::new(0xf800_0000);
    assert_eq!(X86Pae::canonical(x86), x86);
    assert_eq!(X86Pae::strip(x86), Some(x86));
}

fn runs<F: Format>() {
    let ram = HostRam::new(16);
    let (machine, vmstat) = (Recorder::new(ram), VmStat::new());
    let mut table = PageTable::<F>::new(ram, &vmstat, 1).expect("memory");
    let at = VirtAddr::from_page_number(5);
    let leaf = table.leaf_or_alloc(at).expect("memory");
    let last = leaf.base() + ((1 << F::INDEX_BITS) - 1) * PAGE_SIZE;
    let rest = ((last - at) / PAGE_SIZE) as u32 + 1;
    leaf.set_run(at, Pfn::new(100), rest, KERNEL);
    for i in 0..rest {
        let pte = leaf.get(at + u64::from(i) * PAGE_SIZE);
        assert_eq!(pte, Pte::new(Pfn::new(100 + i), KERNEL), "{}", F::NAME);
    }
    assert!(leaf.get(VirtAddr::from_page_number(4)).is_none());
    leaf.clear_run(at + PAGE_SIZE, rest - 2);
    assert!(!leaf.get(at).is_none() && !leaf.get(last).is_none());
    leaf.clear_run(at, 1);
    leaf.clear_run(last, 1);
    assert!(leaf.is_empty());
    destroy(&mut table, &machine, ram);
}

#[test]
fn runs_of_entries_are_like_single_ones() {
    runs::<X86TwoLevel>();
    runs::<X86Pae>();
    runs::<X86_64FourLevel>();
    runs::<X86_64FiveLevel>();
}

#[test]
#[should_panic(expected = "beyond the end of a table")]
fn a_run_ends_with_its_table() {
    let ram = HostRam::new(16);
    let vmstat = VmStat::new();
    let table = PageTable::<X86Pae>::new(ram, &vmstat, 1).expect("memory");
    // Not dropped while the panic unwinds: it has tables.
    let mut table = std::mem::ManuallyDrop::new(table);
    let leaf = table.leaf_or_alloc(VirtAddr::ZERO).expect("memory");
    leaf.set_run(VirtAddr::from_page_number(511), Pfn::new(1), 2, KERNEL);
}

/// A machine that puts entries of its own into the upper half of a root finds them as it left them,
/// and what hangs there is not freed with the space.
#[test]
fn the_machines_half_is_left_alone() {
    let ram = HostRam::new(64);
    let (machine, vmstat) = (Recorder::new(ram), VmStat::new());
    let mut kernel =
        PageTable::<X86_64FourLevel>::new_kernel(ram, &vmstat, 0, VirtAddr::new(1 << 47))
            .expect("memory");
    let mut table = PageTable::new_sharing(ram, &vmstat, 1, &kernel).expect("memory");
    let foreign = Pte::new(Pfn::new(0x1234), KERNEL);
    X86_64FourLevel::store(ram.ram(), table.root(), 511, foreign);
    table.leaf_or_alloc(VirtAddr::new(0x1000)).expect("memory");
    assert_eq!(table.validate(), Ok(()));
    destroy(&mut table, &machine, ram);
    assert_eq!(table.nr_tables(), 0);
    destroy(&mut kernel, &machine, ram);
}
