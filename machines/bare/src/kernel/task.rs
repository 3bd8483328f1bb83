//! Tasks (threads) and processes.

use crate::fs::{FdTable, Place};
use crate::signal::{Actions, AltStack, Pending};
use crate::sync::Lock;
use crate::trap::{FRAME_BYTES, TrapFrame};
use crate::wait::WaitQueue;
use crate::{cpu, paging};
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering};
use vellum_system::{Mm, MmRef};

pub(crate) const RUNNABLE: u8 = 0;
pub(crate) const BLOCKED: u8 = 1;
pub(crate) const DEAD: u8 = 2;

/// A thread of a program, or an idle loop.
pub(crate) struct Task {
    pub(crate) tid: u32,
    pub(crate) process: Arc<Process>,
    stack_top: u64,
    /// The stack pointer while it does not run.
    pub(crate) saved_stack: UnsafeCell<u64>,
    pub(crate) state: AtomicU8,
    pub(crate) on_cpu: AtomicBool,
    pub(crate) is_idle: bool,
    /// Changed by the task itself only.
    mm: UnsafeCell<Option<MmRef<'static>>>,
    pub(crate) root: AtomicU64,
    pub(crate) space: AtomicU32,
    pub(crate) fs_base: AtomicU64,
    pub(crate) gs_base: AtomicU64,
    pub(crate) minor: AtomicU64,
    pub(crate) major: AtomicU64,
    /// A signal may be pending that is not blocked.
    pub(crate) attention: AtomicBool,
    pub(crate) blocked: AtomicU64,
    /// The mask to go back to after sigsuspend.
    pub(crate) saved_mask: Lock<Option<u64>>,
    pub(crate) pending: Lock<Vec<Pending>>,
    pub(crate) alt_stack: Lock<AltStack>,
    pub(crate) clear_tid: AtomicU64,
    pub(crate) robust_list: AtomicU64,
    /// The call was interrupted, and may be made again.
    pub(crate) restart: AtomicBool,
}

// SAFETY: `saved_stack` is touched by the scheduler under its lock, `mm` by the task itself and by
// whoever makes it before it runs; the rest are locks and atomics.
unsafe impl Sync for Task {}
// SAFETY: as above.
unsafe impl Send for Task {}

