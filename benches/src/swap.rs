//! Operations on swap, without an address space: what reclaim and the fault handler add is not here.

use crate::machine::BenchMachine;
use std::hint::black_box;
use vellum_machine::{Cpus, DirectMap, PerCpuSlot, VmStat};
use vellum_page::{AllocRequest, PageFlags, PageSource, PageState};
use vellum_swap::{
    Compressor, Corrupt, IoError, Stream, Streams, Swap, SwapDevice, SwapEntry, SwapOn, WriteError,
    Zram,
};
use vellum_system::System;
use vellum_types::{Order, OutOfMemory, PAGE_SIZE, Pfn};

type Bench<'m> = System<'m, BenchMachine>;

const SLOTS: u32 = 1 << 16;

/// A device whose transfers take no time.
pub(crate) struct NoDevice;

impl SwapDevice for NoDevice {
    fn name(&self) -> &str {
        "none"
    }
    fn nr_slots(&self) -> u32 {
        SLOTS
    }
    fn read(&self, slot: u32, _: Pfn, _: DirectMap<'_>) -> Result<(), IoError> {
        black_box(slot);
        Ok(())
    }
    fn write(&self, slot: u32, _: &[Pfn], _: DirectMap<'_>) -> Result<(), WriteError> {
        black_box(slot);
        Ok(())
    }
}

/// A compressor that takes no time: it claims a quarter of the page to be all of it.
pub(crate) struct NoCompressor;

impl Compressor for NoCompressor {
    fn name(&self) -> &str {
        "none"
    }
    fn compress(&self, page: &[u8], _: &mut [u8]) -> Option<usize> {
        Some(black_box(page.len() / 4))
    }
    fn decompress(&self, _: &[u8], page: &mut [u8]) -> Result<(), Corrupt> {
        black_box(page);
        Ok(())
    }
}

struct Rig<'a> {
    source: &'a dyn PageSource,
    swap: Swap<'a>,
}

impl<'a> Rig<'a> {
    fn new(source: &'a dyn PageSource, vmstat: &'a VmStat, device: &'a dyn SwapDevice) -> Self {
        let swap = Swap::new(source, vmstat).expect("memory");
        swap.swapon(device, SwapOn::default()).expect("an area");
        Self { source, swap }
    }

    fn frame(&self) -> Result<Pfn, OutOfMemory> {
        self.source
            .alloc_pages(AllocRequest::user_movable(Order::ZERO))
    }

    /// A page of a program, with a content that is not the same all over.
    fn anon(&self) -> Pfn {
        let pfn = self.frame().expect("memory");
        let page = self.source.memmap().page(pfn);
        page.set_state(PageState::Anon);
        page.set_flags(PageFlags::UPTODATE);
        self.source
            .ram()
            .write_u64(pfn.addr() + (PAGE_SIZE - 8), 0x1234);
        pfn
    }

    fn out(&self, pfn: Pfn) -> SwapEntry {
        let entry = self.swap.add_to_swap(pfn).expect("a slot");
        self.swap.dup(entry).expect("few references");
        self.swap
            .write(&[pfn], &mut |_, result| result.expect("room"));
        assert!(self.swap.remove_for_reclaim(pfn, Some(7)));
        self.source.free_pages(pfn);
        entry
    }

    /// Back, as by the write fault of its only owner.
    fn back(&self, entry: SwapEntry) -> Pfn {
        let found = self.swap.swapin(entry, &mut || self.frame());
        let pfn = found.expect("is readable").pfn;
        assert!(self.swap.is_sole(entry));
        self.swap.free(entry);
        assert!(self.swap.try_to_free_swap(pfn));
        pfn
    }
}

/// add_to_swap + try_to_free_swap.
pub(crate) fn slot(system: &Bench<'_>, n: u64) {
    let vmstat = VmStat::new();
    let rig = Rig::new(system.pages(), &vmstat, &NoDevice);
    let pfn = rig.anon();
    for _ in 0..n {
        black_box(rig.swap.add_to_swap(pfn));
        assert!(rig.swap.try_to_free_swap(pfn));
    }
}

/// fork's copy of an entry, and its end.
pub(crate) fn dup(system: &Bench<'_>, n: u64) {
    let vmstat = VmStat::new();
    let rig = Rig::new(system.pages(), &vmstat, &NoDevice);
    let entry = rig.out(rig.anon());
    for _ in 0..n {
        rig.swap.dup(entry).expect("few references");
        rig.swap.free(black_box(entry));
    }
}

fn round_trip(system: &Bench<'_>, device: &dyn SwapDevice, n: u64) {
    let vmstat = VmStat::new();
    let rig = Rig::new(system.pages(), &vmstat, device);
    let mut pfn = rig.anon();
    for _ in 0..n {
        let entry = rig.out(pfn);
        pfn = rig.back(entry);
    }
}

/// Out and back, the device left out.
pub(crate) fn out_in(system: &Bench<'_>, n: u64) {
    round_trip(system, &NoDevice, n);
}

fn zram<'a>(source: &'a dyn PageSource, streams: &'a Streams<'a>) -> Zram<'a> {
    Zram::new(source, &NoCompressor, streams, SLOTS, 64 << 20).expect("memory")
}

/// Out and back, the compressor left out.
pub(crate) fn out_in_zram(system: &Bench<'_>, n: u64) {
    let mut slots = [PerCpuSlot::new(Stream::new())];
    // SAFETY: the benchmark has one thread.
    let streams = Streams::new(unsafe { Cpus::single() }, &mut slots);
    let zram = zram(system.pages(), &streams);
    round_trip(system, &zram, n);
}

/// Out to compressed memory, the compressor left out; the slot is freed without being read.
pub(crate) fn out_zram(system: &Bench<'_>, n: u64) {
    let mut slots = [PerCpuSlot::new(Stream::new())];
    // SAFETY: the benchmark has one thread.
    let streams = Streams::new(unsafe { Cpus::single() }, &mut slots);
    let zram = zram(system.pages(), &streams);
    let vmstat = VmStat::new();
    let rig = Rig::new(system.pages(), &vmstat, &zram);
    for _ in 0..n {
        let pfn = rig.anon();
        rig.swap.free(rig.out(pfn));
    }
}
