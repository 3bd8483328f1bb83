//! The event loop: what the host says of the guest's tasks, and what is done about it.
//!
//! One thread, one event at a time. A task is taken out of the table while its event is handled;
//! whatever is done for it, it is either resumed, left in a group-stop, or gone.

use crate::abi;
use crate::engine::{Action, Engine, Image};
use crate::held::Event;
use crate::host::notify::{HeldCall, Listener};
use crate::host::wait::Status;
use crate::host::{last_error, ptrace};
use crate::stub::PARK_CALL;
use crate::task::Task;
use std::collections::{HashMap, VecDeque};
use std::io;
use vellum_types::SpaceId;

/// Bytes of a syscall instruction.
const SYSCALL_LEN: u64 = 2;

/// What the supervisor waits for, besides the task's next stop.
pub(crate) enum Phase<'m> {
    /// Nothing special.
    Run,
    /// The task was never resumed since its creation.
    New,
    /// The host's execve into this image.
    Exec(Box<Image<'m>>),
    /// The host's clone with CLONE_VM and these flags; where the child's id is kept.
    Clone { flags: u64, child_tid: u64 },
    /// The exit of a system call that the system-call layer wants to see.
    Exit,
    /// The exit of a system call whose arguments stand in scratch memory.
    SignalExit(crate::signal::AtExit),
}

/// How a task goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Resume {
    /// It runs, with this signal if not 0.
    Run(i32),
    /// It runs to the exit of its system call.
    ToExit,
    /// It stays in its group-stop.
    Listen,
    /// It waits for memory.
    Stall,
    /// It stays where it is: its next event is known already.
    Stay,
}

/// The supervisor's state.
pub(crate) struct Supervisor<'m> {
    pub(crate) engine: Engine<'m>,
    /// Events that arrived while another was waited for.
    pub(crate) deferred: VecDeque<(i32, Status)>,
    /// First stops of tasks whose creation was not reported yet.
    pub(crate) early: HashMap<i32, Status>,
    /// The first process, and how it ended.
    pub(crate) first: i32,
    pub(crate) end: Option<Status>,
    /// Service processes that ended, which their parent has yet to reap: parent, child.
    pub(crate) zombies: Vec<(i32, i32)>,
    /// Tasks whose fault waits for memory.
    pub(crate) stalled: Vec<i32>,
    /// Spaces whose processes were killed for lack of memory.
    pub(crate) dying: Vec<SpaceId>,
    /// Held calls that wait for memory.
    pub(crate) starved: Vec<HeldCall>,
    /// Where calls are held; `None` if the host does not do that.
    pub(crate) listener: Option<Listener>,
    /// A child may have news.
    pub(crate) ask_children: bool,
    pub(crate) pace: crate::pace::Pace,
    pub(crate) decoder: crate::access::Decoder,
}

