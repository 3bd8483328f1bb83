//! Calls on descriptors.

use super::user;
use crate::fs::pipe::Pipe;
use crate::fs::{
    self, Device, EBADF, EFAULT, EINVAL, EISDIR, ENOTDIR, ENOTTY, File, Inode, Kind, Node, Result,
    S_IFCHR, S_IFIFO, S_IFREG,
};
use crate::machine::system;
use crate::sync::Lock;
use crate::task;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use vellum_types::PAGE_SIZE;

const O_CLOEXEC: u32 = 0o2_000_000;
const O_NONBLOCK: u32 = 0o4000;
const O_RDWR: u32 = 2;
const F_DUPFD: u32 = 0;
const F_GETFD: u32 = 1;
const F_SETFD: u32 = 2;
const F_GETFL: u32 = 3;
const F_SETFL: u32 = 4;
const F_DUPFD_CLOEXEC: u32 = 1030;
/// Flags that F_SETFL changes: append and non-blocking.
const SETTABLE: u32 = 0o6000;
const TCGETS: u64 = 0x5401;
const TIOCGWINSZ: u64 = 0x5413;
const TIOCGPGRP: u64 = 0x540f;
const FIONREAD: u64 = 0x541b;
const IOV_MAX: u64 = 1024;

type Files = Arc<Lock<fs::FdTable>>;

pub(super) fn files() -> Files {
    task::current().process.files.lock().clone()
}

/// Gives an open file a descriptor.
pub(super) fn install(file: Arc<File>, flags: u32) -> Result<u64> {
    let fd = files().lock().add(file, flags & O_CLOEXEC != 0, 0)?;
    Ok(fd as u64)
}

#[inline]
pub(super) fn read(fd: i32, to: u64, len: u64) -> Result<u64> {
    fs::file(fd)?.read(None, to, len.min(0x7fff_f000))
}

#[inline]
pub(super) fn write(fd: i32, from: u64, len: u64) -> Result<u64> {
    fs::file(fd)?.write(None, from, len.min(0x7fff_f000))
}

pub(super) fn pread(fd: i32, to: u64, len: u64, offset: u64) -> Result<u64> {
    if offset as i64 >= 0 {
        fs::file(fd)?.read(Some(offset), to, len.min(0x7fff_f000))
    } else {
        Err(EINVAL)
    }
}

pub(super) fn pwrite(fd: i32, from: u64, len: u64, offset: u64) -> Result<u64> {
    if offset as i64 >= 0 {
        fs::file(fd)?.write(Some(offset), from, len.min(0x7fff_f000))
    } else {
        Err(EINVAL)
    }
}

