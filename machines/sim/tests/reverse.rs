//! From pages to their entries: pages are taken away from running processes, moved and looked at, and
//! every byte is where a model says it is.

use std::collections::HashMap;
use std::sync::Mutex;
use vellum_machine::DirectMap;
use vellum_mm::{MmapRequest, Unmapped};
use vellum_page::PageSource;
use vellum_sim::{Refill, Rng, SimConfig, SimHost, SimMachine, SimStore};
use vellum_swap::{SwapDevice, SwapOn, WriteError};
use vellum_types::{IoError, PAGE_SIZE, Pfn, VirtAddr};

const PAGES: u64 = 48;
const BASE: u64 = 0x1000_0000_0000;
/// Memory that all processes share.
const SHARED: u64 = 0x1100_0000_0000;

/// Slots as bytes.
#[derive(Default)]
struct Slots {
    bytes: Mutex<HashMap<u32, Vec<u8>>>,
    broken: Mutex<Option<u32>>,
}

impl SwapDevice for Slots {
    fn name(&self) -> &str {
        "slots"
    }
    fn nr_slots(&self) -> u32 {
        4096
    }
    fn read(&self, slot: u32, frame: Pfn, ram: DirectMap<'_>) -> Result<(), IoError> {
        if *self.broken.lock().unwrap() == Some(slot) {
            return Err(IoError::EIO);
        }
        let all = self.bytes.lock().unwrap();
        let bytes = all.get(&slot).expect("a slot that was written");
        ram.write_bytes(frame.addr(), bytes);
        Ok(())
    }
    fn write(&self, slot: u32, frames: &[Pfn], ram: DirectMap<'_>) -> Result<(), WriteError> {
        let mut all = self.bytes.lock().unwrap();
        for (slot, frame) in (slot..).zip(frames) {
            let mut bytes = vec![0; PAGE_SIZE as usize];
            ram.read_bytes(frame.addr(), &mut bytes);
            all.insert(slot, bytes);
        }
        Ok(())
    }
}

fn map_anon(host: &mut SimHost<'_>, pid: usize) {
    map(host, pid, BASE, 0x32);
}

fn map(host: &mut SimHost<'_>, pid: usize, addr: u64, flags: u32) {
    let request = MmapRequest {
        addr,
        len: PAGES * PAGE_SIZE,
        prot: 3,
        flags,
        file: None,
        offset: 0,
    };
    assert_eq!(host.mmap(pid, request), Ok(addr));
}

fn frame(host: &SimHost<'_>, pid: usize, page: u64) -> Option<Pfn> {
    frame_at(host, pid, BASE + page * PAGE_SIZE)
}

fn frame_at(host: &SimHost<'_>, pid: usize, addr: u64) -> Option<Pfn> {
    let number = VirtAddr::new(addr).page_number();
    let word = host.system().pagemap_entry(&host.mm(pid), number);
    (word >> 63 == 1).then(|| Pfn::new(word as u32))
}

/// What reclaim does to an anonymous page, step by step. True if the frame is free now.
fn swap_out(host: &SimHost<'_>, pfn: Pfn) -> bool {
    let system = host.system();
    let (swap, pages) = (system.swap(), system.reclaim());
    let page = pages.memmap().page(pfn);
    if page.state() != vellum_page::PageState::Anon || !page.try_get() {
        return false;
    }
    assert!(page.try_lock());
    let entry = swap.entry_of(pfn).or_else(|| swap.add_to_swap(pfn));
    let entry = entry.expect("a free slot");
    assert_eq!(system.try_to_unmap(pfn, Some(entry)), Unmapped::Done);
    assert_eq!(page.mapcount(), 0);
    if page.flags().contains(vellum_page::PageFlags::DIRTY) {
        swap.write(&[pfn], &mut |_, result| assert_eq!(result, Ok(())));
    }
    page.unlock();
    assert!(swap.remove_for_reclaim(pfn, None));
    pages.free_pages(pfn);
    true
}

fn config(seed: u64) -> SimConfig {
    let base = SimConfig::with_ram(16 << 20);
    match seed % 4 {
        0 => base,
        1 => base.cpus(4).tlb(32),
        2 => base.cpus(2).access_dirty(false).tlb(8),
        _ => base
            .cpus(2)
            .access_dirty(false)
            .refill(Refill::HintsOnly)
            .tlb(128),
    }
}

