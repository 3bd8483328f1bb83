//! execve(2) and execveat(2), up to the point where the host takes part.

use super::auxv::{self, Facts};
use super::elf;
use super::image::{self, Object};
use super::program::{Ids, executable, ids, object, read};
use super::user::User;
use super::{ImageState, Program, fd, memory, paths};
use crate::engine::{Engine, Image};
use crate::facade::{MmLayout, MmRef};
use crate::task::Task;
use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;
use vellum_types::VirtAddr;

type Result<T> = core::result::Result<T, i32>;

/// Interpreters of interpreters.
const MAX_DEPTH: usize = 5;
/// `MAX_ARG_STRLEN`.
const MAX_STRING: usize = 128 << 10;
/// Arguments and environment together, at least and at most.
const MAX_STRINGS: (u64, u64) = (128 << 10, 6 << 20);
/// How much of a file decides what it is.
const START: usize = 256;

/// What a new program is told.
#[derive(Debug)]
struct Request {
    /// As it was named: AT_EXECFN, and the task's name.
    name: Vec<u8>,
    arguments: Vec<Vec<u8>>,
    environment: Vec<Vec<u8>>,
}

/// Where names are looked up.
enum Place<'a, 'm> {
    /// As the task would: its root, its directory, its `/proc/self`.
    Task(&'a Task<'m>, Ids),
    /// As the supervisor would.
    Own,
}

impl<'m> Place<'_, 'm> {
    fn open(&self, engine: &mut Engine<'m>, dir: i32, path: &[u8]) -> Result<OwnedFd> {
        match self {
            Self::Task(task, ids) => {
                let located = paths::locate(engine, task, dir, path)?;
                let _as_user = ids.assume();
                located.open(libc::O_PATH)
            }
            Self::Own if path.is_empty() => Err(libc::ENOENT),
            Self::Own => fd::open_at(None, path, libc::O_PATH),
        }
    }
    /// RLIMIT_AS.
    fn address_space(&self) -> u64 {
        match self {
            Self::Task(task, _) => task.mm.limits().address_space,
            Self::Own => u64::MAX,
        }
    }
    /// The process whose limits count.
    fn pid(&self) -> i32 {
        match self {
            Self::Task(task, _) => task.tgid,
            Self::Own => 0,
        }
    }
}

/// Loads the program that an execve or execveat of `task` names (arguments in its registers).
///
/// # Errors
/// A positive errno for the guest.
pub fn exec_image<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>) -> Result<Image<'m>> {
    let at = task.nr() == libc::SYS_execveat;
    let first = usize::from(at);
    let dir = if at {
        task.arg(0) as i32
    } else {
        libc::AT_FDCWD
    };
    let flags = if at { task.arg(4) as i32 } else { 0 };
    if flags & !(libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW) != 0 {
        return Err(libc::EINVAL);
    }
    let ids = ids(task.tid)?;
    let path = paths::read_path(engine, task, task.arg(first))?;
    let arguments = strings(engine, task, task.arg(first + 1))?;
    let environment = strings(engine, task, task.arg(first + 2))?;
    let (file, name) = if path.is_empty() && flags & libc::AT_EMPTY_PATH != 0 {
        let file = engine.abi.descriptors.get(task.tgid, task.tid, dir)?;
        (
            fd::reopen(&file, libc::O_PATH)?,
            format!("/dev/fd/{dir}").into_bytes(),
        )
    } else {
        let nofollow = flags & libc::AT_SYMLINK_NOFOLLOW != 0;
        let follow = if nofollow { libc::O_NOFOLLOW } else { 0 };
        let located = paths::locate(engine, task, dir, &path)?;
        let file = {
            let _as_user = ids.assume();
            located.open(libc::O_PATH | follow)?
        };
        if fd::stat(&file)?.mode & libc::S_IFMT == libc::S_IFLNK {
            return Err(libc::ELOOP);
        }
        let name = if dir == libc::AT_FDCWD || path.starts_with(b"/") {
            path
        } else {
            [format!("/dev/fd/{dir}/").as_bytes(), &path].concat()
        };
        (file, name)
    };
    build(
        engine,
        &Place::Task(task, ids),
        file,
        Request {
            name,
            arguments,
            environment,
        },
        ids,
    )
}

