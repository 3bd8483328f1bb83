//! Files of `/proc` that are about memory, answered from the core.
//!
//! Each is a snapshot in a memory file, made when it is opened. `pagemap` is too large for that (a
//! word per page of the address space), so its reads are answered one by one.

use super::Program;
use super::fd::{self, Stat};
use super::user::User;
use crate::engine::{Action, Engine};
use crate::facade::{MmRef, proc};
use crate::task::Task;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use vellum_types::PAGE_SIZE;

/// Something in `/proc` that is answered here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Node<'a> {
    /// Whose; `None` for files about the machine.
    pid: Option<i32>,
    name: &'a str,
}

/// Files about the machine.
const OF_MACHINE: &[&str] = &[
    "meminfo",
    "vmstat",
    "buddyinfo",
    "zoneinfo",
    "slabinfo",
    "swaps",
    "vmallocinfo",
    "pagetypeinfo",
];
/// Files about a process.
const OF_PROCESS: &[&str] = &[
    "maps",
    "smaps",
    "smaps_rollup",
    "statm",
    "status",
    "stat",
    "pagemap",
    "cmdline",
    "environ",
    "auxv",
];

/// What `path` names, if it is one of ours or a process's `exe`.
pub(super) fn node<'p>(path: &'p [u8], task: &Task<'_>) -> Option<Node<'p>> {
    parse(path, task.tgid, task.tid)
}

fn parse(path: &[u8], tgid: i32, tid: i32) -> Option<Node<'_>> {
    let path = core::str::from_utf8(path.strip_prefix(b"/proc/")?).ok()?;
    if OF_MACHINE.contains(&path) {
        return Some(Node {
            pid: None,
            name: path,
        });
    }
    let (who, mut rest) = path.split_once('/')?;
    let mut pid = match who {
        "self" => tgid,
        "thread-self" => tid,
        _ if who.starts_with(|c: char| c.is_ascii_digit()) => who.parse().ok()?,
        _ => return None,
    };
    if let Some((thread, name)) = rest.strip_prefix("task/").and_then(|t| t.split_once('/')) {
        pid = thread.parse().ok()?;
        rest = name;
    }
    (rest == "exe" || OF_PROCESS.contains(&rest)).then_some(Node {
        pid: Some(pid),
        name: rest,
    })
}

/// The thread `pid`, or any thread of process `pid`: its address space and program.
fn guest<'m>(
    engine: &Engine<'m>,
    task: &Task<'m>,
    pid: i32,
) -> Option<(MmRef<'m>, Option<Rc<Program>>)> {
    let of = |task: &Task<'m>| (task.mm.clone(), task.abi.program.clone());
    if task.tid == pid || task.tgid == pid {
        return Some(of(task));
    }
    let other = engine.tasks.get(&pid);
    other
        .or_else(|| engine.tasks.values().find(|task| task.tgid == pid))
        .map(|task| of(task))
}

/// The program of the process whose `exe` is named.
pub(super) fn program<'m>(
    engine: &Engine<'m>,
    task: &Task<'m>,
    node: &Node<'_>,
) -> Option<Rc<Program>> {
    if node.name != "exe" {
        return None;
    }
    guest(engine, task, node.pid?)?.1
}

/// A descriptor of ours that shows what `node` names; `None` leaves it to the host.
pub(super) fn open<'m>(engine: &mut Engine<'m>, task: &Task<'m>, node: Node<'_>) -> Option<RawFd> {
    if let Some(program) = program(engine, task, &node) {
        return Some(program.file.as_raw_fd());
    }
    let (text, pagemap) = match node.pid {
        None => (of_machine(engine, node.name)?, None),
        Some(pid) => {
            let (mm, _) = guest(engine, task, pid)?;
            let text = of_process(engine, &mm, pid, node.name)?;
            (text, (node.name == "pagemap").then_some(pid))
        }
    };
    let file = fd::memory_file(node.name, &text).ok()?;
    if pagemap.is_some() {
        // Seeking is the host's: there must be something to seek in.
        fd::truncate(&file, (1 << 47) / PAGE_SIZE as i64 * 8).ok()?;
    }
    engine.abi.snapshots.add(file, pagemap)
}

fn of_machine(engine: &Engine<'_>, name: &str) -> Option<Vec<u8>> {
    let sys = &engine.sys;
    let mut text = String::new();
    match name {
        "meminfo" => proc::meminfo(sys, &mut text),
        "vmstat" => proc::vmstat(sys, &mut text),
        "buddyinfo" => proc::buddyinfo(sys, &mut text),
        "zoneinfo" => proc::zoneinfo(sys, &mut text),
        "slabinfo" => proc::slabinfo(sys, &mut text),
        "swaps" => proc::swaps(sys, &mut text),
        "vmallocinfo" => proc::vmallocinfo(sys, &mut text),
        _ => return None,
    }
    .ok()?;
    Some(text.into_bytes())
}