/// What happened in a run.
#[derive(Default)]
struct Tally {
    swapped: u64,
    moved: u64,
    moved_with_many: u64,
    moved_of_file: u64,
}

impl Tally {
    fn migrate(&mut self, host: &SimHost<'_>, pfn: Pfn) {
        let page = host.system().pages().memmap().page(pfn);
        let (many, file) = (
            page.mapcount() > 1,
            page.state() == vellum_page::PageState::File,
        );
        if host.system().migrate(pfn) {
            self.moved += 1;
            self.moved_with_many += u64::from(many);
            self.moved_of_file += u64::from(file);
        }
    }
}

fn run(seed: u64, tally: &mut Tally) {
    let machine = SimMachine::new(config(seed));
    let store = SimStore::new();
    let slots = Slots::default();
    let mut host = SimHost::boot(&machine, &store, seed).expect("a boot");
    let how = SwapOn {
        priority: None,
        bad: &[],
    };
    // The device outlives the host, which is dropped first.
    let device: &'static Slots = Box::leak(Box::new(slots));
    host.system().swap().swapon(device, how).expect("swapon");
    let mut rng = Rng::new(seed);
    let mut model: Vec<Option<Vec<u8>>> = vec![None; 8];
    let first = host.spawn().expect("a process");
    map_anon(&mut host, first);
    model[first] = Some(vec![0; PAGES as usize]);
    map(&mut host, first, SHARED, 0x31);
    let mut shared = vec![0; PAGES as usize];
    for step in 0..3000 {
        let live: Vec<usize> = (0..8).filter(|pid| model[*pid].is_some()).collect();
        let pid = live[rng.below(live.len() as u64) as usize];
        let page = rng.below(PAGES);
        let at = BASE + page * PAGE_SIZE + rng.below(PAGE_SIZE);
        match rng.below(20) {
            0 if live.len() < 8 => {
                let child = (0..8).find(|pid| model[*pid].is_none()).expect("a number");
                host.fork(pid, child).expect("fork");
                model[child] = model[pid].clone();
            }
            1 if live.len() > 1 => {
                host.exit(pid);
                model[pid] = None;
            }
            2 => {
                host.syscall(pid, |s, mm| s.madvise(mm, at & !0xfff, PAGE_SIZE, 4))
                    .expect("madvise");
                model[pid].as_mut().expect("alive")[page as usize] = 0;
            }
            3..8 => {
                let byte = rng.below(255) as u8 + 1;
                let start = BASE + page * PAGE_SIZE;
                let bytes = vec![byte; PAGE_SIZE as usize];
                host.write(pid, start, &bytes).expect("a write");
                model[pid].as_mut().expect("alive")[page as usize] = byte;
            }
            8..11 => {
                let mut byte = [0];
                host.read(pid, at, &mut byte).expect("a read");
                assert_eq!(byte[0], model[pid].as_ref().expect("alive")[page as usize]);
            }
            11..14 => {
                if let Some(pfn) = frame(&host, pid, page) {
                    tally.swapped += u64::from(swap_out(&host, pfn));
                }
            }
            14 => {
                if let Some(pfn) = frame(&host, pid, page) {
                    tally.migrate(&host, pfn);
                }
            }
            15 => {
                let byte = rng.below(255) as u8 + 1;
                let start = SHARED + page * PAGE_SIZE;
                host.write(pid, start, &vec![byte; PAGE_SIZE as usize])
                    .expect("a write");
                shared[page as usize] = byte;
            }
            16 => {
                let mut byte = [0];
                host.read(pid, at - BASE + SHARED, &mut byte)
                    .expect("a read");
                assert_eq!(byte[0], shared[page as usize]);
            }
            17 | 18 => {
                if let Some(pfn) = frame_at(&host, pid, SHARED + page * PAGE_SIZE) {
                    tally.migrate(&host, pfn);
                }
            }
            _ => {
                if let Some(pfn) = frame(&host, pid, page) {
                    let page = host.system().pages().memmap().page(pfn);
                    let young = host.system().page_referenced(pfn).young;
                    assert!(young <= page.mapcount());
                    assert_eq!(host.system().page_referenced(pfn).young, 0);
                }
            }
        }
        if step % 16 == 0 {
            host.check()
                .unwrap_or_else(|wrong| panic!("seed {seed}, step {step}: {wrong}"));
            host.system().swap().validate().expect("a valid swap");
        }
    }
    for (pid, bytes) in model.into_iter().enumerate() {
        let Some(bytes) = bytes else {
            continue;
        };
        for (page, want) in (0..).zip(bytes) {
            let mut all = vec![0; PAGE_SIZE as usize];
            host.read(pid, BASE + page * PAGE_SIZE, &mut all)
                .expect("a read");
            assert!(
                all.iter().all(|byte| *byte == want),
                "seed {seed}: page {page} of {pid}"
            );
            host.read(pid, SHARED + page * PAGE_SIZE, &mut all)
                .expect("a read");
            let want = shared[page as usize];
            assert!(all.iter().all(|byte| *byte == want), "shared {page}");
        }
        host.exit(pid);
    }
    assert_eq!(
        host.system().swap().free_slots(),
        4095,
        "slots that nobody has are free"
    );
    host.shutdown().expect("a clean end");
}

