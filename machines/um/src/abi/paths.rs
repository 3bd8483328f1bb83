//! Calls with paths: those into `/proc` that would show the host's idea of a process's memory are
//! led elsewhere.
//!
//! A path is replaced by one of the supervisor's own descriptors, `/proc/PID/fd/N`, which is short
//! enough to stand in the task's scratch memory for the time of the call.

use super::calls::AtExit;
use super::prefault::prefault_call;
use super::user::User;
use super::{fd, procfs};
use crate::engine::{Action, Engine};
use crate::task::Task;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

type Result<T> = core::result::Result<T, i32>;

/// Reads the path at `at` of the task's memory.
pub(super) fn read_path<'m>(engine: &Engine<'m>, task: &Task<'m>, at: u64) -> Result<Vec<u8>> {
    User {
        system: &engine.sys,
        mm: &task.mm,
    }
    .read_path(at)
}

/// Lets a stopped call that opens a file run with a path that names our descriptor `target`.
pub fn open_ours<'m>(
    engine: &mut Engine<'m>,
    task: &mut Task<'m>,
    target: RawFd,
    flags: i32,
    (arg, flags_arg): (usize, usize),
) -> Action {
    // The replacement is a link, and may be followed.
    task.set_arg(flags_arg, (flags & !libc::O_NOFOLLOW) as u32 as u64);
    let path = format!("/proc/{}/fd/{target}\0", std::process::id()).into_bytes();
    let words: Vec<u64> = path
        .chunks(8)
        .map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_le_bytes(word)
        })
        .collect();
    let slot = engine.machine.with(task.space, |space| {
        space.service.map(|service| service.slot)
    });
    let Some(slot) = slot else {
        return prefault_call(engine, task);
    };
    let at = engine.machine.mailbox().scratch(slot, task.tid, &words);
    task.set_arg(arg, at);
    prefault_call(engine, task);
    Action::NativeExit
}

/// open, openat, openat2, creat.
pub(super) fn open<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>) -> Action {
    let (arg, flags_arg) = match task.nr() {
        libc::SYS_open | libc::SYS_creat => (0, 1),
        _ => (1, 2),
    };
    let flags = match task.nr() {
        libc::SYS_creat => libc::O_TRUNC,
        libc::SYS_openat2 => engine.read_u64(task, task.arg(2)).unwrap_or(0) as i32,
        _ => task.arg(flags_arg) as i32,
    };
    if flags & libc::O_TRUNC != 0 {
        prefault_call(engine, task);
        task.abi.at_exit = AtExit::RefreshOpened;
        return Action::NativeExit;
    }
    let Ok(path) = read_path(engine, task, task.arg(arg)) else {
        return prefault_call(engine, task);
    };
    let target = match procfs::node(&path, task) {
        Some(node) if task.nr() != libc::SYS_openat2 && flags & libc::O_PATH == 0 => {
            procfs::open(engine, task, node)
        }
        _ => None,
    };
    match target {
        Some(target) => Action::OpenOurs {
            target,
            flags,
            args: (arg, flags_arg),
        },
        None => prefault_call(engine, task),
    }
}

/// stat, access and their kin: of a program's file, not of the stub that the host runs.
pub(super) fn examine<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>) -> Action {
    let (arg, follows) = match task.nr() {
        libc::SYS_stat | libc::SYS_access => (0, true),
        libc::SYS_lstat => (0, false),
        libc::SYS_newfstatat => (1, task.arg(3) as i32 & libc::AT_SYMLINK_NOFOLLOW == 0),
        libc::SYS_statx => (1, task.arg(2) as i32 & libc::AT_SYMLINK_NOFOLLOW == 0),
        _ => (1, true),
    };
    if follows
        && let Ok(path) = read_path(engine, task, task.arg(arg))
        && let Some(node) = procfs::node(&path, task)
        && let Some(program) = procfs::program(engine, task, &node)
    {
        return examine_program(engine, task, arg, &program.file);
    }
    prefault_call(engine, task)
}

/// Answers a question about a program's file, which the host would answer for the stub.
fn examine_program<'m>(engine: &Engine<'m>, task: &Task<'m>, arg: usize, file: &OwnedFd) -> Action {
    let (answer, to) = match task.nr() {
        libc::SYS_stat | libc::SYS_lstat | libc::SYS_newfstatat => {
            (fd::stat_bytes(file), task.arg(arg + 1))
        }
        libc::SYS_statx => (
            fd::statx_bytes(file, task.arg(2) as i32, task.arg(3) as u32),
            task.arg(4),
        ),
        _ => {
            let mode = task.arg(arg + 1) as i32;
            (fd::access(file, mode).map(|()| Vec::new()), 0)
        }
    };
    Action::Return(match answer {
        Ok(bytes) if bytes.is_empty() || engine.write_user(task, to, &bytes) => 0,
        Ok(_) => -i64::from(libc::EFAULT),
        Err(errno) => -i64::from(errno),
    })
}

