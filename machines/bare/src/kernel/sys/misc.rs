//! Calls about the machine and the process that need no more than an answer.

use super::{time, user};
use crate::fs::{EINVAL, EPERM, Result};
use crate::machine::system;
use crate::task::{self, Usage};
use crate::{clock, cpu, x86};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use vellum_system::Limits;
use vellum_types::PAGE_SIZE;

const ARCH_SET_GS: u32 = 0x1001;
const ARCH_SET_FS: u32 = 0x1002;
const ARCH_GET_FS: u32 = 0x1003;
const ARCH_GET_GS: u32 = 0x1004;
const TASK_SIZE: u64 = 0x7fff_ffff_f000;
const PR_SET_NAME: u32 = 15;
const PR_GET_NAME: u32 = 16;
const UNLIMITED: u64 = u64::MAX;

pub(super) fn uname(to: u64) -> Result<u64> {
    let mut bytes = [0u8; 65 * 6];
    let fields = ["Linux", "vellum", "6.10.0-vellum", "#1", "x86_64", "(none)"];
    for (slot, text) in bytes.chunks_mut(65).zip(fields) {
        slot[..text.len()].copy_from_slice(text.as_bytes());
    }
    user::put(to, &bytes).map(|()| 0)
}

pub(super) fn arch_prctl(code: u32, value: u64) -> Result<u64> {
    let task = task::current();
    match code {
        ARCH_SET_FS | ARCH_SET_GS if value >= TASK_SIZE => Err(EPERM),
        ARCH_SET_FS => {
            task.fs_base.store(value, Ordering::Relaxed);
            // SAFETY: the program's own segment, canonical by the check above.
            unsafe { x86::wrmsr(x86::FS_BASE, value) };
            Ok(0)
        }
        ARCH_SET_GS => {
            task.gs_base.store(value, Ordering::Relaxed);
            // SAFETY: as above; the other of the two that swapgs exchanges.
            unsafe { x86::wrmsr(x86::KERNEL_GS_BASE, value) };
            Ok(0)
        }
        ARCH_GET_FS => user::put_words(value, &[task.fs_base.load(Ordering::Relaxed)]).map(|()| 0),
        ARCH_GET_GS => user::put_words(value, &[task.gs_base.load(Ordering::Relaxed)]).map(|()| 0),
        _ => Err(EINVAL),
    }
}

pub(super) fn prctl(code: u32, value: u64, _: u64) -> Result<u64> {
    let process = &task::current().process;
    match code {
        PR_SET_NAME => {
            let mut name = user::path(value)?;
            name.truncate(15);
            *process.name.lock() = name;
            Ok(0)
        }
        PR_GET_NAME => {
            let mut bytes = [0; 16];
            let name = process.name.lock().clone();
            let n = name.len().min(15);
            bytes[..n].copy_from_slice(&name.as_bytes()[..n]);
            user::put(value, &bytes).map(|()| 0)
        }
        // Death signals, dumpability, subreapers, huge pages: accepted, without effect.
        1 | 4 | 8 | 36 | 38 | 41 => Ok(0),
        2 | 3 | 7 | 39 | 42 => Ok(0),
        _ => Err(EINVAL),
    }
}

fn limit(limits: &Limits, which: u32) -> Result<u64> {
    Ok(match which {
        2 => limits.data,
        3 => limits.stack,
        7 => crate::fs::table::MAX_FILES as u64,
        8 => limits.memlock,
        9 => limits.address_space,
        0..=15 => UNLIMITED,
        _ => return Err(EINVAL),
    })
}

pub(super) fn getrlimit(which: u32, to: u64) -> Result<u64> {
    prlimit(which, 0, to)
}

pub(super) fn prlimit(which: u32, new: u64, old: u64) -> Result<u64> {
    let task = task::current();
    let mut limits = task.process.limits.lock();
    let before = limit(&limits, which)?;
    if new != 0 {
        let value = user::word(new)?;
        match which {
            2 => limits.data = value,
            3 => limits.stack = value,
            8 => limits.memlock = value,
            9 => limits.address_space = value,
            _ => {}
        }
        task.memory().set_limits(*limits);
    }
    if old != 0 {
        user::put_words(old, &[before, UNLIMITED])?;
    }
    Ok(0)
}

/// `struct rusage`.
pub(super) fn put_usage(to: u64, usage: Usage) -> Result<()> {
    let mut words = [0; 18];
    words[4] = usage.max_rss_pages * (PAGE_SIZE / 1024);
    words[8] = usage.minor;
    words[9] = usage.major;
    user::put_words(to, &words)
}

pub(super) fn getrusage(_: i32, to: u64) -> Result<u64> {
    let task = task::current();
    let mut usage = *task.process.usage.lock();
    usage.minor += task.minor.load(Ordering::Relaxed);
    usage.major += task.major.load(Ordering::Relaxed);
    usage.max_rss_pages = task.memory().stats().hiwater_rss;
    put_usage(to, usage).map(|()| 0)
}

pub(super) fn sysinfo(to: u64) -> Result<u64> {
    let info = system().meminfo();
    let bytes = |name| info.get(name).unwrap_or(0) * 1024;
    let words = [
        clock::now_ns() / 1_000_000_000,
        0,
        0,
        0,
        bytes("MemTotal"),
        bytes("MemFree"),
        bytes("Shmem"),
        0,
        bytes("SwapTotal"),
        bytes("SwapFree"),
        task::all().len() as u64,
        0,
        0,
        1,
    ];
    user::put_words(to, &words).map(|()| 0)
}

pub(super) fn times(to: u64) -> Result<u64> {
    if to != 0 {
        user::put_words(to, &[0; 4])?;
    }
    Ok(time::ticks())
}

pub(super) fn statfs(to: u64) -> Result<u64> {
    let info = system().meminfo();
    let blocks = |name| info.get(name).unwrap_or(0) / (PAGE_SIZE / 1024);
    let (all, free) = (blocks("MemTotal"), blocks("MemFree"));
    // TMPFS_MAGIC.
    let words = [
        0x0102_1994,
        PAGE_SIZE,
        all,
        free,
        free,
        0,
        0,
        0,
        255,
        PAGE_SIZE,
        0,
        0,
        0,
        0,
        0,
    ];
    user::put_words(to, &words).map(|()| 0)
}

pub(super) fn sched_getaffinity(len: u64, to: u64) -> Result<u64> {
    if len < 8 {
        return Err(EINVAL);
    }
    let mask = cpu::online().fold(0, |mask, cpu| mask | 1 << cpu.id.load(Ordering::Relaxed));
    user::put_words(to, &[mask])?;
    Ok(8)
}

pub(super) fn getcpu(cpu: u64, node: u64) -> Result<u64> {
    let here = cpu::this();
    for (to, value) in [(cpu, &here.id), (node, &here.node)]
        .into_iter()
        .collect::<Vec<_>>()
    {
        if to != 0 {
            user::put_half(to, value.load(Ordering::Relaxed))?;
        }
    }
    Ok(0)
}
