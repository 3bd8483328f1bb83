//! Signals. Source: signal(7), sigaction(2), `arch/x86/kernel/signal_64.c`.

use crate::fs::{EFAULT, EINTR, EINVAL, ERESTARTSYS, Result};
use crate::sys::{process, user};
use crate::task::{self, Process, Task};
use crate::trap::TrapFrame;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

pub(crate) const SIGILL: u32 = 4;
pub(crate) const SIGTRAP: u32 = 5;
pub(crate) const SIGBUS: u32 = 7;
pub(crate) const SIGFPE: u32 = 8;
pub(crate) const SIGKILL: u32 = 9;
pub(crate) const SIGSEGV: u32 = 11;
pub(crate) const SIGPIPE: u32 = 13;
pub(crate) const SIGCHLD: u32 = 17;
pub(crate) const SIGCONT: u32 = 18;
pub(crate) const SIGSTOP: u32 = 19;

const SA_ONSTACK: u64 = 0x0800_0000;
const SA_RESTART: u64 = 0x1000_0000;
const SA_NODEFER: u64 = 0x4000_0000;
const SA_RESETHAND: u64 = 0x8000_0000;
const SS_ONSTACK: u32 = 1;
const SS_DISABLE: u32 = 2;
const MIN_ALT_STACK: u64 = 2048;
const SIG_DFL: u64 = 0;
const SIG_IGN: u64 = 1;
const RED_ZONE: u64 = 128;
const FX_BYTES: u64 = 512;
/// Return address, ucontext, siginfo.
const FRAME: usize = 8 + 304 + 128;
const CONTEXT: usize = 8;
const REGISTERS: usize = CONTEXT + 40;
const MASK: usize = CONTEXT + 296;
const INFO: usize = CONTEXT + 304;
/// Flags that a handler may change: those of arithmetic, direction, alignment check, trap.
const USER_FLAGS: u64 = 0x4_0dd5;

/// What to do on one signal.
#[derive(Clone, Copy, Default)]
pub(crate) struct Action {
    pub(crate) handler: u64,
    pub(crate) flags: u64,
    pub(crate) restorer: u64,
    pub(crate) mask: u64,
}

/// What to do on each.
#[derive(Clone)]
pub(crate) struct Actions(pub(crate) [Action; 64]);

impl Default for Actions {
    fn default() -> Self {
        Self([Action::default(); 64])
    }
}

/// sigaltstack(2).
#[derive(Clone, Copy, Default)]
pub(crate) struct AltStack {
    base: u64,
    size: u64,
}

impl AltStack {
    fn contains(&self, stack: u64) -> bool {
        stack.wrapping_sub(self.base) < self.size
    }
}

/// A signal on its way.
#[derive(Clone, Copy)]
pub(crate) struct Pending {
    signal: u32,
    code: i32,
    /// `si_addr`, or sender and user.
    value: u64,
    status: i32,
}

const fn bit(signal: u32) -> u64 {
    1 << (signal - 1)
}

const UNBLOCKABLE: u64 = bit(SIGKILL) | bit(SIGSTOP);

/// What happens without a handler: true if the process ends.
fn is_deadly(signal: u32) -> bool {
    // Job control is not there: what would stop a process is ignored, but for SIGSTOP's siblings too.
    !matches!(signal, SIGCHLD | SIGCONT | 19..=23 | 28)
}

fn action(process: &Process, signal: u32) -> Action {
    process.actions.lock().lock().0[signal as usize - 1]
}

fn queue(list: &mut alloc::vec::Vec<Pending>, pending: Pending) {
    // Standard signals do not queue.
    if pending.signal >= 32 || !list.iter().any(|other| other.signal == pending.signal) {
        list.push(pending);
    }
}

fn is_ignored(process: &Process, signal: u32) -> bool {
    match action(process, signal).handler {
        SIG_IGN => true,
        SIG_DFL => !is_deadly(signal),
        _ => false,
    }
}

/// A fault: the signal is delivered even if it is blocked or ignored, and then it is deadly.
pub(crate) fn force(task: &Task, signal: u32, code: i32, address: u64) {
    let blocked = task.blocked.load(Ordering::Relaxed) & bit(signal) != 0;
    let actions = task.process.actions.lock().clone();
    let mut actions = actions.lock();
    let entry = &mut actions.0[signal as usize - 1];
    if blocked || entry.handler == SIG_IGN {
        entry.handler = SIG_DFL;
        task.blocked.fetch_and(!bit(signal), Ordering::Relaxed);
    }
    drop(actions);
    let pending = Pending {
        signal,
        code,
        value: address,
        status: 0,
    };
    task.pending.lock().insert(0, pending);
    task.attention.store(true, Ordering::Relaxed);
}