impl<'m> Supervisor<'m> {
    /// Handles events until no task is left.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        while !self.engine.tasks.is_empty() {
            if let Some(signal) = crate::launch::asked_to_stop() {
                self.kill_all();
                self.end.get_or_insert(Status::Killed(signal, false));
            }
            if self.end.is_some() && crate::launch::interrupted() {
                // What ignores the terminal's signal would go on for nobody.
                self.kill_all();
            }
            match self.next_event() {
                Ok(Event::Status(tid, status)) => self.event(tid, status),
                Ok(Event::Call(call)) => self.held_call(call),
                Ok(Event::Signal) => self.pace.tick(&mut self.engine),
                // Nobody is left of whom the end was not reported: threads that another thread's
                // exec replaced.
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => break,
                Err(error) => return Err(error),
            }
        }
        for task in std::mem::take(&mut self.engine.tasks).into_values() {
            self.leave_space(task);
        }
        Ok(())
    }

    fn kill_all(&mut self) {
        for task in self.engine.tasks.values() {
            kill(task.tgid, libc::SIGKILL);
        }
    }

    fn event(&mut self, tid: i32, status: Status) {
        if let Status::Event(libc::PTRACE_EVENT_EXEC, _) = status {
            return self.event_exec(tid);
        }
        let Some(mut task) = self.engine.tasks.remove(&tid) else {
            return self.stranger(tid, status);
        };
        if let Status::Exited(_) | Status::Killed(..) = status {
            return self.ended(task, status);
        }
        self.note_stop(&mut task);
        let resume = self.stop(&mut task, status);
        // While the task stands still: a flush of its space need not be waited for.
        self.engine.sys.housekeeping();
        self.go_on(task, resume);
    }

    /// News of a task that is not in the table: its creation is still to be reported, or it is a
    /// service, or the end of an orphan.
    fn stranger(&mut self, tid: i32, status: Status) {
        let machine = self.engine.machine;
        match (status, machine.served_by(tid)) {
            (Status::Exited(_) | Status::Killed(..), Some(space)) => {
                // Without it nothing can be installed: its guests cannot go on.
                for task in self.engine.tasks.values().filter(|t| t.space == space) {
                    kill(task.tgid, libc::SIGKILL);
                }
            }
            (Status::Exited(_) | Status::Killed(..), None) => {}
            // A service only ever sleeps or works, whatever signals it is sent.
            (_, Some(_)) => drop(ptrace::cont(tid, 0)),
            (_, None) => drop(self.early.insert(tid, status)),
        }
    }

    pub(crate) fn note_stop(&mut self, task: &mut Task<'m>) {
        if task.running {
            task.running = false;
            self.engine.machine.stopped(task.space);
        }
        self.engine.machine.begin_operation();
        self.pace.stopped(task);
    }

    /// Forgets what the host might have touched in the task's last system call.
    pub(crate) fn unpin(&self, task: &mut Task<'m>) {
        if !task.pins.is_empty() {
            task.pins.clear();
            self.engine.machine.unpin(task.space, task.tid);
        }
    }

    fn stop(&mut self, task: &mut Task<'m>, status: Status) -> Resume {
        match self.try_stop(task, status) {
            Ok(resume) => resume,
            // The task was killed while it was being looked at: its end will be reported.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Resume::Run(0),
            Err(error) => {
                eprintln!("vellum: task {}: {error}", task.tid);
                kill(task.tgid, libc::SIGKILL);
                Resume::Run(0)
            }
        }
    }

    fn try_stop(&mut self, task: &mut Task<'m>, status: Status) -> io::Result<Resume> {
        match status {
            Status::Event(libc::PTRACE_EVENT_SECCOMP, _) => {
                self.unpin(task);
                task.phase = Phase::Run;
                task.regs = ptrace::regs(task.tid)?;
                self.system_call(task)
            }
            Status::SyscallExit => {
                self.unpin(task);
                task.regs = ptrace::regs(task.tid)?;
                self.system_call_exit(task)
            }
            Status::Signal(signal) => self.signal_stop(task, signal),
            Status::Event(libc::PTRACE_EVENT_STOP, signal) => Ok(match signal {
                libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => Resume::Listen,
                _ => Resume::Run(0),
            }),
            Status::Event(
                libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK,
                _,
            ) => {
                self.cloned(task)?;
                Ok(Resume::Run(0))
            }
            Status::Event(libc::PTRACE_EVENT_EXIT, _) => {
                self.exiting(task);
                Ok(Resume::Run(0))
            }
            _ => Ok(Resume::Run(0)),
        }
    }

    fn system_call(&mut self, task: &mut Task<'m>) -> io::Result<Resume> {
        let nr = task.nr();
        if nr as u64 == PARK_CALL {
            return Ok(self.act(task, Action::Return(-i64::from(libc::ENOSYS))));
        }
        task.saved_args = task.regs;
        let action = match nr {
            libc::SYS_execve | libc::SYS_execveat => return Ok(self.exec(task)),
            libc::SYS_fork | libc::SYS_vfork | libc::SYS_clone | libc::SYS_clone3 => {
                return self.fork(task);
            }
            libc::SYS_exit | libc::SYS_exit_group => Action::Native,
            _ => match self.signal_call(task)? {
                Some(resume) => return Ok(resume),
                None => match self.pace_call(task) {
                    Some(action) => action,
                    None => abi::dispatch(&mut self.engine, task),
                },
            },
        };
        Ok(self.act(task, action))
    }

    /// Carries out what was decided about a system call.
    pub(crate) fn act(&mut self, task: &mut Task<'m>, action: Action) -> Resume {
        match action {
            Action::Return(value) => {
                task.regs.orig_rax = u64::MAX;
                task.regs.rax = value as u64;
                task.regs_dirty = true;
                Resume::Run(0)
            }
            Action::Native => Resume::Run(0),
            Action::NativeExit => {
                task.phase = Phase::Exit;
                Resume::ToExit
            }
            Action::OpenOurs {
                target,
                flags,
                args,
            } => {
                let action = abi::open_ours(&mut self.engine, task, target, flags, args);
                self.act(task, action)
            }
            Action::OutOfMemory => {
                task.regs = task.saved_args;
                task.regs.rip -= SYSCALL_LEN;
                task.regs.rax = task.regs.orig_rax;
                task.regs.orig_rax = u64::MAX;
                task.regs_dirty = true;
                self.out_of_memory(task)
            }
        }
    }

    fn system_call_exit(&mut self, task: &mut Task<'m>) -> io::Result<Resume> {
        match std::mem::replace(&mut task.phase, Phase::Run) {
            Phase::Exec(image) => self.exec_failed(task, *image),
            Phase::Exit => {
                task.restore_args();
                abi::syscall_exit(&mut self.engine, task);
            }
            Phase::SignalExit(at_exit) => {
                task.restore_args();
                self.signal_call_exit(task, &at_exit);
            }
            other => task.phase = other,
        }
        Ok(Resume::Run(0))
    }

    /// Writes back registers, brings the space up to date and lets the host go on with the task.
    pub(crate) fn go_on(&mut self, mut task: Box<Task<'m>>, resume: Resume) {
        let tid = task.tid;
        let result = match resume {
            Resume::Stay => Ok(()),
            Resume::Stall => {
                self.stalled.push(tid);
                Ok(())
            }
            Resume::Listen => ptrace::listen(tid),
            Resume::Run(_) | Resume::ToExit => self.let_run(&mut task, resume),
        };
        if let Err(error) = result
            && error.raw_os_error() != Some(libc::ESRCH)
        {
            eprintln!("vellum: task {tid}: {error}");
            kill(task.tgid, libc::SIGKILL);
            // It must leave its stop to die.
            let _ = ptrace::cont(tid, 0);
        }
        self.engine.tasks.insert(tid, task);
    }

    fn let_run(&mut self, task: &mut Task<'m>, resume: Resume) -> io::Result<()> {
        if std::mem::take(&mut task.regs_dirty) {
            ptrace::set_regs(task.tid, &task.regs)?;
        }
        self.engine.machine.resume(task.space)?;
        task.running = true;
        self.pace.resumed(task);
        match resume {
            Resume::ToExit => ptrace::cont_to_exit(task.tid, 0),
            Resume::Run(signal) => ptrace::cont(task.tid, signal),
            _ => Ok(()),
        }
    }
}

/// kill(2), as far as it goes.
pub(crate) fn kill(pid: i32, signal: i32) {
    // SAFETY: plain call.
    if unsafe { libc::kill(pid, signal) } != 0 {
        let error = last_error();
        debug_assert_eq!(error.raw_os_error(), Some(libc::ESRCH), "kill: {error}");
    }
}
