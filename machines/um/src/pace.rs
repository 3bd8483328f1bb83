//! Which CPUs the guest's tasks may use.
//!
//! A stop costs two or three times as much when supervisor and guest are on different CPUs, so all
//! stay on one while they talk. A task that computes for long without a stop gains from the others:
//! it may roam until it becomes chatty again. The guest sees the mask that it set.

use crate::abi;
use crate::engine::{Action, Engine};
use crate::host::affinity::CpuMask;
use crate::supervisor::Supervisor;
use crate::task::Task;
use std::collections::HashMap;
use std::io;

/// A task that ran for so long without a stop may roam; nanoseconds.
const LONG_NS: u64 = 20_000_000;
/// A roaming task that stops sooner than this is chatty; nanoseconds.
const SHORT_NS: u64 = 2_000_000;
/// So many short runs in a row end the roaming.
const PATIENCE: u32 = 4;
/// How often running tasks are looked at; microseconds.
const TICK_US: i64 = 20_000;

/// The choice of CPUs.
pub(crate) struct Pace {
    all: CpuMask,
    home: CpuMask,
    boot: std::time::Instant,
    short_runs: HashMap<i32, u32>,
    ticking: bool,
}

impl Pace {
    /// Pins the supervisor, and so everything it starts, to the CPU it runs on.
    pub(crate) fn new() -> io::Result<Self> {
        let all = CpuMask::of(0)?;
        // SAFETY: plain call.
        let cpu = unsafe { libc::sched_getcpu() };
        let home = if cpu >= 0 && all.has(cpu as usize) {
            CpuMask::single(cpu as usize)
        } else {
            all
        };
        home.apply(0)?;
        Ok(Self {
            all,
            home,
            boot: std::time::Instant::now(),
            short_runs: HashMap::new(),
            ticking: false,
        })
    }

    /// What the machine was started with.
    pub(crate) fn all(&self) -> CpuMask {
        self.all
    }

    fn now(&self) -> u64 {
        self.boot.elapsed().as_nanos() as u64
    }

    pub(crate) fn resumed(&mut self, task: &mut Task<'_>) {
        if self.all.count() > 1 {
            task.since = self.now();
            self.start_ticking();
        }
    }

    fn start_ticking(&mut self) {
        if !self.ticking {
            self.ticking = true;
            let every = libc::timeval {
                tv_sec: 0,
                tv_usec: TICK_US,
            };
            let timer = libc::itimerval {
                it_interval: every,
                it_value: every,
            };
            // SAFETY: `timer` outlives the call; the previous value is not asked for.
            unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) };
        }
    }

    pub(crate) fn stopped(&mut self, task: &mut Task<'_>) {
        if !task.roaming {
            return;
        }
        if self.now().saturating_sub(task.since) > SHORT_NS {
            self.short_runs.remove(&task.tid);
            return;
        }
        let runs = self.short_runs.entry(task.tid).or_default();
        *runs += 1;
        if *runs >= PATIENCE {
            self.short_runs.remove(&task.tid);
            task.roaming = false;
            // A task that is being killed has no mask any more.
            let _ = self.home.apply(task.tid);
        }
    }

    /// Lets the tasks roam that have run for long.
    pub(crate) fn tick(&mut self, engine: &mut Engine<'_>) {
        let now = self.now();
        for task in engine.tasks.values_mut() {
            let long = task.running && now.saturating_sub(task.since) > LONG_NS;
            if long && !task.roaming {
                task.roaming = true;
                let _ = task.affinity.and(&self.all).apply(task.tid);
            }
        }
    }

    /// A task is gone.
    pub(crate) fn forget(&mut self, tid: i32) {
        self.short_runs.remove(&tid);
    }
}

/// Stops the timer.
impl Drop for Pace {
    fn drop(&mut self) {
        let zero = libc::timeval {
            tv_sec: 0,
            tv_usec: 0,
        };
        let timer = libc::itimerval {
            it_interval: zero,
            it_value: zero,
        };
        // SAFETY: as in `start_ticking`.
        unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) };
        let _ = self.all.apply(0);
    }
}

impl<'m> Supervisor<'m> {
    /// Answers the calls about affinity; `None` if this is none of them.
    pub(crate) fn pace_call(&mut self, task: &mut Task<'m>) -> Option<Action> {
        let pid = task.arg(0) as i32;
        let fail = |errno: i32| Some(Action::Return(-i64::from(errno)));
        match task.nr() {
            libc::SYS_sched_getaffinity => {
                let mask = match pid {
                    0 => task.affinity,
                    pid if pid == task.tid => task.affinity,
                    pid => match self.engine.tasks.get(&pid) {
                        Some(other) => other.affinity,
                        None => return Some(abi::prefault_call(&mut self.engine, task)),
                    },
                };
                let bytes = mask.and(&self.pace.all()).to_bytes();
                // As many bytes as the host's kernel has CPUs for, as Linux says.
                let len = (task.arg(1) as usize).min(8);
                if len < 8 || !task.arg(1).is_multiple_of(8) {
                    return fail(libc::EINVAL);
                }
                if !self.engine.write_user(task, task.arg(2), &bytes[..len]) {
                    return fail(libc::EFAULT);
                }
                Some(Action::Return(len as i64))
            }
            libc::SYS_sched_setaffinity => {
                let len = (task.arg(1) as usize).min(128);
                let mut bytes = vec![0; len];
                let from = vellum_types::VirtAddr::new(task.arg(2));
                if self
                    .engine
                    .sys
                    .copy_from_user(&task.mm, from, &mut bytes)
                    .is_err()
                {
                    return fail(libc::EFAULT);
                }
                let mask = CpuMask::from_bytes(&bytes);
                if mask.and(&self.pace.all()).count() == 0 {
                    return fail(libc::EINVAL);
                }
                let target = match pid {
                    0 => &mut *task,
                    pid if pid == task.tid => &mut *task,
                    pid => match self.engine.tasks.get_mut(&pid) {
                        Some(other) => other,
                        None => return fail(libc::ESRCH),
                    },
                };
                target.affinity = mask;
                if target.roaming {
                    let _ = mask.and(&self.pace.all()).apply(target.tid);
                }
                Some(Action::Return(0))
            }
            _ => None,
        }
    }
}
