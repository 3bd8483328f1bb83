//! Loading programs. Source: `fs/binfmt_elf.c`, `fs/binfmt_script.c`.

use crate::cpu::{USER_CODE, USER_DATA};
use crate::fs::{
    EACCES, EFAULT, EISDIR, ELOOP, ENOEXEC, ENOMEM, Inode, Place, Result, S_IFDIR, S_IFREG, lookup,
    procfs,
};
use crate::machine::system;
use crate::task::{self, Task};
use crate::trap::TrapFrame;
use crate::{random, x86};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use vellum_bare::elf::{self, ElfError, Program, Segment};
use vellum_bare::stack::{self, Loaded};
use vellum_system::{FileRef, Limits, Mm, MmLayout, MmRef, MmapRequest};
use vellum_types::VirtAddr;

const PAGE: u64 = 4096;
const MAP_PRIVATE_FIXED: u32 = 0x12;
const MAP_ANONYMOUS: u32 = 0x20;
const MAP_GROWSDOWN: u32 = 0x100;
const READ_WRITE: u32 = 3;
/// The last page is left out: SYSRET behind a call at its end would return to a bad address.
const STACK_TOP: u64 = 0x7fff_ffff_e000;
/// What Linux gives a stack before it grows.
const STACK_START: u64 = 0x2_1000;
/// Without randomisation, as `norandmaps` has it.
const MMAP_BASE: u64 = 0x7fff_f7ff_f000;
const PIE_BASE: u64 = 0x5555_5555_4000;
/// Scripts that name scripts.
const MAX_SCRIPTS: u32 = 5;

/// A program that is in memory.
pub(crate) struct Image {
    pub(crate) mm: MmRef<'static>,
    pub(crate) entry: u64,
    pub(crate) stack: u64,
    pub(crate) path: String,
}

/// Why a program could not be loaded.
pub(crate) enum LoadError {
    /// An errno says enough.
    Errno(i32),
    /// The file is not a program for us.
    File(ElfError),
}

impl From<i32> for LoadError {
    fn from(errno: i32) -> Self {
        Self::Errno(errno)
    }
}

/// What is to be loaded.
pub(crate) struct Request<'a> {
    pub(crate) place: &'a Place,
    pub(crate) path: &'a str,
    pub(crate) arguments: Vec<Vec<u8>>,
    pub(crate) environment: &'a [Vec<u8>],
    pub(crate) limits: Limits,
}

/// Makes an address space with the program in it.
pub(crate) fn load(mut request: Request<'_>) -> core::result::Result<Image, LoadError> {
    let mut path = match request.path.strip_prefix("/proc/").and_then(procfs::link) {
        Some(target) => target,
        None => request.path.to_string(),
    };
    for _ in 0..MAX_SCRIPTS {
        let inode = lookup(&request.place.folder, &path, true)?;
        match inode.kind() {
            S_IFREG if inode.mode.load(Ordering::Relaxed) & 0o111 != 0 => {}
            S_IFDIR => return Err(EISDIR.min(EACCES).into()),
            _ => return Err(EACCES.into()),
        }
        let mapping = inode.mapping().ok_or(EACCES)?;
        let mut head = vec![0; elf::HEAD_BYTES.min(mapping.size() as usize)];
        system()
            .kernel_read(mapping, 0, &mut head)
            .map_err(|error| error.errno())?;
        if let Some(line) = head.strip_prefix(b"#!") {
            path = script(line, &path, &mut request.arguments)?;
            continue;
        }
        let program = elf::parse(&head, mapping.size()).map_err(LoadError::File)?;
        let mm = system().mm_create().map_err(|error| error.errno())?;
        task::adopt(&mm);
        mm.set_limits(request.limits);
        return match fill(&mm, &inode, &program, &path, &request) {
            Ok((entry, stack)) => Ok(Image {
                mm,
                entry,
                stack,
                path: full_path(request.place, &path),
            }),
            Err(errno) => {
                system().mm_put(mm);
                Err(errno.into())
            }
        };
    }
    Err(ELOOP.into())
}

