//! System calls as programs see them. Each scenario runs twice: on the host, which shows that it
//! asks for what Linux does, and on the machine.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;
use vellum_um::{RunConfig, run};

/// Set for the run on the machine.
const GUEST: &str = "VELLUM_TEST_GUEST";

/// Runs `scenario` here and on a machine; `name` is that of the test that calls.
fn both(name: &str, scenario: fn()) {
    both_with(name, RunConfig::TLB_CAPACITY, scenario);
}

/// As [`both`], on a machine with room for so many runs of pages.
fn both_with(name: &str, tlb_capacity: usize, scenario: fn()) {
    scenario();
    if std::env::var_os(GUEST).is_some() {
        return;
    }
    let this = std::env::current_exe().expect("a path");
    let words = [
        OsString::from(format!("{GUEST}=1")),
        this.into(),
        "--exact".into(),
        name.into(),
        "--test-threads=1".into(),
        "--quiet".into(),
    ];
    let outcome = run(&RunConfig {
        ram_bytes: 128 << 20,
        tlb_capacity,
        args: words.into(),
        ..RunConfig::new("env")
    })
    .expect("the host allows a run");
    assert_eq!(outcome.exit.code, Some(0), "{:?}", outcome.exit);
    assert_eq!(outcome.leaks.frames, 0, "{:?}", outcome.leaks);
}

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("vellum-{name}-{}", std::process::id()));
        Self(path)
    }
    fn file(&self) -> File {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&self.0)
            .expect("a file")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A shared mapping of the beginning of a file.
struct Map {
    at: *mut u8,
    len: usize,
}

impl Map {
    fn new(file: &File, len: usize) -> Self {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let fd = file.as_raw_fd();
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, libc::MAP_SHARED, fd, 0) };
        assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Self { at: at.cast(), len }
    }
    fn get(&self, at: usize, len: usize) -> Vec<u8> {
        assert!(at + len <= self.len);
        // SAFETY: inside the mapping; other owners of the file are quiet.
        unsafe { std::slice::from_raw_parts(self.at.wrapping_add(at), len) }.to_vec()
    }
    fn put(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.len);
        // SAFETY: inside the mapping.
        let to = unsafe { self.at.add(at) };
        // SAFETY: room for the bytes, which lie elsewhere.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: nobody uses the mapping any more.
        unsafe { libc::munmap(self.at.cast(), self.len) };
    }
}

fn at(file: &File, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let got = file.read_at(&mut bytes, offset).expect("read");
    bytes.truncate(got);
    bytes
}

#[test]
fn mappings_and_descriptors_agree() {
    both("mappings_and_descriptors_agree", || {
        let scratch = Scratch::new("agree");
        let mut file = scratch.file();
        file.write_all(&[b'a'; 6000]).expect("write");
        let map = Map::new(&file, 6000);
        assert_eq!(map.get(5990, 10), [b'a'; 10]);
        file.write_all_at(b"across", 4093).expect("write");
        assert_eq!(map.get(4092, 8), b"aacrossa");
        map.put(10, b"mapped");
        assert_eq!(at(&file, 9, 8), b"amappeda");
        file.seek(SeekFrom::Start(8)).expect("seek");
        let mut eight = [0; 8];
        file.read_exact(&mut eight).expect("read");
        assert_eq!(&eight, b"aamapped");
        assert_eq!(file.stream_position().expect("position"), 16);

        file.set_len(100).expect("truncate");
        assert_eq!(at(&file, 98, 10), b"aa");
        file.set_len(6000).expect("extend");
        assert_eq!(map.get(98, 4), b"aa\0\0");

        // Cut to nothing by another open file, and filled again.
        std::fs::write(&scratch.0, b"new content").expect("write");
        assert_eq!(map.get(0, 12), b"new content\0");
        assert_eq!(at(&file, 4, 100), b"content");
    });
}

