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
#[derive(Debug)]
pub(crate) struct Listener {
    calls: OwnedFd,
    children: OwnedFd,
}

/// What [`Listener::wait`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum News {
    /// A call is held.
    Call,
    /// A child stopped or ended: ask `waitpid`.
    Child,
    /// A signal handler ran.
    Signal,
}

fn sigchld() -> libc::sigset_t {
    // SAFETY: zero is a valid set; the calls below fill it.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` outlives the call.
    unsafe { libc::sigemptyset(&mut set) };
    // SAFETY: `set` outlives the call, and the number is a signal's.
    unsafe { libc::sigaddset(&mut set, libc::SIGCHLD) };
    set
}

impl Listener {
    /// Takes over the listener that process `pid` has open as `fd`.
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
        let set = sigchld();
        // SAFETY: `set` outlives the call.
        check(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) }.into())?;
        // SAFETY: `set` outlives the call.
        let children = check(
            unsafe { libc::signalfd(-1, &set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) }.into(),
        )?;
        // SAFETY: a fresh descriptor of ours.
        let children = unsafe { OwnedFd::from_raw_fd(children as i32) };
        Ok(Self { calls, children })
    }

    /// Waits for the next news.
    pub(crate) fn wait(&self) -> io::Result<News> {
        let watch = |fd: &OwnedFd| libc::pollfd {
            fd: fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let mut fds = [watch(&self.children), watch(&self.calls)];
        // SAFETY: two entries that outlive the call.
        if unsafe { libc::poll(fds.as_mut_ptr(), 2, -1) } < 0 {
            return match last_error() {
                e if e.kind() == io::ErrorKind::Interrupted => Ok(News::Signal),
                e => Err(e),
            };
        }
        if fds[0].revents == 0 && fds[1].revents & libc::POLLIN != 0 {
            return Ok(News::Call);
        }
        // Either a child's signal, or no task is left that could make a call.
        let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
        // SAFETY: room for one record. Nothing to read is as good as something.
        unsafe {
            libc::read(
                self.children.as_raw_fd(),
                info.as_mut_ptr().cast(),
                info.len(),
            )
        };
        Ok(News::Child)
    }

    /// Takes a held call; `None` if it was withdrawn.
    pub(crate) fn receive(&self) -> io::Result<Option<HeldCall>> {
        // SAFETY: zero is a valid notification; the host asks for a zeroed one.
        let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: `call` is of the size that the request number states.
        if unsafe { libc::ioctl(self.calls.as_raw_fd(), RECV, &raw mut call) } < 0 {
            return match last_error() {
                e if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => Ok(None),
                e => Err(e),
            };
        }
        Ok(Some(HeldCall {
            id: call.id,
            tid: call.pid as i32,
            nr: i64::from(call.data.nr),
            args: call.data.args,
            ip: call.data.instruction_pointer,
        }))
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
        // SAFETY: `add` is of the size that the request number states.
        if unsafe { libc::ioctl(self.calls.as_raw_fd(), ADD_FD, &raw mut add) } < 0 {
            return match last_error() {
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

/// Children's signals are let through again.
impl Drop for Listener {
    fn drop(&mut self) {
        let set = sigchld();
        // SAFETY: `set` outlives the call.
        unsafe { libc::sigprocmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut()) };
    }
}
