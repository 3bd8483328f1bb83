//! System calls: from number and registers to the functions that do the work.

mod files;
mod futex;
mod memory;
mod misc;
mod names;
pub(crate) mod process;
mod time;
pub(crate) mod user;

use crate::fs::{EINVAL, ENOSYS, ERESTARTSYS, Result};
use crate::sync::Lock;
use crate::trap::{ALL, TrapFrame, may_go_on, may_go_on_with_memory, return_to_user};
use crate::{signal, smp, task};
use alloc::collections::BTreeMap;
use core::sync::atomic::Ordering;

/// Calls that are not there, and how often they were made.
static UNKNOWN: Lock<BTreeMap<u64, u64>> = Lock::new(BTreeMap::new());

/// Prints the calls that are not there.
pub(crate) fn for_each_unknown(mut each: impl FnMut(u64, u64)) {
    UNKNOWN
        .lock()
        .iter()
        .for_each(|(number, times)| each(*number, *times));
}

/// From ring 3 by SYSCALL. Returns what `entry.s` does next.
#[unsafe(no_mangle)]
extern "C" fn syscall_handler(frame: &mut TrapFrame) -> u32 {
    smp::entered();
    let number = frame.number;
    if number == GETPPID {
        frame.rax = u64::from(task::current().process.parent_pid.load(Ordering::Relaxed));
        return may_go_on();
    }
    if needs_all(number) {
        return ALL;
    }
    answer(frame, number);
    may_go_on_with_memory()
}

/// What `syscall_handler` left, with the whole frame.
#[unsafe(no_mangle)]
extern "C" fn syscall_slow(frame: &mut TrapFrame, what: u32) {
    if what == ALL {
        answer(frame, frame.number);
    }
    return_to_user(frame);
}

#[inline]
fn answer(frame: &mut TrapFrame, number: u64) {
    match dispatch(frame, number) {
        Ok(value) => frame.rax = value,
        Err(errno) => {
            frame.rax = (-i64::from(errno)) as u64;
            if errno == ERESTARTSYS {
                signal::note_restart(task::current(), errno);
            }
        }
    }
}

const GETPPID: u64 = 110;
const SIGRETURN: u64 = 15;
const EXECVE: u64 = 59;

/// Calls that read or change registers that are not arguments.
#[inline]
fn needs_all(number: u64) -> bool {
    matches!(number, SIGRETURN | 56..=EXECVE)
}

