//! System calls that the host holds without a ptrace stop.
//!
//! To the rest of the supervisor such a call is a stop like any other: the task neither runs nor
//! touches memory until it is let go. Only its registers cannot be changed.

use crate::abi;
use crate::engine::Action;
use crate::host::notify::{HeldCall, News};
use crate::host::wait::{self, Status};
use crate::supervisor::{Phase, Resume, Supervisor};
use crate::task::Task;
use std::io;
use std::os::fd::OwnedFd;

/// What happened next.
pub(crate) enum Event {
    /// `waitpid` has news of a task.
    Status(i32, Status),
    /// A call is held.
    Call(HeldCall),
    /// A signal handler ran.
    Signal,
}

/// How a held call goes on.
enum Answer {
    /// The host runs it.
    Go,
    /// It is over, with this result.
    Value(i64),
    /// It is over, with a descriptor for this; close-on-exec or not.
    Descriptor(OwnedFd, bool),
}

impl<'m> Supervisor<'m> {
    /// Waits for whatever comes next.
    pub(crate) fn next_event(&mut self) -> io::Result<Event> {
        if let Some((tid, status)) = self.deferred.pop_front() {
            return Ok(Event::Status(tid, status));
        }
        let Some(listener) = &self.listener else {
            return Ok(match wait::any()? {
                Some((tid, status)) => Event::Status(tid, status),
                None => Event::Signal,
            });
        };
        loop {
            // One signal may stand for several children, and a stop that was waited for by name
            // leaves its signal behind: children are asked until none has news.
            if self.ask_children {
                match wait::any_now()? {
                    Some((tid, status)) => return Ok(Event::Status(tid, status)),
                    None => self.ask_children = false,
                }
            }
            match listener.wait()? {
                News::Signal => return Ok(Event::Signal),
                News::Child => self.ask_children = true,
                News::Call(call) => return Ok(Event::Call(call)),
            }
        }
    }

    /// Does what a held call asks for, and lets it go.
    pub(crate) fn held_call(&mut self, call: HeldCall) {
        let Some(mut task) = self.engine.tasks.remove(&call.tid) else {
            // Its creation is still to be reported, or its end is.
            if let Some(listener) = &self.listener {
                let _ = listener.let_go(&call);
            }
            return;
        };
        self.note_stop(&mut task);
        self.unpin(&mut task);
        task.phase = Phase::Run;
        let [rdi, rsi, rdx, r10, r8, r9] = call.args;
        let regs = &mut task.regs;
        (regs.rdi, regs.rsi, regs.rdx) = (rdi, rsi, rdx);
        (regs.r10, regs.r8, regs.r9) = (r10, r8, r9);
        (regs.orig_rax, regs.rip) = (call.nr as u64, call.ip);
        task.saved_args = task.regs;
        let action = abi::dispatch(&mut self.engine, &mut task);
        // The registers are the host's to keep; an argument that was lowered because its buffer is
        // bad from there on is lowered by the host itself.
        task.regs_dirty = false;
        let answer = match action {
            Action::Return(value) => Answer::Value(value),
            Action::Native | Action::NativeExit => Answer::Go,
            Action::OpenOurs { target, flags, .. } => {
                let cloexec = flags & libc::O_CLOEXEC != 0;
                match abi::reopen(&target, flags & !libc::O_NOFOLLOW) {
                    Ok(file) => Answer::Descriptor(file, cloexec),
                    Err(errno) => Answer::Value(-i64::from(errno)),
                }
            }
            Action::OutOfMemory => {
                if self.out_of_memory(&task) == Resume::Stall {
                    self.starved.push(call);
                    self.engine.tasks.insert(task.tid, task);
                    return;
                }
                Answer::Go
            }
        };
        self.let_go(task, &call, answer);
    }

    fn let_go(&mut self, mut task: Box<Task<'m>>, call: &HeldCall, answer: Answer) {
        // While the task stands still: a flush of its space need not be waited for.
        self.engine.sys.housekeeping();
        let resumed = self.engine.machine.resume(task.space);
        task.running = true;
        self.pace.resumed(&mut task);
        let Some(listener) = &self.listener else {
            return;
        };
        let sent = match answer {
            Answer::Go => listener.let_go(call),
            Answer::Value(value) => listener.answer(call, value),
            Answer::Descriptor(file, cloexec) => listener.lend(call, &file, cloexec),
        };
        if let Err(error) = resumed.and(sent) {
            eprintln!("vellum: task {}: {error}", task.tid);
            crate::supervisor::kill(task.tgid, libc::SIGKILL);
        }
        self.engine.tasks.insert(task.tid, task);
    }

    /// Memory may have come free: the held calls that wait for it are tried again.
    pub(crate) fn wake_starved(&mut self) {
        for call in std::mem::take(&mut self.starved) {
            self.held_call(call);
        }
    }
}
