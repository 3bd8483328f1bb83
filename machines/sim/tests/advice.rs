//! Memory that programs say they do not need, and memory that they say they do.

mod slots;

use vellum_machine::{VmEvent, VmItem};
use vellum_mm::MmapRequest;
use vellum_sim::{SimConfig, SimHost, SimMachine, SimStore};
use vellum_types::{PAGE_SIZE, Pfn, VirtAddr};

const BASE: u64 = 0x1000_0000_0000;
const FREE: i32 = 8;
const COLD: i32 = 20;
const PAGEOUT: i32 = 21;

fn map(host: &mut SimHost<'_>, pid: usize, pages: u64) {
    let request = MmapRequest {
        addr: BASE,
        len: pages * PAGE_SIZE,
        prot: 3,
        flags: 0x32,
        file: None,
        offset: 0,
    };
    assert_eq!(host.mmap(pid, request), Ok(BASE));
    for page in 0..pages {
        host.write(pid, BASE + page * PAGE_SIZE, &[7; PAGE_SIZE as usize])
            .expect("a write");
    }
}

fn frame(host: &SimHost<'_>, pid: usize, page: u64) -> Option<Pfn> {
    let number = VirtAddr::new(BASE + page * PAGE_SIZE).page_number();
    let word = host.system().pagemap_entry(&host.mm(pid), number);
    (word >> 63 == 1).then(|| Pfn::new(word as u32))
}

fn configs() -> [SimConfig; 3] {
    let base = SimConfig::with_ram(16 << 20);
    [
        base.clone(),
        base.clone().access_dirty(false).tlb(8),
        base.access_dirty(false)
            .refill(vellum_sim::Refill::HintsOnly)
            .tlb(128),
    ]
}

#[test]
fn what_was_given_up_is_dropped_unless_it_was_written_again() {
    for config in configs() {
        let machine = SimMachine::new(config);
        let store = SimStore::new();
        let mut host = SimHost::boot(&machine, &store, 1).expect("a boot");
        let pid = host.spawn().expect("a process");
        map(&mut host, pid, 64);
        host.syscall(pid, |s, mm| s.madvise(mm, BASE, 64 * PAGE_SIZE, FREE))
            .expect("madvise");
        assert_eq!(host.system().vmstat().events(VmEvent::PgLazyFree), 64);
        assert_eq!(host.mm(pid).stats().rss.anon, 64, "nothing is gone yet");
        // A whole window of faults: one of them makes its neighbours writable, and so dirty, too.
        for page in 0..16 {
            host.write(pid, BASE + page * PAGE_SIZE, &[9])
                .expect("a write");
        }
        host.syscall(pid, |s, mm| s.madvise(mm, BASE, 64 * PAGE_SIZE, PAGEOUT))
            .expect("madvise");
        assert_eq!(host.system().vmstat().events(VmEvent::PgLazyFreed), 48);
        host.check().expect("a valid system");
        for page in 0..64 {
            let mut bytes = [0; 2];
            host.read(pid, BASE + page * PAGE_SIZE, &mut bytes)
                .expect("a read");
            assert_eq!(
                bytes,
                if page < 16 { [9, 7] } else { [0, 0] },
                "page {page}"
            );
        }
        host.exit(pid);
        host.shutdown().expect("a clean end");
    }
}

#[test]
fn memory_is_paged_out_on_request_and_comes_back() {
    for config in configs() {
        let machine = SimMachine::new(config);
        let store = SimStore::new();
        let mut host = SimHost::boot(&machine, &store, 1).expect("a boot");
        slots::swapon(&host, 1);
        let pid = host.spawn().expect("a process");
        map(&mut host, pid, 100);
        host.syscall(pid, |s, mm| s.madvise(mm, BASE, 100 * PAGE_SIZE, COLD))
            .expect("madvise");
        let young = |host: &SimHost<'_>, page| {
            let pfn = frame(host, pid, page).expect("a page");
            host.system().page_referenced(pfn).young
        };
        assert_eq!((0..100).map(|page| young(&host, page)).sum::<u32>(), 0);
        host.syscall(pid, |s, mm| s.madvise(mm, BASE, 100 * PAGE_SIZE, PAGEOUT))
            .expect("madvise");
        assert_eq!(host.mm(pid).stats().swap, 100);
        assert_eq!(host.mm(pid).stats().rss.anon, 0);
        host.check().expect("a valid system");
        for page in 0..100 {
            let mut bytes = [0; PAGE_SIZE as usize];
            host.read(pid, BASE + page * PAGE_SIZE, &mut bytes)
                .expect("a read");
            assert!(bytes.iter().all(|byte| *byte == 7), "page {page}");
        }
        host.exit(pid);
        host.shutdown().expect("a clean end");
    }
}

#[test]
fn mlocked_memory_never_leaves() {
    let machine = SimMachine::new(SimConfig::with_ram(16 << 20));
    let store = SimStore::new();
    let mut host = SimHost::boot(&machine, &store, 1).expect("a boot");
    slots::swapon(&host, 1);
    let pid = host.spawn().expect("a process");
    let pages = 6000;
    map(&mut host, pid, 500);
    host.syscall(pid, |s, mm| s.mlock(mm, BASE, 500 * PAGE_SIZE))
        .expect("mlock");
    let locked = |host: &SimHost<'_>| (0..500).all(|page| frame(host, pid, page).is_some());
    assert!(locked(&host));
    let unevictable = host.system().vmstat().item(VmItem::NrUnevictable);
    assert_eq!(unevictable, 500);
    let far = BASE + (1 << 30);
    let request = MmapRequest {
        addr: far,
        len: pages * PAGE_SIZE,
        prot: 3,
        flags: 0x32,
        file: None,
        offset: 0,
    };
    assert_eq!(host.mmap(pid, request), Ok(far));
    for page in 0..pages {
        host.write(pid, far + page * PAGE_SIZE, &[page as u8])
            .expect("a write");
        assert!(page % 500 != 0 || locked(&host), "page {page}");
    }
    assert!(host.system().vmstat().events(VmEvent::PSwpOut) > 1000);
    assert!(locked(&host));
    host.syscall(pid, |s, mm| s.munlock(mm, BASE, 500 * PAGE_SIZE))
        .expect("munlock");
    assert_eq!(host.system().vmstat().item(VmItem::NrUnevictable), 0);
    for page in 0..pages {
        let mut byte = [0];
        host.read(pid, far + page * PAGE_SIZE, &mut byte)
            .expect("a read");
        assert_eq!(byte, [page as u8]);
    }
    host.syscall(pid, |s, mm| s.madvise(mm, BASE, 500 * PAGE_SIZE, PAGEOUT))
        .expect("madvise");
    let left = (0..500).filter(|page| frame(&host, pid, *page).is_some());
    assert_eq!(left.count(), 0, "what is no longer locked may leave");
    host.exit(pid);
    host.shutdown().expect("a clean end");
}
