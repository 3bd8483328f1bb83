//! One task of a traced program, as the supervisor sees it while it is stopped.

use crate::abi;
use crate::facade::MmRef;
use crate::signal::SigHand;
use std::cell::RefCell;
use std::rc::Rc;
use vellum_types::{SpaceId, VirtAddr, VirtRange};

/// Registers of a stopped task.
pub(crate) type Regs = libc::user_regs_struct;

/// A thread of the guest. Exists from its creation event until the host reports its end.
pub(crate) struct Task<'m> {
    /// Thread id on the host, which the guest sees too.
    pub tid: i32,
    /// Process id on the host.
    pub tgid: i32,
    /// Its address space; holds one user count of it.
    pub mm: MmRef<'m>,
    /// The machine's name of that space.
    pub space: SpaceId,
    /// Registers at the present stop. Changes are written back if `regs_dirty`.
    pub regs: Regs,
    /// `regs` differ from the host's.
    pub regs_dirty: bool,
    /// User memory that the host kernel may touch until the task's next stop.
    pub pins: Vec<VirtRange>,
    /// `set_tid_address` / CLONE_CHILD_CLEARTID: written by the host at exit.
    pub clear_child_tid: Option<VirtAddr>,
    /// Dispositions of signals, shared by CLONE_SIGHAND.
    pub sighand: Rc<RefCell<SigHand>>,
    /// The guest believes that SIGSEGV is blocked.
    pub segv_blocked: bool,
    /// The alternate signal stack, if one is set.
    pub altstack: Option<VirtRange>,
    /// The affinity mask that the guest set or inherited; one bit per CPU.
    pub affinity: crate::host::affinity::CpuMask,
    /// What the system-call layer remembers of the task.
    pub abi: abi::TaskState,
    /// What the supervisor waits for.
    pub(crate) phase: crate::supervisor::Phase<'m>,
    /// The registers at the entry of the present system call.
    pub(crate) saved_args: Regs,
    /// Runs at this moment, or sleeps in the host kernel.
    pub(crate) running: bool,
    /// Instruction and address of its last page fault.
    pub(crate) last_fault: Option<(u64, VirtAddr)>,
    /// May use all CPUs of its mask at the moment.
    pub(crate) roaming: bool,
    /// Since when, in nanoseconds of the machine's clock.
    pub(crate) since: u64,
}

impl Task<'_> {
    /// Number of the system call at a system-call stop.
    pub(crate) fn nr(&self) -> i64 {
        self.regs.orig_rax as i64
    }
    /// Argument `i` (0 to 5) of the system call.
    ///
    /// # Panics
    /// If `i` is above 5.
    pub(crate) fn arg(&self, i: usize) -> u64 {
        let r = &self.regs;
        [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9][i]
    }
    /// Replaces argument `i` (0 to 5); the supervisor writes it back before the call runs.
    ///
    /// # Panics
    /// If `i` is above 5.
    pub(crate) fn set_arg(&mut self, i: usize, value: u64) {
        let r = &mut self.regs;
        *[
            &mut r.rdi, &mut r.rsi, &mut r.rdx, &mut r.r10, &mut r.r8, &mut r.r9,
        ][i] = value;
        self.regs_dirty = true;
    }
    /// The result, at a system-call exit stop.
    pub(crate) fn result(&self) -> i64 {
        self.regs.rax as i64
    }
    /// Puts the arguments and the number back to what the guest passed; the result stays.
    pub(crate) fn restore_args(&mut self) {
        let (now, then) = (&mut self.regs, &self.saved_args);
        now.rdi = then.rdi;
        now.rsi = then.rsi;
        now.rdx = then.rdx;
        now.r10 = then.r10;
        now.r8 = then.r8;
        now.r9 = then.r9;
        now.orig_rax = then.orig_rax;
        self.regs_dirty = true;
    }
    /// The stack pointer.
    pub(crate) fn sp(&self) -> VirtAddr {
        VirtAddr::new(self.regs.rsp)
    }
}
