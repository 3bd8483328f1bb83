//! Memory in small pieces becomes whole again, and programs do not notice.

use vellum_machine::VmEvent;
use vellum_mm::MmapRequest;
use vellum_page::{AllocRequest, PageSource, PageState};
use vellum_sim::{Rng, SimConfig, SimHost, SimMachine, SimStore};
use vellum_types::{Order, PAGE_SIZE, PfnRange};

const BASE: u64 = 0x1000_0000_0000;

/// Two processes fill memory, and give every second page back at random. Returns what each has left:
/// page and byte.
fn fragment(host: &mut SimHost<'_>, rng: &mut Rng, pages: u64) -> [Vec<(u64, u8)>; 2] {
    let mut kept = [Vec::new(), Vec::new()];
    for pid in 0..2 {
        assert_eq!(host.spawn().expect("a process"), pid);
        let request = MmapRequest {
            addr: BASE,
            len: pages * PAGE_SIZE,
            prot: 3,
            flags: 0x32,
            file: None,
            offset: 0,
        };
        host.mmap(pid, request).expect("mmap");
    }
    for page in 0..pages {
        for (pid, kept) in kept.iter_mut().enumerate() {
            let byte = rng.below(255) as u8 + 1;
            host.write(pid, BASE + page * PAGE_SIZE, &[byte; PAGE_SIZE as usize])
                .expect("a write");
            kept.push((page, byte));
        }
    }
    for (pid, kept) in kept.iter_mut().enumerate() {
        kept.retain(|(page, _)| {
            let keep = rng.below(2) == 0;
            if !keep {
                host.syscall(pid, |s, mm| {
                    s.madvise(mm, BASE + page * PAGE_SIZE, PAGE_SIZE, 4)
                })
                .expect("madvise");
            }
            keep
        });
    }
    kept
}

fn check(host: &mut SimHost<'_>, kept: &[Vec<(u64, u8)>; 2]) {
    for (pid, kept) in kept.iter().enumerate() {
        for (page, byte) in kept {
            let mut bytes = [0; PAGE_SIZE as usize];
            host.read(pid, BASE + page * PAGE_SIZE, &mut bytes)
                .expect("a read");
            assert!(bytes.iter().all(|b| b == byte), "page {page} of {pid}");
        }
    }
}

#[test]
fn fragmented_memory_gives_a_huge_block_after_compaction() {
    for seed in 0..4 {
        let machine = SimMachine::new(SimConfig::with_ram(64 << 20));
        let store = SimStore::new();
        let mut host = SimHost::boot(&machine, &store, seed).expect("a boot");
        let mut rng = Rng::new(seed);
        let half = host.system().pages().nr_free_pages() / 2 - 400;
        let kept = fragment(&mut host, &mut rng, half);
        let order = Order::new(9).expect("an order");
        let request = AllocRequest::kernel(order);
        let mut blocks = Vec::new();
        // What is whole from the start does not count.
        while let Ok(block) = host.system().pages().alloc_pages(request) {
            blocks.push(block);
        }
        let whole = blocks.len();
        for _ in 0..4 {
            blocks.push(host.system().alloc_block(request).expect("a block"));
        }
        let vmstat = host.system().vmstat();
        assert!(vmstat.events(VmEvent::CompactSuccess) >= 4);
        assert!(vmstat.events(VmEvent::PgMigrateSuccess) > 100, "{whole}");
        host.check().expect("a valid system");
        check(&mut host, &kept);
        for block in blocks {
            host.system().pages().free_pages(block);
        }
        host.exit(0);
        host.exit(1);
        host.shutdown().expect("a clean end");
    }
}

#[test]
fn those_who_must_not_wait_are_refused_at_once() {
    let machine = SimMachine::new(SimConfig::with_ram(16 << 20));
    let store = SimStore::new();
    let host = SimHost::boot(&machine, &store, 1).expect("a boot");
    let gfp = vellum_types::GfpFlags::ATOMIC;
    let order = Order::new(9).expect("an order");
    let system = host.system();
    assert!(!system.compact(system.pages(), order, gfp));
    assert_eq!(system.vmstat().events(VmEvent::CompactStall), 0);
    host.shutdown().expect("a clean end");
}

#[test]
fn an_exact_range_is_emptied_and_taken() {
    let machine = SimMachine::new(SimConfig::with_ram(32 << 20));
    let store = SimStore::new();
    let mut host = SimHost::boot(&machine, &store, 1).expect("a boot");
    let mut rng = Rng::new(7);
    let half = host.system().pages().nr_free_pages() / 2 - 400;
    let kept = fragment(&mut host, &mut rng, half);
    let mut taken = 0;
    let memmap = host.system().pages().memmap();
    for start in memmap.span().iter().step_by(64) {
        let Some(range) = PfnRange::from_len(start, 64) else {
            continue;
        };
        let movable = range.iter().all(|pfn| {
            let page = memmap.try_page(pfn);
            page.is_some_and(|page| page.state() == PageState::Anon)
        });
        let mixed = range.iter().any(|pfn| {
            let page = memmap.try_page(pfn);
            page.is_some_and(|page| page.state() == PageState::Anon)
        });
        if (movable || mixed) && host.system().alloc_contig(range) == Ok(None) {
            taken += 1;
            for pfn in range.iter() {
                assert_eq!(memmap.page(pfn).state(), PageState::Allocated);
                host.system().pages().free_pages(pfn);
            }
        }
    }
    assert!(taken > 10, "{taken}");
    host.check().expect("a valid system");
    check(&mut host, &kept);
    host.exit(0);
    host.exit(1);
    host.shutdown().expect("a clean end");
}
