//! The process calls: clone, execve, exit, wait4, kill.

use super::user;
use crate::fs::{EAGAIN, ECHILD, EFAULT, EINTR, EINVAL, ENOMEM, EPERM, ERESTARTSYS, ESRCH, Result};
use crate::machine::system;
use crate::serial::kprintln;
use crate::task::{self, Process, Task};
use crate::trap::TrapFrame;
use crate::{clock, exec, init, sched, signal};
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

pub(crate) const CLONE_VM: u64 = 0x100;
const CLONE_FILES: u64 = 0x400;
const CLONE_SIGHAND: u64 = 0x800;
pub(crate) const CLONE_VFORK: u64 = 0x4000;
const CLONE_THREAD: u64 = 0x1_0000;
const CLONE_SETTLS: u64 = 0x8_0000;
const CLONE_PARENT_SETTID: u64 = 0x10_0000;
const CLONE_CHILD_CLEARTID: u64 = 0x20_0000;
const CLONE_CHILD_SETTID: u64 = 0x100_0000;

const WNOHANG: u32 = 1;
const CLD_EXITED: i32 = 1;
const CLD_KILLED: i32 = 2;

/// clone(2), fork(2) and vfork(2).
pub(super) fn clone(
    frame: &TrapFrame,
    flags: u64,
    stack: u64,
    parent_tid: u64,
    child_tid: u64,
    tls: u64,
) -> Result<u64> {
    let me = task::current();
    let mm = me.mm().ok_or(EINVAL)?;
    let thread = flags & CLONE_THREAD != 0;
    if thread && flags & (CLONE_VM | CLONE_SIGHAND) != CLONE_VM | CLONE_SIGHAND {
        return Err(EINVAL);
    }
    let memory = if flags & CLONE_VM != 0 {
        system().mm_get(mm)
    } else {
        let copy = system().mm_fork(mm).map_err(|error| error.errno())?;
        task::adopt(&copy);
        copy
    };
    let tid = task::next_pid();
    let process = if thread {
        me.process.clone()
    } else {
        new_process(me, tid, flags)
    };
    let mut first = frame.clone();
    first.rax = 0;
    if stack != 0 {
        first.rsp = stack;
    }
    let Some(child) = Task::new(tid, process.clone(), Some(memory.clone()), &first) else {
        system().mm_put(memory);
        return Err(ENOMEM);
    };
    let fs = if flags & CLONE_SETTLS != 0 {
        tls
    } else {
        me.fs_base.load(Ordering::Relaxed)
    };
    child.fs_base.store(fs, Ordering::Relaxed);
    child
        .gs_base
        .store(me.gs_base.load(Ordering::Relaxed), Ordering::Relaxed);
    child
        .blocked
        .store(me.blocked.load(Ordering::Relaxed), Ordering::Relaxed);
    if flags & CLONE_VM == 0 {
        *child.alt_stack.lock() = *me.alt_stack.lock();
    }
    if flags & CLONE_CHILD_CLEARTID != 0 {
        child.clear_tid.store(child_tid, Ordering::Relaxed);
    }
    if flags & CLONE_PARENT_SETTID != 0 {
        let _ = user::put_half(parent_tid, tid);
    }
    if flags & CLONE_CHILD_SETTID != 0 {
        // As in Linux, a bad address is the program's problem.
        let _ = system().copy_to_user(
            &memory,
            vellum_types::VirtAddr::new(child_tid),
            &tid.to_le_bytes(),
        );
    }
    process.threads.lock().push(child.clone());
    if !thread {
        *process.mm.lock() = Some(memory);
        me.process.children.lock().push(process.clone());
        task::register(&process);
    }
    let vfork = flags & CLONE_VFORK != 0;
    process
        .vfork_pending
        .store(vfork && !thread, Ordering::Release);
    sched::start(child);
    if vfork {
        let done = || (!process.vfork_pending.load(Ordering::Acquire)).then_some(());
        let _ = crate::wait::wait_on(&[&process.vfork_done], None, false, done);
    }
    Ok(u64::from(tid))
}

fn new_process(me: &Task, pid: u32, flags: u64) -> Arc<Process> {
    let process = Process::new(pid, Some(&me.process));
    process
        .exit_signal
        .store(flags as u32 & 0xff, Ordering::Relaxed);
    if flags & CLONE_FILES != 0 {
        *process.files.lock() = me.process.files.lock().clone();
    }
    if flags & CLONE_SIGHAND != 0 {
        *process.actions.lock() = me.process.actions.lock().clone();
    }
    process
}

/// execve(2).
pub(super) fn execve(
    frame: &mut TrapFrame,
    path: u64,
    arguments: u64,
    environment: u64,
) -> Result<u64> {
    let path = user::path(path)?;
    let arguments = user::strings(arguments)?;
    let environment = user::strings(environment)?;
    let me = task::current();
    if me.process.threads.lock().len() > 1 {
        end_other_threads(me);
    }
    exec::replace(me, frame, &path, arguments, environment)?;
    let closed = me.process.files.lock().clone().lock().take_close_on_exec();
    drop(closed);
    signal::reset_for_exec(me);
    vfork_is_over(&me.process);
    Ok(0)
}

