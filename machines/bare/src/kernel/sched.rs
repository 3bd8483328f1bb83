//! Who runs: one queue for all CPUs, in turn, a time slice each.

use crate::sync::{Lock, Once};
use crate::task::{self, BLOCKED, DEAD, RUNNABLE, Task};
use crate::{clock, cpu, paging, smp, x86};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicPtr, Ordering};

/// Ticks of a time slice: 100 ms, as Linux's round robin has it.
const SLICE: u64 = 25;
/// Stacks kept for the next tasks.
const SPARE_STACKS: usize = 16;

static QUEUE: Lock<VecDeque<Arc<Task>>> = Lock::new(VecDeque::new());
static TIMERS: Lock<BTreeMap<(u64, u32), Arc<Task>>> = Lock::new(BTreeMap::new());
static STACKS: Lock<Vec<u64>> = Lock::new(Vec::new());
/// The idle task of each CPU.
static IDLE: [Once<Arc<Task>>; cpu::MAX_CPUS] = [const { Once::new() }; cpu::MAX_CPUS];
/// Whom each CPU has just switched away from.
static LEFT: [AtomicPtr<Task>; cpu::MAX_CPUS] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; cpu::MAX_CPUS];

unsafe extern "C" {
    fn switch_stacks(keep: *mut u64, next: u64);
}

/// A stack for a new task.
pub(crate) fn take_stack() -> Option<u64> {
    let spare = STACKS.lock().pop();
    spare.or_else(paging::new_stack)
}

/// A stack that a task has left.
pub(crate) fn give_stack(top: u64) {
    // Mapped for good: there are never more than there were tasks at one time.
    STACKS.lock().push(top);
}

/// Room in the list of stacks, so that giving one back needs no memory.
pub(crate) fn set_up(top: u64) {
    STACKS.lock().reserve(SPARE_STACKS);
    let cpu = cpu::this();
    let id = cpu.id.load(Ordering::Relaxed) as usize;
    let idle = Task::idle(top);
    cpu.current
        .store(Arc::into_raw(idle.clone()).cast_mut(), Ordering::Relaxed);
    IDLE[id].set(idle);
}

/// A task may run from now on.
pub(crate) fn start(task: Arc<Task>) {
    QUEUE.lock().push_back(task);
    smp::wake_idle();
}

/// The current task is about to look for the last time whether it must sleep.
pub(crate) fn about_to_block() {
    task::current().state.store(BLOCKED, Ordering::SeqCst);
}

/// It need not.
pub(crate) fn not_blocking() {
    task::current().state.store(RUNNABLE, Ordering::SeqCst);
}

/// Ends the sleep of a task, if it sleeps.
pub(crate) fn wake(task: &Arc<Task>) {
    let mut queue = QUEUE.lock();
    let slept = task
        .state
        .compare_exchange(BLOCKED, RUNNABLE, Ordering::SeqCst, Ordering::SeqCst)
        .is_ok();
    // One that is still on its CPU will see its state before it goes to sleep.
    if slept && !task.on_cpu.load(Ordering::Relaxed) {
        queue.push_back(task.clone());
        drop(queue);
        smp::wake_idle();
    }
}

/// Lets others run first.
pub(crate) fn yield_now() {
    schedule();
}

/// Makes CR3 that of `task`, which is or becomes the current one.
pub(crate) fn load_space(task: &Task) {
    let cpu = cpu::this();
    let space = task.space.load(Ordering::Relaxed);
    if cpu.space.load(Ordering::Relaxed) == space {
        return;
    }
    // SeqCst: whoever changes the new tables from now on sees this CPU.
    cpu.space.store(space, Ordering::SeqCst);
    let root = match task.root.load(Ordering::Relaxed) {
        0 => paging::kernel_root(),
        root => root,
    };
    // SAFETY: the kernel's half is the same in all of them.
    unsafe { x86::write_cr3(root) };
}