/// Sends a signal to a thread.
pub(crate) fn send_task(task: &Task, signal: u32, code: i32) {
    if is_ignored(&task.process, signal) && task.blocked.load(Ordering::Relaxed) & bit(signal) == 0
    {
        return;
    }
    let value = u64::from(task::current().process.pid);
    let pending = Pending {
        signal,
        code,
        value,
        status: 0,
    };
    queue(&mut task.pending.lock(), pending);
    task.attention.store(true, Ordering::SeqCst);
}

/// Sends a signal to a process.
pub(crate) fn send_process(process: &Arc<Process>, signal: u32, code: i32, status: i32) {
    if is_ignored(process, signal) && signal != SIGCHLD {
        return;
    }
    let pending = Pending {
        signal,
        code,
        value: u64::from(task::current().process.pid),
        status,
    };
    queue(&mut process.shared_pending.lock(), pending);
    notify(process);
}

/// Wakes a process's threads so that they look at their signals.
pub(crate) fn notify(process: &Arc<Process>) {
    let threads = process.threads.lock().clone();
    for thread in threads {
        thread.attention.store(true, Ordering::SeqCst);
        crate::sched::wake(&thread);
        crate::smp::kick(&thread);
    }
}

/// The next signal that is not blocked.
fn take(task: &Task) -> Option<Pending> {
    let blocked = task.blocked.load(Ordering::Relaxed) & !UNBLOCKABLE;
    let find = |list: &mut alloc::vec::Vec<Pending>| {
        let at = list.iter().position(|p| blocked & bit(p.signal) == 0)?;
        Some(list.remove(at))
    };
    find(&mut task.pending.lock()).or_else(|| find(&mut task.process.shared_pending.lock()))
}

/// Signals that are pending and blocked.
pub(crate) fn pending_mask(task: &Task) -> u64 {
    let mask = |list: &[Pending]| list.iter().fold(0, |mask, p| mask | bit(p.signal));
    mask(&task.pending.lock()) | mask(&task.process.shared_pending.lock())
}

/// Before the program goes on: ends it, or lets a handler run first.
pub(crate) fn deliver(task: &Task, frame: &mut TrapFrame) {
    if task.process.group_exit.load(Ordering::Acquire) != -1 {
        process::exit_thread(0);
    }
    task.attention.store(false, Ordering::Relaxed);
    let restart = task.restart.swap(false, Ordering::Relaxed);
    let again = |frame: &mut TrapFrame| {
        frame.rax = frame.number;
        frame.rip -= 2;
    };
    while let Some(pending) = take(task) {
        let action = action(&task.process, pending.signal);
        match action.handler {
            SIG_IGN => continue,
            SIG_DFL if !is_deadly(pending.signal) => continue,
            SIG_DFL => {
                process::report_death(task, pending.signal, pending.value, frame);
                process::exit_group(pending.signal as i32);
            }
            _ => {}
        }
        if restart {
            if action.flags & SA_RESTART != 0 {
                again(frame);
            } else {
                frame.rax = (-i64::from(EINTR)) as u64;
            }
        }
        if enter(task, frame, pending, action).is_err() {
            // No room for the handler's frame.
            process::report_death(task, SIGSEGV, frame.rsp, frame);
            process::exit_group(SIGSEGV as i32);
        }
        // Others wait until this handler returns, or come on top of it at the next entry.
        task.attention.store(true, Ordering::Relaxed);
        let blocked = task.blocked.load(Ordering::Relaxed);
        let waiting = pending_mask(task) & (!blocked | UNBLOCKABLE) != 0;
        task.attention.store(waiting, Ordering::Relaxed);
        return;
    }
    if let Some(mask) = task.saved_mask.lock().take() {
        task.blocked.store(mask, Ordering::Relaxed);
        task.attention.store(true, Ordering::Relaxed);
    }
    if restart {
        again(frame);
    }
}