#[test]
fn appending_writes_go_to_the_end() {
    both("appending_writes_go_to_the_end", || {
        let scratch = Scratch::new("append");
        let file = scratch.file();
        file.write_all_at(b"0123456789", 0).expect("write");
        let map = Map::new(&file, 4096);
        let mut log = OpenOptions::new()
            .append(true)
            .open(&scratch.0)
            .expect("open");
        log.write_all(b"AB").expect("write");
        assert_eq!(log.stream_position().expect("position"), 12);
        // Linux appends whatever offset pwrite names.
        log.write_all_at(b"CD", 0).expect("write");
        assert_eq!(map.get(0, 15), b"0123456789ABCD\0");
        assert_eq!(at(&file, 8, 100), b"89ABCD");
    });
}

#[test]
fn copies_between_files_see_mapped_writes() {
    both("copies_between_files_see_mapped_writes", || {
        let scratches = [Scratch::new("from"), Scratch::new("to")];
        let [from, to] = [scratches[0].file(), scratches[1].file()];
        from.write_all_at(&[b'x'; 5000], 0).expect("write");
        to.write_all_at(&[b'y'; 5000], 0).expect("write");
        let [map, copy] = [Map::new(&from, 5000), Map::new(&to, 5000)];
        assert_eq!(copy.get(0, 2), b"yy");
        map.put(0, b"first");
        let (mut a, mut b) = (0_i64, 1_i64);
        let (fd, other) = (from.as_raw_fd(), to.as_raw_fd());
        // SAFETY: both offsets are borrowed for the call.
        let copied = unsafe { libc::copy_file_range(fd, &raw mut a, other, &raw mut b, 4, 0) };
        assert_eq!((copied, a, b), (4, 4, 5));
        assert_eq!(copy.get(0, 6), b"yfirsy");
        map.put(0, b"again");
        a = 0;
        // SAFETY: the offset is borrowed for the call.
        let sent = unsafe { libc::sendfile(other, fd, &raw mut a, 5) };
        assert_eq!((sent, a), (5, 5));
        assert_eq!(at(&to, 0, 6), b"againy");
        assert_eq!(copy.get(0, 6), b"againy");
    });
}

#[test]
fn bad_buffers_give_efault_or_less() {
    both("bad_buffers_give_efault_or_less", || {
        let scratch = Scratch::new("bad");
        let file = scratch.file();
        file.write_all_at(&[1; 10_000], 0).expect("write");
        let fd = file.as_raw_fd();
        let errno = || std::io::Error::last_os_error().raw_os_error();
        let nowhere = (1_usize << 40) as *mut libc::c_void;
        // SAFETY: the kernel refuses the address.
        assert_eq!(unsafe { libc::pread(fd, nowhere, 10, 0) }, -1);
        assert_eq!(errno(), Some(libc::EFAULT));
        // SAFETY: as above.
        assert_eq!(unsafe { libc::pwrite(fd, nowhere, 10, 0) }, -1);
        assert_eq!(errno(), Some(libc::EFAULT));
        // SAFETY: as above.
        assert_eq!(unsafe { libc::pread(fd, nowhere, 10, -1) }, -1);
        assert_eq!(errno(), Some(libc::EINVAL));

        let pages = Map::new(&file, 8192);
        // SAFETY: the second page of our own mapping, which is not used again.
        unsafe { libc::munmap(pages.at.wrapping_add(4096).cast(), 4096) };
        let edge = pages.at.wrapping_add(4000).cast();
        // SAFETY: the kernel stops at the end of the first page.
        assert_eq!(unsafe { libc::pread(fd, edge, 500, 0) }, 96);
        // SAFETY: as above.
        assert_eq!(unsafe { libc::pwrite(fd, edge, 500, 9000) }, 96);
    });
}

