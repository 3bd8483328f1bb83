//! Swap areas under running programs: switched off, read ahead; and what must not go there.

mod slots;

use slots::swapon;
use vellum_machine::VmEvent;
use vellum_mm::{MmError, MmapRequest, Unmapped};
use vellum_page::{PageFlags, PageSource, PageState};
use vellum_sim::{Rng, SimConfig, SimHost, SimMachine, SimStore};
use vellum_types::{PAGE_SIZE, Pfn, VirtAddr};

const BASE: u64 = 0x1000_0000_0000;
const PAGES: u64 = 256;

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
}

fn frame(host: &SimHost<'_>, pid: usize, page: u64) -> Option<Pfn> {
    let number = VirtAddr::new(BASE + page * PAGE_SIZE).page_number();
    let word = host.system().pagemap_entry(&host.mm(pid), number);
    (word >> 63 == 1).then(|| Pfn::new(word as u32))
}

/// What reclaim does to an anonymous page.
fn swap_out(host: &SimHost<'_>, pfn: Pfn) -> bool {
    let (swap, pages) = (host.system().swap(), host.system().reclaim());
    let page = pages.memmap().page(pfn);
    if page.state() != PageState::Anon || !pages.isolate_page(pfn) {
        return false;
    }
    assert!(page.try_lock());
    let entry = swap.entry_of(pfn).or_else(|| swap.add_to_swap(pfn));
    let entry = entry.expect("a free slot");
    assert_eq!(host.system().try_to_unmap(pfn, Some(entry)), Unmapped::Done);
    if page.flags().contains(PageFlags::DIRTY) {
        swap.write(&[pfn], &mut |_, result| assert_eq!(result, Ok(())));
    }
    page.unlock();
    assert!(swap.remove_for_reclaim(pfn, None));
    pages.free_pages(pfn);
    true
}

#[test]
fn swapoff_under_load_loses_nothing() {
    for seed in 0..8 {
        let machine = SimMachine::new(SimConfig::with_ram(32 << 20).cpus(2));
        let store = SimStore::new();
        let mut host = SimHost::boot(&machine, &store, seed).expect("a boot");
        let mut rng = Rng::new(seed);
        let mut areas = vec![swapon(&host, 2).0, swapon(&host, 1).0];
        let first = host.spawn().expect("a process");
        map(&mut host, first, PAGES);
        let mut model = vec![vec![0; PAGES as usize]];
        for step in 0..3000 {
            let pid = rng.below(model.len() as u64) as usize;
            let page = rng.below(PAGES);
            let at = BASE + page * PAGE_SIZE;
            match rng.below(200) {
                0 if model.len() < 4 => {
                    host.fork(pid, model.len()).expect("fork");
                    model.push(model[pid].clone());
                }
                1 => {
                    let area = areas.remove(0);
                    assert!(host.system().swapoff(area).is_ok(), "step {step}");
                    assert_eq!(host.system().swap().next_used(area, 1), None);
                    host.check().expect("a valid system");
                    areas.push(swapon(&host, rng.below(5) as i16).0);
                }
                2 => {
                    host.syscall(pid, |s, mm| s.mprotect(mm, at, PAGE_SIZE, 0))
                        .expect("mprotect");
                    host.system().swapoff(areas.remove(0)).expect("swapoff");
                    areas.push(swapon(&host, 1).0);
                    host.syscall(pid, |s, mm| s.mprotect(mm, at, PAGE_SIZE, 3))
                        .expect("mprotect");
                }
                3..80 => {
                    let byte = rng.below(255) as u8 + 1;
                    host.write(pid, at, &[byte; PAGE_SIZE as usize])
                        .expect("a write");
                    model[pid][page as usize] = byte;
                }
                80..120 => {
                    let mut byte = [0];
                    host.read(pid, at, &mut byte).expect("a read");
                    assert_eq!(byte[0], model[pid][page as usize]);
                }
                _ => {
                    if let Some(pfn) = frame(&host, pid, page) {
                        swap_out(&host, pfn);
                    }
                }
            }
        }
        for (pid, bytes) in model.iter().enumerate() {
            for (page, want) in (0..).zip(bytes) {
                let mut all = [0; PAGE_SIZE as usize];
                host.read(pid, BASE + page * PAGE_SIZE, &mut all)
                    .expect("a read");
                assert!(all.iter().all(|byte| byte == want), "page {page} of {pid}");
            }
            host.exit(pid);
        }
        let read_ahead = host.system().vmstat().events(VmEvent::SwapRa);
        assert!(read_ahead > 0, "neighbours are read too");
        for area in areas {
            host.system().swapoff(area).expect("swapoff");
        }
        host.shutdown().expect("a clean end");
    }
}

#[test]
fn swapoff_without_room_is_refused_and_nothing_is_lost() {
    let machine = SimMachine::new(SimConfig::with_ram(8 << 20));
    let store = SimStore::new();
    let mut host = SimHost::boot(&machine, &store, 1).expect("a boot");
    let (area, _) = swapon(&host, 1);
    let pid = host.spawn().expect("a process");
    let pages = 3000;
    map(&mut host, pid, pages);
    let byte = |page: u64| (page % 250) as u8 + 1;
    for page in 0..pages {
        host.write(pid, BASE + page * PAGE_SIZE, &[byte(page)])
            .expect("a write");
        if page >= 500
            && let Some(pfn) = frame(&host, pid, page - 500)
        {
            swap_out(&host, pfn);
        }
    }
    let answer = host.system().swapoff(area);
    assert!(matches!(answer, Err(MmError::NoMem)), "{:?}", answer.err());
    assert_eq!(host.system().swapoff(7).err(), Some(MmError::Inval));
    host.check().expect("a valid system");
    // It still gives out slots, which reading all of it back takes: reclaim uses them.
    for page in 0..pages {
        let mut found = [0];
        host.read(pid, BASE + page * PAGE_SIZE, &mut found)
            .expect("a read");
        assert_eq!(found[0], byte(page), "page {page}");
    }
    host.exit(pid);
    assert!(host.system().swapoff(area).is_ok());
    host.shutdown().expect("a clean end");
}

