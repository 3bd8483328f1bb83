//! The end of tasks and of their spaces.

use crate::abi;
use crate::facade::MmRef;
use crate::host::wait::{self, Status};
use crate::host::{check, ptrace};
use crate::supervisor::{Resume, Supervisor, kill};
use crate::task::Task;
use vellum_types::{Access, SpaceId};

/// Locks of a robust list that are made accessible; Linux's ROBUST_LIST_LIMIT.
const ROBUST_LIST_LIMIT: usize = 2048;

impl<'m> Supervisor<'m> {
    /// A task is about to end: the host will clear its thread-id word and walk its robust list.
    pub(crate) fn exiting(&mut self, task: &mut Task<'m>) {
        let engine = &self.engine;
        if engine.machine.with(task.space, |s| s.users) <= 1 {
            return;
        }
        // Without memory the joiner is not told; it would not get far either.
        if let Some(word) = task.clear_child_tid {
            engine.prefault(task, word.as_u64(), 8, Access::Write);
        }
        let Some(head) = robust_list(task.tid) else {
            return;
        };
        let (Some(first), Some(offset)) =
            (engine.read_u64(task, head), engine.read_u64(task, head + 8))
        else {
            return;
        };
        engine.prefault(task, head, 24, Access::Read);
        let mut entry = first;
        for _ in 0..ROBUST_LIST_LIMIT {
            // Bit 0 marks a lock with priority inheritance.
            entry &= !1;
            if entry == head {
                break;
            }
            engine.prefault(task, entry, 8, Access::Read);
            engine.prefault(task, entry.wrapping_add(offset), 8, Access::Write);
            match engine.read_u64(task, entry) {
                Some(next) => entry = next,
                None => break,
            }
        }
    }

    /// The host has reported the end of a task.
    pub(crate) fn ended(&mut self, mut task: Box<Task<'m>>, status: Status) {
        self.note_stop(&mut task);
        if task.tid == self.first {
            self.end = Some(status);
        }
        let state = std::mem::take(&mut task.abi);
        abi::exited(&mut self.engine, task.tid, state);
        self.stalled.retain(|tid| *tid != task.tid);
        self.starved.retain(|call| call.tid != task.tid);
        self.pace.forget(task.tid);
        let tid = task.tid;
        self.leave_space(task);
        // Its zombies were inherited, and reaped, by the supervisor.
        self.zombies.retain(|(parent, _)| *parent != tid);
    }

    /// Drops a task and its part in its space.
    pub(crate) fn leave_space(&mut self, task: Box<Task<'m>>) {
        self.leave(task.tid, task.mm, task.space);
        if let crate::supervisor::Phase::Exec(image) = task.phase {
            self.engine.sys.mm_put(image.mm);
        }
    }

    /// A task does not use a space any more; the last one takes the space down.
    pub(crate) fn leave(&mut self, tid: i32, mm: MmRef<'m>, space: SpaceId) {
        let machine = self.engine.machine;
        machine.unpin(space, tid);
        let users = machine.with(space, |s| {
            s.users = s.users.saturating_sub(1);
            s.users
        });
        self.engine.sys.mm_put(mm);
        if users > 0 {
            return;
        }
        if let Some(service) = machine.detach(space) {
            kill(service.pid, libc::SIGKILL);
            while let Ok(status) = wait::one(service.pid) {
                if let Status::Exited(_) | Status::Killed(..) = status {
                    break;
                }
                let _ = ptrace::cont(service.pid, 0);
            }
            // For its parent it is a zombie now, unless that is gone too.
            self.zombies.push((service.parent, service.pid));
            machine.free_slot(service.slot);
        }
        self.dying.retain(|s| *s != space);
        self.wake_stalled();
    }

    /// Memory may have come free: the faults that wait for it are tried again.
    fn wake_stalled(&mut self) {
        for tid in std::mem::take(&mut self.stalled) {
            if let Some(task) = self.engine.tasks.remove(&tid) {
                self.go_on(task, Resume::Run(0));
            }
        }
        self.wake_starved();
    }

    /// There is no frame left: ends the largest process, says so, and has the task wait.
    pub(crate) fn out_of_memory(&mut self, task: &Task<'m>) -> Resume {
        if self.dying.is_empty() {
            let Some(victim) = self.engine.sys.oom_victim() else {
                kill(task.tgid, libc::SIGKILL);
                return Resume::Run(0);
            };
            let others = self.engine.tasks.values().map(|other| &**other);
            let tasks = others.chain([task]);
            let mut tgids: Vec<i32> = tasks
                .filter(|t| t.space == victim.space)
                .map(|t| t.tgid)
                .collect();
            tgids.sort_unstable();
            tgids.dedup();
            for tgid in &tgids {
                let comm =
                    std::fs::read_to_string(format!("/proc/{tgid}/comm")).unwrap_or_default();
                eprintln!(
                    "Out of memory: Killed process {tgid} ({}) total-vm:{}kB, anon-rss:{}kB, \
                     file-rss:{}kB, pgtables:{}kB",
                    comm.trim_end(),
                    victim.total_vm_kb,
                    victim.anon_kb,
                    victim.file_kb,
                    victim.pgtables_kb,
                );
                kill(*tgid, libc::SIGKILL);
            }
            if tgids.is_empty() {
                kill(task.tgid, libc::SIGKILL);
                return Resume::Run(0);
            }
            self.dying.push(victim.space);
        }
        if self.dying.contains(&task.space) {
            Resume::Run(0)
        } else {
            Resume::Stall
        }
    }
}

/// The head of a task's robust list.
fn robust_list(tid: i32) -> Option<u64> {
    let (mut head, mut len) = (0_u64, 0_usize);
    let call = libc::SYS_get_robust_list;
    // SAFETY: both out-parameters are 8 bytes and outlive the call.
    let result = unsafe { libc::syscall(call, tid, &raw mut head, &raw mut len) };
    check(result).ok().filter(|_| head != 0).map(|_| head)
}