/// Makes the program continue in a handler, with a frame from which it comes back.
fn enter(task: &Task, frame: &mut TrapFrame, pending: Pending, action: Action) -> Result<()> {
    let alt = *task.alt_stack.lock();
    let on_alt = alt.contains(frame.rsp);
    let stack = if action.flags & SA_ONSTACK != 0 && alt.size > 0 && !on_alt {
        alt.base + alt.size
    } else {
        frame.rsp.wrapping_sub(RED_ZONE)
    };
    let fx = stack.wrapping_sub(FX_BYTES) & !63;
    let at = (fx.wrapping_sub(FRAME as u64) & !15).wrapping_sub(8);
    let mut bytes = [0; FRAME];
    let mut put = |at: usize, value: u64| bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    put(0, action.restorer);
    put(CONTEXT + 16, alt.base);
    put(CONTEXT + 24, u64::from(alt_flags(&alt, frame.rsp)));
    put(CONTEXT + 32, alt.size);
    let registers = [
        frame.r8,
        frame.r9,
        frame.r10,
        frame.r11,
        frame.r12,
        frame.r13,
        frame.r14,
        frame.r15,
        frame.rdi,
        frame.rsi,
        frame.rbp,
        frame.rbx,
        frame.rdx,
        frame.rax,
        frame.rcx,
        frame.rsp,
        frame.rip,
        frame.rflags,
    ];
    for (n, register) in registers.into_iter().enumerate() {
        put(REGISTERS + n * 8, register);
    }
    put(REGISTERS + 144, frame.cs | frame.ss << 48);
    put(REGISTERS + 152, frame.error);
    put(REGISTERS + 160, frame.number);
    let mask = task
        .saved_mask
        .lock()
        .take()
        .unwrap_or_else(|| task.blocked.load(Ordering::Relaxed));
    put(REGISTERS + 168, mask);
    put(REGISTERS + 176, pending.value);
    put(REGISTERS + 184, fx);
    put(MASK, mask);
    put(INFO, u64::from(pending.signal));
    put(INFO + 8, u64::from(pending.code as u32));
    put(INFO + 16, pending.value);
    put(INFO + 24, u64::from(pending.status as u32));
    user::put(fx, &frame.fx)?;
    user::put(at, &bytes)?;
    let mut blocked = task.blocked.load(Ordering::Relaxed) | action.mask;
    if action.flags & SA_NODEFER == 0 {
        blocked |= bit(pending.signal);
    }
    task.blocked
        .store(blocked & !UNBLOCKABLE, Ordering::Relaxed);
    if action.flags & SA_RESETHAND != 0 {
        let actions = task.process.actions.lock().clone();
        actions.lock().0[pending.signal as usize - 1].handler = SIG_DFL;
    }
    frame.rdi = u64::from(pending.signal);
    frame.rsi = at + INFO as u64;
    frame.rdx = at + CONTEXT as u64;
    frame.rax = 0;
    frame.rip = action.handler;
    frame.rsp = at;
    frame.rflags &= !0x400;
    Ok(())
}

/// rt_sigreturn(2).
pub(crate) fn come_back(task: &Task, frame: &mut TrapFrame) -> Result<()> {
    let context = frame.rsp;
    let mut registers = [0; 256];
    user::get(context + (REGISTERS - CONTEXT) as u64, &mut registers)?;
    let word = |n: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&registers[n * 8..n * 8 + 8]);
        u64::from_le_bytes(bytes)
    };
    let fx = word(23);
    if fx != 0 {
        user::get(fx, &mut frame.fx)?;
        // Reserved bits of MXCSR would fault on the way out.
        for byte in &mut frame.fx[26..28] {
            *byte = 0;
        }
    }
    [frame.r8, frame.r9, frame.r10, frame.r11] = [word(0), word(1), word(2), word(3)];
    [frame.r12, frame.r13, frame.r14, frame.r15] = [word(4), word(5), word(6), word(7)];
    [frame.rdi, frame.rsi, frame.rbp, frame.rbx] = [word(8), word(9), word(10), word(11)];
    [frame.rdx, frame.rax, frame.rcx, frame.rsp] = [word(12), word(13), word(14), word(15)];
    frame.rip = word(16);
    frame.rflags = frame.rflags & !USER_FLAGS | word(17) & USER_FLAGS;
    if frame.rip >= 0x7fff_ffff_f000 {
        return Err(EFAULT);
    }
    let mask = user::word(context + (MASK - CONTEXT) as u64)?;
    set_mask(task, mask);
    Ok(())
}

