//! Signals of the guest that the host must not see as the guest means them.
//!
//! A page fault is a SIGSEGV for the host, also where the program would never see one. If the host
//! found that signal blocked or ignored, it would reset its disposition. So SIGSEGV never enters
//! a mask of the host and is never ignored there; what the guest wants is kept here.

use crate::abi;
use crate::engine::Action;
use crate::host::ptrace::{self, SigInfo};
use crate::stub::mailbox::HostCall;
use crate::supervisor::{Phase, Resume, Supervisor};
use crate::task::Task;
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use vellum_types::{Access, VirtAddr, VirtRange};

const SIG_DFL: u64 = 0;
const SIG_IGN: u64 = 1;
const SIGSET_LEN: u64 = 8;
/// Below the stack pointer there is a red zone, then the frame: AT_MINSIGSTKSZ, generously.
const RED_ZONE: u64 = 128;
const FRAME: u64 = 12 << 10;
/// A result of the host that means "I will go on by myself".
const ERESTART_RESTARTBLOCK: i64 = -516;

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}
const SEGV: u64 = bit(libc::SIGSEGV);

/// What the guest believes about dispositions, where the host knows less. Bit n-1 is signal n.
#[derive(Clone, Default, Debug)]
pub(crate) struct SigHand {
    /// Signals whose handler's mask has SIGSEGV.
    masks_segv: u64,
    /// Signals with a handler.
    caught: u64,
    /// Signals that are ignored.
    ignored: u64,
}

impl SigHand {
    /// What a new program starts with: handlers are gone, ignored signals stay ignored.
    pub(crate) fn after_exec(&self) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            ignored: self.ignored,
            ..Self::default()
        }))
    }
    /// What a forked child starts with.
    pub(crate) fn copied(&self) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(self.clone()))
    }
}

/// What is to be done at the exit of a call.
pub(crate) enum AtExit {
    /// Only the arguments are put back.
    Nothing,
    /// rt_sigaction: the old action is made what the guest had set, the new one is remembered.
    Action {
        signal: i32,
        new: Option<[u64; 4]>,
        old_at: u64,
    },
}

impl<'m> Supervisor<'m> {
    /// A stop before the delivery of a signal.
    pub(crate) fn signal_stop(&mut self, task: &mut Task<'m>, signal: i32) -> io::Result<Resume> {
        let info = SigInfo::of(task.tid)?;
        if signal == libc::SIGSEGV {
            if let Some(resume) = self.page_fault(task, &info)? {
                return Ok(resume);
            }
            if info.code() <= 0 && task.sighand.borrow().ignored & SEGV != 0 {
                return Ok(Resume::Run(0));
            }
        }
        task.regs = ptrace::regs(task.tid)?;
        let will_restart = task.regs.rax as i64 == ERESTART_RESTARTBLOCK;
        if !will_restart {
            self.unpin(task);
        }
        self.prepare_frame(task, signal);
        Ok(Resume::Run(signal))
    }