#[test]
fn swapoff_of_an_area_that_cannot_be_read_is_refused() {
    let machine = SimMachine::new(SimConfig::with_ram(16 << 20));
    let store = SimStore::new();
    let mut host = SimHost::boot(&machine, &store, 1).expect("a boot");
    let (area, device) = swapon(&host, 1);
    let pid = host.spawn().expect("a process");
    map(&mut host, pid, 4);
    for page in 0..4 {
        host.write(pid, BASE + page * PAGE_SIZE, &[9])
            .expect("a write");
        let pfn = frame(&host, pid, page).expect("a page");
        assert!(swap_out(&host, pfn));
    }
    let slot = host.system().swap().next_used(area, 1).expect("a slot");
    *device.broken.lock().unwrap() = Some(slot.entry.slot());
    assert_eq!(host.system().swapoff(area).err(), Some(MmError::Io(5)));
    *device.broken.lock().unwrap() = None;
    assert!(host.system().swapoff(area).is_ok());
    for page in 0..4 {
        let mut byte = [0];
        host.read(pid, BASE + page * PAGE_SIZE, &mut byte)
            .expect("a read");
        assert_eq!(byte, [9]);
    }
    host.exit(pid);
    host.shutdown().expect("a clean end");
}

#[test]
fn what_is_needed_soon_is_read_at_once() {
    let machine = SimMachine::new(SimConfig::with_ram(16 << 20));
    let store = SimStore::new();
    let mut host = SimHost::boot(&machine, &store, 1).expect("a boot");
    swapon(&host, 1);
    let pid = host.spawn().expect("a process");
    map(&mut host, pid, PAGES);
    for page in 0..PAGES {
        host.write(pid, BASE + page * PAGE_SIZE, &[9])
            .expect("a write");
        let pfn = frame(&host, pid, page).expect("a page");
        assert!(swap_out(&host, pfn));
    }
    host.syscall(pid, |s, mm| s.madvise(mm, BASE, PAGES * PAGE_SIZE, 3))
        .expect("madvise");
    let vmstat = host.system().vmstat();
    assert_eq!(vmstat.events(VmEvent::PSwpIn), PAGES);
    let major = vmstat.events(VmEvent::PgMajFault);
    for page in 0..PAGES {
        let mut byte = [0];
        host.read(pid, BASE + page * PAGE_SIZE, &mut byte)
            .expect("a read");
        assert_eq!(byte, [9]);
    }
    assert_eq!(host.system().vmstat().events(VmEvent::PgMajFault), major);
    host.exit(pid);
    host.shutdown().expect("a clean end");
}

#[test]
fn mlocked_pages_are_marked_and_stay() {
    let machine = SimMachine::new(SimConfig::with_ram(16 << 20));
    let store = SimStore::new();
    let mut host = SimHost::boot(&machine, &store, 1).expect("a boot");
    swapon(&host, 1);
    let pid = host.spawn().expect("a process");
    map(&mut host, pid, 8);
    host.write(pid, BASE, &[1]).expect("a write");
    host.syscall(pid, |s, mm| s.mlock(mm, BASE, 4 * PAGE_SIZE))
        .expect("mlock");
    let memmap = host.system().pages().memmap();
    let marked = |host: &SimHost<'_>, pid, page| {
        let pfn = frame(host, pid, page).expect("a page");
        memmap.page(pfn).flags().contains(PageFlags::MLOCKED)
    };
    for page in 0..4 {
        assert!(marked(&host, pid, page), "page {page}");
        let pfn = frame(&host, pid, page).expect("a page");
        let swap = host.system().swap();
        memmap.page(pfn).get();
        assert!(memmap.page(pfn).try_lock());
        let entry = swap.add_to_swap(pfn).expect("a slot");
        let answer = host.system().try_to_unmap(pfn, Some(entry));
        assert_eq!(answer, Unmapped::Mlocked);
        memmap.page(pfn).unlock();
        assert!(swap.try_to_free_swap(pfn));
        swap.put_page(pfn);
        // It may move, and stays marked.
        assert!(host.system().migrate(pfn));
        assert!(marked(&host, pid, page), "page {page} in its new frame");
    }
    // A child's pages are not locked; those that the parent copies away from are the child's.
    host.fork(pid, 1).expect("fork");
    host.write(pid, BASE, &[2]).expect("a write");
    assert!(marked(&host, pid, 0) && !marked(&host, 1, 0));
    host.syscall(pid, |s, mm| s.munlock(mm, BASE, 2 * PAGE_SIZE))
        .expect("munlock");
    assert!(!marked(&host, pid, 0) && marked(&host, pid, 2));
    let pfn = frame(&host, pid, 0).expect("a page");
    assert!(swap_out(&host, pfn));
    host.exit(pid);
    assert!(!marked(&host, 1, 2), "nobody locks it any more");
    host.exit(1);
    host.shutdown().expect("a clean end");
}