#[inline(always)]
fn dispatch(frame: &mut TrapFrame, number: u64) -> Result<u64> {
    let [a, b, c, d, e, f] = [
        frame.rdi, frame.rsi, frame.rdx, frame.r10, frame.r8, frame.r9,
    ];
    let fd = a as i32;
    match number {
        0 => files::read(fd, b, c),
        1 => files::write(fd, b, c),
        2 => names::open(names::AT_FDCWD, a, b as u32, c as u32),
        3 => files::close(fd),
        4 => names::stat(names::AT_FDCWD, a, b, 0),
        5 => files::fstat(fd, b),
        6 => names::stat(names::AT_FDCWD, a, b, names::AT_SYMLINK_NOFOLLOW),
        7 => time::poll(
            a,
            b,
            if (c as i32) < 0 {
                None
            } else {
                Some(c * 1_000_000)
            },
        ),
        8 => crate::fs::file(fd)?.seek(b as i64, c as u32),
        9 => memory::mmap(a, b, c as u32, d as u32, e as i32, f),
        10 => memory::mprotect(a, b, c as u32),
        11 => memory::munmap(a, b),
        12 => Ok(memory::brk(a)),
        13 => signal::sigaction(a as u32, b, c),
        14 if d != 8 => Err(EINVAL),
        14 => signal::sigprocmask(a as u32, b, c),
        SIGRETURN => match signal::come_back(task::current(), frame) {
            Ok(()) => Ok(frame.rax),
            Err(_) => {
                signal::force(task::current(), signal::SIGSEGV, 0x80, 0);
                Ok(0)
            }
        },
        16 => files::ioctl(fd, b, c),
        17 => files::pread(fd, b, c, d),
        18 => files::pwrite(fd, b, c, d),
        19 => files::vector(fd, b, c, None, true),
        20 => files::vector(fd, b, c, None, false),
        21 => names::access(names::AT_FDCWD, a, b as u32),
        22 => files::pipe(a, 0),
        23 => Err(ENOSYS),
        24 => {
            crate::sched::yield_now();
            Ok(0)
        }
        25 => memory::mremap(a, b, c, d as u32, e),
        26 => memory::msync(a, b, c as u32),
        27 => memory::mincore(a, b, c),
        28 => memory::madvise(a, b, c as i32),
        32 => files::dup(fd),
        33 => files::dup_to(fd, b as i32, 0, false),
        34 => process::pause(),
        35 => time::nanosleep(time::MONOTONIC, 0, a, b),
        37 => Ok(0),
        39 => Ok(u64::from(task::current().process.pid)),
        56 => process::clone(frame, a, b, c, d, e),
        57 => process::clone(frame, 17, 0, 0, 0, 0),
        58 => process::clone(
            frame,
            17 | process::CLONE_VM | process::CLONE_VFORK,
            0,
            0,
            0,
            0,
        ),
        EXECVE => process::execve(frame, a, b, c),
        60 => process::exit_thread((a as i32 & 0xff) << 8),
        61 => process::wait4(a as i32, b, c as u32, d),
        62 => process::kill(a as i32, b as u32),
        63 => misc::uname(a),
        72 => files::fcntl(fd, b as u32, c),
        73..=75 => crate::fs::file(fd).map(|_| 0),
        76 => names::truncate(a, b),
        77 => files::ftruncate(fd, b),
        78 | 217 => files::getdents(fd, b, c),
        79 => names::getcwd(a, b),
        80 => names::chdir(a),
        81 => names::fchdir(fd),
        82 => names::rename(names::AT_FDCWD, a, names::AT_FDCWD, b, 0),
        83 => names::mkdir(names::AT_FDCWD, a, b as u32),
        84 => names::unlink(names::AT_FDCWD, a, names::AT_REMOVEDIR),
        85 => names::open(names::AT_FDCWD, a, 0o1101, b as u32),
        86 => names::link(names::AT_FDCWD, a, names::AT_FDCWD, b, 0),
        87 => names::unlink(names::AT_FDCWD, a, 0),
        88 => names::symlink(a, names::AT_FDCWD, b),
        89 => names::readlink(names::AT_FDCWD, a, b, c),
        90 => names::chmod(names::AT_FDCWD, a, b as u32),
        91 => files::fchmod(fd, b as u32),
        92 | 93 | 94 | 260 => Ok(0),
        95 => Ok(u64::from(
            task::current()
                .process
                .umask
                .swap(a as u32 & 0o777, Ordering::Relaxed),
        )),
        96 => time::gettimeofday(a),
        97 => misc::getrlimit(a as u32, b),
        98 => misc::getrusage(a as i32, b),
        99 => misc::sysinfo(a),
        100 => misc::times(a),
        // One user, root.
        102 | 104 | 107 | 108 => Ok(0),
        105 | 106 | 113 | 114 | 116 | 117 | 119 => Ok(0),
        115 => Ok(0),
        118 | 120 => user::put_half(a, 0)
            .and_then(|()| user::put_half(b, 0))
            .and_then(|()| user::put_half(c, 0))
            .map(|()| 0),
        109 => process::setpgid(a as u32, b as u32),
        111 => process::getpgid(0),
        112 => process::setsid(),
        121 => process::getpgid(a as u32),
        124 => process::getsid(a as u32),
        127 => user::put_words(a, &[signal::pending_mask(task::current())]).map(|()| 0),
        128 => process::sigtimedwait(a, b, c),
        130 => signal::sigsuspend(a),
        131 => signal::sigaltstack(a, b, frame.rsp),
        132 | 235 | 280 => Ok(0),
        137 => misc::statfs(b),
        138 => misc::statfs(b),
        149 => memory::mlock(a, b),
        150 => memory::munlock(a, b),
        151 => memory::mlockall(a as u32),
        152 => memory::munlockall(),
        157 => misc::prctl(a as u32, b, c),
        158 => misc::arch_prctl(a as u32, b),
        160 => misc::prlimit(a as u32, b, 0),
        162 => Ok(0),
        186 => Ok(u64::from(task::current().tid)),
        200 => process::tkill(a as u32, b as u32),
        201 => time::time(a),
        202 => futex::futex(a, b as u32, c as u32, d, e, f as u32),
        203 => Ok(0),
        204 => misc::sched_getaffinity(b, c),
        213 | 291 => Err(ENOSYS),
        218 => {
            task::current().clear_tid.store(a, Ordering::Relaxed);
            Ok(u64::from(task::current().tid))
        }
        228 => time::clock_gettime(a as u32, b),
        229 => time::clock_getres(b),
        230 => time::nanosleep(a as u32, b as u32, c, d),
        231 => process::exit_group((a as i32 & 0xff) << 8),
        234 => process::tkill(b as u32, c as u32),
        257 => names::open(a as i32, b, c as u32, d as u32),
        258 => names::mkdir(a as i32, b, c as u32),
        262 => names::stat(a as i32, b, c, d as u32),
        263 => names::unlink(a as i32, b, c as u32),
        264 => names::rename(a as i32, b, c as i32, d, 0),
        265 => names::link(a as i32, b, c as i32, d, e as u32),
        266 => names::symlink(a, b as i32, c),
        267 => names::readlink(a as i32, b, c, d),
        268 => names::chmod(a as i32, b, c as u32),
        269 | 439 => names::access(a as i32, b, c as u32),
        271 => time::ppoll(a, b, c, d),
        273 => {
            task::current().robust_list.store(a, Ordering::Relaxed);
            Ok(0)
        }
        285 => files::fallocate(fd, b as u32, c, d),
        284 | 290 => files::eventfd(a, if number == 290 { b as u32 } else { 0 }),
        292 => files::dup_to(fd, b as i32, c as u32, true),
        293 => files::pipe(a, b as u32),
        295 => files::vector(fd, b, c, Some(d), true),
        296 => files::vector(fd, b, c, Some(d), false),
        302 => misc::prlimit(b as u32, c, d),
        309 => misc::getcpu(a, b),
        310 | 311 => memory::process_vm(a as u32, [b, c], [d, e], number == 311),
        316 => names::rename(a as i32, b, c as i32, d, e as u32),
        318 => user::fill(a, b, crate::random::fill),
        319 => files::memfd(a, b as u32),
        324 => Err(ENOSYS),
        325 => memory::mlock2(a, b, c as u32),
        332 => names::statx(a as i32, b, c as u32, e),
        334 => Err(ENOSYS),
        _ => {
            *UNKNOWN.lock().entry(number).or_insert(0) += 1;
            Err(ENOSYS)
        }
    }
}