#[test]
fn pages_that_are_swapped_and_moved_keep_their_bytes() {
    let mut tally = Tally::default();
    for seed in 0..16 {
        run(seed, &mut tally);
    }
    assert!(tally.swapped > 1000 && tally.moved > 1000);
    assert!(tally.moved_with_many > 100 && tally.moved_of_file > 100);
}

#[test]
fn a_use_after_the_look_is_seen() {
    // Not on the machine whose walker sets no accessed bit and does not ask either.
    for seed in [0, 1, 3] {
        let config = config(seed).cpus(1);
        // A walker sets the bit when it walks: its TLB must forget.
        let tlb = if config.hw_access_dirty { 1 } else { 128 };
        let machine = SimMachine::new(config.tlb(tlb));
        let store = SimStore::new();
        let mut host = SimHost::boot(&machine, &store, seed).expect("a boot");
        let pid = host.spawn().expect("a process");
        map_anon(&mut host, pid);
        host.write(pid, BASE, &[1]).expect("a write");
        host.fork(pid, 1).expect("fork");
        let pfn = frame(&host, pid, 0).expect("a page");
        host.system().page_referenced(pfn);
        assert_eq!(host.system().page_referenced(pfn).young, 0);
        let mut byte = [0];
        host.read(pid, BASE + PAGE_SIZE, &mut byte).expect("a read");
        host.read(pid, BASE, &mut byte).expect("a read");
        let seen = host.system().page_referenced(pfn);
        assert_eq!((seen.young, seen.locked), (1, false), "seed {seed}");
        host.syscall(1, |s, mm| s.mlock2(mm, BASE, PAGE_SIZE, 1))
            .expect("mlock2");
        host.read(1, BASE, &mut byte).expect("a read");
        assert!(host.system().page_referenced(pfn).locked);
        let page = host.system().pages().memmap().page(pfn);
        page.get();
        let answer = host.system().try_to_unmap(pfn, None);
        assert!(matches!(answer, Unmapped::Mlocked | Unmapped::Held));
        let last = page.put();
        assert!(!last);
        host.exit(pid);
        host.exit(1);
        host.shutdown().expect("a clean end");
    }
}

#[test]
fn a_slot_that_cannot_be_read_is_sigbus_for_its_owner_alone() {
    let machine = SimMachine::new(config(0));
    let store = SimStore::new();
    let device: &'static Slots = Box::leak(Box::default());
    let mut host = SimHost::boot(&machine, &store, 1).expect("a boot");
    let how = SwapOn {
        priority: None,
        bad: &[],
    };
    host.system().swap().swapon(device, how).expect("swapon");
    let pid = host.spawn().expect("a process");
    map_anon(&mut host, pid);
    for page in 0..2 {
        host.write(pid, BASE + page * PAGE_SIZE, &[7])
            .expect("a write");
        let pfn = frame(&host, pid, page).expect("a page");
        assert!(swap_out(&host, pfn));
    }
    let number = VirtAddr::new(BASE).page_number();
    let word = host.system().pagemap_entry(&host.mm(pid), number);
    assert_eq!(word >> 62, 1);
    *device.broken.lock().unwrap() = Some((word >> 5) as u32 & 0x7ff_ffff);
    let mut byte = [0];
    let answer = host.read(pid, BASE, &mut byte);
    assert!(
        matches!(answer, Err(vellum_sim::Trouble::Signal { number: 7, .. })),
        "{answer:?}"
    );
    host.read(pid, BASE + PAGE_SIZE, &mut byte).expect("a read");
    assert_eq!(byte, [7]);
    assert_eq!(host.mm(pid).stats().swap, 1);
    host.exit(pid);
    host.shutdown().expect("a clean end");
}