impl Task {
    /// Its memory, for the task itself.
    #[inline]
    pub(crate) fn mm(&self) -> Option<&MmRef<'static>> {
        // SAFETY: only the task itself changes it, in `set_mm`, whose callers hold no such reference.
        unsafe { (*self.mm.get()).as_ref() }
    }

    /// Its memory, which a program always has.
    #[inline]
    pub(crate) fn memory(&self) -> &Mm<'static> {
        match self.mm() {
            Some(mm) => mm,
            None => panic!("task {} has no memory", self.tid),
        }
    }

    /// Changes the memory of the current task; returns what it had.
    pub(crate) fn set_mm(&self, mm: Option<MmRef<'static>>) -> Option<MmRef<'static>> {
        let (root, space) = match &mm {
            Some(mm) => (mm.root().addr().as_u64(), mm.space().0),
            None => (0, 0),
        };
        self.root.store(root, Ordering::Relaxed);
        self.space.store(space, Ordering::Relaxed);
        if core::ptr::eq(self, current()) {
            crate::sched::load_space(self);
        }
        // SAFETY: the task itself, or its maker before it runs; no reference is held across.
        unsafe { core::mem::replace(&mut *self.mm.get(), mm) }
    }

    #[inline]
    pub(crate) fn stack_top(&self) -> u64 {
        self.stack_top
    }

    #[inline]
    pub(crate) fn has_signal(&self) -> bool {
        self.attention.load(Ordering::Relaxed)
    }

    /// A task that will begin with `frame` in ring 3. `None` without memory for its stack.
    pub(crate) fn new(
        tid: u32,
        process: Arc<Process>,
        mm: Option<MmRef<'static>>,
        frame: &TrapFrame,
    ) -> Option<Arc<Self>> {
        unsafe extern "C" {
            fn task_start();
        }
        let top = crate::sched::take_stack()?;
        let at = (top - FRAME_BYTES) as *mut TrapFrame;
        // SAFETY: the new stack is ours alone, mapped, and aligned to a page.
        unsafe { at.write(frame.clone()) };
        let start = task_start as *const () as u64;
        let saved = at as u64 - 56;
        for (n, word) in [0, 0, 0, 0, 0, 0, start].into_iter().enumerate() {
            let slot = (saved as *mut u64).wrapping_add(n);
            // SAFETY: the words below the frame, in the same stack: what switch_stacks pops.
            unsafe { slot.write(word) };
        }
        let task = Self::bare(tid, process, top, saved, false);
        task.set_mm(mm);
        Some(Arc::new(task))
    }

    fn bare(tid: u32, process: Arc<Process>, top: u64, saved: u64, is_idle: bool) -> Self {
        Self {
            tid,
            process,
            stack_top: top,
            saved_stack: UnsafeCell::new(saved),
            state: AtomicU8::new(RUNNABLE),
            on_cpu: AtomicBool::new(is_idle),
            is_idle,
            mm: UnsafeCell::new(None),
            root: AtomicU64::new(0),
            space: AtomicU32::new(0),
            fs_base: AtomicU64::new(0),
            gs_base: AtomicU64::new(0),
            minor: AtomicU64::new(0),
            major: AtomicU64::new(0),
            attention: AtomicBool::new(false),
            blocked: AtomicU64::new(0),
            saved_mask: Lock::new(None),
            pending: Lock::new(Vec::new()),
            alt_stack: Lock::new(AltStack::default()),
            clear_tid: AtomicU64::new(0),
            robust_list: AtomicU64::new(0),
            restart: AtomicBool::new(false),
        }
    }

    /// What the boot of a CPU becomes: the task that runs when no other does.
    pub(crate) fn idle(top: u64) -> Arc<Self> {
        Arc::new(Self::bare(0, Process::new(0, None), top, 0, true))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if !self.is_idle {
            crate::sched::give_stack(self.stack_top);
        }
    }
}

/// The task that runs on this CPU.
#[inline]
pub(crate) fn current() -> &'static Task {
    let task = cpu::this().current.load(Ordering::Relaxed);
    // SAFETY: set before the first use; the record holds a reference, and a task that runs code
    // here cannot go away meanwhile.
    unsafe { &*task }
}

/// A counted handle to the current task.
pub(crate) fn current_arc() -> Arc<Task> {
    let task = core::ptr::from_ref(current());
    // SAFETY: the pointer came from Arc::into_raw, and the CPU's record holds a reference.
    unsafe { Arc::increment_strong_count(task) };
    // SAFETY: the reference that was just counted.
    unsafe { Arc::from_raw(task) }
}

/// A group of threads that share memory, files and signal handlers.
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: Lock<Weak<Process>>,
    pub(crate) parent_pid: AtomicU32,
    pub(crate) children: Lock<Vec<Arc<Process>>>,
    pub(crate) threads: Lock<Vec<Arc<Task>>>,
    /// The same as its threads', for others to look at.
    pub(crate) mm: Lock<Option<MmRef<'static>>>,
    pub(crate) files: Lock<Arc<Lock<FdTable>>>,
    pub(crate) place: Lock<Place>,
    pub(crate) umask: AtomicU32,
    pub(crate) actions: Lock<Arc<Lock<Actions>>>,
    pub(crate) shared_pending: Lock<Vec<Pending>>,
    pub(crate) pgid: AtomicU32,
    pub(crate) sid: AtomicU32,
    /// wait4's status once it is a zombie; -1 before.
    pub(crate) status: AtomicI32,
    /// All its threads end with this status; -1 while they need not.
    pub(crate) group_exit: AtomicI32,
    /// What its end tells the parent; 0 for nothing.
    pub(crate) exit_signal: AtomicU32,
    /// Parents wait here for children.
    pub(crate) child_event: WaitQueue,
    /// A parent in vfork waits here.
    pub(crate) vfork_done: WaitQueue,
    pub(crate) vfork_pending: AtomicBool,
    pub(crate) name: Lock<String>,
    pub(crate) executable: Lock<String>,
    pub(crate) limits: Lock<vellum_system::Limits>,
    pub(crate) usage: Lock<Usage>,
}