#[test]
fn exec_fails_as_linux_does() {
    both("exec_fails_as_linux_does", || {
        let errno = |path: &std::path::Path| {
            Command::new(path)
                .spawn()
                .err()
                .and_then(|error| error.raw_os_error())
        };
        let scratch = Scratch::new("exec");
        let write = |text: &str, mode: u32| {
            let _ = std::fs::remove_file(&scratch.0);
            let mut options = OpenOptions::new();
            let mut file = options
                .write(true)
                .create(true)
                .mode(mode)
                .open(&scratch.0)
                .expect("a file");
            file.write_all(text.as_bytes()).expect("write");
            file.set_permissions(std::fs::Permissions::from_mode(mode))
                .expect("chmod");
        };
        assert_eq!(errno("/nonexistent".as_ref()), Some(libc::ENOENT));
        assert_eq!(errno("/tmp".as_ref()), Some(libc::EACCES));
        assert_eq!(errno("/etc/passwd/x".as_ref()), Some(libc::ENOTDIR));
        write("#!/bin/sh\nexit 3\n", 0o644);
        assert_eq!(errno(&scratch.0), Some(libc::EACCES));
        write("\x7fELF nonsense", 0o755);
        assert_eq!(errno(&scratch.0), Some(libc::ENOEXEC));
        write("#!/nonexistent/interpreter\n", 0o755);
        assert_eq!(errno(&scratch.0), Some(libc::ENOENT));
        write(&format!("#!{}\n", scratch.0.display()), 0o755);
        assert_eq!(errno(&scratch.0), Some(libc::ELOOP));
        write("#!/bin/sh -e\nfalse\nexit 9\n", 0o755);
        let status = Command::new(&scratch.0).status().expect("a script");
        assert_eq!(status.code(), Some(1));
        let long = "x".repeat(200_000);
        let error = Command::new("/bin/true")
            .arg(long)
            .spawn()
            .expect_err("too long");
        assert_eq!(error.raw_os_error(), Some(libc::E2BIG));
    });
}

#[test]
fn proc_tells_of_the_program() {
    both("proc_tells_of_the_program", || {
        let this = std::env::current_exe().expect("a path");
        assert_eq!(std::fs::read_link("/proc/self/exe").expect("a link"), this);
        let mut start = [0; 4];
        let mut exe = File::open("/proc/self/exe").expect("a program");
        exe.read_exact(&mut start).expect("read");
        assert_eq!(&start, b"\x7fELF");
        let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
        for name in [
            this.to_str().expect("a name"),
            "[stack]",
            "[heap]",
            "[vdso]",
        ] {
            assert!(maps.contains(name), "{name} is missing in\n{maps}");
        }
        let status = std::fs::read_to_string("/proc/self/status").expect("status");
        assert!(status.contains("VmRSS:"), "{status}");
        assert!(status.contains("TracerPid:\t0\n"), "{status}");
        let words = std::fs::read("/proc/self/cmdline").expect("cmdline");
        assert!(words.starts_with(this.to_str().expect("a name").as_bytes()));

        // The page of a variable is present, by pagemap.
        let variable = 7_u64;
        let page = &raw const variable as u64 / 4096;
        let pagemap = File::open("/proc/self/pagemap").expect("pagemap");
        let mut entry = [0; 8];
        pagemap
            .read_exact_at(&mut entry, page * 8)
            .expect("an entry");
        assert_eq!(u64::from_le_bytes(entry) >> 63, 1);
        assert_eq!(variable, 7);
    });
}

#[test]
fn a_limit_on_addresses_counts_the_programs_own() {
    both("a_limit_on_addresses_counts_the_programs_own", || {
        let script = "ulimit -v 100000; test $(ulimit -v) = 100000 && /bin/true && \
                      ! dd if=/dev/zero of=/dev/null bs=200M count=1 2>/dev/null";
        let status = Command::new("sh")
            .args(["-c", script])
            .status()
            .expect("a shell");
        assert!(status.success());
    });
}

#[test]
fn a_lock_ends_with_its_descriptor() {
    both("a_lock_ends_with_its_descriptor", || {
        let scratch = Scratch::new("lock");
        let file = scratch.file();
        file.write_all_at(b"x", 0).expect("write");
        file.lock().expect("a lock");
        let other = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&scratch.0)
            .expect("open");
        let map = Map::new(&other, 1);
        assert!(other.try_lock().is_err());
        drop(file);
        other.try_lock().expect("free");
        assert_eq!(map.get(0, 1), b"x");
    });
}