/// Changes which signals wait.
pub(crate) fn set_mask(task: &Task, mask: u64) {
    task.blocked.store(mask & !UNBLOCKABLE, Ordering::Relaxed);
    task.attention.store(true, Ordering::Relaxed);
}

/// rt_sigaction(2).
pub(crate) fn sigaction(signal: u32, new: u64, old: u64) -> Result<u64> {
    if !(1..=64).contains(&signal) {
        return Err(EINVAL);
    }
    let actions = task::current().process.actions.lock().clone();
    let previous = actions.lock().0[signal as usize - 1];
    if new != 0 {
        if bit(signal) & UNBLOCKABLE != 0 {
            return Err(EINVAL);
        }
        let [handler, flags, restorer, mask] = user::words::<4>(new)?;
        actions.lock().0[signal as usize - 1] = Action {
            handler,
            flags,
            restorer,
            mask,
        };
    }
    if old != 0 {
        user::put_words(
            old,
            &[
                previous.handler,
                previous.flags,
                previous.restorer,
                previous.mask,
            ],
        )?;
    }
    Ok(0)
}

/// rt_sigprocmask(2).
pub(crate) fn sigprocmask(how: u32, new: u64, old: u64) -> Result<u64> {
    let task = task::current();
    let previous = task.blocked.load(Ordering::Relaxed);
    if new != 0 {
        let set = user::word(new)?;
        let mask = match how {
            0 => previous | set,
            1 => previous & !set,
            2 => set,
            _ => return Err(EINVAL),
        };
        set_mask(task, mask);
    }
    if old != 0 {
        user::put_words(old, &[previous])?;
    }
    Ok(0)
}

fn alt_flags(alt: &AltStack, stack: u64) -> u32 {
    if alt.size == 0 {
        SS_DISABLE
    } else if alt.contains(stack) {
        SS_ONSTACK
    } else {
        0
    }
}

/// sigaltstack(2).
pub(crate) fn sigaltstack(new: u64, old: u64, stack: u64) -> Result<u64> {
    let task = task::current();
    let previous = *task.alt_stack.lock();
    if new != 0 {
        let [base, flags, size] = user::words::<3>(new)?;
        if previous.contains(stack) {
            return Err(1);
        }
        let disable = flags as u32 & SS_DISABLE != 0;
        if !disable && size < MIN_ALT_STACK {
            return Err(12);
        }
        *task.alt_stack.lock() = if disable {
            AltStack::default()
        } else {
            AltStack { base, size }
        };
    }
    if old != 0 {
        let flags = u64::from(alt_flags(&previous, stack));
        user::put_words(old, &[previous.base, flags, previous.size])?;
    }
    Ok(0)
}

/// rt_sigsuspend(2).
pub(crate) fn sigsuspend(mask: u64) -> Result<u64> {
    let task = task::current();
    let mask = user::word(mask)?;
    let before = task.blocked.load(Ordering::Relaxed);
    set_mask(task, mask);
    task.attention
        .store(pending_mask(task) & !mask != 0, Ordering::SeqCst);
    let never = crate::wait::WaitQueue::new();
    let _ = never.wait(None, || None::<()>);
    *task.saved_mask.lock() = Some(before);
    // The handler runs with the new mask; coming back brings the old one. Never restarted.
    task.attention.store(true, Ordering::Relaxed);
    Err(EINTR)
}

/// A call was interrupted: shall it be made again?
pub(crate) fn note_restart(task: &Task, errno: i32) {
    task.restart.store(errno == ERESTARTSYS, Ordering::Relaxed);
}

/// execve(2) resets handlers, and keeps what is ignored.
pub(crate) fn reset_for_exec(task: &Task) {
    let mut actions = Actions::default();
    {
        let old = task.process.actions.lock().clone();
        let old = old.lock();
        for (new, old) in actions.0.iter_mut().zip(&old.0) {
            if old.handler == SIG_IGN {
                new.handler = SIG_IGN;
            }
        }
    }
    *task.process.actions.lock() = Arc::new(crate::sync::Lock::new(actions));
    *task.alt_stack.lock() = AltStack::default();
}

/// Takes a pending signal away: sigtimedwait(2) returned it.
pub(crate) fn forget(task: &Task, signal: u32) {
    for list in [&task.pending, &task.process.shared_pending] {
        let mut list = list.lock();
        if let Some(at) = list.iter().position(|pending| pending.signal == signal) {
            list.remove(at);
            return;
        }
    }
}