fn full_path(place: &Place, path: &str) -> String {
    if path.starts_with('/') {
        path.to_string()
    } else {
        alloc::format!("{}/{path}", place.path.trim_end_matches('/'))
    }
}

/// `#!interpreter argument`: the interpreter is run with the script's path.
fn script(line: &[u8], path: &str, arguments: &mut Vec<Vec<u8>>) -> Result<String> {
    let end = line.iter().position(|b| *b == b'\n').unwrap_or(line.len());
    let line = core::str::from_utf8(&line[..end])
        .map_err(|_| ENOEXEC)?
        .trim();
    let (interpreter, argument) = match line.split_once([' ', '\t']) {
        Some((interpreter, argument)) => (interpreter, Some(argument.trim())),
        None => (line, None),
    };
    if interpreter.is_empty() {
        return Err(ENOEXEC);
    }
    let mut new = vec![interpreter.as_bytes().to_vec()];
    new.extend(argument.map(|argument| argument.as_bytes().to_vec()));
    new.push(path.as_bytes().to_vec());
    new.extend(arguments.drain(..).skip(1));
    *arguments = new;
    Ok(interpreter.to_string())
}

/// Maps segments and stack; returns entry point and stack pointer.
fn fill(
    mm: &Mm<'static>,
    inode: &Arc<Inode>,
    program: &Program,
    path: &str,
    request: &Request<'_>,
) -> Result<(u64, u64)> {
    let base = if program.relocatable { PIE_BASE } else { 0 };
    let last = program.segments.last().ok_or(ENOEXEC)?;
    let end = (base + last.address + last.memory_size).next_multiple_of(PAGE);
    let code = program
        .segments
        .iter()
        .find(|s| s.prot & 4 != 0)
        .unwrap_or(last);
    let data = program
        .segments
        .iter()
        .find(|s| s.prot & 2 != 0)
        .unwrap_or(last);
    let mut layout = MmLayout {
        mmap_base: MMAP_BASE,
        start_brk: end,
        start_code: base + code.address,
        end_code: base + code.address + code.file_size,
        start_data: base + data.address,
        end_data: base + data.address + data.file_size,
        ..MmLayout::default()
    };
    mm.set_layout(layout);
    for segment in &program.segments {
        map_segment(mm, inode, segment, base)?;
    }
    map(
        mm,
        STACK_TOP - STACK_START,
        STACK_START,
        READ_WRITE,
        MAP_ANONYMOUS | MAP_GROWSDOWN,
    )?;
    let mut seed = [0; 16];
    random::fill(&mut seed);
    let loaded = Loaded {
        entry: base + program.entry,
        headers_at: if program.headers_at == 0 {
            0
        } else {
            base + program.headers_at
        },
        headers: program.headers,
    };
    let stack = stack::build(
        STACK_TOP,
        &request.arguments,
        request.environment,
        path.as_bytes(),
        loaded,
        seed,
    );
    if STACK_TOP - stack.pointer > request.limits.stack / 4 * 3 {
        return Err(crate::fs::E2BIG);
    }
    system()
        .copy_to_user(mm, VirtAddr::new(stack.pointer), &stack.bytes)
        .map_err(|_| EFAULT)?;
    layout.start_stack = stack.pointer;
    (layout.arg_start, layout.arg_end) = stack.arguments;
    (layout.env_start, layout.env_end) = stack.environment;
    mm.set_layout(layout);
    Ok((base + program.entry, stack.pointer))
}

fn map(mm: &Mm<'static>, addr: u64, len: u64, prot: u32, flags: u32) -> Result<()> {
    let request = MmapRequest {
        addr,
        len,
        prot,
        flags: MAP_PRIVATE_FIXED | flags,
        file: None,
        offset: 0,
    };
    system()
        .mmap(mm, request)
        .map(drop)
        .map_err(|error| error.errno())
}

