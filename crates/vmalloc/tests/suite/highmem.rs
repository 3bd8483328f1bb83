//! The 32-bit profile: 896 MiB of direct map, 128 MiB of windows, more RAM than that.

use crate::machine::{TestMachine, layout};
use vellum_machine::{PerCpuSlot, VmEvent};
use vellum_page::{AllocRequest, PageSource};
use vellum_page_table::{Format, PteFlags, X86_64FourLevel, X86Pae, X86TwoLevel};
use vellum_types::{GfpFlags, Order, PAGE_SIZE, Pfn};
use vellum_vmalloc::{
    FIX_SLOTS, Fixmap, KM_MAX, KernelLayout, Kmap, KmapDepth, KmapError, KmapLocal, KmapSlot,
    VmallocError,
};

const LOW: u32 = (KernelLayout::LOWMEM_MAX / PAGE_SIZE) as u32;

/// 1200 MiB of RAM.
fn machine() -> &'static TestMachine {
    TestMachine::new(1200 << 8, LOW - 0x100, 1)
}

#[test]
fn the_windows_lie_as_linux_has_them() {
    let two = KernelLayout::x86_32::<X86TwoLevel>(KernelLayout::LOWMEM_MAX, 1);
    assert_eq!(two.vmalloc.start().as_u64(), 0xf880_0000);
    let pkmap = two.pkmap.unwrap();
    assert_eq!(
        (pkmap.start().as_u64(), pkmap.nr_pages()),
        (0xff80_0000, 1024)
    );
    assert_eq!(two.vmalloc.end().as_u64(), 0xff7f_e000);
    assert!(pkmap.end() < two.fixmap.start());
    assert_eq!(two.fixmap.end().as_u64(), 0xffff_f000);
    let pae = KernelLayout::x86_32::<X86Pae>(KernelLayout::LOWMEM_MAX, 64);
    assert_eq!(pae.pkmap.unwrap().nr_pages(), 512);
    assert!(pae.pkmap.unwrap().end() < pae.fixmap.start());
    let four = KernelLayout::x86_64::<X86_64FourLevel>(32 << 40, 1);
    assert_eq!(four.vmalloc.start().as_u64(), 0xffff_c900_0000_0000);
    assert_eq!(four.vmalloc.end().as_u64(), 0xffff_e900_0000_0000);
}

fn windows_run_out<F: Format>(slots: usize) {
    let machine = machine();
    let layout = KernelLayout::x86_32::<F>(KernelLayout::LOWMEM_MAX, 1);
    let mut vmalloc = machine.boot::<F>(layout);
    let memory = Box::leak(vec![KmapSlot::FREE; 1024].into_boxed_slice());
    let kmap = Kmap::new(&vmalloc, memory).unwrap();

    // A frame above the direct map has no address.
    let high = machine.frames(slots + 1);
    assert!(high.iter().all(|pfn| machine.is_high(*pfn)));
    assert!(machine.ram().try_ptr(high[0].addr(), 1).is_none());

    // Until it is kmapped. One of the direct map needs nothing.
    let low = machine
        .alloc_pages(AllocRequest::kernel(Order::ZERO))
        .unwrap();
    assert_eq!(
        kmap.kmap(low).unwrap().addr().as_u64(),
        0xc000_0000 + low.addr().as_u64()
    );
    assert_eq!(kmap.used(), (0, 0));
    let mut pages: Vec<_> = high[..slots]
        .iter()
        .map(|pfn| kmap.kmap(*pfn).unwrap())
        .collect();
    assert!(
        pages
            .iter()
            .all(|page| layout.pkmap.unwrap().contains(page.addr()))
    );
    assert_eq!(kmap.kmap(high[slots]).err(), Some(KmapError::Exhausted));
    // The same frame again is the same slot, even now.
    let again = kmap.kmap(high[7]).unwrap();
    assert_eq!(again.addr(), pages[7].addr());
    drop(again);
    for (i, page) in pages.iter().enumerate() {
        page.write(100, &(i as u32).to_le_bytes());
    }
    for (i, page) in pages.iter().enumerate() {
        let mut word = [0; 4];
        page.read(100, &mut word);
        assert_eq!(u32::from_le_bytes(word), i as u32);
    }
    let free = pages.swap_remove(slots / 2);
    let addr = free.addr();
    drop(free);
    let next = kmap.kmap(high[slots]).unwrap();
    assert_eq!(next.addr(), addr, "the slot that became free");
    let mut word = [0; 4];
    next.read(100, &mut word);
    assert_eq!(word, [0xa5; 4], "not what the old frame holds");
    drop((next, pages));
    assert_eq!(kmap.used(), (0, slots));
    assert_eq!(kmap.validate(), Ok(()));

    // The window of vmalloc ends long before memory does.
    let mut areas = Vec::new();
    let full = loop {
        match vmalloc.vmalloc(1 << 20) {
            Ok(at) => areas.push(at),
            Err(error) => break error,
        }
    };
    assert_eq!(full, VmallocError::NoSpace);
    assert_eq!(
        areas.len() as u64,
        layout.vmalloc.len() / ((1 << 20) + PAGE_SIZE)
    );
    assert!((machine.used_pages() as u32) < (1200 << 8) / 2);
    assert!(
        vmalloc
            .vmalloc_to_page(areas[0])
            .is_some_and(|pfn| machine.is_high(pfn))
    );
    vmalloc.vfree(areas.swap_remove(50)).unwrap();
    areas.push(vmalloc.vmalloc(1 << 20).expect("the room that became free"));
    assert_eq!(vmalloc.validate(), Ok(()));
    areas.drain(..).for_each(|at| vmalloc.vfree(at).unwrap());
    assert_eq!(vmalloc.shutdown(), Ok(()));
}

