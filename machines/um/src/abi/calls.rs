//! From a call's number to what answers it.

use super::table::{self, How};
use super::{changes, files, memory, paths, peer, prefault, procfs, special, transfer};
use crate::engine::{Action, Engine};
use crate::task::Task;
use vellum_types::FileId;

type Result<T> = core::result::Result<T, i32>;

/// What is to be done at the exit of a call that the host runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum AtExit {
    /// Nothing.
    #[default]
    Nothing,
    /// The host may have changed this file.
    Refresh(FileId),
    /// The call opened a file and perhaps cut it to nothing.
    RefreshOpened,
    /// The limits of this process may have changed.
    Limits(i32),
}

/// An errno for the program.
pub(super) fn fail(errno: i32) -> Action {
    Action::Return(-i64::from(errno))
}

fn answer(result: Result<i64>) -> Action {
    Action::Return(match result {
        Ok(value) => value,
        Err(errno) => -i64::from(errno),
    })
}

/// See [`super::dispatch`].
pub(super) fn enter<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>) -> Action {
    let nr = task.nr();
    task.abi.at_exit = AtExit::Nothing;
    match nr {
        libc::SYS_mmap => answer(memory::mmap(engine, task)),
        libc::SYS_munmap
        | libc::SYS_mprotect
        | libc::SYS_pkey_mprotect
        | libc::SYS_mremap
        | libc::SYS_brk
        | libc::SYS_madvise
        | libc::SYS_msync
        | libc::SYS_mincore
        | libc::SYS_mlock
        | libc::SYS_mlock2
        | libc::SYS_munlock
        | libc::SYS_mlockall
        | libc::SYS_munlockall => answer(memory::other(engine, task)),

        libc::SYS_read
        | libc::SYS_pread64
        | libc::SYS_readv
        | libc::SYS_preadv
        | libc::SYS_preadv2 => transfer::read(engine, task),
        libc::SYS_write
        | libc::SYS_pwrite64
        | libc::SYS_writev
        | libc::SYS_pwritev
        | libc::SYS_pwritev2 => transfer::write(engine, task),
        libc::SYS_sendfile => changes::send_file(engine, task),
        libc::SYS_copy_file_range => changes::copy_range(engine, task),
        libc::SYS_splice => changes::splice(engine, task),
        libc::SYS_ftruncate => changes::truncate_open(engine, task),
        libc::SYS_truncate => changes::truncate(engine, task),
        libc::SYS_fallocate => changes::allocate(engine, task),
        libc::SYS_fsync | libc::SYS_fdatasync | libc::SYS_sync_file_range => {
            changes::sync(engine, task)
        }
        libc::SYS_sync | libc::SYS_syncfs => {
            // Errors are told to those who sync the file itself.
            let _ = engine.sys.writeback_all();
            Action::Native
        }

        libc::SYS_open | libc::SYS_openat | libc::SYS_openat2 | libc::SYS_creat => {
            paths::open(engine, task)
        }
        libc::SYS_readlink | libc::SYS_readlinkat => paths::read_link(engine, task),
        libc::SYS_stat
        | libc::SYS_lstat
        | libc::SYS_newfstatat
        | libc::SYS_statx
        | libc::SYS_access
        | libc::SYS_faccessat
        | libc::SYS_faccessat2 => paths::examine(engine, task),

        libc::SYS_process_vm_readv | libc::SYS_process_vm_writev => peer::copy(engine, task),
        libc::SYS_close | libc::SYS_close_range | libc::SYS_dup2 | libc::SYS_dup3 => {
            closing(engine, task);
            Action::Native
        }
        libc::SYS_unshare => {
            if task.arg(0) & libc::CLONE_FILES as u64 != 0 {
                engine.abi.known_files.splits(task.tgid);
            }
            Action::Native
        }

        libc::SYS_sysinfo => answer(procfs::sysinfo(engine, task)),
        libc::SYS_ioctl
        | libc::SYS_fcntl
        | libc::SYS_futex
        | libc::SYS_prctl
        | libc::SYS_arch_prctl
        | libc::SYS_setrlimit
        | libc::SYS_getrlimit
        | libc::SYS_prlimit64
        | libc::SYS_seccomp
        | libc::SYS_setsockopt
        | libc::SYS_personality
        | libc::SYS_memfd_create
        | libc::SYS_restart_syscall
        | special::SYS_FUTEX_WAITV
        | special::SYS_FUTEX_WAKE
        | special::SYS_FUTEX_WAIT
        | special::SYS_FUTEX_REQUEUE => special::call(engine, task),
        _ => by_table(engine, task),
    }
}

/// Forgets what the numbers refer to that the call closes.
fn closing<'m>(engine: &mut Engine<'m>, task: &Task<'m>) {
    const UNSHARE: u64 = 2;
    let (known, tgid, tid) = (&mut engine.abi.known_files, task.tgid, task.tid);
    match task.nr() {
        libc::SYS_close => known.closes(tgid, tid, task.arg(0) as i32),
        libc::SYS_close_range => {
            known.closes_range(tgid, tid, task.arg(0) as u32, task.arg(1) as u32);
            if task.arg(2) & UNSHARE != 0 {
                known.splits(tgid);
            }
        }
        _ if task.arg(0) as i32 != task.arg(1) as i32 => {
            known.closes(tgid, tid, task.arg(1) as i32);
        }
        _ => {}
    }
}

fn by_table<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>) -> Action {
    let nr = task.nr() as u64;
    match table::call(nr).how {
        How::Refuse(errno) => {
            *engine.abi.odd_calls.entry(nr).or_insert(0) += 1;
            answer(Err(errno))
        }
        How::Unknown => {
            *engine.abi.odd_calls.entry(nr).or_insert(0) += 1;
            prefault::prefault_call(engine, task)
        }
        _ => {
            special::remember_restartable(task);
            prefault::prefault_call(engine, task)
        }
    }
}

/// See [`super::syscall_exit`].
pub(super) fn exit<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>) {
    match core::mem::take(&mut task.abi.at_exit) {
        AtExit::Nothing => {}
        AtExit::Refresh(id) => files::refresh(engine, id),
        AtExit::RefreshOpened => {
            if task.result() >= 0
                && let Some(open) = files::regular(engine, task, task.result() as u64)
                && let Some(id) = engine.store.find(open.inode)
            {
                files::refresh(engine, id);
            }
        }
        AtExit::Limits(pid) => {
            if task.tgid == pid || task.tid == pid {
                memory::set_limits(&task.mm, task.tgid);
            } else if let Some(other) = engine.tasks.get(&pid) {
                memory::set_limits(&other.mm, pid);
            }
        }
    }
}