/// Loads the first program. `program` is a path; `argv` includes argument zero; the directory is the
/// supervisor's.
///
/// # Errors
/// A positive errno.
pub fn first_image<'m>(
    engine: &mut Engine<'m>,
    program: &OsStr,
    argv: &[&OsStr],
    envp: &[(&OsStr, &OsStr)],
) -> Result<Image<'m>> {
    let place = Place::Own;
    let name = program.as_bytes().to_vec();
    let file = place.open(engine, libc::AT_FDCWD, &name)?;
    let arguments = argv
        .iter()
        .map(|argument| argument.as_bytes().to_vec())
        .collect();
    let environment = envp
        .iter()
        .map(|(key, value)| [key.as_bytes(), b"=", value.as_bytes()].concat())
        .collect();
    let ids = ids(std::process::id() as i32)?;
    build(
        engine,
        &place,
        file,
        Request {
            name,
            arguments,
            environment,
        },
        ids,
    )
}

/// A vector of strings that ends with a null pointer.
fn strings<'m>(engine: &Engine<'m>, task: &Task<'m>, at: u64) -> Result<Vec<Vec<u8>>> {
    let user = User {
        system: &engine.sys,
        mm: &task.mm,
    };
    let mut list = Vec::new();
    let mut total = 0;
    if at == 0 {
        return Ok(list);
    }
    loop {
        let pointer = user.read_u64(at.wrapping_add(8 * list.len() as u64))?;
        if pointer == 0 {
            return Ok(list);
        }
        let string = user.read_string(pointer, MAX_STRING, libc::E2BIG)?;
        total += string.len() as u64 + 9;
        if total > MAX_STRINGS.1 {
            return Err(libc::E2BIG);
        }
        list.push(string);
    }
}

/// From a file to an image: follows `#!`, finds the interpreter, maps both.
fn build<'m>(
    engine: &mut Engine<'m>,
    place: &Place<'_, 'm>,
    mut file: OwnedFd,
    mut request: Request,
    ids: Ids,
) -> Result<Image<'m>> {
    if request.arguments.is_empty() {
        // Since 5.18: no program starts without a name.
        request.arguments.push(Vec::new());
    }
    let name = request.name.clone();
    let mut script_name = name.clone();
    let mut depth = 0;
    let mapping = loop {
        let mapping = executable(engine, &file, ids)?;
        let start = read(engine, &mapping, 0, START)?;
        if !start.starts_with(b"#!") {
            break mapping;
        }
        depth += 1;
        if depth > MAX_DEPTH {
            return Err(libc::ELOOP);
        }
        let (interpreter, argument) = elf::script(&start)?;
        let mut arguments = vec![interpreter.to_vec()];
        arguments.extend(argument.map(<[u8]>::to_vec));
        arguments.push(script_name);
        arguments.extend(request.arguments.drain(1..));
        request.arguments = arguments;
        file = place.open(engine, libc::AT_FDCWD, interpreter)?;
        script_name = interpreter.to_vec();
    };
    let program = object(engine, mapping)?;
    let interpreter = match program.segments.interpreter {
        Some((offset, len)) => {
            let name = read(engine, &program.mapping, offset, len as usize)?;
            let name = name.strip_suffix(b"\0").ok_or(libc::ENOEXEC)?;
            let file = place.open(engine, libc::AT_FDCWD, name)?;
            let mapping = executable(engine, &file, ids)?;
            // A bad interpreter is ELIBBAD, as a bad library.
            Some(object(engine, mapping).map_err(|_| libc::ELIBBAD)?)
        }
        None => None,
    };
    let limits = memory::limits(place.pid(), place.address_space());
    let room = (limits.stack / 4).clamp(MAX_STRINGS.0, MAX_STRINGS.1);
    if auxv::size(&name, &request.arguments, &request.environment) > room {
        return Err(libc::E2BIG);
    }
    let path = fd::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()).as_bytes())?;

    let mm = engine.sys.mm_create().map_err(|error| error.errno())?;
    mm.set_limits(limits);
    match fill(
        engine,
        &mm,
        &program,
        interpreter.as_ref(),
        &request,
        ids,
        limits.stack,
    ) {
        Ok((entry, sp, vdso_slot)) => Ok(Image {
            mm,
            entry,
            sp,
            vdso_slot: Some(vdso_slot),
            comm: comm(&name),
            abi: ImageState {
                program: Rc::new(Program { path, file }),
            },
        }),
        Err(errno) => {
            engine.sys.mm_put(mm);
            Err(errno)
        }
    }
}

