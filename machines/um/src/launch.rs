//! The first process, and the signals of the supervisor itself.

use crate::engine::Image;
use crate::facade::MmRef;
use crate::host::notify::Listener;
use crate::host::seccomp::FreeFcntl;
use crate::host::wait::{self, Status};
use crate::host::{check, last_error, ptrace, seccomp};
use crate::signal::SigHand;
use crate::space::RESIDENT_STACK;
use crate::stub::{FREE_WINDOW, MAILBOX_BASE};
use crate::supervisor::{Phase, Supervisor};
use crate::task::Task;
use crate::{abi, stub};
use std::cell::RefCell;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

const _: () = assert!(stub::STUB_BASE < MAILBOX_BASE);

/// A signal that asks the supervisor to end, once one came.
static ASKED: AtomicI32 = AtomicI32::new(0);

/// The signal that asked the supervisor to end.
pub(crate) fn asked_to_stop() -> Option<i32> {
    // Relaxed: the handler runs on this very thread.
    Some(ASKED.load(Ordering::Relaxed)).filter(|signal| *signal != 0)
}

extern "C" fn ask(signal: i32) {
    ASKED.store(signal, Ordering::Relaxed);
}

/// The terminal asked the guest to end.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Did the terminal ask the guest to end?
pub(crate) fn interrupted() -> bool {
    // Relaxed: the handler runs on this very thread.
    INTERRUPTED.load(Ordering::Relaxed)
}

extern "C" fn interrupt(_: i32) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

extern "C" fn nothing(_: i32) {}

fn handle(signal: i32, handler: usize) -> io::Result<()> {
    // SAFETY: zero is a valid sigaction: default handler, empty mask, no flags.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    // SAFETY: `action` outlives the call, and our handlers only touch an atomic.
    check(unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) }.into())?;
    Ok(())
}

/// The terminal's signals are for the guest, and remembered, so that what the first process leaves
/// behind ends with it; requests to end kill all at once.
fn own_signals() -> io::Result<()> {
    ASKED.store(0, Ordering::Relaxed);
    INTERRUPTED.store(false, Ordering::Relaxed);
    for signal in [libc::SIGTSTP, libc::SIGTTOU, libc::SIGTTIN] {
        handle(signal, libc::SIG_IGN)?;
    }
    for signal in [libc::SIGINT, libc::SIGQUIT] {
        handle(signal, interrupt as *const () as usize)?;
    }
    handle(libc::SIGTERM, ask as *const () as usize)?;
    handle(libc::SIGHUP, ask as *const () as usize)?;
    handle(libc::SIGALRM, nothing as *const () as usize)
}

/// Commands of fcntl whose argument is no pointer and that change nothing of ours.
const PLAIN_FCNTL: &[u32] = &[
    libc::F_DUPFD as u32,
    libc::F_GETFD as u32,
    libc::F_SETFD as u32,
    libc::F_GETFL as u32,
    libc::F_DUPFD_CLOEXEC as u32,
];

/// Commands of fcntl that only read what their argument points at.
const LOCK_FCNTL: &[u32] = &[
    libc::F_SETLK as u32,
    libc::F_SETLKW as u32,
    libc::F_OFD_SETLK as u32,
    libc::F_OFD_SETLKW as u32,
];

/// When fcntl runs without a stop. Databases lock many times for each transaction, and describe the
/// lock in a variable that they filled in just before.
const FREE_FCNTL: FreeFcntl = FreeFcntl {
    plain: PLAIN_FCNTL,
    not_set: libc::O_APPEND as u32,
    reading: LOCK_FCNTL,
    resident: RESIDENT_STACK.start..RESIDENT_STACK.end - size_of::<libc::flock>() as u64,
};

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }.into())?;
    // SAFETY: a fresh descriptor of ours.
    let read = unsafe { OwnedFd::from_raw_fd(ends[0]) };
    // SAFETY: the other one.
    let write = unsafe { OwnedFd::from_raw_fd(ends[1]) };
    Ok((read, write))
}

/// What the first child does: waits until it is traced, then becomes the stub. Only
/// async-signal-safe calls; never returns.
fn child(
    (ready, other_end): (i32, i32),
    holding: Option<&[libc::sock_filter]>,
    filter: &[libc::sock_filter],
    path: &CString,
    nofile: Option<libc::rlimit>,
) -> ! {
    let mut byte = 0_u8;
    // Without it the read ends if the supervisor does.
    // SAFETY: plain call.
    unsafe { libc::close(other_end) };
    // SAFETY: one byte of room.
    if unsafe { libc::read(ready, (&raw mut byte).cast(), 1) } != 1 {
        // SAFETY: as at the end.
        unsafe { libc::_exit(122) };
    }
    // SAFETY: plain call; Rust's runtime ignores this signal, programs expect the default.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    if let Some(limit) = nofile {
        // SAFETY: a valid limit that outlives the call.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    }
    let held = holding.is_some_and(|code| seccomp::install_with_listener(code).is_ok());
    // A listener somewhere above leaves no room for ours.
    let installed = if held {
        Ok(())
    } else {
        seccomp::install(filter)
    };
    let status = match installed {
        Ok(()) => {
            let argv = [path.as_ptr(), std::ptr::null()];
            let envp: [*const libc::c_char; 1] = [std::ptr::null()];
            // SAFETY: both vectors end with a null pointer, and the strings with a NUL.
            unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
            124
        }
        Err(_) => 123,
    };
    // SAFETY: ends the process at once, without the parent's exit handlers.
    unsafe { libc::_exit(status) }
}

