//! Calls whose pointers depend on their other arguments, and calls that change files.

use super::calls::AtExit;
use super::fd;
use super::files::{self, Regular};
use super::prefault::{self, prefault_call, prefault_either, prefault_guess};
use super::user::word_at;
use crate::engine::{Action, Engine};
use crate::task::Task;
use std::os::fd::OwnedFd;
use vellum_types::Access::{self, Read, Write};

pub(super) const SYS_FUTEX_WAITV: i64 = 449;
pub(super) const SYS_FUTEX_WAKE: i64 = 454;
pub(super) const SYS_FUTEX_WAIT: i64 = 455;
pub(super) const SYS_FUTEX_REQUEUE: i64 = 456;

/// The most that one call copies between files: the machine stands still meanwhile, and callers
/// must expect less than they asked for.
const MAX_COPY: u64 = 64 << 20;

fn fail(errno: i32) -> Action {
    Action::Return(-i64::from(errno))
}

fn give(result: Result<u64, i32>) -> Action {
    match result {
        Ok(value) => Action::Return(value as i64),
        Err(errno) => fail(errno),
    }
}

/// Calls with pointers that no row can describe.
pub(super) fn call<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>) -> Action {
    match task.nr() {
        libc::SYS_ioctl => ioctl(engine, task),
        libc::SYS_fcntl => {
            control(engine, task);
            Action::Native
        }
        libc::SYS_futex => {
            remember_restartable(task);
            futex(engine, task, super::prefault::arguments(task));
            Action::Native
        }
        SYS_FUTEX_WAITV | SYS_FUTEX_WAKE | SYS_FUTEX_WAIT | SYS_FUTEX_REQUEUE => {
            futex2(engine, task);
            Action::Native
        }
        libc::SYS_prctl => process_control(engine, task),
        libc::SYS_arch_prctl => arch_control(engine, task),
        libc::SYS_setrlimit | libc::SYS_prlimit64 => resource_limit(engine, task),
        libc::SYS_seccomp => {
            // SECCOMP_SET_MODE_FILTER
            if task.arg(0) == 1 {
                filter(engine, task, task.arg(2));
            } else {
                prefault_guess(engine, task, task.arg(2));
            }
            Action::Native
        }
        libc::SYS_setsockopt => socket_option(engine, task),
        libc::SYS_personality => match task.arg(0) as u32 {
            // A query, or what it is already.
            u32::MAX | 0 => Action::Return(0),
            _ => fail(libc::EPERM),
        },
        libc::SYS_memfd_create => {
            if task.arg(1) & u64::from(libc::MFD_HUGETLB) != 0 {
                return fail(libc::ENOSYS);
            }
            prefault_call(engine, task)
        }
        libc::SYS_restart_syscall => {
            if let Some((nr, args)) = task.abi.restartable {
                if nr == libc::SYS_futex as u64 {
                    futex(engine, task, args);
                } else {
                    prefault::prefault_again(engine, task, (nr, args));
                }
            }
            Action::Native
        }
        _ => prefault_call(engine, task),
    }
}

/// The host resumes these calls under another number after a signal that ran no handler; their
/// pointers must be known then.
pub(super) fn remember_restartable(task: &mut Task<'_>) {
    if matches!(
        task.nr(),
        libc::SYS_poll | libc::SYS_nanosleep | libc::SYS_clock_nanosleep | libc::SYS_futex
    ) {
        task.abi.restartable = Some((task.nr() as u64, prefault::arguments(task)));
    }
}

/// `_IOC` fields: direction, size.
fn decode_request(request: u64) -> (u64, u64) {
    (request >> 30 & 3, request >> 16 & 0x3fff)
}

const FICLONE: u64 = 0x4004_9409;
const FICLONERANGE: u64 = 0x4020_940d;
const FIDEDUPERANGE: u64 = 0xc018_9436;

fn ioctl<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>) -> Action {
    let (request, at) = (task.arg(1) & 0xffff_ffff, task.arg(2));
    match request {
        // Sharing blocks behind the page cache; programs copy instead.
        FICLONE | FICLONERANGE | FIDEDUPERANGE => return fail(libc::EOPNOTSUPP),
        _ => {}
    }
    if at < 0x1_0000 {
        return Action::Native;
    }
    let (len, access) = match request {
        // Terminals and sockets from before sizes were encoded.
        0x5401 | 0x540f | 0x5413 | 0x541b | 0x5411 | 0x5424 | 0x5429 => (64, Write),
        0x5402..=0x5404 | 0x5410 | 0x5414 | 0x5418 | 0x5421 | 0x5423 => (64, Read),
        _ => match decode_request(request) {
            (0, _) | (_, 0) => {
                prefault_guess(engine, task, at);
                return Action::Native;
            }
            (1, size) => (size, Read),
            (_, size) => (size, Write),
        },
    };
    if engine.prefault(task, at, len, access) < len {
        prefault_guess(engine, task, at);
    }
    Action::Native
}

