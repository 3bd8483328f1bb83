//! Control of a stopped task.

use super::check;
use crate::task::Regs;
use std::io;
use std::ptr::null_mut;

/// What a guest task is traced for.
pub(crate) const GUEST_OPTIONS: i32 = libc::PTRACE_O_EXITKILL
    | libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACESECCOMP
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_TRACEEXIT;

/// A service process must only die with the supervisor.
pub(crate) const SERVICE_OPTIONS: i32 = libc::PTRACE_O_EXITKILL;

type Ptr = *mut libc::c_void;

fn request(op: libc::c_uint, tid: i32, addr: Ptr, data: Ptr) -> io::Result<i64> {
    // SAFETY: every caller below passes a `data` that fits what `op` reads or writes.
    check(unsafe { libc::ptrace(op, tid, addr, data) })
}

/// Begins to trace `tid` without stopping it.
pub(crate) fn seize(tid: i32, options: i32) -> io::Result<()> {
    request(libc::PTRACE_SEIZE, tid, null_mut(), options as usize as Ptr).map(drop)
}

/// Replaces the options.
pub(crate) fn set_options(tid: i32, options: i32) -> io::Result<()> {
    request(
        libc::PTRACE_SETOPTIONS,
        tid,
        null_mut(),
        options as usize as Ptr,
    )
    .map(drop)
}

/// Lets it run, with `signal` delivered if that is not 0.
pub(crate) fn cont(tid: i32, signal: i32) -> io::Result<()> {
    request(libc::PTRACE_CONT, tid, null_mut(), signal as usize as Ptr).map(drop)
}

/// Lets it run to the exit of its system call.
pub(crate) fn cont_to_exit(tid: i32, signal: i32) -> io::Result<()> {
    request(
        libc::PTRACE_SYSCALL,
        tid,
        null_mut(),
        signal as usize as Ptr,
    )
    .map(drop)
}

/// Leaves it in its group-stop, but listens for the end of that.
pub(crate) fn listen(tid: i32) -> io::Result<()> {
    request(libc::PTRACE_LISTEN, tid, null_mut(), null_mut()).map(drop)
}

/// Reads its registers.
pub(crate) fn regs(tid: i32) -> io::Result<Regs> {
    let mut regs = zero_regs();
    request(
        libc::PTRACE_GETREGS,
        tid,
        null_mut(),
        (&raw mut regs).cast(),
    )?;
    Ok(regs)
}

/// All registers zero.
pub(crate) fn zero_regs() -> Regs {
    // SAFETY: a struct of integers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

/// Writes its registers.
pub(crate) fn set_regs(tid: i32, regs: &Regs) -> io::Result<()> {
    let data = (&raw const *regs).cast_mut();
    request(libc::PTRACE_SETREGS, tid, null_mut(), data.cast()).map(drop)
}

/// The message of the event it is stopped for: a new task's id, an exit status.
pub(crate) fn event_message(tid: i32) -> io::Result<u64> {
    let mut message = 0_u64;
    request(
        libc::PTRACE_GETEVENTMSG,
        tid,
        null_mut(),
        (&raw mut message).cast(),
    )?;
    Ok(message)
}

/// About the signal it is stopped for. Fields are at Linux's x86-64 offsets.
#[derive(Clone, Copy)]
pub(crate) struct SigInfo(libc::siginfo_t);

impl SigInfo {
    /// Reads it.
    pub(crate) fn of(tid: i32) -> io::Result<Self> {
        // SAFETY: a struct of plain bytes, for which zero is a value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        request(
            libc::PTRACE_GETSIGINFO,
            tid,
            null_mut(),
            (&raw mut info).cast(),
        )?;
        Ok(Self(info))
    }

    /// A fault's: signal, code, address.
    pub(crate) fn fault(signal: i32, code: i32, addr: u64) -> Self {
        // SAFETY: as in `of`.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        info.si_signo = signal;
        info.si_code = code;
        // SAFETY: si_addr is 8 bytes at offset 16 of the 128-byte struct.
        let field = unsafe { (&raw mut info).cast::<u64>().add(2) };
        // SAFETY: inside `info`, which is 8-aligned and exclusively ours.
        unsafe { field.write(addr) };
        Self(info)
    }

    /// `si_code`.
    pub(crate) fn code(&self) -> i32 {
        self.0.si_code
    }

    /// `si_addr`; means something for a fault only.
    pub(crate) fn addr(&self) -> u64 {
        // SAFETY: si_addr of a siginfo of any kind is 8 initialised bytes.
        unsafe { self.0.si_addr() as u64 }
    }

    /// Replaces what the task will be told.
    pub(crate) fn set(&self, tid: i32) -> io::Result<()> {
        let data = (&raw const self.0).cast_mut();
        request(libc::PTRACE_SETSIGINFO, tid, null_mut(), data.cast()).map(drop)
    }
}

const SIGSET_BYTES: usize = 8;

/// Reads its mask of blocked signals; bit n-1 is signal n.
pub(crate) fn sigmask(tid: i32) -> io::Result<u64> {
    const PTRACE_GETSIGMASK: libc::c_uint = 0x420a;
    let mut mask = 0_u64;
    request(
        PTRACE_GETSIGMASK,
        tid,
        SIGSET_BYTES as Ptr,
        (&raw mut mask).cast(),
    )?;
    Ok(mask)
}

/// Writes its mask of blocked signals.
pub(crate) fn set_sigmask(tid: i32, mask: u64) -> io::Result<()> {
    const PTRACE_SETSIGMASK: libc::c_uint = 0x420b;
    let mut mask = mask;
    request(
        PTRACE_SETSIGMASK,
        tid,
        SIGSET_BYTES as Ptr,
        (&raw mut mask).cast(),
    )
    .map(drop)
}
