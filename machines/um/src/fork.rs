//! fork, vfork, clone, clone3: the host makes the task, the core copies the memory.
//!
//! With CLONE_VM the memory is shared and the host can be left alone. Without, the core's copy and
//! the host's must be of the same moment: from the write-protection of the parent to the host's
//! event no other fault of that space is served.

use crate::abi;
use crate::engine::Action;
use crate::facade::MmRef;
use crate::host::ptrace;
use crate::host::wait::{self, Status};
use crate::supervisor::{Phase, Resume, Supervisor, kill};
use crate::task::Task;
use std::io;
use std::rc::Rc;
use vellum_machine::Machine;
use vellum_types::{Access, VirtAddr, VmFlags};

const CLONE_PIDFD: u64 = libc::CLONE_PIDFD as u64;
const CLONE_VM: u64 = libc::CLONE_VM as u64;
const CLONE_VFORK: u64 = libc::CLONE_VFORK as u64;
const CLONE_SIGHAND: u64 = libc::CLONE_SIGHAND as u64;
const CLONE_THREAD: u64 = libc::CLONE_THREAD as u64;
const CLONE_UNTRACED: u64 = libc::CLONE_UNTRACED as u64;
const CLONE_PARENT_SETTID: u64 = libc::CLONE_PARENT_SETTID as u64;
const CLONE_CHILD_SETTID: u64 = libc::CLONE_CHILD_SETTID as u64;
const CLONE_CHILD_CLEARTID: u64 = libc::CLONE_CHILD_CLEARTID as u64;
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;

/// What a call asks for.
struct Request {
    flags: u64,
    parent_tid: u64,
    child_tid: u64,
}

impl<'m> Supervisor<'m> {
    fn request(&self, task: &mut Task<'m>) -> Option<Request> {
        let plain = |flags| Request {
            flags,
            parent_tid: 0,
            child_tid: 0,
        };
        Some(match task.nr() {
            libc::SYS_fork => plain(0),
            libc::SYS_vfork => plain(CLONE_VM | CLONE_VFORK),
            libc::SYS_clone => {
                if task.arg(0) & CLONE_UNTRACED != 0 {
                    task.set_arg(0, task.arg(0) & !CLONE_UNTRACED);
                }
                Request {
                    flags: task.arg(0),
                    parent_tid: task.arg(2),
                    child_tid: task.arg(3),
                }
            }
            _ => {
                let (args, size) = (task.arg(0), task.arg(1));
                if self
                    .engine
                    .prefault(task, args, size.min(4096), Access::Read)
                    < size.min(4096)
                {
                    return None;
                }
                let mut words = [0; 4];
                for (i, word) in words.iter_mut().enumerate() {
                    *word = self.engine.read_u64(task, args + i as u64 * 8)?;
                }
                let [flags, pidfd, child_tid, parent_tid] = words;
                if flags & CLONE_PIDFD != 0 {
                    self.engine.prefault(task, pidfd, 4, Access::Write);
                }
                Request {
                    flags,
                    parent_tid,
                    child_tid,
                }
            }
        })
    }

    /// A task asks for a child.
    pub(crate) fn fork(&mut self, task: &mut Task<'m>) -> io::Result<Resume> {
        let Some(request) = self.request(task) else {
            return Ok(self.act(task, Action::Return(-i64::from(libc::EFAULT))));
        };
        let Request {
            flags,
            parent_tid,
            child_tid,
        } = request;
        if flags & (CLONE_PARENT_SETTID | CLONE_PIDFD) != 0 && parent_tid != 0 {
            self.engine.prefault(task, parent_tid, 4, Access::Write);
        }
        if flags & CLONE_VM != 0 {
            if flags & (CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID) != 0 {
                self.engine.prefault(task, child_tid, 4, Access::Write);
            }
            task.phase = Phase::Clone { flags, child_tid };
            return Ok(Resume::Run(0));
        }
        let mm = match self.engine.sys.mm_fork(&task.mm) {
            Ok(mm) => mm,
            Err(error) => return Ok(self.act(task, Action::Return(-i64::from(error.errno())))),
        };
        // The host's copy inherits what is installed in these areas, the child does not.
        let machine = self.engine.machine;
        task.mm.for_each_area(&mut |area| {
            if area
                .flags
                .intersects(VmFlags::DONTCOPY | VmFlags::WIPEONFORK)
            {
                machine.flush_tlb_range(mm.space(), area.range());
            }
        });
        self.host_fork(task, mm, flags, child_tid)
    }