#[test]
fn windows_run_out_on_two_levels() {
    windows_run_out::<X86TwoLevel>(1024);
}

#[test]
fn windows_run_out_on_pae() {
    windows_run_out::<X86Pae>(512);
}

#[test]
fn kmap_flushes_once_per_round() {
    let machine = TestMachine::new(2048, 1024, 1);
    let mut vmalloc = machine.boot::<X86Pae>(layout::<X86Pae>(32 << 20, 1));
    let kmap = Kmap::new(&vmalloc, Box::leak(Box::new([KmapSlot::FREE; 16]))).unwrap();
    let frames = machine.frames(160);
    let kept = kmap.kmap(frames[0]).unwrap();
    kept.write(0, b"kept");
    for (i, pfn) in frames.iter().enumerate().skip(1) {
        let page = kmap.kmap(*pfn).unwrap();
        page.write(0, &[i as u8]);
        assert_eq!(kmap.validate(), Ok(()));
    }
    // 159 frames through 15 slots.
    assert_eq!(kmap.flushes(), 10);
    // What was used lately is still there, without a new slot.
    let used = kmap.used();
    let mut byte = [0];
    kmap.kmap(frames[159]).unwrap().read(0, &mut byte);
    assert_eq!((byte[0], kmap.used()), (159, used));
    let mut word = [0; 4];
    kept.read(0, &mut word);
    assert_eq!(&word, b"kept");
    drop(kept);
    assert_eq!(vmalloc.shutdown(), Ok(()));
}

#[test]
fn kmap_finds_slots_on_both_sides_of_the_last() {
    let machine = TestMachine::new(2048, 1024, 1);
    let mut vmalloc = machine.boot::<X86Pae>(layout::<X86Pae>(32 << 20, 1));
    let kmap = Kmap::new(&vmalloc, Box::leak(Box::new([KmapSlot::FREE; 4]))).unwrap();
    let frames = machine.frames(6);
    let mut held: Vec<_> = frames[..4]
        .iter()
        .map(|pfn| Some(kmap.kmap(*pfn).unwrap()))
        .collect();
    // The search for the fifth begins behind slot 3; then slot 2 is the only one that is not used.
    held[1] = None;
    held[1] = Some(kmap.kmap(frames[4]).unwrap());
    held[2] = None;
    let page = kmap.kmap(frames[5]).expect("slot 2");
    drop((page, held));
    assert_eq!(kmap.validate(), Ok(()));
    assert_eq!(vmalloc.shutdown(), Ok(()));
}

