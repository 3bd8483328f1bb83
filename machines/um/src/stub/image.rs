//! The stub's page: machine code in an ELF file of 4 KiB.

use super::{CODE_OFFSET, MAILBOX_BASE, MAILBOX_LEN, PARK_CALL, PARK_OFFSET, STUB_BASE};
use crate::host::memory::{SharedMap, memfd};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

const PAGE: usize = 4096;
const PATH_LEN: usize = 64;

// The blob is position-independent and is never run where the linker puts it. Slot layout, at r15:
// 0 request (u32, futex), 4 done (u32, futex), 8 count, 64.. calls of 64 bytes: number, six
// arguments, result.
std::arch::global_asm!(
    ".pushsection .rodata",
    ".balign 16",
    ".globl vellum_stub_start, vellum_stub_end",
    "vellum_stub_start:",
    // entry: map the mailbox
    "  lea rdi, [rip + 50f]",
    "  mov esi, {rdwr_cloexec}",
    "  xor edx, edx",
    "  mov eax, {open}",
    "  syscall",
    "  mov r12, rax",
    "  test eax, eax",
    "  js 90f",
    "  movabs rdi, {mailbox_base}",
    "  mov esi, {mailbox_len}",
    "  mov edx, 3",
    "  mov r10d, {shared_fixed}",
    "  mov r8, r12",
    "  xor r9d, r9d",
    "  mov eax, {mmap}",
    "  syscall",
    "  mov r13, rax",
    "  mov rdi, r12",
    "  mov eax, {close}",
    "  syscall",
    "  mov r12, r13",
    "90:",
    "  jmp 80f",
    // batch
    ".balign 16",
    "vellum_stub_batch:",
    "  lea rbx, [r15 + 64]",
    "  mov rbp, [r15 + 8]",
    "2:",
    "  test rbp, rbp",
    "  jz 80f",
    "  mov rax, [rbx]",
    "  mov rdi, [rbx + 8]",
    "  mov rsi, [rbx + 16]",
    "  mov rdx, [rbx + 24]",
    "  mov r10, [rbx + 32]",
    "  mov r8, [rbx + 40]",
    "  mov r9, [rbx + 48]",
    "  syscall",
    "  mov [rbx + 56], rax",
    "  add rbx, 64",
    "  dec rbp",
    "  jmp 2b",
    // service; r14d is the last request seen
    ".balign 16",
    "vellum_stub_service:",
    // an empty descriptor table of its own, without copying the guest's
    "  xor edi, edi",
    "  mov esi, -1",
    "  mov edx, 2",
    "  mov eax, {close_range}",
    "  syscall",
    "  mov eax, {setsid}",
    "  syscall",
    "  mov edi, {pr_set_name}",
    "  lea rsi, [rip + 53f]",
    "  mov eax, {prctl}",
    "  syscall",
    "  lea rdi, [rip + 51f]",
    "  mov esi, {rdwr}",
    "  xor edx, edx",
    "  mov eax, {open}",
    "  syscall",
    "  mov [r15 + 16], rax",
    "3:",
    "  mov eax, [r15]",
    "  cmp eax, r14d",
    "  jne 4f",
    "  mov rdi, r15",
    "  xor esi, esi",
    "  mov edx, r14d",
    "  xor r10d, r10d",
    "  mov eax, {futex}",
    "  syscall",
    "  jmp 3b",
    "4:",
    "  mov r14d, eax",
    "  lea rbx, [r15 + 64]",
    "  mov rbp, [r15 + 8]",
    "5:",
    "  test rbp, rbp",
    "  jz 6f",
    "  mov rax, [rbx]",
    "  mov rdi, [rbx + 8]",
    "  mov rsi, [rbx + 16]",
    "  mov rdx, [rbx + 24]",
    "  mov r10, [rbx + 32]",
    "  mov r8, [rbx + 40]",
    "  mov r9, [rbx + 48]",
    "  syscall",
    "  mov [rbx + 56], rax",
    "  add rbx, 64",
    "  dec rbp",
    "  jmp 5b",
    "6:",
    "  mov [r15 + 4], r14d",
    "  lea rdi, [r15 + 4]",
    "  mov esi, 1",
    "  mov edx, 1",
    "  mov eax, {futex}",
    "  syscall",
    "  jmp 3b",
    ".balign 64",
    "50: .skip 64", // path of the mailbox
    "51: .skip 64", // path of the RAM
    "52: .skip 64", // path of the stub
    "53: .asciz \"vellum-service\"",
    ".balign 16",
    "54: .skip 16", // argv
    "vellum_stub_strings_end:",
    ".org vellum_stub_start + {park_delta}",
    "80:",
    "  mov eax, {park}",
    "  syscall",
    "  ud2",
    "vellum_stub_end:",
    // offsets for the supervisor
    ".balign 8",
    ".globl vellum_stub_labels",
    "vellum_stub_labels:",
    "  .quad vellum_stub_batch - vellum_stub_start",
    "  .quad vellum_stub_service - vellum_stub_start",
    "  .quad 50b - vellum_stub_start",
    "  .quad 51b - vellum_stub_start",
    "  .quad 52b - vellum_stub_start",
    "  .quad 54b - vellum_stub_start",
    ".popsection",
    rdwr_cloexec = const libc::O_RDWR | libc::O_CLOEXEC,
    rdwr = const libc::O_RDWR,
    open = const libc::SYS_open,
    close = const libc::SYS_close,
    mmap = const libc::SYS_mmap,
    futex = const libc::SYS_futex,
    setsid = const libc::SYS_setsid,
    prctl = const libc::SYS_prctl,
    close_range = const libc::SYS_close_range,
    pr_set_name = const libc::PR_SET_NAME,
    shared_fixed = const libc::MAP_SHARED | libc::MAP_FIXED,
    mailbox_base = const MAILBOX_BASE,
    mailbox_len = const MAILBOX_LEN,
    park = const PARK_CALL,
    park_delta = const PARK_OFFSET - CODE_OFFSET,
);