    /// The host writes the handler's frame, and kills if it cannot.
    fn prepare_frame(&self, task: &mut Task<'m>, signal: i32) {
        if !(1..=64).contains(&signal) || task.sighand.borrow().caught & bit(signal) == 0 {
            return;
        }
        let engine = &self.engine;
        let below = |task: &mut Task<'m>, top: u64| {
            let start = VirtAddr::new(top.saturating_sub(RED_ZONE + FRAME));
            // What cannot be had is the program's fault: Linux kills it then.
            for page in [12288, 8192, 4096, 0] {
                engine.prefault(task, (start + page).as_u64(), 1, Access::Write);
            }
        };
        below(task, task.regs.rsp);
        if let Some(stack) = task.altstack {
            below(task, stack.end().as_u64());
        }
    }

    /// Linux's force_sig_fault: a signal that cannot be blocked or ignored.
    pub(crate) fn force_signal(
        &mut self,
        task: &mut Task<'m>,
        signal: i32,
        info: &SigInfo,
    ) -> io::Result<Resume> {
        let mask = ptrace::sigmask(task.tid)?;
        let segv_blocked = signal == libc::SIGSEGV && task.segv_blocked;
        let blocked = mask & bit(signal) != 0 || segv_blocked;
        let ignored = task.sighand.borrow().ignored & bit(signal) != 0;
        if blocked || ignored {
            let slot = self
                .engine
                .machine
                .with(task.space, |s| s.service.map(|s| s.slot));
            let slot = slot.ok_or_else(|| io::Error::other("a task without a space"))?;
            let mailbox = self.engine.machine.mailbox();
            let default = mailbox.scratch(slot, task.tid, &[SIG_DFL, 0, 0, 0]);
            let args = [signal as u64, default, 0, SIGSET_LEN];
            let regs = ptrace::regs(task.tid)?;
            self.inject(
                task.tid,
                slot,
                &[HostCall::new(libc::SYS_rt_sigaction, args)],
                None,
            )?;
            ptrace::set_sigmask(task.tid, mask & !bit(signal))?;
            let mut sighand = task.sighand.borrow_mut();
            sighand.ignored &= !bit(signal);
            sighand.caught &= !bit(signal);
            drop(sighand);
            task.segv_blocked &= signal != libc::SIGSEGV;
            // The signal of the present stop is spent, so the fault comes again; it is fatal now.
            task.regs = regs;
            task.regs.orig_rax = u64::MAX;
            task.regs_dirty = true;
            return Ok(Resume::Run(0));
        }
        info.set(task.tid)?;
        self.prepare_frame(task, signal);
        Ok(Resume::Run(signal))
    }

    /// Answers the calls about signals; `None` if this is none of them.
    pub(crate) fn signal_call(&mut self, task: &mut Task<'m>) -> io::Result<Option<Resume>> {
        let action = match task.nr() {
            libc::SYS_rt_sigprocmask => self.sigprocmask(task)?,
            libc::SYS_rt_sigaction => return self.sigaction(task).map(Some),
            libc::SYS_rt_sigreturn => {
                self.engine
                    .prefault(task, task.regs.rsp - 8, 4096, Access::Read);
                Action::Native
            }
            libc::SYS_rt_sigtimedwait | libc::SYS_set_robust_list => {
                abi::prefault_call(&mut self.engine, task)
            }
            libc::SYS_sigaltstack => {
                if let Some([sp, flags, size]) = self.words::<3>(task, task.arg(0)) {
                    let disabled = flags as i32 & libc::SS_DISABLE != 0;
                    let range = VirtRange::from_len(VirtAddr::new(sp), size);
                    task.altstack = range.filter(|_| !disabled);
                }
                abi::prefault_call(&mut self.engine, task)
            }
            libc::SYS_set_tid_address => {
                task.clear_child_tid = Some(VirtAddr::new(task.arg(0))).filter(|a| a.as_u64() != 0);
                Action::Native
            }
            libc::SYS_rt_sigsuspend => return Ok(Some(self.masked(task, 0))),
            libc::SYS_ppoll => return Ok(Some(self.masked(task, 3))),
            libc::SYS_epoll_pwait | libc::SYS_epoll_pwait2 => {
                return Ok(Some(self.masked(task, 4)));
            }
            libc::SYS_pselect6 => return Ok(Some(self.masked_pselect(task))),
            _ => return Ok(None),
        };
        Ok(Some(self.act(task, action)))
    }

    fn words<const N: usize>(&self, task: &Task<'m>, at: u64) -> Option<[u64; N]> {
        let mut words = [0; N];
        if at == 0 {
            return None;
        }
        for (i, word) in words.iter_mut().enumerate() {
            *word = self.engine.read_u64(task, at + i as u64 * 8)?;
        }
        Some(words)
    }

    fn scratch(&self, task: &Task<'m>, words: &[u64]) -> Option<u64> {
        let machine = self.engine.machine;
        let slot = machine.with(task.space, |s| s.service.map(|s| s.slot))?;
        Some(machine.mailbox().scratch(slot, task.tid, words))
    }

    fn sigprocmask(&mut self, task: &mut Task<'m>) -> io::Result<Action> {
        let (how, set, old_at, size) = (task.arg(0) as i32, task.arg(1), task.arg(2), task.arg(3));
        let fail = |errno: i32| Ok(Action::Return(-i64::from(errno)));
        if size != SIGSET_LEN {
            return fail(libc::EINVAL);
        }
        let host = ptrace::sigmask(task.tid)?;
        let old = if task.segv_blocked { host | SEGV } else { host };
        if set != 0 {
            let Some(set) = self.engine.read_u64(task, set) else {
                return fail(libc::EFAULT);
            };
            let new = match how {
                libc::SIG_BLOCK => old | set,
                libc::SIG_UNBLOCK => old & !set,
                libc::SIG_SETMASK => set,
                _ => return fail(libc::EINVAL),
            };
            task.segv_blocked = new & SEGV != 0;
            if new & !SEGV != host {
                ptrace::set_sigmask(task.tid, new & !SEGV)?;
            }
        }
        if old_at != 0 && !self.engine.write_user(task, old_at, &old.to_le_bytes()) {
            return fail(libc::EFAULT);
        }
        Ok(Action::Return(0))
    }

    fn sigaction(&mut self, task: &mut Task<'m>) -> io::Result<Resume> {
        let (signal, new_at, old_at) = (task.arg(0) as i32, task.arg(1), task.arg(2));
        let prefaulted = abi::prefault_call(&mut self.engine, task);
        if !(1..=64).contains(&signal) || !matches!(prefaulted, Action::Native) {
            return Ok(self.act(task, prefaulted));
        }
        let new = self.words::<4>(task, new_at);
        let host = new.map(|[handler, flags, restorer, mask]| {
            let hide = signal == libc::SIGSEGV && handler == SIG_IGN;
            [
                if hide { SIG_DFL } else { handler },
                flags,
                restorer,
                mask & !SEGV,
            ]
        });
        let known = {
            let sighand = task.sighand.borrow();
            sighand.masks_segv & bit(signal) != 0
                || (signal == libc::SIGSEGV && sighand.ignored & SEGV != 0)
        };
        if host == new && !known {
            // Nothing to hide. The host accepts all but SIGKILL and SIGSTOP.
            self.remember(task, signal, new);
            return Ok(Resume::Run(0));
        }
        if let Some(host) = host
            && let Some(at) = self.scratch(task, &host)
        {
            task.set_arg(1, at);
        }
        task.phase = Phase::SignalExit(AtExit::Action {
            signal,
            new,
            old_at,
        });
        Ok(Resume::ToExit)
    }

    fn remember(&self, task: &Task<'m>, signal: i32, new: Option<[u64; 4]>) {
        let Some([handler, .., mask]) = new else {
            return;
        };
        let mut sighand = task.sighand.borrow_mut();
        let mut set = |which: fn(&mut SigHand) -> &mut u64, on: bool| {
            let word = which(&mut sighand);
            *word = if on {
                *word | bit(signal)
            } else {
                *word & !bit(signal)
            };
        };
        set(|s| &mut s.masks_segv, mask & SEGV != 0);
        set(|s| &mut s.ignored, handler == SIG_IGN);
        set(|s| &mut s.caught, handler != SIG_IGN && handler != SIG_DFL);
    }

    /// The exit of a call that ran with arguments of ours.
    pub(crate) fn signal_call_exit(&mut self, task: &mut Task<'m>, at_exit: &AtExit) {
        let AtExit::Action {
            signal,
            new,
            old_at,
        } = at_exit
        else {
            return;
        };
        if task.result() != 0 {
            return;
        }
        if let Some([mut handler, flags, restorer, mut mask]) = self.words::<4>(task, *old_at) {
            let sighand = task.sighand.borrow();
            if sighand.masks_segv & bit(*signal) != 0 {
                mask |= SEGV;
            }
            if *signal == libc::SIGSEGV && sighand.ignored & SEGV != 0 {
                handler = SIG_IGN;
            }
            drop(sighand);
            let words = [handler, flags, restorer, mask].map(u64::to_le_bytes);
            // The host has just written there.
            let _ = self.engine.write_user(task, *old_at, words.as_flattened());
        }
        self.remember(task, *signal, *new);
    }

    /// A call whose argument `arg` points at a temporary mask.
    fn masked(&mut self, task: &mut Task<'m>, arg: usize) -> Resume {
        let mask = self.words::<1>(task, task.arg(arg));
        let action = abi::prefault_call(&mut self.engine, task);
        let resume = self.act(task, action);
        if let (Some([mask]), Resume::Run(_)) = (mask, resume)
            && mask & SEGV != 0
            && let Some(at) = self.scratch(task, &[mask & !SEGV])
        {
            return self.with_mask(task, arg, at);
        }
        resume
    }

    fn masked_pselect(&mut self, task: &mut Task<'m>) -> Resume {
        let pair = self.words::<2>(task, task.arg(5));
        let action = abi::prefault_call(&mut self.engine, task);
        let resume = self.act(task, action);
        if let (Some([set, size]), Resume::Run(_)) = (pair, resume)
            && let Some([mask]) = self.words::<1>(task, set)
            && mask & SEGV != 0
            // The pair comes first; its pointer leads to the third word.
            && let Some(at) = self.scratch(task, &[0, size, mask & !SEGV])
            && let Some(at) = self.scratch(task, &[at + 16, size, mask & !SEGV])
        {
            return self.with_mask(task, 5, at);
        }
        resume
    }

    fn with_mask(&mut self, task: &mut Task<'m>, arg: usize, at: u64) -> Resume {
        if task.regs.orig_rax == u64::MAX {
            return Resume::Run(0);
        }
        task.set_arg(arg, at);
        task.phase = Phase::SignalExit(AtExit::Nothing);
        Resume::ToExit
    }
}