fn of_process<'m>(engine: &Engine<'m>, mm: &MmRef<'m>, pid: i32, name: &str) -> Option<Vec<u8>> {
    let sys = &engine.sys;
    let mut text = String::new();
    match name {
        "maps" => proc::maps(sys, mm, &mut text).ok()?,
        "smaps" => proc::smaps(sys, mm, &mut text).ok()?,
        "smaps_rollup" => proc::smaps_rollup(sys, mm, &mut text).ok()?,
        "statm" => proc::statm(mm, &mut text).ok()?,
        "status" => {
            let host = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let mut lines = String::new();
            proc::status_memory_lines(mm, &mut lines).ok()?;
            text = status(&host, &lines);
        }
        "stat" => {
            let host = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let mut statm = String::new();
            proc::statm(mm, &mut statm).ok()?;
            text = stat(&host, &statm, &mm.layout())?;
        }
        "cmdline" | "environ" => {
            let layout = mm.layout();
            let (start, end) = if name == "cmdline" {
                (layout.arg_start, layout.arg_end)
            } else {
                (layout.env_start, layout.env_end)
            };
            let mut bytes = vec![0; end.saturating_sub(start).min(2 << 20) as usize];
            if bytes.is_empty() {
                return Some(bytes);
            }
            let from = vellum_types::VirtAddr::new(start);
            return sys
                .copy_from_user(mm, from, &mut bytes)
                .ok()
                .map(|()| bytes);
        }
        "auxv" => return auxiliary_vector(engine, mm),
        "pagemap" => {}
        _ => return None,
    }
    Some(text.into_bytes())
}

/// The vector behind the arguments and the environment on the initial stack.
fn auxiliary_vector<'m>(engine: &Engine<'m>, mm: &MmRef<'m>) -> Option<Vec<u8>> {
    let user = User {
        system: &engine.sys,
        mm,
    };
    let start = mm.layout().start_stack;
    let mut at = start.checked_add(8 * (user.read_u64(start).ok()?.min(1 << 20) + 2))?;
    while user.read_u64(at).ok()? != 0 {
        at += 8;
    }
    let mut vector = Vec::new();
    for _ in 0..64 {
        at += 8;
        let (key, value) = (user.read_u64(at).ok()?, user.read_u64(at + 8).ok()?);
        vector.extend(key.to_le_bytes());
        vector.extend(value.to_le_bytes());
        if key == libc::AT_NULL {
            break;
        }
        at += 8;
    }
    Some(vector)
}