/// Runs the next task, or returns if there is none and the current one may go on.
pub(crate) fn schedule() {
    QUEUE.raw_lock();
    // SAFETY: held; the reference ends before the lock is given up.
    let queue = unsafe { QUEUE.raw_value() };
    let cpu = cpu::this();
    let id = cpu.id.load(Ordering::Relaxed) as usize;
    let previous = task::current();
    let stays = previous.state.load(Ordering::SeqCst) == RUNNABLE;
    let next = match queue.pop_front() {
        Some(next) => next,
        None if stays => {
            QUEUE.raw_unlock();
            return;
        }
        None => IDLE[id].get().clone(),
    };
    if stays && !previous.is_idle {
        queue.push_back(task::current_arc());
    }
    next.on_cpu.store(true, Ordering::Relaxed);
    cpu.ticks.store(0, Ordering::Relaxed);
    let next_ref: *const Task = Arc::into_raw(next);
    // The CPU's reference to the previous task goes in `finish_switch`, on the other stack.
    let left = cpu.current.swap(next_ref.cast_mut(), Ordering::Relaxed);
    LEFT[id].store(left, Ordering::Relaxed);
    // SAFETY: the reference was just given to the CPU's record.
    let next = unsafe { &*next_ref };
    cpu::set_stack(next.stack_top());
    load_space(next);
    if !next.is_idle {
        set_segment_bases(previous, next);
    }
    let keep = previous.saved_stack.get();
    // SAFETY: written when it last left its CPU, or when it was made; the scheduler's lock is held.
    let stack = unsafe { *next.saved_stack.get() };
    // SAFETY: both stacks are whole; the next one ends in `finish_switch`.
    unsafe { switch_stacks(keep, stack) };
    finish_switch();
}

fn set_segment_bases(previous: &Task, next: &Task) {
    let fs = next.fs_base.load(Ordering::Relaxed);
    let gs = next.gs_base.load(Ordering::Relaxed);
    if previous.is_idle || previous.fs_base.load(Ordering::Relaxed) != fs {
        // SAFETY: the program's own; canonical, or arch_prctl would have refused it.
        unsafe { x86::wrmsr(x86::FS_BASE, fs) };
    }
    if previous.is_idle || previous.gs_base.load(Ordering::Relaxed) != gs {
        // SAFETY: as above; swapgs makes it the program's GS.
        unsafe { x86::wrmsr(x86::KERNEL_GS_BASE, gs) };
    }
}

/// The first thing that happens on the stack switched to.
#[unsafe(no_mangle)]
extern "C" fn finish_switch() {
    let id = cpu::this().id.load(Ordering::Relaxed) as usize;
    let left = LEFT[id].swap(core::ptr::null_mut(), Ordering::Relaxed);
    // SAFETY: `schedule` put the CPU's own reference there.
    let left = unsafe { Arc::from_raw(left.cast_const()) };
    left.on_cpu.store(false, Ordering::Relaxed);
    QUEUE.raw_unlock();
    drop(left);
}

/// The current task is over.
pub(crate) fn end() -> ! {
    task::current().state.store(DEAD, Ordering::SeqCst);
    schedule();
    unreachable!("a dead task runs");
}

/// The timer: time slices, and sleepers whose time has come.
pub(crate) fn tick() {
    let cpu = cpu::this();
    if cpu.ticks.fetch_add(1, Ordering::Relaxed) >= SLICE {
        cpu.resched.store(true, Ordering::Relaxed);
    }
    if cpu.id.load(Ordering::Relaxed) == 0 {
        crate::fs::console::poll();
        run_timers();
    }
}

fn run_timers() {
    loop {
        let mut timers = TIMERS.lock();
        match timers.first_entry() {
            Some(entry) if entry.key().0 <= clock::now_ns() => {
                let task = entry.remove();
                drop(timers);
                wake(&task);
            }
            _ => return,
        }
    }
}

/// Wakes `task` at that moment.
pub(crate) fn add_timer(at: u64, task: &Arc<Task>) {
    TIMERS.lock().insert((at, task.tid), task.clone());
}

/// Does not.
pub(crate) fn remove_timer(at: u64, task: &Arc<Task>) {
    TIMERS.lock().remove(&(at, task.tid));
}

/// What a CPU does when there is nothing to do.
pub(crate) fn idle() -> ! {
    loop {
        let cpu = cpu::this();
        schedule();
        cpu.idle.store(true, Ordering::SeqCst);
        if QUEUE.lock().is_empty() {
            x86::wait_for_interrupt();
        }
        cpu.idle.store(false, Ordering::SeqCst);
        cpu.resched.store(false, Ordering::Relaxed);
    }
}