/// `struct flock` at `at` locks one byte; what the host says.
fn lock(file: &File, at: *const libc::flock) -> std::io::Result<()> {
    // SAFETY: the callers pass readable memory of that size.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, at) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Calls that lock run without a stop if the lock is described at the end of the stack: it must be
/// readable there whatever else was evicted.
fn locks() {
    let scratch = Scratch::new("locks");
    let file = scratch.file();
    let other = std::thread::spawn(|| {
        let mut pages = vec![0u8; 64 << 12];
        (0..4000usize).for_each(|i| pages[(i % 64) << 12] = i as u8);
    });
    // SAFETY: zero is a valid flock: a read lock on the whole file.
    let mut on_stack: libc::flock = unsafe { std::mem::zeroed() };
    let mut on_heap = Box::new(on_stack);
    for i in 0..200 {
        on_stack.l_type = [libc::F_WRLCK, libc::F_UNLCK][i % 2] as i16;
        on_stack.l_start = i as i64;
        on_stack.l_len = 1;
        lock(&file, &raw const on_stack).expect("on the stack");
        *on_heap = on_stack;
        lock(&file, &raw const *on_heap).expect("on the heap");
    }
    on_stack.l_type = 77;
    let error = lock(&file, &raw const on_stack).expect_err("no such lock");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    // SAFETY: a fresh mapping of our own.
    let fresh = unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, flags, -1, 0)
    };
    lock(&file, fresh.cast()).expect("memory that nobody touched: a read lock on all");
    let error = lock(&file, std::ptr::dangling()).expect_err("not mapped");
    assert_eq!(error.raw_os_error(), Some(libc::EFAULT));
    other.join().expect("it ends");
}

#[test]
fn locks_may_be_described_anywhere() {
    both("locks_may_be_described_anywhere", locks);
}

#[test]
fn locks_may_be_described_anywhere_on_a_small_tlb() {
    both_with("locks_may_be_described_anywhere_on_a_small_tlb", 16, locks);
}

fn set_append(file: &File, on: bool) {
    let flags = if on { libc::O_APPEND } else { 0 };
    // SAFETY: takes no pointer.
    let set = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags) };
    assert_eq!(set, 0);
}

#[test]
fn appending_can_be_switched_between_writes() {
    both("appending_can_be_switched_between_writes", || {
        let scratch = Scratch::new("switch-append");
        let file = scratch.file();
        let twin = file.try_clone().expect("a duplicate");
        file.write_all_at(b"0123456789", 0).expect("at its place");
        set_append(&twin, true);
        file.write_all_at(b"ab", 0)
            .expect("Linux appends whatever the offset says");
        set_append(&twin, false);
        file.write_all_at(b"XY", 0).expect("at its place again");
        let mut read = [0; 16];
        assert_eq!(file.read_at(&mut read, 0).expect("readable"), 12);
        assert_eq!(&read[..12], b"XY23456789ab");
    });
}

#[test]
fn the_number_of_a_directory_can_come_again_for_a_file() {
    both(
        "the_number_of_a_directory_can_come_again_for_a_file",
        || {
            let scratch = Scratch::new("number-again");
            let folder = File::open(std::env::temp_dir()).expect("a directory");
            let number = folder.as_raw_fd();
            folder.sync_all().expect("directories can be synced");
            let mut byte = [0];
            let error = folder.read_at(&mut byte, 0).expect_err("a directory");
            assert_eq!(error.raw_os_error(), Some(libc::EISDIR));
            drop(folder);
            let file = scratch.file();
            assert_eq!(file.as_raw_fd(), number, "the lowest free number");
            file.write_all_at(b"z", 0).expect("a file");
            assert_eq!(file.read_at(&mut byte, 0).expect("a file"), 1);
            assert_eq!(byte, *b"z");
            file.sync_all().expect("a file");
        },
    );
}