fn control<'m>(engine: &Engine<'m>, task: &mut Task<'m>) {
    let at = task.arg(2);
    let len = match task.arg(1) as i32 {
        // Locks: struct flock.
        5..=7 | 36..=38 => 32,
        // F_SETOWN_EX, F_GETOWN_EX, F_GETOWNER_UIDS.
        15..=17 => 8,
        // F_{GET,SET}_RW_HINT and the file's.
        1035..=1038 => 8,
        _ => return,
    };
    prefault_either(engine, task, at, len);
}

/// The words are made accessible for writing: the host names a shared futex by the frame it is in,
/// so the frame must be the program's own before anybody waits.
fn futex<'m>(engine: &Engine<'m>, task: &mut Task<'m>, args: [u64; 6]) {
    const TIMED: [i32; 5] = [
        libc::FUTEX_WAIT,
        libc::FUTEX_LOCK_PI,
        libc::FUTEX_WAIT_BITSET,
        libc::FUTEX_WAIT_REQUEUE_PI,
        13, // FUTEX_LOCK_PI2
    ];
    const TWO: [i32; 5] = [
        libc::FUTEX_REQUEUE,
        libc::FUTEX_CMP_REQUEUE,
        libc::FUTEX_WAKE_OP,
        libc::FUTEX_WAIT_REQUEUE_PI,
        libc::FUTEX_CMP_REQUEUE_PI,
    ];
    let command = args[1] as i32 & libc::FUTEX_CMD_MASK;
    prefault_either(engine, task, args[0], 4);
    if TIMED.contains(&command) && args[3] != 0 {
        engine.prefault(task, args[3], 16, Read);
    }
    if TWO.contains(&command) {
        prefault_either(engine, task, args[4], 4);
    }
}

fn futex2<'m>(engine: &Engine<'m>, task: &mut Task<'m>) {
    let args = prefault::arguments(task);
    let waiters = match task.nr() {
        SYS_FUTEX_WAKE | SYS_FUTEX_WAIT => {
            prefault_either(engine, task, args[0], 8);
            if task.nr() == SYS_FUTEX_WAIT && args[4] != 0 {
                engine.prefault(task, args[4], 16, Read);
            }
            return;
        }
        SYS_FUTEX_REQUEUE => 2,
        _ => {
            if args[3] != 0 {
                engine.prefault(task, args[3], 16, Read);
            }
            args[1].min(128)
        }
    };
    // struct futex_waitv { u64 val; u64 uaddr; u32 flags; u32 reserved; }
    engine.prefault(task, args[0], waiters * 24, Read);
    for i in 0..waiters {
        if let Some(waiter) = engine.read_user::<24>(task, args[0].wrapping_add(i * 24)) {
            prefault_either(engine, task, word_at(&waiter, 8), 8);
        }
    }
}

/// A `struct sock_fprog` and its instructions.
fn filter<'m>(engine: &Engine<'m>, task: &mut Task<'m>, at: u64) {
    engine.prefault(task, at, 16, Read);
    if let Some(program) = engine.read_user::<16>(task, at) {
        let instructions = word_at(&program, 0) & 0xffff;
        engine.prefault(task, word_at(&program, 8), instructions * 8, Read);
    }
}

fn socket_option<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>) -> Action {
    /// SO_ZEROCOPY: the host would send from frames long after the call.
    const SO_ZEROCOPY: u64 = 60;
    /// SO_ATTACH_REUSEPORT_CBPF
    const SO_ATTACH_REUSEPORT_CBPF: u64 = 51;
    if task.arg(1) == libc::SOL_SOCKET as u64 {
        match task.arg(2) {
            SO_ZEROCOPY => return fail(libc::EOPNOTSUPP),
            26 | SO_ATTACH_REUSEPORT_CBPF => filter(engine, task, task.arg(3)),
            _ => {}
        }
    }
    prefault_call(engine, task)
}