/// The number under which process `pid` has its filter's listener open, if it has one.
fn listener_of(pid: i32) -> Option<i32> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    entries.flatten().find_map(|entry| {
        let target = std::fs::read_link(entry.path()).ok()?;
        let name = target.to_str()?;
        if name != "anon_inode:seccomp notify" {
            return None;
        }
        entry.file_name().to_str()?.parse().ok()
    })
}

impl<'m> Supervisor<'m> {
    /// Starts the first process with `image`.
    pub(crate) fn launch(
        &mut self,
        image: Image<'m>,
        nofile: Option<libc::rlimit>,
    ) -> io::Result<()> {
        let mut free = abi::free_calls();
        free.extend([libc::SYS_exit as u32, libc::SYS_exit_group as u32]);
        // These are answered here, whatever the table says.
        free.retain(|nr| {
            ![libc::SYS_sched_getaffinity, libc::SYS_sched_setaffinity].contains(&i64::from(*nr))
        });
        // News of children is a signal to the process: only its first thread can keep it for later.
        // SAFETY: plain call.
        let thread = unsafe { libc::gettid() };
        let first_thread = thread as u32 == std::process::id();
        let holding = first_thread.then(|| {
            let held = abi::held_calls();
            seccomp::program(&free, &FREE_FCNTL, FREE_WINDOW, Some(&held))
        });
        let filter = seccomp::program(&free, &FREE_FCNTL, FREE_WINDOW, None);
        let path = CString::new(self.engine.machine.stub().host_path())?;
        let (read, write) = pipe()?;
        let ends = (read.as_raw_fd(), write.as_raw_fd());
        // SAFETY: this process has one thread; the child only makes async-signal-safe calls.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            child(ends, holding.as_deref(), &filter, &path, nofile);
        }
        let mm = match check(pid.into()).and_then(|_| self.adopt_first(pid, &write)) {
            Ok(mm) => mm,
            Err(error) => {
                self.engine.sys.mm_put(image.mm);
                if pid > 0 {
                    crate::supervisor::kill(pid, libc::SIGKILL);
                    let _ = wait::one(pid);
                }
                return Err(error);
            }
        };
        let regs = ptrace::regs(pid)?;
        let space = mm.space();
        self.engine.machine.with(space, |s| s.users = 1);
        let task = Task {
            tid: pid,
            tgid: pid,
            space,
            mm,
            regs,
            regs_dirty: false,
            pins: Vec::new(),
            clear_child_tid: None,
            sighand: Rc::new(RefCell::new(SigHand::default())),
            segv_blocked: false,
            altstack: None,
            affinity: self.pace.all(),
            abi: abi::TaskState::default(),
            phase: Phase::Exec(Box::new(image)),
            saved_args: regs,
            last_fault: None,
            roaming: false,
            running: false,
            since: 0,
        };
        self.go_on(Box::new(task), crate::supervisor::Resume::ToExit);
        Ok(())
    }

    /// Takes the first child as a tracee and brings it to its execve. Returns the address space that
    /// it counts as until then.
    fn adopt_first(&mut self, pid: i32, write: &OwnedFd) -> io::Result<MmRef<'m>> {
        own_signals()?;
        ptrace::seize(pid, ptrace::GUEST_OPTIONS)?;
        // SAFETY: one byte that outlives the call.
        if unsafe { libc::write(write.as_raw_fd(), c"g".as_ptr().cast(), 1) } != 1 {
            return Err(last_error());
        }
        loop {
            match wait::one(pid)? {
                Status::Event(libc::PTRACE_EVENT_SECCOMP, _) => break,
                Status::Signal(signal) => ptrace::cont(pid, signal)?,
                Status::Exited(123) | Status::Event(libc::PTRACE_EVENT_EXIT, _) => {
                    return Err(io::Error::other("the host does not allow seccomp filters"));
                }
                Status::Exited(_) | Status::Killed(..) => {
                    return Err(io::Error::other("the first process ended before it began"));
                }
                _ => ptrace::cont(pid, 0)?,
            }
        }
        self.first = pid;
        self.listener = listener_of(pid)
            .map(|fd| Listener::take(pid, fd))
            .transpose()?;
        self.engine
            .sys
            .mm_create()
            .map_err(|e| io::Error::from_raw_os_error(e.errno()))
    }
}
