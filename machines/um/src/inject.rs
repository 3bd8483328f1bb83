//! Calls of the host made by a stopped guest task itself: for what only it can do.

use crate::host::ptrace;
use crate::host::wait::{self, Status};
use crate::space::Service;
use crate::stub::mailbox::{HostCall, Slot};
use crate::stub::{MAILBOX_BASE, PARK_CALL};
use crate::supervisor::{Supervisor, kill};
use crate::task::Regs;
use std::io;

/// The task died or was killed while it worked for us.
fn died() -> io::Error {
    io::Error::from_raw_os_error(libc::ESRCH)
}

/// The call that makes a service process: a process of its own that shares the memory, and the
/// descriptor table until it takes an empty one. Without an exit signal, so that the guest's wait
/// does not see it.
pub(crate) fn service_clone() -> HostCall {
    HostCall::new(
        libc::SYS_clone,
        [(libc::CLONE_VM | libc::CLONE_FILES) as u64],
    )
}

impl<'m> Supervisor<'m> {
    /// Lets `tid` run until it parks. `service`: slot and parent of a service process that it
    /// creates on the way.
    fn run_to_park(&mut self, tid: i32, new: Option<(Slot, i32)>) -> io::Result<Option<Service>> {
        let mut service = None;
        let mut stash = Vec::new();
        let result = loop {
            ptrace::cont(tid, 0)?;
            match wait::one(tid)? {
                Status::Event(libc::PTRACE_EVENT_SECCOMP, _) => {
                    if ptrace::regs(tid)?.orig_rax == PARK_CALL {
                        break Ok(service);
                    }
                    return Err(io::Error::other("a guest left the stub"));
                }
                Status::Event(libc::PTRACE_EVENT_CLONE, _) => {
                    if let Some((slot, parent)) = new {
                        let pid = ptrace::event_message(tid)? as i32;
                        service = Some(self.start_service(pid, parent, slot)?);
                    }
                }
                // All signals are blocked but these two.
                Status::Signal(signal) => stash.push(signal),
                Status::Event(libc::PTRACE_EVENT_STOP, _) => {}
                end => {
                    self.deferred.push_back((tid, end));
                    break Err(died());
                }
            }
        };
        for signal in stash {
            kill(tid, signal);
        }
        result
    }

    fn start_service(&mut self, pid: i32, parent: i32, slot: Slot) -> io::Result<Service> {
        let first = match self.early.remove(&pid) {
            Some(status) => status,
            None => wait::one(pid)?,
        };
        if !matches!(first, Status::Event(libc::PTRACE_EVENT_STOP, _)) {
            return Err(died());
        }
        ptrace::set_options(pid, ptrace::SERVICE_OPTIONS)?;
        ptrace::set_sigmask(pid, u64::MAX)?;
        let stub = self.engine.machine.stub();
        let mut regs = ptrace::regs(pid)?;
        regs.rip = stub.service();
        regs.r15 = slot.guest_addr();
        regs.r14 = 0;
        regs.orig_rax = u64::MAX;
        ptrace::set_regs(pid, &regs)?;
        let mailbox = self.engine.machine.mailbox();
        // The batch in the slot is still the parent's: an empty first request of its own comes when
        // the parent has parked.
        mailbox.quiet(slot);
        ptrace::cont(pid, 0)?;
        Ok(Service { pid, parent, slot })
    }

    /// After the host's exec: lets the stub's entry map the mailbox.
    pub(crate) fn enter_stub(&mut self, tid: i32) -> io::Result<()> {
        let mask = ptrace::sigmask(tid)?;
        ptrace::set_sigmask(tid, u64::MAX)?;
        self.run_to_park(tid, None)?;
        ptrace::set_sigmask(tid, mask)?;
        let regs = ptrace::regs(tid)?;
        if regs.r12 != MAILBOX_BASE {
            return Err(io::Error::from_raw_os_error(-(regs.r12 as i64) as i32));
        }
        Ok(())
    }

    /// Has `tid`, which is stopped, make `calls` in its own name. Its registers are `regs` after
    /// that; a system call it was about to make or to restart is cancelled.
    pub(crate) fn inject(
        &mut self,
        tid: i32,
        slot: Slot,
        calls: &[HostCall],
        new_service_of: Option<i32>,
    ) -> io::Result<(Vec<i64>, Option<Service>)> {
        let mut results = Vec::new();
        let mut service = None;
        let mask = ptrace::sigmask(tid)?;
        ptrace::set_sigmask(tid, u64::MAX)?;
        for batch in calls.chunks(crate::stub::mailbox::BATCH) {
            let mailbox = self.engine.machine.mailbox();
            mailbox.write(slot, batch);
            let mut regs: Regs = ptrace::regs(tid)?;
            regs.rip = self.engine.machine.stub().batch();
            regs.r15 = slot.guest_addr();
            regs.orig_rax = u64::MAX;
            ptrace::set_regs(tid, &regs)?;
            let made = self.run_to_park(tid, new_service_of.map(|parent| (slot, parent)))?;
            service = made.or(service);
            let mailbox = self.engine.machine.mailbox();
            results.extend((0..batch.len()).map(|i| mailbox.result(slot, i)));
        }
        if service.is_some() {
            let mailbox = self.engine.machine.mailbox();
            mailbox.write(slot, &[]);
            mailbox.start(slot);
        }
        ptrace::set_sigmask(tid, mask)?;
        Ok((results, service))
    }
}
