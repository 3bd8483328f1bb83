//! Memory above the direct map: the core has no address for it until it makes one.
//!
//! A whole system runs with most of its programs' pages there, on 4-level tables; and the windows of a
//! 32-bit kernel, with its 2-level and PAE tables, run out on the frames of that system's allocator.

use vellum_machine::{DirectMap, Machine, PerCpuSlot};
use vellum_mm::MmapRequest;
use vellum_page::{AllocRequest, PageSource, place_slice};
use vellum_page_table::{Format, X86Pae, X86TwoLevel};
use vellum_sim::{SimConfig, SimExecutor, SimHost, SimMachine, SimStore};
use vellum_swap::{SwapDevice, SwapError, WriteError};
use vellum_system::{SwapArea, ZoneProfile};
use vellum_testkit::{Scenario, Shortage, run};
use vellum_types::{FileId, GfpFlags, IoError, Order, PAGE_SIZE, Pfn, ZoneType};
use vellum_vmalloc::{
    KernelLayout, Kmap, KmapDepth, KmapError, KmapLocal, KmapSlot, Vmalloc, VmallocError,
};

const MIB: u64 = 1 << 20;
const LOW: u64 = KernelLayout::LOWMEM_MAX;
const HIGHUSER: AllocRequest = AllocRequest::new(Order::ZERO, GfpFlags::HIGHUSER);
const AT: u64 = 0x1000_0000;
const ANON: u32 = 0x32;
const FILE: FileId = FileId(1);

/// 1200 MiB as a PC has them, of which a 32-bit kernel maps 896. The host gives only what is touched.
fn pc() -> SimMachine {
    let config = SimConfig::with_ram(1200 * MIB).low_memory(LOW);
    assert_eq!(config.zones, ZoneProfile::X86_32);
    SimMachine::new(config)
}

fn high_free(host: &SimHost<'_>) -> u64 {
    let mut zones = host.system().pages().zones();
    zones
        .find(|zone| zone.zone_type == ZoneType::HighMem)
        .expect("HighMem")
        .free
}

/// Every scenario, with 8 MiB in the direct map and as much above.
#[test]
fn every_scenario_runs_with_its_pages_above_the_direct_map() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scenarios");
    let mut played = 0;
    for entry in std::fs::read_dir(folder).expect("the folder of scenarios") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "scn") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a text");
        let scenario = Scenario::parse(&text).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        for cpus in [1, 4] {
            let config = SimConfig::with_ram(16 * MIB).low_memory(8 * MIB).cpus(cpus);
            let machine = SimMachine::new(config);
            let store = SimStore::new();
            let host = SimHost::boot(&machine, &store, 1).expect("a boot");
            let mut executor = SimExecutor::start(host).expect("a process");
            let result = run(&scenario, &mut executor, Shortage::Forbidden);
            result.unwrap_or_else(|wrong| panic!("{path:?}, {cpus} CPUs: {wrong}"));
            executor
                .shutdown()
                .unwrap_or_else(|wrong| panic!("{path:?}: {wrong}"));
        }
        played += 1;
    }
    assert!(played >= 30);
}