    /// Lets the host fork `task` now, with nothing else in between.
    fn host_fork(
        &mut self,
        task: &mut Task<'m>,
        mm: MmRef<'m>,
        flags: u64,
        child_tid: u64,
    ) -> io::Result<Resume> {
        if std::mem::take(&mut task.regs_dirty) {
            ptrace::set_regs(task.tid, &task.regs)?;
        }
        let machine = self.engine.machine;
        machine.settle(task.space)?;
        ptrace::cont_to_exit(task.tid, 0)?;
        let status = wait::one(task.tid)?;
        let forked = matches!(
            status,
            Status::Event(
                libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_VFORK,
                _
            )
        );
        if !forked {
            // Refused, or interrupted by a signal: then the host will ask again.
            self.engine.sys.mm_put(mm);
            if status == Status::SyscallExit {
                return Ok(Resume::Run(0));
            }
            self.deferred.push_back((task.tid, status));
            return Ok(Resume::Stay);
        }
        let child = ptrace::event_message(task.tid)? as i32;
        let first = self.first_stop(child)?;
        let space = mm.space();
        let mut child = self.child_task(task, child, mm, flags, child_tid);
        if !matches!(first, Status::Event(libc::PTRACE_EVENT_STOP, _)) {
            self.engine.machine.with(space, |s| s.users += 1);
            self.deferred.push_back((child.tid, first));
            self.engine.tasks.insert(child.tid, child);
            return Ok(Resume::Run(0));
        }
        self.engine.machine.with(space, |s| s.users += 1);
        if let Err(error) = self.settle_child(task, &mut child) {
            if error.raw_os_error() != Some(libc::ESRCH) {
                eprintln!("vellum: fork of task {}: {error}", task.tid);
            }
            kill(child.tid, libc::SIGKILL);
            let _ = ptrace::cont(child.tid, 0);
            self.engine.tasks.insert(child.tid, child);
            return Ok(Resume::Run(0));
        }
        if flags & CLONE_CHILD_SETTID != 0 {
            // The host tried, and failed at the write protection.
            let tid = child.tid.to_le_bytes();
            self.engine.write_user(&child, child_tid, &tid);
        }
        self.go_on(child, Resume::Run(0));
        Ok(Resume::Run(0))
    }

    /// Gives a forked child a service, and the machine its space.
    fn settle_child(&mut self, parent: &Task<'m>, child: &mut Task<'m>) -> io::Result<()> {
        child.regs = ptrace::regs(child.tid)?;
        child.regs.orig_rax = u64::MAX;
        child.regs_dirty = true;
        let machine = self.engine.machine;
        let slot = machine
            .take_slot()
            .ok_or_else(|| io::Error::other("too many processes"))?;
        let calls = [crate::inject::service_clone()];
        let (_, service) = self.inject(child.tid, slot, &calls, Some(child.tgid))?;
        let service = service.ok_or_else(|| io::Error::other("the host made no process"))?;
        machine.attach_fork(parent.space, child.space, service);
        Ok(())
    }

    fn first_stop(&mut self, tid: i32) -> io::Result<Status> {
        match self.early.remove(&tid) {
            Some(status) => Ok(status),
            None => wait::one(tid),
        }
    }

    fn child_task(
        &self,
        parent: &Task<'m>,
        tid: i32,
        mm: MmRef<'m>,
        flags: u64,
        child_tid: u64,
    ) -> Box<Task<'m>> {
        let sighand = if flags & CLONE_SIGHAND != 0 {
            Rc::clone(&parent.sighand)
        } else if flags & CLONE_CLEAR_SIGHAND != 0 {
            parent.sighand.borrow().after_exec()
        } else {
            parent.sighand.borrow().copied()
        };
        let own_stack = flags & CLONE_VM != 0 && flags & CLONE_VFORK == 0;
        let clear = flags & CLONE_CHILD_CLEARTID != 0;
        Box::new(Task {
            tid,
            tgid: if flags & CLONE_THREAD != 0 {
                parent.tgid
            } else {
                tid
            },
            space: mm.space(),
            mm,
            regs: parent.regs,
            regs_dirty: false,
            pins: Vec::new(),
            clear_child_tid: clear.then(|| VirtAddr::new(child_tid)),
            sighand,
            segv_blocked: parent.segv_blocked,
            altstack: if own_stack { None } else { parent.altstack },
            affinity: parent.affinity,
            abi: abi::forked(&parent.abi, flags),
            phase: Phase::New,
            saved_args: parent.regs,
            last_fault: None,
            running: false,
            since: self.engine.machine.boot_ns(),
            roaming: parent.roaming,
        })
    }

    /// The host made a child that shares the memory.
    pub(crate) fn cloned(&mut self, task: &mut Task<'m>) -> io::Result<()> {
        let Phase::Clone { flags, child_tid } = std::mem::replace(&mut task.phase, Phase::Run)
        else {
            return Ok(());
        };
        let tid = ptrace::event_message(task.tid)? as i32;
        let first = self.first_stop(tid)?;
        let mm = self.engine.sys.mm_get(&task.mm);
        let child = self.child_task(task, tid, mm, flags, child_tid);
        self.engine.machine.with(task.space, |s| s.users += 1);
        if matches!(first, Status::Event(libc::PTRACE_EVENT_STOP, _)) {
            self.go_on(child, Resume::Run(0));
        } else {
            self.deferred.push_back((tid, first));
            self.engine.tasks.insert(tid, child);
        }
        Ok(())
    }
}