fn map_segment(mm: &Mm<'static>, inode: &Arc<Inode>, segment: &Segment, base: u64) -> Result<()> {
    let start = base + segment.address;
    let (file_end, memory_end) = (start + segment.file_size, start + segment.memory_size);
    let first = start & !(PAGE - 1);
    let mut mapped = first;
    if segment.file_size > 0 {
        mapped = file_end.next_multiple_of(PAGE);
        let request = MmapRequest {
            addr: first,
            len: mapped - first,
            prot: segment.prot,
            flags: MAP_PRIVATE_FIXED,
            file: Some(FileRef {
                mapping: inode.mapping().ok_or(EACCES)?.clone(),
                readable: true,
                writable: false,
                exec_ok: true,
            }),
            offset: segment.offset & !(PAGE - 1),
        };
        system().mmap(mm, request).map_err(|error| error.errno())?;
        let tail = memory_end.min(mapped).saturating_sub(file_end);
        if tail > 0 && segment.prot & 2 != 0 {
            let zeroes = [0; PAGE as usize];
            system()
                .copy_to_user(mm, VirtAddr::new(file_end), &zeroes[..tail as usize])
                .map_err(|_| ENOMEM)?;
        }
    }
    if memory_end > mapped {
        let len = (memory_end - mapped).next_multiple_of(PAGE);
        map(mm, mapped, len, segment.prot, MAP_ANONYMOUS)?;
    }
    Ok(())
}

/// The registers with which a program begins.
pub(crate) fn first_frame(entry: u64, stack: u64) -> TrapFrame {
    // SAFETY: numbers, for which all zeroes are fine.
    let mut frame: TrapFrame = unsafe { core::mem::zeroed() };
    frame.fx[..2].copy_from_slice(&0x37fu16.to_le_bytes());
    frame.fx[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
    frame.rip = entry;
    frame.rsp = stack;
    frame.rflags = 0x202;
    frame.cs = u64::from(USER_CODE);
    frame.ss = u64::from(USER_DATA);
    frame
}

/// execve(2) for the current task.
pub(crate) fn replace(
    task: &Task,
    frame: &mut TrapFrame,
    path: &str,
    arguments: Vec<Vec<u8>>,
    environment: Vec<Vec<u8>>,
) -> Result<()> {
    let process = &task.process;
    let place = process.place.lock().clone();
    let limits = *process.limits.lock();
    let image = load(Request {
        place: &place,
        path,
        arguments,
        environment: &environment,
        limits,
    })
    .map_err(|error| match error {
        LoadError::Errno(errno) => errno,
        LoadError::File(error) => {
            if crate::init::verbose() || matches!(error, ElfError::Dynamic(_)) {
                crate::serial::kprintln!("{path}: {error}");
            }
            error.errno()
        }
    })?;
    name(task, &image.path);
    *process.mm.lock() = Some(image.mm.clone());
    let old = task.set_mm(Some(image.mm));
    if let Some(old) = old {
        system().mm_put(old);
    }
    *frame = first_frame(image.entry, image.stack);
    for base in [
        &task.fs_base,
        &task.gs_base,
        &task.clear_tid,
        &task.robust_list,
    ] {
        base.store(0, Ordering::Relaxed);
    }
    // SAFETY: zero is a fine base for a segment that is not used yet.
    unsafe { x86::wrmsr(x86::FS_BASE, 0) };
    // SAFETY: as above.
    unsafe { x86::wrmsr(x86::KERNEL_GS_BASE, 0) };
    Ok(())
}

/// The process is known by its program's name from here on.
pub(crate) fn name(task: &Task, path: &str) {
    let mut short = path.rsplit('/').next().unwrap_or(path).to_string();
    short.truncate(15);
    *task.process.name.lock() = short;
    *task.process.executable.lock() = path.to_string();
}
