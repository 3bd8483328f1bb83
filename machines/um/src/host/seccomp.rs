//! The filter that decides which system calls stop.
//!
//! ```text
//!   other architecture, x32  -> ENOSYS
//!   call in the free list    -> runs      (the host caches this verdict per number)
//!   fcntl, command without pointer -> runs, unless it sets O_APPEND
//!   fcntl, lock described on the stack's last pages -> runs
//!   caller is the stub       -> runs
//!   calls that need no change of registers -> held, if there is a listener
//!   everything else          -> PTRACE_EVENT_SECCOMP
//! ```

use super::check;
use crate::abi::table::HeldCalls;
use std::io;
use std::ops::Range;

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const X32_BIT: u32 = 0x4000_0000;
// Offsets in struct seccomp_data.
const NR: u32 = 0;
const ARCH: u32 = 4;
const IP_LOW: u32 = 8;
const IP_HIGH: u32 = 12;
const ARG0: u32 = 16;
const ARG1_LOW: u32 = 24;
const ARG2_LOW: u32 = 32;
const ARG2_HIGH: u32 = 36;
// libc has no name for it yet.
const WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;
const MAX_INSNS: usize = 4096;

fn load(offset: u32) -> libc::sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

fn ret(verdict: u32) -> libc::sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, verdict)
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

fn jump(test: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: (libc::BPF_JMP | test | libc::BPF_K) as u16,
        jt,
        jf,
        k,
    }
}

fn equal(k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    jump(libc::BPF_JEQ, k, jt, jf)
}

fn at_least(k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    jump(libc::BPF_JGE, k, jt, jf)
}

/// When fcntl runs without a stop.
#[derive(Clone, Debug)]
pub(crate) struct FreeFcntl {
    /// Commands for which it always does.
    pub(crate) plain: &'static [u32],
    /// F_SETFL does unless it sets one of these flags.
    pub(crate) not_set: u32,
    /// Commands for which it does if their argument points into `resident`.
    pub(crate) reading: &'static [u32],
    /// Addresses that the host can read whenever the program could; inside one 4 GiB block.
    pub(crate) resident: Range<u64>,
}

/// Builds the filter. `free` are numbers of calls that run without a stop, `stub` the addresses of
/// code of ours (inside one 4 GiB block).
pub(crate) fn program(
    free: &[u32],
    fcntl: &FreeFcntl,
    stub: Range<u64>,
    held: Option<&HeldCalls>,
) -> Vec<libc::sock_filter> {
    let allow = ret(libc::SECCOMP_RET_ALLOW);
    let trace = ret(libc::SECCOMP_RET_TRACE);
    let no_such_call = ret(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
    let mut code = vec![
        load(ARCH),
        equal(AUDIT_ARCH_X86_64, 1, 0),
        no_such_call,
        load(NR),
        // -1 is a call that was cancelled by a tracer.
        at_least(X32_BIT, 0, 1),
        no_such_call,
    ];
    // Ranges of consecutive numbers, two or three instructions each.
    let mut free: Vec<u32> = free.to_vec();
    free.sort_unstable();
    free.dedup();
    for run in free.chunk_by(|a, b| a + 1 == *b) {
        let (first, last) = (run[0], run[run.len() - 1]);
        if first == last {
            code.extend([equal(first, 0, 1), allow]);
        } else {
            code.extend([
                at_least(first, 0, 2),
                jump(libc::BPF_JGT, last, 1, 0),
                allow,
            ]);
        }
    }
    // fcntl: the command decides, and for some of them the argument.
    let rules = free_fcntl(fcntl);
    code.push(equal(libc::SYS_fcntl as u32, 0, rules.len() as u8));
    code.extend(rules);
    code.extend([
        load(IP_HIGH),
        equal((stub.start >> 32) as u32, 0, 4),
        load(IP_LOW),
        at_least(stub.start as u32, 0, 2),
        at_least(stub.end as u32, 1, 0),
        allow,
    ]);
    if let Some(held) = held {
        hold(&mut code, held);
    }
    code.push(trace);
    assert!(code.len() < MAX_INSNS, "filter too long");
    code
}

/// The rules for fcntl; they end with the number of the call loaded again.
fn free_fcntl(fcntl: &FreeFcntl) -> Vec<libc::sock_filter> {
    let allow = ret(libc::SECCOMP_RET_ALLOW);
    let mut code = vec![load(ARG1_LOW)];
    for command in fcntl.plain {
        code.extend([equal(*command, 0, 1), allow]);
    }
    code.extend([
        equal(libc::F_SETFL as u32, 0, 4),
        load(ARG2_LOW),
        jump(libc::BPF_JSET, fcntl.not_set, 1, 0),
        allow,
        load(ARG1_LOW),
    ]);
    let resident = &fcntl.resident;
    for (i, command) in fcntl.reading.iter().enumerate() {
        // To the tests behind the list, or from its end past them.
        let left = (fcntl.reading.len() - 1 - i) as u8;
        code.push(equal(*command, left, if left == 0 { 6 } else { 0 }));
    }
    if !fcntl.reading.is_empty() {
        code.extend([
            load(ARG2_HIGH),
            equal((resident.start >> 32) as u32, 0, 4),
            load(ARG2_LOW),
            at_least(resident.start as u32, 0, 2),
            at_least(resident.end as u32, 1, 0),
            allow,
        ]);
    }
    code.push(load(NR));
    code
}

/// The rules for calls that are held.
fn hold(code: &mut Vec<libc::sock_filter>, held: &HeldCalls) {
    let notify = ret(libc::SECCOMP_RET_USER_NOTIF);
    code.push(load(NR));
    let mut plain = held.plain.clone();
    plain.sort_unstable();
    for run in plain.chunk_by(|a, b| a + 1 == *b) {
        let (first, last) = (run[0], run[run.len() - 1]);
        code.extend([
            at_least(first, 0, 2),
            jump(libc::BPF_JGT, last, 1, 0),
            notify,
        ]);
    }
    for (nr, arg) in &held.counted {
        let low = ARG0 + u32::from(*arg) * 8;
        code.extend([
            equal(*nr, 0, 6),
            load(low + 4),
            equal(0, 0, 3),
            load(low),
            at_least(HeldCalls::MAX_COUNT, 1, 0),
            notify,
            load(NR),
        ]);
    }
    for (nr, arg, bit) in &held.unflagged {
        code.extend([
            equal(*nr, 0, 4),
            load(ARG0 + u32::from(*arg) * 8),
            jump(libc::BPF_JSET, *bit, 1, 0),
            notify,
            load(NR),
        ]);
    }
}

/// Puts the calling thread, and all it will ever start, under the filter. Only async-signal-safe
/// calls are made: this runs between fork and exec.
pub(crate) fn install(code: &[libc::sock_filter]) -> io::Result<()> {
    set(code, 0)
}

/// As [`install`], for a filter that holds calls: a listener is opened in this process.
pub(crate) fn install_with_listener(code: &[libc::sock_filter]) -> io::Result<()> {
    set(
        code,
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | WAIT_KILLABLE_RECV,
    )
}

fn set(code: &[libc::sock_filter], flags: libc::c_ulong) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: code.len() as u16,
        filter: code.as_ptr().cast_mut(),
    };
    let mode = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: `program` and the code it points at outlive the call.
    let set = || unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &program) };
    if set() >= 0 {
        return Ok(());
    }
    // Without privilege a filter needs the promise that exec never gains any.
    // SAFETY: plain call.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into())?;
    check(set()).map(drop)
}