/// Fault, fork, copy on write, reads and writes by calls: all of it on high frames.
#[test]
fn a_programs_pages_are_high_zeroed_and_copied() {
    let machine = pc();
    let store = SimStore::new();
    store.create(FILE, "/data", vec![7; 16 * PAGE_SIZE as usize]);
    let mut host = SimHost::boot(&machine, &store, 1).expect("a boot");
    let (pages, ram) = (host.system().pages(), machine.direct_map());
    let before = high_free(&host);
    let parent = host.spawn().expect("a process");
    let request = MmapRequest {
        addr: AT,
        len: 64 * PAGE_SIZE,
        prot: 3,
        flags: ANON,
        file: None,
        offset: 0,
    };
    host.mmap(parent, request).expect("a mapping");
    for page in 0..64 {
        let at = AT + page * PAGE_SIZE;
        host.write(parent, at, &[page as u8 + 1]).expect("memory");
    }
    assert!(
        before - high_free(&host) >= 64,
        "the pages came from HighMem"
    );
    host.fork(parent, 1).expect("a process");
    for page in 0..64 {
        let at = AT + page * PAGE_SIZE;
        host.write(1, at + 1, &[0xaa]).expect("a copy");
        let mut bytes = [0; 3];
        host.read(1, at, &mut bytes).expect("memory");
        assert_eq!(bytes, [page as u8 + 1, 0xaa, 0]);
        host.read(parent, at, &mut bytes).expect("memory");
        assert_eq!(bytes, [page as u8 + 1, 0, 0]);
    }
    let mut highs = 0;
    for pid in [parent, 1] {
        let space = host.mm(pid).space();
        for page in 0..64 {
            let va = vellum_types::VirtAddr::new(AT + page * PAGE_SIZE);
            let (pfn, _) = machine.walk(space, va).expect("mapped");
            highs += u32::from(!ram.covers(pfn));
        }
    }
    assert_eq!(highs, 128);
    // By calls, across a page boundary.
    let mm = host.mm(1);
    let va = vellum_types::VirtAddr::new(AT + PAGE_SIZE - 2);
    host.system()
        .copy_to_user(&mm, va, b"abcd")
        .expect("memory");
    let mut back = [0; 4];
    host.system()
        .copy_from_user(&mm, va, &mut back)
        .expect("memory");
    assert_eq!(&back, b"abcd");
    drop(mm);
    // A private copy of a file's page is high; the file's own is not.
    let file = Some(host.open(FILE, true).expect("a file"));
    let request = MmapRequest {
        addr: AT + MIB,
        len: 4 * PAGE_SIZE,
        prot: 3,
        flags: 0x12,
        file,
        offset: 0,
    };
    host.mmap(parent, request).expect("a mapping");
    let space = host.mm(parent).space();
    let va = vellum_types::VirtAddr::new(AT + MIB);
    let mut byte = [0; 2];
    host.read(parent, va.as_u64(), &mut byte).expect("memory");
    let (of_file, _) = machine.walk(space, va).expect("mapped");
    host.write(parent, va.as_u64() + 1, &[9]).expect("memory");
    let (own, _) = machine.walk(space, va).expect("mapped");
    host.read(parent, va.as_u64(), &mut byte).expect("memory");
    assert_eq!(
        (byte, ram.covers(of_file), ram.covers(own)),
        ([7, 9], true, false)
    );
    assert_eq!(pages.validate(), Ok(()));
    host.shutdown().expect("everything back");
}

/// Programs that take all of memory, twice: what the first left behind the second sees as zeros.
#[test]
fn pages_used_before_are_zero_for_the_next_program() {
    let machine = SimMachine::new(SimConfig::with_ram(16 * MIB).low_memory(8 * MIB));
    let store = SimStore::new();
    let mut host = SimHost::boot(&machine, &store, 1).expect("a boot");
    for _ in 0..2 {
        let pid = host.spawn().expect("a process");
        let request = MmapRequest {
            addr: AT,
            len: 9 * MIB,
            prot: 3,
            flags: ANON,
            file: None,
            offset: 0,
        };
        host.mmap(pid, request).expect("a mapping");
        for at in (AT..AT + 9 * MIB).step_by(PAGE_SIZE as usize) {
            let mut bytes = [1; 4096];
            host.write(pid, at + 5, &[0]).expect("memory");
            host.read(pid, at, &mut bytes).expect("memory");
            assert_eq!(bytes, [0; 4096]);
            host.write(pid, at, &[0xa5; 4096]).expect("memory");
        }
        host.exit(pid);
    }
    host.shutdown().expect("everything back");
}