/// readlink and readlinkat.
pub(super) fn read_link<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>) -> Action {
    let arg = if task.nr() == libc::SYS_readlink {
        0
    } else {
        1
    };
    let (to, size) = (task.arg(arg + 1), task.arg(arg + 2));
    if let Ok(path) = read_path(engine, task, task.arg(arg))
        && let Some(node) = procfs::node(&path, task)
        && let Some(program) = procfs::program(engine, task, &node)
    {
        if size as i32 <= 0 {
            return Action::Return(-i64::from(libc::EINVAL));
        }
        let len = program.path.len().min(size as usize);
        return if engine.write_user(task, to, &program.path[..len]) {
            Action::Return(len as i64)
        } else {
            Action::Return(-i64::from(libc::EFAULT))
        };
    }
    prefault_call(engine, task)
}

/// Opens, by path only, what a path means to the task.
///
/// # Errors
/// The host's errno.
pub(super) fn resolve<'m>(
    engine: &mut Engine<'m>,
    task: &Task<'m>,
    dir: i32,
    at: u64,
) -> Result<OwnedFd> {
    let path = read_path(engine, task, at)?;
    resolve_path(engine, task, dir, &path, libc::O_PATH)
}

/// As [`resolve`], with the path at hand and flags for open(2).
fn resolve_path<'m>(
    engine: &mut Engine<'m>,
    task: &Task<'m>,
    dir: i32,
    path: &[u8],
    flags: i32,
) -> Result<OwnedFd> {
    locate(engine, task, dir, path)?.open(flags)
}

/// Where a task's path leads, from our point of view.
#[derive(Debug)]
pub(super) struct Located {
    /// Where `path` begins; the root if `None`.
    base: Option<OwnedFd>,
    path: Vec<u8>,
}

impl Located {
    /// Opens it; the only step for which the task's ids count.
    ///
    /// # Errors
    /// The host's errno.
    pub(super) fn open(&self, flags: i32) -> Result<OwnedFd> {
        fd::open_at(self.base.as_ref().map(AsFd::as_fd), &self.path, flags)
    }
}

/// Finds out what a path means to the task: its root, its directory, its `/proc/self`.
///
/// # Errors
/// ENOENT for an empty path, or the host's errno.
pub(super) fn locate<'m>(
    engine: &mut Engine<'m>,
    task: &Task<'m>,
    dir: i32,
    path: &[u8],
) -> Result<Located> {
    if path.is_empty() {
        return Err(libc::ENOENT);
    }
    let absolute = |path| Located { base: None, path };
    if let Some(node) = procfs::node(path, task)
        && let Some(program) = procfs::program(engine, task, &node)
    {
        let number = program.file.as_raw_fd();
        return Ok(absolute(format!("/proc/self/fd/{number}").into_bytes()));
    }
    let path = own_view(path, task.tgid, task.tid);
    if path.starts_with(b"/") {
        let mut root = format!("/proc/{}/root", task.tid).into_bytes();
        if fd::read_link(&root).is_ok_and(|root| root != b"/") {
            root.extend_from_slice(&path);
            return Ok(absolute(root));
        }
        return Ok(absolute(path));
    }
    let base = if dir == libc::AT_FDCWD {
        let cwd = format!("/proc/{}/cwd", task.tid);
        fd::open_at(None, cwd.as_bytes(), libc::O_PATH)?
    } else {
        engine.abi.descriptors.get(task.tgid, task.tid, dir)?
    };
    Ok(Located {
        base: Some(base),
        path,
    })
}

/// Paths that mean something else to each process, from ours to the task's.
fn own_view(path: &[u8], tgid: i32, tid: i32) -> Vec<u8> {
    let replaced: [(&[u8], String); 6] = [
        (b"/proc/self", format!("/proc/{tgid}")),
        (b"/proc/thread-self", format!("/proc/{tgid}/task/{tid}")),
        (b"/dev/fd", format!("/proc/{tgid}/fd")),
        (b"/dev/stdin", format!("/proc/{tgid}/fd/0")),
        (b"/dev/stdout", format!("/proc/{tgid}/fd/1")),
        (b"/dev/stderr", format!("/proc/{tgid}/fd/2")),
    ];
    for (prefix, by) in replaced {
        if let Some(rest) = path.strip_prefix(prefix)
            && (rest.is_empty() || rest[0] == b'/')
        {
            let mut path = by.into_bytes();
            path.extend_from_slice(rest);
            return path;
        }
    }
    path.to_vec()
}

#[cfg(test)]
mod tests {
    use super::own_view;

    #[test]
    fn self_is_whoever_asks() {
        let view = |path: &str| String::from_utf8(own_view(path.as_bytes(), 7, 8)).unwrap();
        assert_eq!(view("/proc/self/fd/3"), "/proc/7/fd/3");
        assert_eq!(view("/proc/thread-self/comm"), "/proc/7/task/8/comm");
        assert_eq!(view("/dev/fd/9"), "/proc/7/fd/9");
        assert_eq!(view("/dev/stdin"), "/proc/7/fd/0");
        assert_eq!(view("/proc/selfish"), "/proc/selfish");
        assert_eq!(view("/etc/passwd"), "/etc/passwd");
    }
}
