//! What each system call of x86-64 does with user memory, and who answers it.
//!
//! The host writes to a program's memory only where the machine has installed pages, so every
//! buffer of a call must be known before the call runs. A row of the table says for each argument
//! that is a pointer which bytes the kernel will read or write behind it.

use vellum_types::Access;

#[path = "table_rows.rs"]
mod rows;

/// Who answers a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// The host, without a stop: no pointer is involved and no state of ours.
    Free,
    /// The host, after its buffers were faulted in.
    Native,
    /// A function of this module decides; the arguments' rows serve if it lets the host run.
    Emulate,
    /// The engine: tasks, signals, exec.
    Engine,
    /// Refused with this errno.
    Refuse(i32),
    /// Not in the table: the host, after a guess at its buffers.
    Unknown,
}

/// How many bytes are behind a pointer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Len {
    /// Always this many.
    Const(u64),
    /// As many as this argument says.
    Arg(u8),
    /// As many as this argument says, and eight: a `struct msgbuf`.
    Plus8(u8),
    /// This argument's number of elements, of so many bytes each.
    Times(u8, u64),
    /// A bit set for as many descriptors as this argument says.
    Bits(u8),
    /// As many as the 32-bit word says at which this argument points.
    AtU32(u8),
}

/// What a pointer argument points at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pointer {
    /// Bytes that the kernel reads.
    In(Len),
    /// Bytes that the kernel writes.
    Out(Len),
    /// Bytes that it reads and writes.
    InOut(Len),
    /// A string that ends with a NUL.
    Str,
    /// An array of `struct iovec`, its length in this argument; the kernel does this to the buffers.
    Iov(u8, Access),
    /// A `struct msghdr`; the kernel does this to the buffers.
    Msg(Access),
    /// An array of `struct mmsghdr`, its length in this argument.
    Mmsg(u8, Access),
    /// A `struct { const sigset_t *set; size_t size; }`, as pselect6 takes it.
    SigsetArg,
    /// Unknown: a guess is made if the argument hits memory.
    Guess,
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The name without `SYS_`.
    pub name: &'static str,
    /// Who answers.
    pub how: How,
    /// The pointers: argument number and what is behind it.
    pub pointers: &'static [(u8, Pointer)],
    /// The argument that may be lowered when the buffer is larger than can be held at a time: the
    /// call then transfers less, which programs must expect.
    pub count: Option<u8>,
}

/// One past the highest number in the table.
pub const NR_CALLS: u64 = 470;

const GUESSES: &[(u8, Pointer)] = &[
    (0, Pointer::Guess),
    (1, Pointer::Guess),
    (2, Pointer::Guess),
    (3, Pointer::Guess),
    (4, Pointer::Guess),
    (5, Pointer::Guess),
];

const UNKNOWN: Call = Call {
    name: "unknown",
    how: How::Unknown,
    pointers: GUESSES,
    count: None,
};

static TABLE: [Call; NR_CALLS as usize] = build();

const fn build() -> [Call; NR_CALLS as usize] {
    let mut table = [UNKNOWN; NR_CALLS as usize];
    let mut i = 0;
    while i < rows::ROWS.len() {
        let (nr, call) = rows::ROWS[i];
        table[nr as usize] = call;
        i += 1;
    }
    table
}

/// The row of call number `nr`.
pub fn call(nr: u64) -> &'static Call {
    TABLE.get(nr as usize).unwrap_or(&UNKNOWN)
}

/// The numbers of the calls that the host may run without telling us, ascending.
pub fn free_calls() -> impl Iterator<Item = u32> {
    (0..NR_CALLS)
        .filter(|nr| call(*nr).how == How::Free)
        .map(|nr| nr as u32)
}

/// Calls that the host may hold for us instead of stopping the task, because they are either
/// answered or let go just as they are.
#[derive(Debug)]
pub struct HeldCalls {
    /// Always.
    pub plain: Vec<u32>,
    /// If the argument of this position is below [`HeldCalls::MAX_COUNT`]: a larger count may have to
    /// be lowered.
    pub counted: Vec<(u32, u8)>,
    /// Unless the argument of this position has this bit.
    pub unflagged: Vec<(u32, u8, u32)>,
}

impl HeldCalls {
    /// Bytes that are prefaulted in one go, whatever the call.
    pub const MAX_COUNT: u32 = 1 << 20;
}

/// Native calls that the engine answers all the same: tasks, signals, affinity.
const ENGINES_OWN: [i64; 12] = [
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_sigsuspend,
    libc::SYS_sigaltstack,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_restart_syscall,
];

/// Emulated calls that are answered with a value or run just as they are.
const EMULATED_IN_PLACE: [i64; 40] = [
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup2,
    libc::SYS_dup3,
    libc::SYS_unshare,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_futex,
    libc::SYS_fcntl,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_msync,
    libc::SYS_mincore,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_munlock,
    libc::SYS_mlockall,
    libc::SYS_munlockall,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_access,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
];

/// See [`HeldCalls`].
pub fn held_calls() -> HeldCalls {
    let native = (0..NR_CALLS as i64)
        .filter(|nr| call(*nr as u64).how == How::Native && !ENGINES_OWN.contains(nr));
    let (counted, plain): (Vec<i64>, Vec<i64>) = native
        .chain(EMULATED_IN_PLACE)
        .partition(|nr| call(*nr as u64).count.is_some());
    let counted = counted
        .into_iter()
        .filter_map(|nr| Some((nr as u32, call(nr as u64).count?)));
    HeldCalls {
        plain: plain.into_iter().map(|nr| nr as u32).collect(),
        counted: counted.collect(),
        // What a truncation leaves is seen at the exit of the call.
        unflagged: vec![
            (libc::SYS_open as u32, 1, libc::O_TRUNC as u32),
            (libc::SYS_openat as u32, 2, libc::O_TRUNC as u32),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_classified() {
        // 335..424 do not exist; the others must have a row of their own.
        for nr in (0..335).chain(424..NR_CALLS) {
            let known = rows::ROWS.iter().filter(|(n, _)| *n == nr as i64).count();
            assert_eq!(known, 1, "call {nr}");
        }
        assert!(rows::ROWS.iter().all(|(nr, _)| *nr < 335 || *nr >= 424));
    }

    #[test]
    fn rows_are_sound() {
        for (nr, call) in rows::ROWS {
            for (arg, pointer) in call.pointers {
                assert!(*arg < 6, "{nr}");
                let len = match pointer {
                    Pointer::In(len) | Pointer::Out(len) | Pointer::InOut(len) => Some(*len),
                    _ => None,
                };
                match len {
                    Some(Len::Arg(a) | Len::Plus8(a) | Len::Times(a, _) | Len::Bits(a)) => {
                        assert!(a < 6)
                    }
                    Some(Len::AtU32(a)) => {
                        assert!(call.pointers.iter().any(|(p, _)| *p == a), "{}", call.name);
                    }
                    _ => {}
                }
            }
            if call.how == How::Free {
                assert!(
                    call.pointers.is_empty(),
                    "{} is free but has pointers",
                    call.name
                );
            }
        }
    }

    #[test]
    fn names_match_numbers() {
        assert_eq!(call(libc::SYS_openat as u64).name, "openat");
        assert_eq!(call(libc::SYS_mmap as u64).how, How::Emulate);
        assert_eq!(call(100_000).how, How::Unknown);
        assert_eq!(call(400).how, How::Unknown);
        assert!(free_calls().any(|nr| nr == libc::SYS_getpid as u32));
        assert!(!free_calls().any(|nr| nr == libc::SYS_read as u32));
    }
}
