//! SIGSEGV stops: page faults of the guest, real and imagined.

use crate::facade::{FaultInfo, FaultOutcome, SegvCode};
use crate::host::ptrace::{self, SigInfo};
use crate::supervisor::{Resume, Supervisor};
use crate::task::Task;
use std::io;
use vellum_types::{Access, Prot, VirtAddr};

const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;
const BUS_ADRERR: i32 = 2;
/// The longest x86 instruction.
const MAX_INSTRUCTION: usize = 15;

impl<'m> Supervisor<'m> {
    /// A SIGSEGV stop. `None` if the signal is not a page fault.
    pub(crate) fn page_fault(
        &mut self,
        task: &mut Task<'m>,
        info: &SigInfo,
    ) -> io::Result<Option<Resume>> {
        if !matches!(info.code(), SEGV_MAPERR | SEGV_ACCERR) {
            return Ok(None);
        }
        let addr = VirtAddr::new(info.addr());
        task.regs = ptrace::regs(task.tid)?;
        let installed = self.engine.machine.installed(task.space, addr);
        let decoded = self.decode(task, addr);
        let again = task.last_fault.replace((task.regs.rip, addr)) == Some((task.regs.rip, addr));
        let allowed = installed.is_some_and(|prot| allows(prot, decoded));
        if !again && allowed {
            // Another thread's fault on this page was served while this one waited.
            return Ok(Some(Resume::Run(0)));
        }
        // A page that may be read and still faulted was written; that the host knew no page at all
        // proves nothing.
        let readable = installed.is_some_and(|prot| prot.contains(Prot::READ));
        let stored = info.code() == SEGV_ACCERR && allowed;
        let guess = if stored { Access::Write } else { decoded };
        self.engine.machine.note_fault(task.space, addr);
        let mut outcome = self.serve(task, addr, guess);
        if outcome == FaultOutcome::Segv(SegvCode::AccErr) && guess != Access::Read && !readable {
            // The guess may be wrong; a load must not die of it. If a load fails too, the guess's
            // answer stands.
            let second = self.serve(task, addr, Access::Read);
            if second.is_served() {
                outcome = second;
            }
        }
        Ok(Some(match outcome {
            FaultOutcome::Minor | FaultOutcome::Major => Resume::Run(0),
            FaultOutcome::Oom => self.out_of_memory(task),
            FaultOutcome::Segv(code) => {
                let code = match code {
                    SegvCode::MapErr => SEGV_MAPERR,
                    SegvCode::AccErr => SEGV_ACCERR,
                };
                let info = SigInfo::fault(libc::SIGSEGV, code, addr.as_u64());
                self.force_signal(task, libc::SIGSEGV, &info)?
            }
            FaultOutcome::Bus => {
                let info = SigInfo::fault(libc::SIGBUS, BUS_ADRERR, addr.as_u64());
                self.force_signal(task, libc::SIGBUS, &info)?
            }
        }))
    }

    fn serve(&self, task: &Task<'m>, addr: VirtAddr, access: Access) -> FaultOutcome {
        let info = FaultInfo {
            addr,
            access,
            sp: Some(task.sp()),
        };
        self.engine.sys.fault(&task.mm, info)
    }

    /// What the instruction seems to do at `addr`.
    fn decode(&mut self, task: &Task<'m>, addr: VirtAddr) -> Access {
        let rip = task.regs.rip;
        if (rip..rip + MAX_INSTRUCTION as u64).contains(&addr.as_u64()) {
            return Access::Exec;
        }
        let mut code = [0; MAX_INSTRUCTION];
        let from = VirtAddr::new(rip);
        let len = match self.engine.sys.copy_from_user(&task.mm, from, &mut code) {
            Ok(()) => MAX_INSTRUCTION,
            Err(copied) => copied,
        };
        self.decoder
            .access(&code[..len], &task.regs, addr.as_u64())
            .unwrap_or(Access::Read)
    }
}

fn allows(prot: Prot, access: Access) -> bool {
    prot.contains(match access {
        Access::Read => Prot::READ,
        Access::Write => Prot::WRITE,
        Access::Exec => Prot::EXEC,
    })
}
