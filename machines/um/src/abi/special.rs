//! Calls whose pointers depend on their other arguments.

use super::calls::{AtExit, fail};
use super::memory;
use super::prefault::{self, prefault_call, prefault_either, prefault_guess};
use super::user::word_at;
use crate::engine::{Action, Engine};
use crate::task::Task;
use vellum_types::Access::{self, Read, Write};

pub(super) const SYS_FUTEX_WAITV: i64 = 449;
pub(super) const SYS_FUTEX_WAKE: i64 = 454;
pub(super) const SYS_FUTEX_WAIT: i64 = 455;
pub(super) const SYS_FUTEX_REQUEUE: i64 = 456;

const ADDR_NO_RANDOMIZE: u32 = libc::ADDR_NO_RANDOMIZE as u32;

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
        libc::SYS_setrlimit | libc::SYS_getrlimit | libc::SYS_prlimit64 => {
            resource_limit(engine, task)
        }
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
            // A query, or what it is already: addresses are not randomised here.
            u32::MAX | 0 | ADDR_NO_RANDOMIZE => Action::Return(0),
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

fn control<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>) {
    let at = task.arg(2);
    let len = match task.arg(1) as i32 {
        libc::F_SETFL => {
            if at & libc::O_APPEND as u64 != 0 {
                engine.abi.known_files.appends();
            }
            return;
        }
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
    let (pid, resource, new, old) = match task.nr() {
        libc::SYS_setrlimit => (0, task.arg(0), task.arg(1), 0),
        libc::SYS_getrlimit => (0, task.arg(0), 0, task.arg(1)),
        _ => (task.arg(0) as i32, task.arg(1), task.arg(2), task.arg(3)),
    };
    let resource = resource as libc::__rlimit_resource_t;
    let own = pid == 0 || pid == task.tgid || pid == task.tid;
    if resource == libc::RLIMIT_AS && own {
        return match address_space_limit(engine, task, new, old) {
            Ok(()) => Action::Return(0),
            Err(errno) => fail(errno),
        };
    }
    let action = prefault_call(engine, task);
    if new == 0 {
        return action;
    }
    match resource {
        libc::RLIMIT_FSIZE => {
            engine.abi.file_size_limited = true;
            action
        }
        libc::RLIMIT_DATA | libc::RLIMIT_STACK | libc::RLIMIT_MEMLOCK => {
            task.abi.at_exit = AtExit::Limits(if own { task.tgid } else { pid });
            Action::NativeExit
        }
        _ => action,
    }
}

/// RLIMIT_AS is the core's alone: the host would count what is mapped into its own address space,
/// which is not the program's.
fn address_space_limit<'m>(
    engine: &Engine<'m>,
    task: &mut Task<'m>,
    new: u64,
    old: u64,
) -> Result<(), i32> {
    let mut limits = task.mm.limits();
    let maximum = task.abi.address_space_max.unwrap_or(u64::MAX);
    let wanted = match new {
        0 => None,
        at => {
            let bytes = engine.read_user::<16>(task, at).ok_or(libc::EFAULT)?;
            Some((word_at(&bytes, 0), word_at(&bytes, 8)))
        }
    };
    if let Some((present, most)) = wanted {
        if present > most {
            return Err(libc::EINVAL);
        }
        if most > maximum && !memory::is_privileged() {
            return Err(libc::EPERM);
        }
    }
    let before = [limits.address_space.to_le_bytes(), maximum.to_le_bytes()].concat();
    if old != 0 && !engine.write_user(task, old, &before) {
        return Err(libc::EFAULT);
    }
    if let Some((present, most)) = wanted {
        limits.address_space = present;
        task.mm.set_limits(limits);
        task.abi.address_space_max = Some(most);
    }
    Ok(())
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
