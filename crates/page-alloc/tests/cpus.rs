//! Several CPUs: each has its lists, and gives them up when asked, when stopped, or when there is need.

mod common;

use common::{MIB, Machine, Rng, Threads, alloc, free_kib};
use std::sync::Barrier;
use vellum_machine::{Cpus, Trace, VmEvent, VmItem};
use vellum_page::{PageSource, PageState};
use vellum_page_alloc::PageAllocator;
use vellum_types::{CpuId, GfpFlags};

const USER: GfpFlags = GfpFlags::HIGHUSER_MOVABLE;

fn boot(machine: &Machine, cpus: u16) -> &PageAllocator<'_> {
    machine.boot_cpus(machine.memblock(), Cpus::new(cpus, &Threads), Trace::OFF)
}

fn drain_stopped(allocator: &PageAllocator<'_>, cpus: u16) {
    for cpu in 0..cpus {
        // SAFETY: the threads that were these CPUs have ended.
        unsafe { allocator.drain_stopped(CpuId(cpu)) };
    }
}

/// Real threads, each a CPU, allocate, free what others allocated, and drain each other.
#[test]
fn four_cpus_share_it() {
    let machine = Machine::new(0, 64 * MIB);
    let allocator = boot(&machine, 4);
    let at_boot = free_kib(allocator);
    let channels: Vec<_> = (0..4).map(|_| std::sync::mpsc::channel()).collect();
    let (to, from): (Vec<_>, Vec<_>) = channels.into_iter().unzip();
    std::thread::scope(|scope| {
        for (cpu, from) in from.into_iter().enumerate() {
            let to = to.clone();
            scope.spawn(move || {
                Threads::set(cpu as u16);
                let mut rng = Rng(0x9e37_79b9 + cpu as u64);
                let mut live = Vec::new();
                for _ in 0..300_000 {
                    match rng.below(64) {
                        0..=29 => {
                            let order = rng.below(11).min(rng.below(6)) as u8;
                            if let Ok(pfn) = alloc(allocator, order, USER) {
                                allocator
                                    .ram()
                                    .write_u64(pfn.addr(), u64::from(pfn.as_u32()));
                                live.push(pfn);
                            }
                        }
                        30..=59 if !live.is_empty() => {
                            let at = rng.below(live.len() as u64) as usize;
                            let pfn = live.swap_remove(at);
                            let word = allocator.ram().read_u64(pfn.addr());
                            assert_eq!(word, u64::from(pfn.as_u32()), "given to two");
                            allocator.free_pages(pfn);
                        }
                        60 if !live.is_empty() => {
                            // Somebody else frees it; who is gone leaves it to us.
                            let pfn = live.swap_remove(0);
                            let whom = rng.below(4) as usize;
                            if let Err(error) = to[whom].send(pfn) {
                                live.push(error.0);
                            }
                        }
                        61 => live.extend(from.try_iter()),
                        62 if rng.below(100) == 0 => allocator.drain_all(),
                        63 if rng.below(100) == 0 => allocator.fold_counters(),
                        _ => {}
                    }
                }
                drop(to);
                live.extend(from.iter());
                live.into_iter().for_each(|pfn| allocator.free_pages(pfn));
            });
        }
        drop(to);
    });
    allocator.validate().unwrap();
    assert_eq!(allocator.nr_free_pages(), allocator.managed_pages());
    drain_stopped(allocator, 4);
    assert_eq!(allocator.nr_per_cpu_pages(), 0);
    allocator.validate().unwrap();
    assert_eq!(free_kib(allocator), at_boot);
    allocator.fold_counters();
    let stat = &machine.vmstat;
    let taken = stat.events(VmEvent::PgAllocDma) + stat.events(VmEvent::PgAllocDma32);
    assert_eq!(taken, stat.events(VmEvent::PgFree));
    assert_eq!(stat.item(VmItem::NrFreePages), allocator.managed_pages());
}