/// readv(2), writev(2) and their positioned kin.
pub(super) fn vector(
    fd: i32,
    list: u64,
    count: u64,
    offset: Option<u64>,
    read: bool,
) -> Result<u64> {
    if count > IOV_MAX {
        return Err(EINVAL);
    }
    let file = fs::file(fd)?;
    let mut done = 0;
    for n in 0..count {
        let [at, len] = user::words::<2>(list + n * 16)?;
        if len == 0 {
            continue;
        }
        let offset = offset.map(|offset| offset + done);
        let result = if read {
            file.read(offset, at, len)
        } else {
            file.write(offset, at, len)
        };
        match result {
            Ok(moved) => {
                done += moved;
                if moved < len {
                    break;
                }
            }
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

pub(super) fn close(fd: i32) -> Result<u64> {
    let file = files().lock().remove(fd)?;
    drop(file);
    Ok(0)
}

pub(super) fn dup(fd: i32) -> Result<u64> {
    let file = fs::file(fd)?;
    Ok(files().lock().add(file, false, 0)? as u64)
}

pub(super) fn dup_to(fd: i32, to: i32, flags: u32, strict: bool) -> Result<u64> {
    let file = fs::file(fd)?;
    if fd == to {
        return if strict { Err(EINVAL) } else { Ok(to as u64) };
    }
    if to < 0 {
        return Err(EBADF);
    }
    let old = files()
        .lock()
        .put(to as usize, file, flags & O_CLOEXEC != 0)
        .map_err(|_| EBADF)?;
    drop(old);
    Ok(to as u64)
}

pub(super) fn pipe(to: u64, flags: u32) -> Result<u64> {
    let pipe = Pipe::new();
    let status = flags & O_NONBLOCK;
    let out = File::new(
        Kind::PipeOut(pipe.clone()),
        None,
        "pipe:".to_string(),
        status,
    );
    let into = File::new(Kind::PipeIn(pipe), None, "pipe:".to_string(), status | 1);
    let files = files();
    let mut table = files.lock();
    let first = table.add(out, flags & O_CLOEXEC != 0, 0)?;
    let second = match table.add(into, flags & O_CLOEXEC != 0, 0) {
        Ok(fd) => fd,
        Err(errno) => {
            let file = table.remove(first)?;
            drop(table);
            drop(file);
            return Err(errno);
        }
    };
    drop(table);
    let both = u64::from(first as u32) | u64::from(second as u32) << 32;
    if user::put_words(to, &[both]).is_err() {
        let _ = close(first);
        let _ = close(second);
        return Err(EFAULT);
    }
    Ok(0)
}

pub(super) fn fcntl(fd: i32, command: u32, argument: u64) -> Result<u64> {
    let file = fs::file(fd)?;
    let files = files();
    match command {
        F_DUPFD | F_DUPFD_CLOEXEC => {
            let fd = files
                .lock()
                .add(file, command == F_DUPFD_CLOEXEC, argument as usize)?;
            Ok(fd as u64)
        }
        F_GETFD => Ok(u64::from(files.lock().close_on_exec(fd)?)),
        F_SETFD => files
            .lock()
            .set_close_on_exec(fd, argument & 1 != 0)
            .map(|()| 0),
        F_GETFL => Ok(u64::from(file.flags.load(Ordering::Relaxed))),
        F_SETFL => {
            let keep = file.flags.load(Ordering::Relaxed) & !SETTABLE;
            file.flags
                .store(keep | argument as u32 & SETTABLE, Ordering::Relaxed);
            Ok(0)
        }
        // Locks: there is one kernel and no other user of its files worth keeping out.
        5..=7 => Ok(0),
        _ => Err(EINVAL),
    }
}

pub(super) fn ioctl(fd: i32, request: u64, argument: u64) -> Result<u64> {
    let file = fs::file(fd)?;
    match (request, &file.kind) {
        (FIONREAD, Kind::Regular) => {
            let size = file.inode.as_ref().map_or(0, |inode| inode.size());
            let left = size.saturating_sub(file.position.load(Ordering::Relaxed));
            user::put_half(argument, left as u32).map(|()| 0)
        }
        // The console is a serial line without terminal modes: programs write to it plainly.
        (TCGETS | TIOCGWINSZ | TIOCGPGRP, _) => Err(ENOTTY),
        _ => Err(ENOTTY),
    }
}

pub(super) fn ftruncate(fd: i32, size: u64) -> Result<u64> {
    let file = fs::file(fd)?;
    if !file.writable() {
        return Err(EINVAL);
    }
    let inode = file.inode.as_ref().ok_or(EINVAL)?;
    resize(inode, size)
}

/// Makes a regular file that long.
pub(super) fn resize(inode: &Inode, size: u64) -> Result<u64> {
    if size > i64::MAX as u64 {
        return Err(EINVAL);
    }
    match &inode.node {
        Node::Regular(Some(mapping)) => {
            system().truncate(mapping, size);
            inode.touch();
            Ok(0)
        }
        Node::Folder(_) => Err(EISDIR),
        _ => Err(EINVAL),
    }
}

/// fallocate(2): room need not be reserved in memory, so only the size changes, and holes are made.
pub(super) fn fallocate(fd: i32, mode: u32, offset: u64, len: u64) -> Result<u64> {
    let file = fs::file(fd)?;
    let inode = file.inode.as_ref().ok_or(EBADF)?;
    let mapping = inode.mapping().ok_or(19)?;
    if len == 0
        || offset
            .checked_add(len)
            .is_none_or(|end| end > i64::MAX as u64)
    {
        return Err(EINVAL);
    }
    match mode {
        0 => mapping.extend_size(offset + len),
        1 => {}
        3 => system().punch(mapping, offset, len),
        _ => return Err(95),
    }
    Ok(0)
}

/// `struct stat` of x86-64.
pub(super) fn stat_bytes(
    number: u64,
    mode: u32,
    links: u64,
    size: u64,
    modified: u64,
    device: u64,
) -> [u8; 144] {
    let mut bytes = [0; 144];
    let mut put = |at: usize, value: u64| bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    put(0, 1);
    put(8, number);
    put(16, links);
    put(24, u64::from(mode));
    put(40, device);
    put(48, size);
    put(56, PAGE_SIZE);
    put(64, size.div_ceil(PAGE_SIZE) * 8);
    for at in [72, 88, 104] {
        put(at, modified / 1_000_000_000);
        put(at + 8, modified % 1_000_000_000);
    }
    bytes
}

/// `st_rdev` of a device.
pub(super) fn device_number(device: Device) -> u64 {
    match device {
        Device::Null => 0x103,
        Device::Zero => 0x105,
        Device::Full => 0x107,
        Device::Random => 0x109,
        Device::Console => 0x501,
        Device::FaultAround => 0x600,
    }
}

/// What stat says of an inode.
pub(super) fn inode_stat(inode: &Inode) -> [u8; 144] {
    let device = match &inode.node {
        Node::Device(device) => device_number(*device),
        _ => 0,
    };
    stat_bytes(
        inode.number,
        inode.mode.load(Ordering::Relaxed),
        u64::from(inode.links.load(Ordering::Relaxed)),
        inode.size(),
        inode.modified.load(Ordering::Relaxed),
        device,
    )
}

/// What stat says of an open file.
pub(super) fn file_stat(file: &File) -> [u8; 144] {
    match (&file.kind, &file.inode) {
        (_, Some(inode)) => inode_stat(inode),
        (Kind::Text(text), None) => stat_bytes(2, S_IFREG | 0o444, 1, text.len() as u64, 0, 0),
        (Kind::Device(device), None) => {
            stat_bytes(3, S_IFCHR | 0o666, 1, 0, 0, device_number(*device))
        }
        _ => stat_bytes(4, S_IFIFO | 0o600, 1, 0, 0, 0),
    }
}

pub(super) fn fstat(fd: i32, to: u64) -> Result<u64> {
    let file = fs::file(fd)?;
    user::put(to, &file_stat(&file)).map(|()| 0)
}

/// getdents64(2).
pub(super) fn getdents(fd: i32, to: u64, len: u64) -> Result<u64> {
    let file = fs::file(fd)?;
    let Some(Node::Folder(entries)) = file.inode.as_ref().map(|inode| &inode.node) else {
        return Err(ENOTDIR);
    };
    let mut list: Vec<(String, u64, u32)> = Vec::new();
    for name in [".", ".."] {
        list.push((name.to_string(), 1, fs::S_IFDIR));
    }
    for (name, inode) in entries.lock().iter() {
        list.push((name.clone(), inode.number, inode.kind()));
    }
    if file.path == "/proc" {
        for process in task::all() {
            list.push((
                process.pid.to_string(),
                u64::from(process.pid) << 32,
                fs::S_IFDIR,
            ));
        }
        for name in [
            "self",
            "meminfo",
            "vmstat",
            "buddyinfo",
            "zoneinfo",
            "slabinfo",
            "vmallocinfo",
            "stat",
            "uptime",
        ] {
            list.push((name.to_string(), 3, S_IFREG));
        }
    }
    let start = file.position.load(Ordering::Relaxed) as usize;
    let mut out: Vec<u8> = Vec::new();
    let mut next = start;
    for (name, number, kind) in list.iter().skip(start) {
        let size = (19 + name.len() + 1).next_multiple_of(8);
        if out.len() + size > len as usize {
            if out.is_empty() {
                return Err(EINVAL);
            }
            break;
        }
        let end = out.len() + size;
        next += 1;
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(&(next as u64).to_le_bytes());
        out.extend_from_slice(&(size as u16).to_le_bytes());
        out.push((kind >> 12) as u8);
        out.extend_from_slice(name.as_bytes());
        out.resize(end, 0);
    }
    user::put(to, &out)?;
    file.position.store(next as u64, Ordering::Relaxed);
    Ok(out.len() as u64)
}

pub(super) fn fchmod(fd: i32, mode: u32) -> Result<u64> {
    let file = fs::file(fd)?;
    if let Some(inode) = &file.inode {
        inode
            .mode
            .store(inode.kind() | mode & 0o7777, Ordering::Relaxed);
    }
    Ok(0)
}

pub(super) fn eventfd(start: u64, flags: u32) -> Result<u64> {
    let kind = Kind::Event(Lock::new(start & 0xffff_ffff));
    let file = File::new(
        kind,
        None,
        "anon_inode:[eventfd]".to_string(),
        O_RDWR | flags & O_NONBLOCK,
    );
    install(file, flags)
}

/// memfd_create(2).
pub(super) fn memfd(name: u64, flags: u32) -> Result<u64> {
    let name = user::path(name)?;
    let inode = Inode::regular(0o777)?;
    let path = alloc::format!("/memfd:{name} (deleted)");
    let file = File::new(Kind::Regular, Some(inode), path, O_RDWR);
    install(file, if flags & 1 != 0 { O_CLOEXEC } else { 0 })
}