fn process_control<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>) -> Action {
    const PR_SET_MDWE: i32 = 65;
    const PR_GET_MDWE: i32 = 66;
    let at = task.arg(1);
    let (len, access): (u64, Access) = match task.arg(0) as i32 {
        // About the host's own address space, which is not the program's.
        libc::PR_SET_MM => return fail(libc::EPERM),
        libc::PR_SET_VMA | PR_SET_MDWE => return fail(libc::EINVAL),
        PR_GET_MDWE | libc::PR_GET_THP_DISABLE => return Action::Return(0),
        libc::PR_SET_THP_DISABLE | libc::PR_SET_DUMPABLE => return Action::Return(0),
        libc::PR_GET_DUMPABLE => return Action::Return(1),
        libc::PR_SET_NAME => (16, Read),
        libc::PR_GET_NAME => (16, Write),
        libc::PR_GET_PDEATHSIG
        | libc::PR_GET_UNALIGN
        | libc::PR_GET_FPEMU
        | libc::PR_GET_FPEXC
        | libc::PR_GET_ENDIAN
        | libc::PR_GET_TSC
        | libc::PR_GET_CHILD_SUBREAPER => (4, Write),
        libc::PR_GET_TID_ADDRESS => (8, Write),
        libc::PR_SET_SECCOMP => {
            filter(engine, task, task.arg(2));
            return Action::Native;
        }
        _ => {
            prefault_guess(engine, task, at);
            prefault_guess(engine, task, task.arg(2));
            return Action::Native;
        }
    };
    engine.prefault(task, at, len, access);
    Action::Native
}

fn arch_control<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>) -> Action {
    match task.arg(0) {
        // ARCH_GET_FS, ARCH_GET_GS, ARCH_GET_XCOMP_*.
        0x1003 | 0x1004 | 0x1021 | 0x1022 | 0x1024 => {
            engine.prefault(task, task.arg(1), 8, Write);
            Action::Native
        }
        // Shadow stacks, address tagging, vdso mapping: the host's address space again.
        0x2001..=0x2003 | 0x3001..=0x3006 | 0x4001..=0x4004 | 0x5001..=0x5005 => fail(libc::EINVAL),
        _ => Action::Native,
    }
}

fn resource_limit<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>) -> Action {
    let (pid, resource, new) = if task.nr() == libc::SYS_setrlimit {
        (0, task.arg(0), task.arg(1))
    } else {
        (task.arg(0) as i32, task.arg(1), task.arg(2))
    };
    let action = prefault_call(engine, task);
    if new == 0 {
        return action;
    }
    match resource as libc::__rlimit_resource_t {
        libc::RLIMIT_FSIZE => {
            engine.abi.file_size_limited = true;
            action
        }
        libc::RLIMIT_AS | libc::RLIMIT_DATA | libc::RLIMIT_STACK | libc::RLIMIT_MEMLOCK => {
            task.abi.at_exit = AtExit::Limits(if pid == 0 { task.tgid } else { pid });
            Action::NativeExit
        }
        _ => action,
    }
}

/// Two regular files: the host copies between our duplicates, and the core looks again.
fn between<'m>(
    engine: &mut Engine<'m>,
    from: &Regular,
    to: &Regular,
    copy: impl FnOnce(&OwnedFd, &OwnedFd) -> Result<u64, i32>,
) -> Result<u64, i32> {
    files::write_back(engine, &from.stat)?;
    files::write_back(engine, &to.stat)?;
    let copied = copy(&from.fd, &to.fd)?;
    if let Some(id) = engine.store.find(&to.stat) {
        files::refresh(engine, id);
    }
    Ok(copied)
}

/// A file offset that the program passes by pointer.
fn offset<'m>(engine: &Engine<'m>, task: &Task<'m>, at: u64) -> Result<Option<i64>, i32> {
    match at {
        0 => Ok(None),
        _ => engine
            .read_u64(task, at)
            .map(|v| Some(v as i64))
            .ok_or(libc::EFAULT),
    }
}

fn put_offset<'m>(
    engine: &Engine<'m>,
    task: &Task<'m>,
    at: u64,
    value: Option<i64>,
) -> Result<(), i32> {
    match value {
        Some(value) if !engine.write_user(task, at, &value.to_le_bytes()) => Err(libc::EFAULT),
        _ => Ok(()),
    }
}

/// sendfile(2).
pub(super) fn send_file<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>) -> Action {
    let from = files::regular(engine, task, task.arg(1));
    let to = files::regular(engine, task, task.arg(0));
    match (from, to) {
        (Some(from), Some(to)) => {
            let len = task.arg(3).min(MAX_COPY) as usize;
            give(offset(engine, task, task.arg(2)).and_then(|mut at| {
                let copied = between(engine, &from, &to, |from, to| {
                    fd::send_file(to, from, at.as_mut(), len)
                })?;
                put_offset(engine, task, task.arg(2), at)?;
                Ok(copied)
            }))
        }
        (from, to) => outside(engine, task, from, to),
    }
}