/// The host's status of the process with the core's lines about memory.
fn status(host: &str, lines: &str) -> String {
    let mut text = String::new();
    let mut written = false;
    for line in host.lines() {
        let key = line.split(':').next().unwrap_or("");
        if key.starts_with("Vm") || key.starts_with("Rss") || key == "HugetlbPages" {
            if !written {
                text.push_str(lines);
                if !lines.ends_with('\n') {
                    text.push('\n');
                }
                written = true;
            }
            if key == "HugetlbPages" {
                text.push_str("HugetlbPages:\t       0 kB\n");
            }
            continue;
        }
        match key {
            // It is we who trace it and have stopped it.
            "TracerPid" => text.push_str("TracerPid:\t0\n"),
            "State" if line.contains("tracing stop") => text.push_str("State:\tR (running)\n"),
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

/// The host's stat of the process with the core's sizes and addresses.
fn stat(host: &str, statm: &str, layout: &crate::facade::MmLayout) -> Option<String> {
    let mut sizes = statm
        .split_whitespace()
        .map(|field| field.parse::<u64>().unwrap_or(0));
    let (size, resident) = (sizes.next()?, sizes.next()?);
    let (before, after) = host.trim_end().rsplit_once(')')?;
    let mut fields: Vec<String> = after.split_whitespace().map(str::to_owned).collect();
    // Numbered as in proc_pid_stat(5); the first after the name is field 3.
    let mut set = |number: usize, value: String| {
        if let Some(field) = fields.get_mut(number - 3) {
            *field = value;
        }
    };
    set(3, "R".to_owned());
    set(23, (size * PAGE_SIZE).to_string());
    set(24, resident.to_string());
    for (number, value) in [
        (26, layout.start_code),
        (27, layout.end_code),
        (28, layout.start_stack),
        (45, layout.start_data),
        (46, layout.end_data),
        (47, layout.start_brk),
        (48, layout.arg_start),
        (49, layout.arg_end),
        (50, layout.env_start),
        (51, layout.env_end),
    ] {
        set(number, value.to_string());
    }
    Some(format!("{before}) {}\n", fields.join(" ")))
}

/// sysinfo(2).
pub(super) fn sysinfo<'m>(engine: &Engine<'m>, task: &Task<'m>) -> Result<i64, i32> {
    let mut info = MaybeUninit::<libc::sysinfo>::zeroed();
    // SAFETY: the buffer holds a struct sysinfo.
    if unsafe { libc::sysinfo(info.as_mut_ptr()) } != 0 {
        return Err(fd::errno());
    }
    // SAFETY: zeroed, and filled by the host.
    let mut info = unsafe { info.assume_init() };
    let memory = engine.sys.meminfo();
    let amount = |key| memory.get(key).unwrap_or(0) * 1024;
    info.mem_unit = 1;
    info.totalram = amount("MemTotal");
    info.freeram = amount("MemFree");
    info.sharedram = amount("Shmem");
    info.bufferram = amount("Buffers");
    (info.totalswap, info.freeswap) = (amount("SwapTotal"), amount("SwapFree"));
    (info.totalhigh, info.freehigh) = (0, 0);
    let base = (&raw const info).cast::<u8>();
    // SAFETY: a plain structure, zeroed before it was filled, so that its padding is initialised.
    let bytes = unsafe { core::slice::from_raw_parts(base, size_of::<libc::sysinfo>()) };
    if engine.write_user(task, task.arg(0), bytes) {
        Ok(0)
    } else {
        Err(libc::EFAULT)
    }
}

/// A read of a pagemap; `None` if the file is none.
pub(super) fn read_pagemap<'m>(
    engine: &Engine<'m>,
    task: &Task<'m>,
    fd: &OwnedFd,
    stat: &Stat,
) -> Option<Action> {
    let pid = engine.abi.snapshots.pagemap(stat)?;
    let result = pagemap(engine, task, fd, pid);
    Some(Action::Return(
        result.unwrap_or_else(|errno| -i64::from(errno)),
    ))
}

fn pagemap<'m>(engine: &Engine<'m>, task: &Task<'m>, fd: &OwnedFd, pid: i32) -> Result<i64, i32> {
    let (to, len) = (task.arg(1), task.arg(2).min(1 << 20));
    let positioned = match task.nr() {
        libc::SYS_read => false,
        libc::SYS_pread64 => true,
        _ => return Err(libc::EINVAL),
    };
    let at = if positioned {
        task.arg(3)
    } else {
        fd::seek(fd, 0, libc::SEEK_CUR)?
    };
    if at % 8 != 0 || len % 8 != 0 {
        return Err(libc::EINVAL);
    }
    let Some((mm, _)) = guest(engine, task, pid) else {
        return Ok(0);
    };
    let left = ((1 << 47) / PAGE_SIZE).saturating_sub(at / 8);
    let count = (len / 8).min(left);
    let bytes: Vec<u8> = (at / 8..at / 8 + count)
        .flat_map(|page| engine.sys.pagemap_entry(&mm, page).to_le_bytes())
        .collect();
    if !bytes.is_empty() && !engine.write_user(task, to, &bytes) {
        return Err(libc::EFAULT);
    }
    if !positioned {
        fd::seek(fd, (at + count * 8) as i64, libc::SEEK_SET)?;
    }
    Ok((count * 8) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_into_proc() {
        let parse = |path: &'static str| parse(path.as_bytes(), 7, 8);
        let node = |pid, name| Some(Node { pid, name });
        assert_eq!(parse("/proc/meminfo"), node(None, "meminfo"));
        assert_eq!(parse("/proc/self/maps"), node(Some(7), "maps"));
        assert_eq!(parse("/proc/thread-self/status"), node(Some(8), "status"));
        assert_eq!(parse("/proc/12/exe"), node(Some(12), "exe"));
        assert_eq!(parse("/proc/12/task/13/stat"), node(Some(13), "stat"));
        for other in [
            "/proc",
            "/proc/self",
            "/proc/self/fd/3",
            "/proc/cpuinfo",
            "/etc/maps",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn status_gets_our_lines() {
        let host = "Name:\tx\nState:\tt (tracing stop)\nTracerPid:\t4\nVmPeak:\t1 kB\nVmRSS:\t2 kB\nThreads:\t1\n";
        let ours = "VmPeak:\t 100 kB\n";
        let want = "Name:\tx\nState:\tR (running)\nTracerPid:\t0\nVmPeak:\t 100 kB\nThreads:\t1\n";
        assert_eq!(status(host, ours), want);
    }

    #[test]
    fn stat_gets_our_sizes() {
        let host: String = std::iter::once("5 (a) b) t".to_owned())
            .chain((4..=52).map(|n| n.to_string()))
            .collect::<Vec<_>>()
            .join(" ");
        let layout = crate::facade::MmLayout {
            start_brk: 4096,
            ..Default::default()
        };
        let text = stat(&host, "10 3 2 1 0 4 0\n", &layout).unwrap();
        let fields: Vec<_> = text
            .trim_end()
            .rsplit_once(')')
            .unwrap()
            .1
            .split(' ')
            .collect();
        // fields[0] is empty, so that number n stands at n - 2.
        assert_eq!(
            (fields[1], fields[21], fields[22], fields[45]),
            ("R", "40960", "3", "4096")
        );
    }
}
