//! Swap and files that fail while memory is short: who is told, and what everybody else sees.

use vellum_machine::VmEvent;
use vellum_mm::MmapRequest;
use vellum_sim::{
    Injection, SimArea, SimConfig, SimHost, SimMachine, SimStore, SwapFaults, Trouble,
};
use vellum_system::{ErrSeq, PolicyKind};
use vellum_types::{FileId, PAGE_SIZE, VirtAddr};

const FILE: FileId = FileId(1);
const FILE_PAGES: u64 = 600;
const BASE: u64 = 0x1000_0000_0000;
/// Twice what fits into memory.
const PAGES: u64 = 2000;
const SIGBUS: i32 = 7;
const DONTNEED: i32 = 4;
const EIO: i32 = 5;

fn config(policy: PolicyKind, slots: u32, check: bool) -> SimConfig {
    let ram = SimConfig::with_ram(5 << 20).cpus(2).policy(policy);
    ram.housekeeping(20).swap(SimArea::Disk { slots, check })
}

/// One process with `PAGES` of private memory at `BASE`; `test` gets the host and the process.
fn with_host(config: SimConfig, test: impl FnOnce(&mut SimHost<'_>, usize)) {
    let machine = SimMachine::new(config);
    let store = SimStore::new();
    store.create(FILE, "/data", vec![7; (FILE_PAGES * PAGE_SIZE) as usize]);
    let mut host = SimHost::boot(&machine, &store, 1).expect("a boot");
    let pid = host.spawn().expect("a process");
    let request = MmapRequest {
        addr: BASE,
        len: PAGES * PAGE_SIZE,
        prot: 3,
        flags: 0x32,
        file: None,
        offset: 0,
    };
    assert_eq!(host.mmap(pid, request), Ok(BASE));
    test(&mut host, pid);
    host.check().expect("a valid system");
    store.inject(FILE, Injection::default());
    let _ = host.system().writeback_all();
    host.shutdown().expect("everything back");
}

/// With each policy.
fn on_each(slots: u32, check: bool, test: impl Fn(&mut SimHost<'_>, usize)) {
    for policy in PolicyKind::ALL {
        with_host(config(policy, slots, check), &test);
    }
}

fn store(host: &mut SimHost<'_>, pid: usize, page: u64, round: u64) -> Result<(), Trouble> {
    let word = word(page, round);
    host.write(pid, BASE + page * PAGE_SIZE + 8, &word.to_ne_bytes())
}

fn word(page: u64, round: u64) -> u64 {
    (page + 1) * 1000 + round
}

fn load(host: &mut SimHost<'_>, pid: usize, page: u64) -> Result<u64, Trouble> {
    let mut bytes = [0; 8];
    host.read(pid, BASE + page * PAGE_SIZE + 8, &mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

fn fill(host: &mut SimHost<'_>, pid: usize, round: u64) {
    for page in 0..PAGES {
        store(host, pid, page, round).expect("a store");
    }
}

fn compare(host: &mut SimHost<'_>, pid: usize, round: u64) {
    for page in 0..PAGES {
        assert_eq!(load(host, pid, page), Ok(word(page, round)), "page {page}");
    }
}

/// The slot that a page is in, if it is in swap.
fn slot(host: &SimHost<'_>, pid: usize, page: u64) -> Option<u32> {
    let number = VirtAddr::new(BASE + page * PAGE_SIZE).page_number();
    let word = host.system().pagemap_entry(&host.mm(pid), number);
    (word >> 62 == 1).then_some((word >> 5) as u32)
}

fn is_bus_error(result: Result<u64, Trouble>, page: u64) -> bool {
    let at = BASE + page * PAGE_SIZE;
    matches!(result, Err(Trouble::Signal { number: SIGBUS, addr, .. })
        if (at..at + PAGE_SIZE).contains(&addr))
}

#[test]
fn a_slot_that_cannot_be_read_harms_only_those_who_touch_its_page() {
    on_each(8000, false, |host, pid| {
        fill(host, pid, 0);
        let child = pid + 1;
        host.fork(pid, child).expect("fork");
        let lost = (0..PAGES).find(|page| slot(host, pid, *page).is_some());
        let lost = lost.expect("a page in swap");
        let unreadable = slot(host, pid, lost).into_iter().collect();
        host.machine().disk(0).inject(SwapFaults {
            unreadable,
            ..SwapFaults::default()
        });
        for who in [pid, child] {
            assert!(is_bus_error(load(host, who, lost), lost));
            let stored = store(host, who, lost, 0).map(|()| 0);
            assert!(is_bus_error(stored, lost));
        }
        for who in [pid, child] {
            for page in (0..PAGES).filter(|page| *page != lost) {
                assert_eq!(load(host, who, page), Ok(word(page, 0)), "page {page}");
            }
        }
        // Twice the same page: it is an error each time, and no more when the disk is well again.
        assert!(is_bus_error(load(host, child, lost), lost));
        host.machine().disk(0).inject(SwapFaults::default());
        compare(host, child, 0);
        compare(host, pid, 0);
    });
}

#[test]
fn a_page_of_swap_that_cannot_be_read_can_be_unmapped() {
    on_each(8000, false, |host, pid| {
        fill(host, pid, 0);
        let unreadable = (1..8000).collect();
        host.machine().disk(0).inject(SwapFaults {
            unreadable,
            ..SwapFaults::default()
        });
        let (addr, len) = (BASE, PAGES / 2 * PAGE_SIZE);
        host.syscall(pid, |system, mm| system.munmap(mm, addr, len))
            .expect("munmap");
        host.check().expect("a valid system");
    });
}

#[test]
fn a_slot_that_cannot_be_written_is_retired_and_nothing_is_lost() {
    on_each(8000, false, |host, pid| {
        host.machine().disk(0).inject(SwapFaults {
            fail_every_write: Some(13),
            ..SwapFaults::default()
        });
        for round in 0..3 {
            fill(host, pid, round);
            compare(host, pid, round);
        }
        let mut retired = 0;
        host.system().swaps(&mut |info, _| retired += info.retired);
        assert!(retired > 10, "{retired} slots retired");
    });
}

#[test]
fn a_disk_that_writes_nothing_is_the_end_of_memory_and_loses_nothing() {
    on_each(3000, false, |host, pid| {
        host.machine().disk(0).inject(SwapFaults {
            unwritable: (1..3000).collect(),
            ..SwapFaults::default()
        });
        until_memory_ends(host, pid);
    });
}

#[test]
fn full_swap_is_the_end_of_memory_and_loses_nothing() {
    on_each(8000, false, |host, pid| {
        host.machine().disk(0).inject(SwapFaults {
            full: true,
            ..SwapFaults::default()
        });
        let stored = until_memory_ends(host, pid);
        // There is room again: nobody remembers that there was none.
        host.machine().disk(0).inject(SwapFaults::default());
        for page in stored..PAGES {
            store(host, pid, page, 0).expect("a store");
        }
        compare(host, pid, 0);
    });
}

#[test]
fn a_small_swap_that_is_used_up_is_the_end_of_memory_and_loses_nothing() {
    on_each(200, false, |host, pid| {
        until_memory_ends(host, pid);
    });
}

/// Stores to page after page; what could be stored is still right when that ends. Gives the last few
/// back; returns how many are left.
fn until_memory_ends(host: &mut SimHost<'_>, pid: usize) -> u64 {
    let stored = (0..PAGES).find(|page| {
        let result = store(host, pid, *page, 0);
        assert!(matches!(result, Ok(()) | Err(Trouble::OutOfMemory)));
        result.is_err()
    });
    let stored = stored.expect("an end of memory");
    assert!(stored > 400, "{stored} pages were stored");
    // A page that comes back from swap needs a frame before it frees its slot.
    let stored = stored - 64;
    let (addr, len) = (BASE + stored * PAGE_SIZE, 64 * PAGE_SIZE);
    let given = host.syscall(pid, |system, mm| system.madvise(mm, addr, len, DONTNEED));
    given.expect("madvise");
    for page in 0..stored {
        assert_eq!(load(host, pid, page), Ok(word(page, 0)), "page {page}");
    }
    host.check().expect("a valid system");
    // The memory of one who dies serves the others.
    let other = host.system().oom_victim().expect("a victim");
    assert_eq!(other.space, host.mm(pid).space());
    stored
}

#[test]
fn slots_that_were_torn_or_flipped_are_found_and_name_one_page() {
    for (tear_after, flip_after) in [(Some(100), None), (None, Some(100))] {
        on_each(8000, true, |host, pid| {
            let faults = SwapFaults {
                tear_after,
                flip_after,
                ..SwapFaults::default()
            };
            host.machine().disk(0).inject(faults);
            // Something in both halves of each page, or a tear would change nothing.
            for page in 0..PAGES {
                store(host, pid, page, 0).expect("a store");
                let at = BASE + (page + 1) * PAGE_SIZE - 8;
                host.write(pid, at, &word(page, 9).to_ne_bytes())
                    .expect("a store");
            }
            assert!(host.machine().disk(0).damaged().is_some());
            let mut bad = 0;
            for page in 0..PAGES {
                let result = load(host, pid, page);
                match result {
                    Ok(found) => assert_eq!(found, word(page, 0), "page {page}"),
                    Err(_) => {
                        assert!(is_bus_error(result, page), "page {page}: {result:?}");
                        bad += 1;
                    }
                }
            }
            assert_eq!(bad, 1);
        });
    }
}

#[test]
fn a_write_that_fails_in_reclaim_is_told_to_each_opener_once() {
    on_each(8000, false, |host, pid| {
        let mapping = host.system().mapping(FILE).expect("a file");
        let (mut first, mut second) = (mapping.sample_error(), mapping.sample_error());
        host.store().inject(
            FILE,
            Injection {
                fail_writes_after: Some((0, EIO)),
                ..Injection::default()
            },
        );
        for page in 0..200 {
            host.pwrite(pid, FILE, page * PAGE_SIZE, &[page as u8 + 1])
                .expect("a write");
        }
        // Reclaim wants the file's pages and cannot have them.
        fill(host, pid, 0);
        host.store().inject(FILE, Injection::default());
        let sync = |since: &mut ErrSeq| {
            let result = host.system().fsync(&mapping, 0, u64::MAX, since);
            result.map_err(|error| error.errno())
        };
        assert_eq!(sync(&mut first), Err(EIO));
        assert_eq!(sync(&mut first), Ok(()));
        assert_eq!(sync(&mut second), Err(EIO));
        assert_eq!(sync(&mut second), Ok(()));
        // The pages were kept, and the second attempt wrote them.
        let bytes = host.store().bytes(FILE);
        for page in 0..200 {
            assert_eq!(bytes[(page * PAGE_SIZE) as usize], page as u8 + 1);
        }
        compare(host, pid, 0);
        drop(mapping);
    });
}

#[test]
fn under_pressure_any_allocation_may_fail() {
    on_each(8000, false, |host, pid| {
        fill(host, pid, 0);
        let mut failures = 0;
        for n in 0..150 {
            let page = n * 13 % PAGES;
            // Nothing is free, whatever is reclaimed.
            host.system().pages().fail_after(Some(n % 7));
            let stored = store(host, pid, page, 0);
            let forked = host.fork(pid, pid + 1);
            host.system().pages().fail_after(None);
            assert!(matches!(stored, Ok(()) | Err(Trouble::OutOfMemory)));
            failures += u64::from(stored.is_err()) + u64::from(forked.is_err());
            if forked.is_ok() {
                host.exit(pid + 1);
            }
            if n % 16 == 0 {
                host.check().expect("a valid system");
            }
        }
        assert!(failures > 50, "{failures} failures");
        compare(host, pid, 0);
        assert!(host.system().vmstat().events(VmEvent::PSwpOut) > 0);
    });
}