/// A program that becomes another, or ends, does so alone.
fn end_other_threads(me: &Task) {
    let process = &me.process;
    let others = process.threads.lock().clone();
    for other in others.iter().filter(|other| other.tid != me.tid) {
        signal::send_task(other, signal::SIGKILL, 0);
        other.blocked.store(0, Ordering::Relaxed);
    }
    process.group_exit.store(0, Ordering::Release);
    signal::notify(process);
    let alone = || (process.threads.lock().len() == 1).then_some(());
    let _ = crate::wait::wait_on(&[&process.child_event], None, false, alone);
    process.group_exit.store(-1, Ordering::Release);
    me.attention.store(false, Ordering::Relaxed);
    process.shared_pending.lock().clear();
}

fn vfork_is_over(process: &Process) {
    if process.vfork_pending.swap(false, Ordering::AcqRel) {
        process.vfork_done.wake();
    }
}

/// exit_group(2), with the status that wait4 gives.
pub(crate) fn exit_group(status: i32) -> ! {
    let me = task::current();
    let process = &me.process;
    let first = process
        .group_exit
        .compare_exchange(-1, status, Ordering::AcqRel, Ordering::Acquire)
        .is_ok();
    if first && process.threads.lock().len() > 1 {
        signal::notify(process);
    }
    exit_thread(status)
}

/// exit(2): the last thread takes the process with it.
pub(crate) fn exit_thread(status: i32) -> ! {
    {
        let me = task::current_arc();
        let process = me.process.clone();
        let address = me.clear_tid.load(Ordering::Relaxed);
        if address != 0 && user::put_half(address, 0).is_ok() {
            super::futex::wake(address, 1);
        }
        let mm = me.set_mm(None);
        let last = {
            let mut threads = process.threads.lock();
            threads.retain(|other| other.tid != me.tid);
            threads.is_empty()
        };
        {
            let mut usage = process.usage.lock();
            usage.minor += me.minor.load(Ordering::Relaxed);
            usage.major += me.major.load(Ordering::Relaxed);
            if last && let Some(mm) = &mm {
                usage.max_rss_pages = mm.stats().hiwater_rss;
            }
        }
        if last {
            *process.mm.lock() = None;
        }
        if let Some(mm) = mm {
            system().mm_put(mm);
        }
        crate::heap::refill_reserve();
        if last {
            let files = core::mem::take(&mut *process.files.lock());
            drop(files);
            let group = process.group_exit.load(Ordering::Acquire);
            vfork_is_over(&process);
            die(&process, if group == -1 { status } else { group });
        } else {
            process.child_event.wake();
        }
    }
    sched::end()
}

/// The process becomes a zombie; its children become the first process's.
fn die(process: &Arc<Process>, status: i32) {
    let orphans = core::mem::take(&mut *process.children.lock());
    let first = init::process();
    for orphan in orphans {
        orphan.set_parent(&first);
        first.children.lock().push(orphan);
    }
    if Arc::ptr_eq(process, &first) {
        process.status.store(status, Ordering::Release);
        init::ended(status);
        return;
    }
    let parent = process.parent.lock().upgrade();
    process.status.store(status, Ordering::Release);
    let Some(parent) = parent else {
        task::unregister(process);
        return;
    };
    let exit_signal = process.exit_signal.load(Ordering::Relaxed);
    if exit_signal != 0 {
        let (code, value) = if status & 0x7f == 0 {
            (CLD_EXITED, status >> 8)
        } else {
            (CLD_KILLED, status & 0x7f)
        };
        signal::send_process(&parent, exit_signal, code, value);
    }
    parent.child_event.wake();
    first.child_event.wake();
}

/// wait4(2).
pub(super) fn wait4(pid: i32, status: u64, options: u32, usage: u64) -> Result<u64> {
    let me = task::current();
    let process = &me.process;
    let fits = |child: &Process| match pid {
        -1 => true,
        0 => child.pgid.load(Ordering::Relaxed) == process.pgid.load(Ordering::Relaxed),
        1.. => child.pid == pid as u32,
        _ => child.pgid.load(Ordering::Relaxed) == pid.unsigned_abs(),
    };
    let look = || {
        let mut children = process.children.lock();
        if !children.iter().any(|child| fits(child)) {
            return Some(Err(ECHILD));
        }
        let at = children
            .iter()
            .position(|child| fits(child) && child.is_zombie())?;
        Some(Ok(children.remove(at)))
    };
    let child = match look() {
        Some(result) => result?,
        None if options & WNOHANG != 0 => return Ok(0),
        None => process
            .child_event
            .wait(None, look)
            .map_err(|_| ERESTARTSYS)??,
    };
    task::unregister(&child);
    if status != 0 {
        user::put_half(status, child.status.load(Ordering::Acquire) as u32)?;
    }
    if usage != 0 {
        super::misc::put_usage(usage, *child.usage.lock())?;
    }
    Ok(u64::from(child.pid))
}