/// The task's name: the last component of the path, at most 15 bytes.
fn comm(name: &[u8]) -> [u8; 16] {
    let base = name.rsplit(|byte| *byte == b'/').next().unwrap_or(name);
    let mut comm = [0; 16];
    let len = base.len().min(15);
    comm[..len].copy_from_slice(&base[..len]);
    comm
}

/// Maps everything into `mm`; answers the entry, the stack pointer and the vdso's slot.
fn fill<'m>(
    engine: &Engine<'m>,
    mm: &MmRef<'m>,
    program: &Object<'m>,
    interpreter: Option<&Object<'m>>,
    request: &Request,
    ids: Ids,
    stack_limit: u64,
) -> Result<(u64, u64, VirtAddr)> {
    let mut layout = MmLayout {
        task_size: image::TASK_SIZE,
        mmap_min: 0x1_0000,
        mmap_base: image::mmap_base(stack_limit),
        ..MmLayout::default()
    };
    mm.set_layout(layout);
    let executable_stack = program
        .segments
        .stack_flags
        .is_some_and(|f| f & elf::EXECUTE != 0);
    image::map_stack(engine, mm, executable_stack)?;
    let loaded = image::load(engine, mm, program, false)?;
    // The heap is known before anything else is placed.
    layout.start_brk = loaded.end;
    mm.set_layout(layout);
    let base = match interpreter {
        Some(object) => Some(image::load(engine, mm, object, true)?),
        None => None,
    };
    let facts = Facts {
        headers: program
            .segments
            .headers
            .map_or(0, |at| at.wrapping_add(loaded.bias)),
        header_count: u64::from(program.header.count),
        base: base.map_or(0, |base| base.bias),
        entry: loaded.entry,
        user: ids.user,
        group: ids.group,
        hwcap: host_fact(libc::AT_HWCAP),
        hwcap2: host_fact(libc::AT_HWCAP2),
        signal_stack: host_fact(libc::AT_MINSIGSTKSZ),
        random: random()?,
    };
    let (arguments, environment) = (&request.arguments, &request.environment);
    let stack = auxv::stack(
        image::STACK_TOP,
        &request.name,
        arguments,
        environment,
        &facts,
    );
    // The stack is written before the program runs, so it grows here as if by faults.
    let start = VirtAddr::new(stack.sp);
    let len = stack.bytes.len() as u64;
    if len > image::STACK_SIZE {
        let access = vellum_types::Access::Write;
        let grown = engine.sys.fault_in(mm, start, len, access, Some(start));
        if grown.map_err(|error| error.errno())? < len {
            return Err(libc::E2BIG);
        }
    }
    engine
        .sys
        .copy_to_user(mm, start, &stack.bytes)
        .map_err(|_| libc::ENOMEM)?;
    (layout.start_code, layout.end_code) = loaded.code;
    (layout.start_data, layout.end_data) = loaded.data;
    layout.start_stack = stack.sp;
    (layout.arg_start, layout.arg_end) = stack.arguments;
    (layout.env_start, layout.env_end) = stack.environment;
    mm.set_layout(layout);
    let entry = base.map_or(loaded.entry, |base| base.entry);
    Ok((entry, stack.sp, VirtAddr::new(stack.vdso_slot)))
}

fn host_fact(key: u64) -> u64 {
    // SAFETY: takes no pointer.
    unsafe { libc::getauxval(key) }
}

fn random() -> Result<[u8; 16]> {
    let mut bytes = [0u8; 16];
    // SAFETY: the buffer holds as many bytes as are said.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got == 16 { Ok(bytes) } else { Err(libc::EIO) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tasks() {
        assert_eq!(&comm(b"/usr/bin/python3")[..9], b"python3\0\0");
        assert_eq!(&comm(b"a-very-long-program-name")[..], b"a-very-long-pro\0");
        assert_eq!(comm(b""), [0; 16]);
    }
}
