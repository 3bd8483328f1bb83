//! Which pages are on reclaim's lists, and which never leave memory.

use vellum_mm::MmapRequest;
use vellum_page::{PageFlags, PageSource};
use vellum_sim::{SimArea, SimConfig, SimHost, SimMachine, SimStore};
use vellum_system::PolicyKind;
use vellum_types::{PAGE_SIZE, Pfn, VirtAddr};

const BASE: u64 = 0x1000_0000_0000;
const LOCKED: u64 = 100;
const PAGES: u64 = 2500;
const MLOCK_ONFAULT: u32 = 1;

fn frame(host: &SimHost<'_>, pid: usize, page: u64) -> Option<Pfn> {
    let number = VirtAddr::new(BASE + page * PAGE_SIZE).page_number();
    let word = host.system().pagemap_entry(&host.mm(pid), number);
    (word >> 63 == 1).then(|| Pfn::new(word as u32))
}

/// A process with `PAGES` of private memory, on a machine with half as many frames.
fn with_host(policy: PolicyKind, test: impl FnOnce(&mut SimHost<'_>, usize)) {
    let disk = SimArea::Disk {
        slots: 8000,
        check: false,
    };
    let config = SimConfig::with_ram(5 << 20).cpus(2).policy(policy);
    let machine = SimMachine::new(config.housekeeping(20).swap(disk));
    let store = SimStore::new();
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
    host.shutdown().expect("everything back");
}

fn store_all(host: &mut SimHost<'_>, pid: usize) {
    for page in LOCKED..PAGES {
        host.write(pid, BASE + page * PAGE_SIZE, &page.to_ne_bytes())
            .expect("a store");
    }
}

#[test]
fn mlocked_pages_never_leave() {
    for policy in PolicyKind::ALL {
        with_host(policy, |host, pid| {
            let lock = host.syscall(pid, |system, mm| system.mlock(mm, BASE, LOCKED * PAGE_SIZE));
            lock.expect("mlock");
            for page in 0..LOCKED {
                host.write(pid, BASE + page * PAGE_SIZE, &[page as u8 + 1])
                    .expect("a store");
            }
            let frames = |host: &SimHost<'_>| -> Vec<_> {
                (0..LOCKED).map(|page| frame(host, pid, page)).collect()
            };
            let before = frames(host);
            assert!(before.iter().all(Option::is_some));
            for _ in 0..3 {
                store_all(host, pid);
                assert_eq!(frames(host), before, "{policy}");
            }
            // Locked no more, they go like all others.
            let unlock = host.syscall(pid, |system, mm| {
                system.munlock(mm, BASE, LOCKED * PAGE_SIZE)
            });
            unlock.expect("munlock");
            for _ in 0..3 {
                store_all(host, pid);
            }
            assert!(frames(host).iter().any(Option::is_none), "{policy}");
        });
    }
}

#[test]
fn the_zero_page_is_on_no_list_and_is_never_swapped() {
    for policy in PolicyKind::ALL {
        with_host(policy, |host, pid| {
            let mut byte = [0];
            for page in 0..LOCKED {
                host.read(pid, BASE + page * PAGE_SIZE, &mut byte)
                    .expect("a load");
            }
            let zero = frame(host, pid, 0).expect("the zero page");
            for _ in 0..2 {
                store_all(host, pid);
            }
            for page in 0..LOCKED {
                assert_eq!(frame(host, pid, page), Some(zero));
            }
            let flags = host.system().pages().memmap().page(zero).flags();
            assert!(!flags.intersects(PageFlags::LRU | PageFlags::SWAPCACHE));
        });
    }
}

#[test]
fn a_page_goes_again_when_the_one_who_locked_it_has_gone() {
    for policy in PolicyKind::ALL {
        with_host(policy, |host, pid| {
            // Parent and child share the pages; the child locks them, and ends.
            for page in 0..LOCKED {
                host.write(pid, BASE + page * PAGE_SIZE, &[page as u8 + 1])
                    .expect("a store");
            }
            let child = pid + 1;
            host.fork(pid, child).expect("fork");
            let lock = host.syscall(child, |system, mm| {
                system.mlock2(mm, BASE, LOCKED * PAGE_SIZE, MLOCK_ONFAULT)
            });
            lock.expect("mlock");
            for _ in 0..3 {
                store_all(host, pid);
            }
            assert!((0..LOCKED).all(|page| frame(host, pid, page).is_some()));
            host.exit(child);
            for _ in 0..3 {
                store_all(host, pid);
            }
            assert!((0..LOCKED).any(|page| frame(host, pid, page).is_none()));
        });
    }
}