/// kill(2).
pub(super) fn kill(pid: i32, number: u32) -> Result<u64> {
    if number > 64 {
        return Err(EINVAL);
    }
    let group = task::current().process.pgid.load(Ordering::Relaxed);
    let targets: alloc::vec::Vec<_> = task::all()
        .into_iter()
        .filter(|p| match pid {
            1.. => p.pid == pid as u32,
            0 => p.pgid.load(Ordering::Relaxed) == group,
            -1 => p.pid > 1,
            _ => p.pgid.load(Ordering::Relaxed) == pid.unsigned_abs(),
        })
        .collect();
    if targets.is_empty() {
        return Err(ESRCH);
    }
    for target in targets.iter().filter(|_| number != 0) {
        signal::send_process(target, number, 0, 0);
    }
    Ok(0)
}

/// tkill(2) and tgkill(2).
pub(super) fn tkill(tid: u32, number: u32) -> Result<u64> {
    if number > 64 {
        return Err(EINVAL);
    }
    let target = task::find_task(tid).ok_or(ESRCH)?;
    if number != 0 {
        // SI_TKILL.
        signal::send_task(&target, number, -6);
        sched::wake(&target);
        crate::smp::kick(&target);
    }
    Ok(0)
}

/// pause(2).
pub(super) fn pause() -> Result<u64> {
    let never = crate::wait::WaitQueue::new();
    let _ = never.wait(None, || None::<()>);
    Err(EINTR)
}

/// rt_sigtimedwait(2).
pub(super) fn sigtimedwait(set: u64, info: u64, timeout: u64) -> Result<u64> {
    let me = task::current();
    let set = user::word(set)?;
    let deadline = match timeout {
        0 => None,
        at => Some(clock::now_ns() + user::timespec(at)?),
    };
    let before = me.blocked.load(Ordering::Relaxed);
    signal::set_mask(me, before & !set);
    me.attention
        .store(signal::pending_mask(me) & set != 0, Ordering::SeqCst);
    let never = crate::wait::WaitQueue::new();
    let _ = never.wait(deadline, || {
        (signal::pending_mask(me) & set != 0).then_some(())
    });
    me.blocked.store(before, Ordering::Relaxed);
    let found = signal::pending_mask(me) & set;
    if found == 0 {
        return Err(if deadline.is_some() { EAGAIN } else { EINTR });
    }
    let number = found.trailing_zeros() + 1;
    signal::forget(me, number);
    if info != 0 {
        user::put(info, &[0; 128]).map_err(|_| EFAULT)?;
        user::put_half(info, number)?;
    }
    Ok(u64::from(number))
}

fn process_or_me(pid: u32) -> Result<Arc<Process>> {
    if pid == 0 {
        Ok(task::current().process.clone())
    } else {
        task::find(pid).ok_or(ESRCH)
    }
}

pub(super) fn setpgid(pid: u32, group: u32) -> Result<u64> {
    let process = process_or_me(pid)?;
    let group = if group == 0 { process.pid } else { group };
    process.pgid.store(group, Ordering::Relaxed);
    Ok(0)
}

pub(super) fn getpgid(pid: u32) -> Result<u64> {
    Ok(u64::from(process_or_me(pid)?.pgid.load(Ordering::Relaxed)))
}

pub(super) fn getsid(pid: u32) -> Result<u64> {
    Ok(u64::from(process_or_me(pid)?.sid.load(Ordering::Relaxed)))
}

pub(super) fn setsid() -> Result<u64> {
    let process = &task::current().process;
    if process.pgid.load(Ordering::Relaxed) == process.pid && process.pid != 1 {
        return Err(EPERM);
    }
    process.pgid.store(process.pid, Ordering::Relaxed);
    process.sid.store(process.pid, Ordering::Relaxed);
    Ok(u64::from(process.pid))
}

/// There is no frame for a fault: the largest process dies, or this one.
pub(crate) fn kill_for_memory(task: &Task) {
    let victim = system().oom_victim();
    if let Some(victim) = victim {
        let owner = task::all().into_iter().find(|process| {
            process
                .mm
                .lock()
                .as_ref()
                .is_some_and(|mm| mm.space() == victim.space)
        });
        if let Some(owner) = owner {
            kprintln!(
                "Out of memory: Killed process {} ({})",
                owner.pid,
                owner.name.lock()
            );
            signal::send_process(&owner, signal::SIGKILL, 0x80, 0);
            if !Arc::ptr_eq(&owner, &task.process) {
                sched::yield_now();
            }
            return;
        }
    }
    signal::force(task, signal::SIGKILL, 0x80, 0);
}

/// A line for a process that a fault ends, as Linux logs it.
pub(crate) fn report_death(task: &Task, number: u32, value: u64, frame: &TrapFrame) {
    if !matches!(
        number,
        signal::SIGSEGV | signal::SIGBUS | signal::SIGILL | signal::SIGFPE
    ) || !init::verbose()
    {
        return;
    }
    kprintln!(
        "{}[{}]: signal {number} at {value:#x} ip {:#x} sp {:#x}",
        task.process.name.lock(),
        task.process.pid,
        frame.rip,
        frame.rsp
    );
}
