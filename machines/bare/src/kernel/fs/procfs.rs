//! /proc: texts of the core, and a little about processes.

use super::{ESRCH, Result};
use crate::machine::system;
use crate::task::{self, Process};
use crate::{clock, cpu};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;
use core::sync::atomic::Ordering;
use vellum_system::{MmRef, proc};

fn process_of(name: &str) -> Option<(Arc<Process>, &str)> {
    let (pid, rest) = name.split_once('/').unwrap_or((name, ""));
    let process = match pid {
        "self" | "thread-self" => task::current().process.clone(),
        _ => task::find(pid.parse().ok()?)?,
    };
    Some((process, rest))
}

/// The text of a file of /proc, by its path there; `None` if there is no such file.
pub(crate) fn text(name: &str) -> Option<Result<Vec<u8>>> {
    let mut out = String::new();
    let system = system();
    // Writing to a string cannot fail.
    let _ = match name {
        "meminfo" => proc::meminfo(system, &mut out),
        "vmstat" => proc::vmstat(system, &mut out),
        "buddyinfo" => proc::buddyinfo(system, &mut out),
        "zoneinfo" => proc::zoneinfo(system, &mut out),
        "slabinfo" => proc::slabinfo(system, &mut out),
        "vmallocinfo" => proc::vmallocinfo(system, &mut out),
        "swaps" => proc::swaps(system, &mut out),
        "uptime" => {
            let cs = clock::now_ns() / 10_000_000;
            writeln!(out, "{}.{:02} 0.00", cs / 100, cs % 100)
        }
        "loadavg" => writeln!(out, "0.00 0.00 0.00 1/{} 1", task::all().len()),
        "version" => writeln!(out, "Linux version 6.10.0-vellum"),
        "filesystems" => writeln!(out, "nodev\ttmpfs"),
        "mounts" | "self/mounts" => writeln!(out, "rootfs / tmpfs rw 0 0"),
        "cmdline" => writeln!(out, "{}", crate::init::command_line()),
        "stat" => {
            let mut result = writeln!(out, "cpu  0 0 0 0 0 0 0 0 0 0");
            for cpu in cpu::online() {
                let id = cpu.id.load(Ordering::Relaxed);
                result = result.and(writeln!(out, "cpu{id} 0 0 0 0 0 0 0 0 0 0"));
            }
            result.and(writeln!(out, "btime {}", clock::wall_ns() / 1_000_000_000))
        }
        "cpuinfo" => cpu::online()
            .try_for_each(|cpu| writeln!(out, "processor\t: {}\n", cpu.id.load(Ordering::Relaxed))),
        "sys/vm/max_map_count" => writeln!(out, "65530"),
        "sys/vm/overcommit_memory" => writeln!(out, "1"),
        _ => {
            let (process, rest) = process_of(name)?;
            return of_process(&process, rest);
        }
    };
    Some(Ok(out.into_bytes()))
}

fn of_process(process: &Arc<Process>, name: &str) -> Option<Result<Vec<u8>>> {
    let mm = process.mm.lock().clone();
    let mut out = String::new();
    match name {
        "comm" => {
            out = format!("{}\n", process.name.lock());
            return Some(Ok(out.into_bytes()));
        }
        "stat" => return Some(Ok(stat(process, mm.as_ref()).into_bytes())),
        "cmdline" => return Some(Ok(mm.as_ref().map_or_else(Vec::new, arguments))),
        "status" => {}
        "maps" | "smaps" | "smaps_rollup" | "statm" | "limits" | "environ" => {}
        _ => return None,
    }
    let Some(mm) = mm else {
        return Some(if name == "status" {
            Ok(status(process, None).into_bytes())
        } else {
            Err(ESRCH)
        });
    };
    let _ = match name {
        "maps" => proc::maps(system(), &mm, &mut out),
        "smaps" => proc::smaps(system(), &mm, &mut out),
        "smaps_rollup" => proc::smaps_rollup(system(), &mm, &mut out),
        "statm" => proc::statm(&mm, &mut out),
        "status" => write!(out, "{}", status(process, Some(&mm))),
        "environ" => Ok(()),
        _ => writeln!(
            out,
            "Limit                     Soft Limit           Hard Limit           Units"
        ),
    };
    Some(Ok(out.into_bytes()))
}

fn status(process: &Process, mm: Option<&MmRef<'static>>) -> String {
    let state = if process.is_zombie() {
        "Z (zombie)"
    } else {
        "R (running)"
    };
    let parent = process
        .parent
        .lock()
        .upgrade()
        .map_or(0, |parent| parent.pid);
    let mut out = format!(
        "Name:\t{}\nState:\t{state}\nTgid:\t{}\nPid:\t{}\nPPid:\t{parent}\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\n",
        process.name.lock(),
        process.pid,
        process.pid
    );
    if let Some(mm) = mm {
        // Writing to a string cannot fail.
        let _ = proc::status_memory_lines(mm, &mut out);
    }
    let _ = writeln!(out, "Threads:\t{}", process.threads.lock().len());
    out
}

fn stat(process: &Process, mm: Option<&MmRef<'static>>) -> String {
    let state = if process.is_zombie() { 'Z' } else { 'R' };
    let parent = process
        .parent
        .lock()
        .upgrade()
        .map_or(0, |parent| parent.pid);
    let stats = mm.map(|mm| mm.stats()).unwrap_or_default();
    format!(
        "{} ({}) {state} {parent} {} {} 0 -1 0 0 0 0 0 0 0 0 0 20 0 {} 0 0 {} {} {}\n",
        process.pid,
        process.name.lock(),
        process.pgid.load(Ordering::Relaxed),
        process.sid.load(Ordering::Relaxed),
        process.threads.lock().len(),
        stats.total_vm * 4096,
        stats.rss.total(),
        u64::MAX
    )
}

fn arguments(mm: &MmRef<'static>) -> Vec<u8> {
    let layout = mm.layout();
    let len = layout.arg_end.saturating_sub(layout.arg_start).min(4096) as usize;
    let mut bytes = alloc::vec![0; len];
    let at = vellum_types::VirtAddr::new(layout.arg_start);
    match system().copy_from_user(mm, at, &mut bytes) {
        Ok(()) => bytes,
        Err(done) => bytes[..done].to_vec(),
    }
}

/// Where a link of /proc points, by its path there.
pub(crate) fn link(name: &str) -> Option<String> {
    if name == "self" {
        return Some(format!("/proc/{}", task::current().process.pid));
    }
    let (process, rest) = process_of(name)?;
    if let Some(fd) = rest.strip_prefix("fd/") {
        let files = process.files.lock().clone();
        let file = files.lock().get(fd.parse().ok()?).ok()?;
        return Some(file.path.clone());
    }
    match rest {
        "exe" => Some(process.executable.lock().clone()),
        "cwd" => Some(process.place.lock().path.clone()),
        "root" => Some("/".to_string()),
        _ => None,
    }
}

/// True for folders of /proc.
pub(crate) fn is_folder(name: &str) -> bool {
    matches!(name, "sys" | "sys/vm")
        || process_of(name).is_some_and(|(_, rest)| matches!(rest, "" | "fd" | "task"))
}
