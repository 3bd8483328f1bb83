//! Calls that the host holds for us without a ptrace stop: seccomp's user notification.
//!
//! A held call costs two switches of context and three calls of the host; a ptrace stop costs as
//! many switches and five calls, and saves and restores all registers. It serves where neither
//! registers nor arguments have to change: the call is let go as it is, or answered with a value.
//!
//! Once [`Listener::receive`] took a call, only a deadly signal ends the wait
//! (`SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`), so that what was done for it is not done again.

use super::{check, last_error};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

// include/uapi/linux/seccomp.h
const RECV: u64 = 0xc050_2100;
const SEND: u64 = 0xc018_2101;
const ADD_FD: u64 = 0x4018_2103;
const SET_FLAGS: u64 = 0x4008_2104;
/// The descriptor is the call's result.
const ADD_FD_SEND: u32 = 2;
const SYNC_WAKE_UP: u64 = 1;
const CONTINUE: u32 = 1;
const _: () = assert!(size_of::<libc::seccomp_notif>() == 80);
const _: () = assert!(size_of::<libc::seccomp_notif_resp>() == 24);

/// `struct seccomp_notif_addfd`.
#[repr(C)]
struct AddFd {
    id: u64,
    flags: u32,
    source: u32,
    number: u32,
    number_flags: u32,
}

/// A call that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeldCall {
    id: u64,
    /// Who called.
    pub(crate) tid: i32,
    /// Which call.
    pub(crate) nr: i64,
    /// Its arguments.
    pub(crate) args: [u64; 6],
    /// Where it was made.
    pub(crate) ip: u64,
}

/// What the supervisor waits for: held calls, and news of children.
///
/// Waiting is one call of the host: it receives. A child's signal must end it even if it comes just
/// before it begins; so the signal's handler puts another file in place of the listener, on which
/// receiving fails at once. The wait puts the listener back and reports the children.
#[derive(Debug)]
pub(crate) struct Listener {
    calls: OwnedFd,
    /// The number that is received on: a duplicate of `calls`, or of `blank`.
    receive: OwnedFd,
    /// A file on which receiving fails.
    _blank: OwnedFd,
}

/// What [`Listener::wait`] found.
#[derive(Clone, Copy, Debug)]
pub(crate) enum News {
    /// A call is held.
    Call(HeldCall),
    /// A child stopped or ended: ask `waitpid`.
    Child,
    /// Another signal's handler ran.
    Signal,
}

/// [`Listener::receive`] and `_blank`, for the handler.
static RECEIVE: AtomicI32 = AtomicI32::new(-1);
static BLANK: AtomicI32 = AtomicI32::new(-1);
/// The handler ran.
static PENDING: AtomicBool = AtomicBool::new(false);

extern "C" fn child_has_news(_: i32) {
    // Relaxed: the handler runs on the very thread that stored them.
    let (blank, receive) = (
        BLANK.load(Ordering::Relaxed),
        RECEIVE.load(Ordering::Relaxed),
    );
    PENDING.store(true, Ordering::Relaxed);
    // SAFETY: dup2 is async-signal-safe; both numbers are ours while the handler is installed. It
    // changes errno only if it fails, which two open descriptors rule out.
    unsafe { libc::dup2(blank, receive) };
}

fn on_child(handler: usize) -> io::Result<()> {
    // SAFETY: zero is a valid sigaction: empty mask, no flags, so that calls are interrupted.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    // SAFETY: `action` outlives the call, and the handler only makes an async-signal-safe call.
    check(unsafe { libc::sigaction(libc::SIGCHLD, &action, std::ptr::null_mut()) }.into())?;
    Ok(())
}