/// The windows of a 32-bit kernel on the allocator of a machine with 1200 MiB.
fn windows_run_out<F: Format>(slots: usize) {
    let machine = pc();
    let store = SimStore::new();
    let host = SimHost::boot(&machine, &store, 1).expect("a boot");
    let (system, pages) = (host.system(), host.system().pages());
    let free = pages.nr_free_pages();
    let layout = KernelLayout::x86_32::<F>(LOW, 1);
    let nodes = system.slab().typed_box("vmap_area-32").expect("a cache");
    let mut kernel =
        Vmalloc::<_, F>::boot(&machine, pages, system.vmstat(), layout, nodes).expect("memory");
    let memory = place_slice(pages, slots, |_| KmapSlot::FREE).expect("memory");
    let depths = place_slice(pages, 1, |_| PerCpuSlot::new(KmapDepth::NONE)).expect("memory");
    let kmap = Kmap::new(&kernel, memory).expect("memory");
    let local = KmapLocal::new(&kernel, depths).expect("memory");

    // Pages like those of programs: from HighMem while there is some, without an address.
    let frames: Vec<Pfn> = (0..=slots)
        .map(|_| pages.alloc_pages(HIGHUSER).expect("memory"))
        .collect();
    assert!(frames.iter().all(|pfn| !machine.direct_map().covers(*pfn)));
    for (n, pfn) in frames.iter().enumerate() {
        local.zero_page(*pfn);
        local
            .map(*pfn)
            .expect("a slot")
            .write(8, &(n as u64).to_le_bytes());
    }
    // A copy between two that are high, and the one slot of each is given up again.
    local.copy_page(frames[0], frames[slots]);
    let mut word = [0; 16];
    local.read_bytes(frames[0].addr(), &mut word);
    assert_eq!(word[..8], [0; 8]);
    assert_eq!(word[8..], (slots as u64).to_le_bytes());
    assert_eq!(local.depth(), 0);

    // kmap runs out, at the last slot and not before; a slot given back is found.
    let mut held: Vec<_> = frames[..slots]
        .iter()
        .map(|pfn| kmap.kmap(*pfn).expect("a slot"))
        .collect();
    assert_eq!(kmap.kmap(frames[slots]).err(), Some(KmapError::Exhausted));
    held[3].read(8, &mut word[..8]);
    assert_eq!(word[..8], 3_u64.to_le_bytes());
    drop(held.swap_remove(5));
    let again = kmap.kmap(frames[slots]).expect("the slot that became free");
    again.read(8, &mut word[..8]);
    assert_eq!(word[..8], (slots as u64).to_le_bytes());
    drop((again, held));
    assert_eq!(kmap.validate(), Ok(()));

    // So does vmalloc, while most of memory is free; what it gives is zero if that was asked for.
    let zeroed = kernel.vzalloc(64 * PAGE_SIZE).expect("memory");
    let mut bytes = [1; 4096];
    for page in 0..64 {
        let at = zeroed + page * PAGE_SIZE;
        kernel.read(at, &mut bytes).expect("an area");
        assert_eq!(bytes, [0; 4096]);
        assert!(
            !machine
                .direct_map()
                .covers(kernel.vmalloc_to_page(at).expect("mapped"))
        );
    }
    let mut areas = vec![zeroed];
    let full = loop {
        match kernel.vmalloc(MIB) {
            Ok(at) => areas.push(at),
            Err(error) => break error,
        }
    };
    assert_eq!(full, VmallocError::NoSpace);
    let most = layout.vmalloc.len() / (MIB + PAGE_SIZE);
    assert!(areas.len() as u64 >= most && areas.len() as u64 <= most + 1);
    assert!(pages.nr_free_pages() > 1000 * MIB / PAGE_SIZE);
    assert_eq!(kernel.validate(), Ok(()));

    for at in areas {
        kernel.vfree(at).expect("an area");
    }
    frames.iter().for_each(|pfn| pages.free_pages(*pfn));
    assert_eq!(kernel.shutdown(), Ok(()));
    drop((kernel, kmap, local));
    system.slab().shrink();
    // But for what place_slice took and the cache itself.
    assert!(
        free - pages.nr_free_pages() <= 8 + 2,
        "{free} {}",
        pages.nr_free_pages()
    );
    assert_eq!(machine.failures(), []);
}

#[test]
fn the_windows_of_two_levels_run_out() {
    windows_run_out::<X86TwoLevel>(1024);
}

#[test]
fn the_windows_of_pae_run_out() {
    windows_run_out::<X86Pae>(512);
}

/// A device that nobody may use.
struct Untouched;

impl SwapDevice for Untouched {
    fn name(&self) -> &str {
        "untouched"
    }
    fn nr_slots(&self) -> u32 {
        panic!("looked at");
    }
    fn read(&self, _: u32, _: Pfn, _: DirectMap<'_>) -> Result<(), IoError> {
        panic!("read");
    }
    fn write(&self, _: u32, _: &[Pfn], _: DirectMap<'_>) -> Result<(), WriteError> {
        panic!("written");
    }
}

/// A device reads and writes by the direct map, so such a machine has no swap yet, and says so.
#[test]
fn swap_is_refused_where_frames_have_no_address() {
    let machine = SimMachine::new(SimConfig::with_ram(16 * MIB).low_memory(8 * MIB));
    let store = SimStore::new();
    let host = SimHost::boot(&machine, &store, 1).expect("a boot");
    let refused = host.system().swapon(&Untouched, SwapArea::default());
    assert_eq!(refused, Err(SwapError::HighMemory));
    host.shutdown().expect("everything back");
}