/// Numbers of getrusage and wait4.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) minor: u64,
    pub(crate) major: u64,
    pub(crate) max_rss_pages: u64,
}

impl Process {
    /// A process like `parent`, without threads and memory.
    pub(crate) fn new(pid: u32, parent: Option<&Arc<Process>>) -> Arc<Self> {
        let inherit = |get: fn(&Process) -> u32| parent.map_or(pid, |p| get(p));
        Arc::new(Self {
            pid,
            parent: Lock::new(parent.map_or_else(Weak::new, Arc::downgrade)),
            parent_pid: AtomicU32::new(parent.map_or(0, |p| p.pid)),
            children: Lock::new(Vec::new()),
            threads: Lock::new(Vec::new()),
            mm: Lock::new(None),
            files: Lock::new(match parent {
                Some(parent) => Arc::new(Lock::new(parent.files.lock().lock().clone())),
                None => Arc::default(),
            }),
            place: Lock::new(parent.map_or_else(Place::root, |p| p.place.lock().clone())),
            umask: AtomicU32::new(parent.map_or(0o22, |p| p.umask.load(Ordering::Relaxed))),
            actions: Lock::new(match parent {
                Some(parent) => Arc::new(Lock::new(parent.actions.lock().lock().clone())),
                None => Arc::default(),
            }),
            shared_pending: Lock::new(Vec::new()),
            pgid: AtomicU32::new(inherit(|p| p.pgid.load(Ordering::Relaxed))),
            sid: AtomicU32::new(inherit(|p| p.sid.load(Ordering::Relaxed))),
            status: AtomicI32::new(-1),
            group_exit: AtomicI32::new(-1),
            exit_signal: AtomicU32::new(17),
            child_event: WaitQueue::new(),
            vfork_done: WaitQueue::new(),
            vfork_pending: AtomicBool::new(false),
            name: Lock::new(parent.map_or_else(String::new, |p| p.name.lock().clone())),
            executable: Lock::new(parent.map_or_else(String::new, |p| p.executable.lock().clone())),
            limits: Lock::new(parent.map_or_else(Default::default, |p| *p.limits.lock())),
            usage: Lock::new(Usage::default()),
        })
    }

    /// Gives the process to another.
    pub(crate) fn set_parent(&self, parent: &Arc<Process>) {
        *self.parent.lock() = Arc::downgrade(parent);
        self.parent_pid.store(parent.pid, Ordering::Relaxed);
    }

    pub(crate) fn is_zombie(&self) -> bool {
        self.status.load(Ordering::Acquire) != -1
    }
}

impl Default for Lock<FdTable> {
    fn default() -> Self {
        Self::new(FdTable::default())
    }
}

impl Default for Lock<Actions> {
    fn default() -> Self {
        Self::new(Actions::default())
    }
}

static NEXT_PID: AtomicU32 = AtomicU32::new(1);
static ALL: Lock<Vec<Arc<Process>>> = Lock::new(Vec::new());

/// The next free number for a process or thread.
pub(crate) fn next_pid() -> u32 {
    NEXT_PID.fetch_add(1, Ordering::Relaxed)
}

/// Makes a process known by its number.
pub(crate) fn register(process: &Arc<Process>) {
    ALL.lock().push(process.clone());
}

/// Forgets a process that was waited for.
pub(crate) fn unregister(process: &Arc<Process>) {
    ALL.lock().retain(|known| !Arc::ptr_eq(known, process));
}

/// The process of that number.
pub(crate) fn find(pid: u32) -> Option<Arc<Process>> {
    ALL.lock().iter().rev().find(|p| p.pid == pid).cloned()
}

/// All processes, at this moment.
pub(crate) fn all() -> Vec<Arc<Process>> {
    ALL.lock().clone()
}

/// The thread of that number.
pub(crate) fn find_task(tid: u32) -> Option<Arc<Task>> {
    all().iter().find_map(|process| {
        let threads = process.threads.lock();
        threads.iter().find(|task| task.tid == tid).cloned()
    })
}

/// Memory for a new address space's table to share the kernel's half.
pub(crate) fn adopt(mm: &Mm<'static>) {
    paging::share_kernel(mm.root());
}