impl Listener {
    /// Takes over the listener that process `pid` has open as `fd`. One at a time.
    pub(crate) fn take(pid: i32, fd: i32) -> io::Result<Self> {
        // SAFETY: takes no pointer.
        let process = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
        // SAFETY: a fresh descriptor of ours.
        let process = unsafe { OwnedFd::from_raw_fd(process as i32) };
        let get = libc::SYS_pidfd_getfd;
        // SAFETY: takes no pointer.
        let calls = check(unsafe { libc::syscall(get, process.as_raw_fd(), fd, 0) })?;
        // SAFETY: a fresh descriptor of ours.
        let calls = unsafe { OwnedFd::from_raw_fd(calls as i32) };
        // An older host does not know the flag, and only loses some speed.
        // SAFETY: takes a number.
        unsafe { libc::ioctl(calls.as_raw_fd(), SET_FLAGS, SYNC_WAKE_UP) };
        // SAFETY: takes no pointer.
        let blank = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) }.into())?;
        // SAFETY: a fresh descriptor of ours.
        let blank = unsafe { OwnedFd::from_raw_fd(blank as i32) };
        // It begins blank: there may be news already.
        let receive = blank.try_clone()?;
        RECEIVE.store(receive.as_raw_fd(), Ordering::Relaxed);
        BLANK.store(blank.as_raw_fd(), Ordering::Relaxed);
        on_child(child_has_news as *const () as usize)?;
        Ok(Self {
            calls,
            receive,
            _blank: blank,
        })
    }

    /// Waits for the next news.
    pub(crate) fn wait(&self) -> io::Result<News> {
        // SAFETY: zero is a valid notification; the host asks for a zeroed one.
        let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: `call` is of the size that the request number states.
        if unsafe { libc::ioctl(self.receive.as_raw_fd(), RECV, &raw mut call) } >= 0 {
            return Ok(News::Call(HeldCall {
                id: call.id,
                tid: call.pid as i32,
                nr: i64::from(call.data.nr),
                args: call.data.args,
                ip: call.data.instruction_pointer,
            }));
        }
        let error = last_error();
        let child = match error.raw_os_error() {
            // The call was withdrawn, or no task is left that could make one.
            Some(libc::ENOENT) => return Ok(News::Child),
            Some(libc::EINTR) => PENDING.swap(false, Ordering::Relaxed),
            // What an event file says: the handler was here before us.
            Some(libc::ENOTTY) => true,
            _ => return Err(error),
        };
        if !child {
            return Ok(News::Signal);
        }
        // A child that has news from here on has its signal yet to come, or is found when the
        // children are asked, which is now.
        // SAFETY: both numbers are ours.
        let restored = unsafe { libc::dup2(self.calls.as_raw_fd(), self.receive.as_raw_fd()) };
        check(restored.into())?;
        Ok(News::Child)
    }

    fn send(&self, mut answer: libc::seccomp_notif_resp) -> io::Result<()> {
        // SAFETY: `answer` is of the size that the request number states.
        if unsafe { libc::ioctl(self.calls.as_raw_fd(), SEND, &raw mut answer) } < 0 {
            return match last_error() {
                // The caller was killed meanwhile.
                e if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
                e => Err(e),
            };
        }
        Ok(())
    }

    /// The host may run the call.
    pub(crate) fn let_go(&self, call: &HeldCall) -> io::Result<()> {
        self.send(libc::seccomp_notif_resp {
            id: call.id,
            val: 0,
            error: 0,
            flags: CONTINUE,
        })
    }

    /// The call is over: its result is a new descriptor for what `fd` has open.
    pub(crate) fn lend(&self, call: &HeldCall, fd: &OwnedFd, cloexec: bool) -> io::Result<()> {
        let mut add = AddFd {
            id: call.id,
            flags: ADD_FD_SEND,
            source: fd.as_raw_fd() as u32,
            number: 0,
            number_flags: if cloexec { libc::O_CLOEXEC as u32 } else { 0 },
        };
        // The host waits until the caller has taken it. A signal would end the wait with the answer
        // half given, after which there is no other way to give it.
        let blocked = NoSignals::begin();
        // SAFETY: `add` is of the size that the request number states.
        let added = unsafe { libc::ioctl(self.calls.as_raw_fd(), ADD_FD, &raw mut add) };
        let error = last_error();
        drop(blocked);
        if added < 0 {
            return match error {
                e if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
                e => self.answer(call, -i64::from(e.raw_os_error().unwrap_or(libc::EIO))),
            };
        }
        Ok(())
    }

    /// The call is over, with this result (a negative errno for an error).
    pub(crate) fn answer(&self, call: &HeldCall, value: i64) -> io::Result<()> {
        let error = if (-4095..0).contains(&value) {
            value as i32
        } else {
            0
        };
        let val = if error == 0 { value } else { 0 };
        self.send(libc::seccomp_notif_resp {
            id: call.id,
            val,
            error,
            flags: 0,
        })
    }
}

/// No signal reaches this thread while it lives.
struct NoSignals(libc::sigset_t);

impl NoSignals {
    fn begin() -> Self {
        // SAFETY: zero is a valid set.
        let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
        let mut before = all;
        // SAFETY: `all` outlives the call.
        unsafe { libc::sigfillset(&raw mut all) };
        // SAFETY: both sets outlive the call, which cannot fail with this first argument.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before) };
        Self(before)
    }
}

impl Drop for NoSignals {
    fn drop(&mut self) {
        let before = &raw const self.0;
        // SAFETY: the set outlives the call, which cannot fail with this first argument.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, std::ptr::null_mut()) };
    }
}

/// Children's signals are ignored again.
impl Drop for Listener {
    fn drop(&mut self) {
        // Cannot fail: the number is a signal's.
        let _ = on_child(libc::SIG_DFL);
    }
}