unsafe extern "C" {
    static vellum_stub_start: u8;
    static vellum_stub_end: u8;
    static vellum_stub_labels: [u64; 6];
}

/// Host paths under which a guest reaches the files of the machine.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    /// The mailbox.
    pub mailbox: String,
    /// RAM.
    pub ram: String,
}

/// The stub as an executable file of the host.
#[derive(Debug)]
pub(crate) struct Image {
    fd: OwnedFd,
    batch: u64,
    service: u64,
    path: u64,
    argv: u64,
}

impl Image {
    /// Assembles the page.
    pub(crate) fn new(paths: &Paths) -> io::Result<Self> {
        let fd = memfd(c"vellum-stub", PAGE as u64)?;
        let own_path = proc_path(&fd);
        // SAFETY: the six words are read-only data that the assembler placed there.
        let labels = unsafe { vellum_stub_labels };
        let [batch, service, mailbox, ram, path, argv] = labels.map(|at| CODE_OFFSET + at);
        let mut page = [0_u8; PAGE];
        page[..elf_header().len()].copy_from_slice(&elf_header());
        let code = blob();
        page[CODE_OFFSET as usize..][..code.len()].copy_from_slice(code);
        for (at, text) in [
            (mailbox, &paths.mailbox),
            (ram, &paths.ram),
            (path, &own_path),
        ] {
            assert!(text.len() < PATH_LEN, "path too long");
            page[at as usize..][..text.len()].copy_from_slice(text.as_bytes());
        }
        page[argv as usize..][..8].copy_from_slice(&(STUB_BASE + path).to_le_bytes());
        let map = SharedMap::new(&fd, PAGE as u64)?;
        // SAFETY: the mapping is PAGE bytes that only we know, and `page` is a buffer of its own.
        unsafe {
            map.base()
                .as_ptr()
                .copy_from_nonoverlapping(page.as_ptr(), PAGE)
        };
        let at = |offset| STUB_BASE + offset;
        Ok(Self {
            fd,
            batch: at(batch),
            service: at(service),
            path: at(path),
            argv: at(argv),
        })
    }

    /// The host path of the stub.
    pub(crate) fn host_path(&self) -> String {
        proc_path(&self.fd)
    }
    /// Where BATCH begins.
    pub(crate) fn batch(&self) -> u64 {
        self.batch
    }
    /// Where SERVICE begins.
    pub(crate) fn service(&self) -> u64 {
        self.service
    }
    /// Where a guest finds the stub's path, as an argument of execve.
    pub(crate) fn path(&self) -> u64 {
        self.path
    }
    /// Where a guest finds an argument vector for execve of the stub.
    pub(crate) fn argv(&self) -> u64 {
        self.argv
    }
    /// An empty environment for execve.
    pub(crate) fn envp(&self) -> u64 {
        self.argv + 8
    }
}

/// The path by which any process of the same user reaches one of our files.
pub(crate) fn proc_path(fd: &OwnedFd) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd())
}

fn blob() -> &'static [u8] {
    let start = &raw const vellum_stub_start;
    let end = &raw const vellum_stub_end;
    // SAFETY: both symbols bound the same read-only blob, which lives for ever.
    unsafe { std::slice::from_raw_parts(start, end as usize - start as usize) }
}

fn elf_header() -> Vec<u8> {
    const READ_EXEC: u32 = 5;
    const READ_WRITE: u32 = 6;
    const PT_LOAD: u32 = 1;
    const PT_GNU_STACK: u32 = 0x6474_e551;
    let mut out = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let half = |out: &mut Vec<u8>, v: u16| out.extend(v.to_le_bytes());
    let word = |out: &mut Vec<u8>, v: u32| out.extend(v.to_le_bytes());
    let quad = |out: &mut Vec<u8>, v: u64| out.extend(v.to_le_bytes());
    half(&mut out, 2); // ET_EXEC
    half(&mut out, 62); // EM_X86_64
    word(&mut out, 1);
    quad(&mut out, STUB_BASE + CODE_OFFSET);
    quad(&mut out, 64); // program headers follow
    quad(&mut out, 0);
    word(&mut out, 0);
    for v in [64, 56, 2, 64, 0, 0] {
        half(&mut out, v);
    }
    for (kind, flags, addr, len) in [
        (PT_LOAD, READ_EXEC, STUB_BASE, PAGE as u64),
        (PT_GNU_STACK, READ_WRITE, 0, 0),
    ] {
        word(&mut out, kind);
        word(&mut out, flags);
        for v in [0, addr, addr, len, len, PAGE as u64] {
            quad(&mut out, v);
        }
    }
    assert!(out.len() <= CODE_OFFSET as usize);
    out
}