#[test]
fn a_page_on_a_list_is_free_but_in_no_zones_count() {
    let machine = Machine::new(16 * MIB, 80 * MIB);
    let allocator = boot(&machine, 2);
    let managed = allocator.managed_pages();
    Threads::set(0);
    let pfn = alloc(allocator, 0, USER).unwrap();
    allocator.free_pages(pfn);
    assert_eq!(allocator.memmap().page(pfn).state(), PageState::PerCpu);
    let kept = allocator.nr_per_cpu_pages();
    assert!(kept > 0);
    assert_eq!(machine.vmstat.item(VmItem::NrFreePages), managed - kept);
    assert_eq!(allocator.nr_free_pages(), managed);
    // CPU 1 asks; CPU 0 notices at its next free, or when it looks.
    Threads::set(1);
    allocator.drain_all();
    assert_eq!(allocator.nr_per_cpu_pages(), kept);
    Threads::set(0);
    allocator.service_drain();
    assert_eq!(allocator.nr_per_cpu_pages(), 0);
    assert_eq!(machine.vmstat.item(VmItem::NrFreePages), managed);

    let pages: Vec<_> = (0..8).map(|_| alloc(allocator, 0, USER).unwrap()).collect();
    Threads::set(1);
    allocator.drain_all();
    Threads::set(0);
    allocator.free_pages(pages[0]);
    assert_eq!(
        allocator.nr_per_cpu_pages(),
        0,
        "the first free sees the request"
    );
    pages[1..].iter().for_each(|pfn| allocator.free_pages(*pfn));
    assert_ne!(allocator.nr_per_cpu_pages(), 0);
    allocator.validate().unwrap();
}

#[test]
fn lists_do_not_grow_without_bound() {
    let machine = Machine::new(16 * MIB, 144 * MIB);
    let allocator = boot(&machine, 1);
    Threads::set(0);
    let pages: Vec<_> = core::iter::from_fn(|| alloc(allocator, 0, USER).ok()).collect();
    let (mut most, mut total) = (0, 0);
    for pfn in &pages {
        allocator.free_pages(*pfn);
        most = most.max(allocator.nr_per_cpu_pages());
        total += 1;
    }
    assert!(
        total > 30_000 && most < allocator.managed_pages() / 8,
        "{most}"
    );
    allocator.validate().unwrap();
}

/// What one CPU keeps does not make another fail, and what is asked for arrives.
#[test]
fn need_drains_the_lists() {
    let machine = Machine::new(16 * MIB, 32 * MIB);
    let allocator = boot(&machine, 1);
    Threads::set(0);
    let all = GfpFlags::KERNEL | GfpFlags::MEMALLOC;
    let pages: Vec<_> = core::iter::from_fn(|| alloc(allocator, 0, all).ok()).collect();
    assert_eq!(allocator.nr_free_pages(), 0, "the last page too");
    // Eight neighbours on the list of single pages become a block of order 3.
    let mut sorted: Vec<_> = pages.clone();
    sorted.sort();
    let first = sorted.iter().position(|pfn| pfn.as_u32() % 8 == 0).unwrap();
    let block = &sorted[first..first + 8];
    assert_eq!(block[7].as_u32() - block[0].as_u32(), 7);
    block.iter().for_each(|pfn| allocator.free_pages(*pfn));
    assert_eq!(allocator.nr_per_cpu_pages(), 8);
    assert_eq!(
        alloc(allocator, 3, all | GfpFlags::NORETRY),
        Err(vellum_types::OutOfMemory)
    );
    assert_eq!(alloc(allocator, 3, all), Ok(block[0]));
    allocator.validate().unwrap();
}

/// Pages that were freed in ascending order come back so.
#[test]
fn a_run_stays_a_run() {
    let machine = Machine::new(16 * MIB, 528 * MIB);
    let allocator = boot(&machine, 1);
    Threads::set(0);
    let pages: Vec<_> = (0..64)
        .map(|_| alloc(allocator, 0, USER).unwrap())
        .collect();
    assert!(
        pages
            .windows(2)
            .filter(|pair| pair[1] == pair[0] + 1)
            .count()
            > 56
    );
    pages.iter().for_each(|pfn| allocator.free_pages(*pfn));
    let again: Vec<_> = (0..64)
        .map(|_| alloc(allocator, 0, USER).unwrap())
        .collect();
    assert!(
        again
            .windows(2)
            .filter(|pair| pair[1] == pair[0] + 1)
            .count()
            > 56
    );
    allocator.validate().unwrap();
}

#[test]
fn a_cpu_that_was_stopped_leaves_its_pages() {
    let machine = Machine::new(16 * MIB, 80 * MIB);
    let allocator = boot(&machine, 3);
    let (start, end) = (Barrier::new(2), Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            Threads::set(2);
            start.wait();
            let pfn = alloc(allocator, 0, USER).unwrap();
            allocator.free_pages(pfn);
            end.wait();
        });
        start.wait();
        end.wait();
        assert_ne!(allocator.nr_per_cpu_pages(), 0);
        // SAFETY: the thread does nothing after the barrier, which orders its work before ours.
        unsafe { allocator.drain_stopped(CpuId(2)) };
        assert_eq!(allocator.nr_per_cpu_pages(), 0);
        // SAFETY: there is no such CPU.
        unsafe { allocator.drain_stopped(CpuId(3)) };
    });
    allocator.validate().unwrap();
}