#[test]
fn kmap_local_nests_and_runs_out() {
    let machine = TestMachine::new(2048, 1024, 1);
    let mut vmalloc = machine.boot::<X86TwoLevel>(layout::<X86TwoLevel>(32 << 20, 1));
    let depths = Box::leak(Box::new([PerCpuSlot::new(KmapDepth::NONE)]));
    let local = KmapLocal::new(&vmalloc, depths).unwrap();
    let frames = machine.frames(usize::from(KM_MAX) + 1);
    let low = machine
        .alloc_pages(AllocRequest::kernel(Order::ZERO))
        .unwrap();
    let mut held: Vec<_> = frames[..usize::from(KM_MAX)]
        .iter()
        .map(|pfn| local.map(*pfn).unwrap())
        .collect();
    assert_eq!(local.map(frames[16]).err(), Some(KmapError::Exhausted));
    assert_eq!(local.map(Pfn::new(1 << 28)).err(), Some(KmapError::Invalid));
    // A low frame needs no slot, so there is always one.
    let page = local.map(low).unwrap();
    assert_eq!(
        page.addr(),
        vmalloc.layout().direct_map + low.addr().as_u64()
    );
    drop(page);
    let flushes = machine
        .local_flushes
        .load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(flushes, 0);
    while held.pop().is_some() {}
    drop(held);
    let flushes = machine
        .local_flushes
        .load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(flushes, u64::from(KM_MAX), "each only on its own CPU");
    assert_eq!(vmalloc.shutdown(), Ok(()));
}

#[test]
#[should_panic(expected = "not the mapping that was made last")]
fn kmap_local_out_of_order_is_caught() {
    let machine = TestMachine::new(2048, 1024, 1);
    let vmalloc = machine.boot::<X86Pae>(layout::<X86Pae>(32 << 20, 1));
    let vmalloc = std::mem::ManuallyDrop::new(vmalloc);
    let depths = Box::leak(Box::new([PerCpuSlot::new(KmapDepth::NONE)]));
    let local = KmapLocal::new(&vmalloc, depths).unwrap();
    let frames = machine.frames(2);
    let first = local.map(frames[0]).unwrap();
    let second = std::mem::ManuallyDrop::new(local.map(frames[1]).unwrap());
    assert_ne!(first.addr(), second.addr());
    drop(first);
}

#[test]
fn the_fixmap_is_where_it_was_said() {
    let machine = TestMachine::new(2048, 1024, 1);
    let mut vmalloc = machine.boot::<X86TwoLevel>(layout::<X86TwoLevel>(32 << 20, 1));
    let fixmap = Fixmap::new(&vmalloc).unwrap();
    let flags = PteFlags::PRESENT | PteFlags::WRITE;
    assert_eq!(fixmap.addr(0).as_u64(), 0xffff_e000);
    for slot in 0..FIX_SLOTS {
        assert_eq!(fixmap.get(slot), None);
        let addr = fixmap.set(slot, Pfn::new(u32::from(slot) + 7), flags);
        assert_eq!(addr, fixmap.addr(slot));
        let walked = vmalloc.with_kernel_table(|table| table.walk(addr));
        assert_eq!(walked.map(|(pte, _)| pte.pfn()), fixmap.get(slot));
    }
    let flushes = || machine.flushes.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(flushes(), 0, "nothing was there before");
    fixmap.set(3, Pfn::new(99), flags);
    fixmap.clear(4);
    assert_eq!((fixmap.get(3), fixmap.get(4)), (Some(Pfn::new(99)), None));
    assert_eq!(flushes(), 2);
    assert_eq!(vmalloc.shutdown(), Ok(()));
}

#[test]
fn low_memory_alone_is_enough_for_who_asks_for_it() {
    let machine = TestMachine::new(2048, 1024, 1);
    let mut vmalloc = machine.boot::<X86Pae>(layout::<X86Pae>(32 << 20, 1));
    let request = vellum_vmalloc::VmallocRequest {
        size: 64 * PAGE_SIZE,
        align: PAGE_SIZE,
        gfp: GfpFlags::KERNEL,
        huge: false,
    };
    let at = vmalloc.vmalloc_with(request).unwrap();
    vmalloc
        .for_each_page(at, |_, pfn| assert!(!machine.is_high(pfn)))
        .unwrap();
    vmalloc.vfree(at).unwrap();
    assert_eq!(machine.vmstat.events(VmEvent::VmallocFault), 0);
    assert_eq!(vmalloc.shutdown(), Ok(()));
}