/// copy_file_range(2).
pub(super) fn copy_range<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>) -> Action {
    let from = files::regular(engine, task, task.arg(0));
    let to = files::regular(engine, task, task.arg(2));
    match (from, to) {
        (Some(from), Some(to)) => {
            let len = task.arg(4).min(MAX_COPY) as usize;
            let flags = task.arg(5) as u32;
            let offsets = offset(engine, task, task.arg(1))
                .and_then(|a| Ok((a, offset(engine, task, task.arg(3))?)));
            give(offsets.and_then(|(mut a, mut b)| {
                let copied = between(engine, &from, &to, |from, to| {
                    fd::copy_range(from, a.as_mut(), to, b.as_mut(), len, flags)
                })?;
                put_offset(engine, task, task.arg(1), a)?;
                put_offset(engine, task, task.arg(3), b)?;
                Ok(copied)
            }))
        }
        (from, to) => outside(engine, task, from, to),
    }
}

/// splice(2): one end is a pipe, so the host does it.
pub(super) fn splice<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>) -> Action {
    let from = files::regular(engine, task, task.arg(0));
    let to = files::regular(engine, task, task.arg(2));
    outside(engine, task, from, to)
}

/// The host moves bytes between a file and something else.
fn outside<'m>(
    engine: &mut Engine<'m>,
    task: &mut Task<'m>,
    from: Option<Regular>,
    to: Option<Regular>,
) -> Action {
    for file in [&from, &to].into_iter().flatten() {
        if let Err(errno) = files::write_back(engine, &file.stat) {
            return fail(errno);
        }
    }
    let action = prefault_call(engine, task);
    match to.and_then(|to| engine.store.find(&to.stat)) {
        Some(id) => {
            task.abi.at_exit = AtExit::Refresh(id);
            Action::NativeExit
        }
        None => action,
    }
}

/// ftruncate(2).
pub(super) fn truncate_open<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>) -> Action {
    let Some(open) = files::regular(engine, task, task.arg(0)) else {
        return Action::Native;
    };
    let size = task.arg(1) as i64;
    let cached = files::cached(engine, &open.stat);
    if let Some((id, mapping)) = &cached {
        files::freshen(engine, *id, mapping, &open.stat);
    }
    if let Err(errno) = fd::truncate(&open.fd, size) {
        return fail(errno);
    }
    if let Some((id, mapping)) = cached {
        engine.sys.truncate(&mapping, size as u64);
        files::record(engine.store, id, &open.fd);
    }
    Action::Return(0)
}

/// truncate(2): the host does it, and then the core looks at the file if it knows it.
pub(super) fn truncate<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>) -> Action {
    let action = prefault_call(engine, task);
    let known = super::paths::resolve(engine, task, libc::AT_FDCWD, task.arg(0))
        .and_then(|path| fd::stat(&path))
        .ok()
        .and_then(|stat| engine.store.find(&stat));
    match known {
        Some(id) => {
            task.abi.at_exit = AtExit::Refresh(id);
            Action::NativeExit
        }
        None => action,
    }
}

/// fallocate(2).
pub(super) fn allocate<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>) -> Action {
    let Some(open) = files::regular(engine, task, task.arg(0)) else {
        return Action::Native;
    };
    let (mode, at, len) = (task.arg(1) as i32, task.arg(2), task.arg(3));
    let moves = mode & (libc::FALLOC_FL_COLLAPSE_RANGE | libc::FALLOC_FL_INSERT_RANGE) != 0;
    if let Err(errno) = files::write_back(engine, &open.stat)
        .and_then(|()| fd::allocate(&open.fd, mode, at as i64, len as i64))
    {
        return fail(errno);
    }
    if let Some((id, mapping)) = files::cached(engine, &open.stat) {
        if moves {
            // As in `files::freshen`: nobody can be told.
            let _ = engine.sys.invalidate(&mapping);
        } else if mode & (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE) != 0 {
            engine.sys.punch(&mapping, at, len);
        }
        if let Some(stat) = files::record(engine.store, id, &open.fd)
            && stat.size != mapping.size()
        {
            engine.sys.truncate(&mapping, stat.size);
        }
    }
    Action::Return(0)
}

/// fsync and its kin: what was written through mappings goes first.
pub(super) fn sync<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>) -> Action {
    if let Some(open) = files::regular(engine, task, task.arg(0))
        && let Err(errno) = files::write_back(engine, &open.stat)
    {
        return fail(errno);
    }
    Action::Native
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_carry_their_size() {
        // TCGETS2: _IOR('T', 0x2a, 44 bytes).
        assert_eq!(decode_request(0x802c_542a), (2, 44));
        assert_eq!(decode_request(FICLONERANGE), (1, 32));
    }
}
