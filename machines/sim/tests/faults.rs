//! What goes wrong on purpose: I/O errors, memory that ends, machines of odd shapes.

use vellum_mm::{MmError, MmapRequest};
use vellum_page_cache::Wanted;
use vellum_sim::{Injection, SimConfig, SimHost, SimMachine, SimStore, StoreOp, Trouble};
use vellum_types::FileId;

const FILE: FileId = FileId(1);
const AT: u64 = 0x1000_0000;
const PAGE: u64 = 4096;

const MAP_SHARED: u32 = 1;
const MAP_PRIVATE: u32 = 2;
const MAP_FIXED: u32 = 0x10;
const MAP_ANONYMOUS: u32 = 0x20;
const READ_WRITE: u32 = 3;
const SIGBUS: i32 = 7;
const SYNC: u32 = 4;

/// One process on a machine; `test` gets the host and the process.
fn with_host(config: SimConfig, test: impl FnOnce(&mut SimHost<'_>, usize)) {
    let machine = SimMachine::new(config);
    let store = SimStore::new();
    store.create(FILE, "/data", vec![7; 64 * PAGE as usize]);
    let mut host = SimHost::boot(&machine, &store, 1).expect("a boot");
    let pid = host.spawn().expect("a process");
    test(&mut host, pid);
    store.inject(FILE, Injection::default());
    host.system().writeback_all().ok();
    host.shutdown().expect("everything back");
}

fn map_file(host: &mut SimHost<'_>, pid: usize, pages: u64, flags: u32) {
    let file = Some(host.open(FILE, true).expect("a file"));
    let flags = flags | MAP_FIXED;
    let request = MmapRequest {
        addr: AT,
        len: pages * PAGE,
        prot: READ_WRITE,
        flags,
        file,
        offset: 0,
    };
    host.mmap(pid, request).expect("a mapping");
}

fn map_anonymous(host: &mut SimHost<'_>, pid: usize, pages: u64) -> Result<u64, MmError> {
    let flags = MAP_FIXED | MAP_ANONYMOUS | MAP_PRIVATE;
    let request = MmapRequest {
        addr: AT,
        len: pages * PAGE,
        prot: READ_WRITE,
        flags,
        file: None,
        offset: 0,
    };
    host.mmap(pid, request)
}

fn read(host: &mut SimHost<'_>, pid: usize, page: u64) -> Result<u8, Trouble> {
    let mut byte = [0];
    host.read(pid, AT + page * PAGE, &mut byte)
        .map(|()| byte[0])
}

fn small() -> SimConfig {
    SimConfig::with_ram(8 << 20).cpus(2)
}

#[test]
fn a_page_that_cannot_be_read_is_a_bus_error() {
    with_host(small(), |host, pid| {
        map_file(host, pid, 16, MAP_PRIVATE);
        host.store().inject(
            FILE,
            Injection {
                fail_reads_after: Some(0),
                ..Injection::default()
            },
        );
        assert!(matches!(
            read(host, pid, 3),
            Err(Trouble::Signal { number: SIGBUS, .. })
        ));
        // The error is not remembered: the next try reads again.
        host.store().inject(FILE, Injection::default());
        assert_eq!(read(host, pid, 3), Ok(7));
    });
}

#[test]
fn readahead_into_bad_blocks_harms_only_those_who_want_them() {
    with_host(small(), |host, pid| {
        map_file(host, pid, 64, MAP_PRIVATE);
        host.store().inject(
            FILE,
            Injection {
                bad_from: Some(20 * PAGE),
                ..Injection::default()
            },
        );
        for page in 0..64 {
            match read(host, pid, page) {
                Ok(byte) => assert!(byte == 7 && page < 20, "page {page}"),
                Err(trouble) => {
                    assert!(matches!(trouble, Trouble::Signal { number: SIGBUS, .. }));
                    assert!(page >= 20, "page {page}");
                }
            }
        }
    });
}

#[test]
fn a_short_read_shows_zeroes() {
    with_host(small(), |host, pid| {
        map_file(host, pid, 4, MAP_PRIVATE);
        host.store().inject(
            FILE,
            Injection {
                short_reads: Some(100),
                ..Injection::default()
            },
        );
        let mut bytes = [1; 200];
        host.read(pid, AT, &mut bytes).expect("a page");
        assert_eq!((bytes[99], bytes[100]), (7, 0));
    });
}

#[test]
fn a_failed_write_back_is_reported_once_and_loses_nothing() {
    with_host(small(), |host, pid| {
        map_file(host, pid, 4, MAP_SHARED);
        host.write(pid, AT + PAGE, &[42; 8]).expect("a store");
        let full = Injection {
            fail_writes_after: Some((0, 28)),
            ..Injection::default()
        };
        host.store().inject(FILE, full);
        let result = host.syscall(pid, |s, mm| s.msync(mm, AT, 4 * PAGE, SYNC));
        assert_eq!(result.map_err(MmError::errno), Err(28));
        assert_eq!(read(host, pid, 1), Ok(42));
        host.store().inject(FILE, Injection::default());
        host.write(pid, AT + PAGE, &[43; 8]).expect("a store");
        host.syscall(pid, |s, mm| s.msync(mm, AT, 4 * PAGE, SYNC))
            .expect("a sync");
        assert_eq!(host.store().bytes(FILE)[PAGE as usize], 43);
    });
}

#[test]
fn clean_pages_are_not_written_back() {
    with_host(small(), |host, pid| {
        map_file(host, pid, 8, MAP_SHARED);
        for page in 0..8 {
            assert_eq!(read(host, pid, page), Ok(7));
        }
        host.write(pid, AT + 5 * PAGE, &[1]).expect("a store");
        host.store().take_log();
        host.system().writeback_all().expect("a write-back");
        let written: Vec<_> = host.store().take_log();
        assert!(
            matches!(written[..], [StoreOp::Write { offset, len: PAGE, .. }, ..] if offset == 5 * PAGE),
            "{written:?}"
        );
        // Nothing was touched since: nothing to write.
        host.system().writeback_all().expect("a write-back");
        let again = host.store().take_log();
        assert!(
            !again.iter().any(|op| matches!(op, StoreOp::Write { .. })),
            "{again:?}"
        );
        // But a store after it is noticed, although the page is still mapped.
        host.write(pid, AT + 5 * PAGE, &[2]).expect("a store");
        host.system().writeback_all().expect("a write-back");
        assert_eq!(host.store().bytes(FILE)[5 * PAGE as usize], 2);
    });
}

#[test]
fn a_writer_writes_for_itself_before_too_much_is_dirty() {
    with_host(small(), |host, pid| {
        let mapping = host.system().mapping(FILE).expect("a mapping");
        for page in 0..2000 {
            let bytes = [page as u8; PAGE as usize];
            let written = host.pwrite(pid, FILE, page % 400 * PAGE, &bytes);
            assert_eq!(written, Ok(PAGE));
            let (_, limit) = host.system().cache().dirty_thresholds();
            assert!(mapping.nr_dirty() <= limit, "page {page}");
        }
        // Half as much is for those who write in the background.
        let mut marks = host.system().cache().dirty_thresholds();
        for page in 0..400 {
            if mapping.nr_dirty() > marks.0 {
                break;
            }
            host.pwrite(pid, FILE, page * PAGE, &[9; 8])
                .expect("a write");
            marks = host.system().cache().dirty_thresholds();
        }
        assert!(mapping.nr_dirty() > marks.0 && marks.0 < marks.1);
        assert_eq!(host.system().balance_dirty(Wanted::Now), 0);
        assert!(host.system().balance_dirty(Wanted::Background) > 0);
        assert!(mapping.nr_dirty() <= marks.0);
    });
}

#[test]
fn fsync_tells_each_opener_of_an_error_once() {
    with_host(small(), |host, pid| {
        let mapping = host.system().mapping(FILE).expect("a mapping");
        let mut openers = [mapping.sample_error(), mapping.sample_error()];
        host.pwrite(pid, FILE, 3 * PAGE, &[1; 10]).expect("a write");
        host.store().inject(
            FILE,
            Injection {
                fail_writes_after: Some((0, 28)),
                ..Injection::default()
            },
        );
        let system = host.system();
        assert_eq!(
            system.fsync(&mapping, 0, u64::MAX, &mut openers[0]),
            Err(MmError::Io(28))
        );
        host.store().inject(FILE, Injection::default());
        let system = host.system();
        let mut fsync = |which: usize| system.fsync(&mapping, 0, u64::MAX, &mut openers[which]);
        assert_eq!(fsync(1), Err(MmError::Io(28)));
        assert_eq!((fsync(0), fsync(1)), (Ok(()), Ok(())));
        assert_eq!(host.store().bytes(FILE)[3 * PAGE as usize], 1);
    });
}

#[test]
fn memory_ends_and_comes_back() {
    with_host(small(), |host, pid| {
        map_anonymous(host, pid, 4096).expect("a mapping larger than RAM");
        let mut page = 0;
        let trouble = loop {
            match host.write(pid, AT + page * PAGE, &[1]) {
                Ok(()) => page += 1,
                Err(trouble) => break trouble,
            }
        };
        assert_eq!(trouble, Trouble::OutOfMemory);
        assert!(page > 1000, "only {page} pages of 2048");
        host.check().expect("a sound system");
        // What is there is still readable, and one page given back is one that can be had.
        assert_eq!(read(host, pid, 0), Ok(1));
        host.syscall(pid, |s, mm| s.munmap(mm, AT, 256 * PAGE))
            .expect("an unmap");
        assert_eq!(host.write(pid, AT + page * PAGE, &[1]), Ok(()));
    });
}

#[test]
fn cached_files_give_way_to_programs() {
    with_host(small(), |host, pid| {
        let size = 3000 * PAGE;
        host.store()
            .create(FileId(2), "/large", vec![1; size as usize]);
        let mut bytes = vec![0; 4096];
        for page in 0..3000 {
            if host.pread(FileId(2), page * PAGE, &mut bytes).is_err() {
                break;
            }
        }
        map_anonymous(host, pid, 512).expect("a mapping");
        for page in 0..512 {
            assert_eq!(
                host.write(pid, AT + page * PAGE, &[1]),
                Ok(()),
                "page {page}"
            );
        }
        host.check().expect("a sound system");
    });
}

#[test]
fn too_little_memory_does_not_boot() {
    let machine = SimMachine::new(SimConfig::with_ram(1 << 20));
    let store = SimStore::new();
    assert!(SimHost::boot(&machine, &store, 0).is_err());
}

#[test]
fn equal_seeds_give_equal_runs() {
    let run = || {
        let machine = SimMachine::new(small().cpus(4).tlb(8));
        let store = SimStore::new();
        let mut host = SimHost::boot(&machine, &store, 99).expect("a boot");
        let pid = host.spawn().expect("a process");
        map_anonymous(&mut host, pid, 64).expect("a mapping");
        for i in 0..500 {
            host.write(pid, AT + (i * 37 % 64) * PAGE, &[i as u8])
                .expect("a store");
        }
        let stats = machine.stats();
        host.shutdown().expect("everything back");
        stats
    };
    assert_eq!(run(), run());
}
