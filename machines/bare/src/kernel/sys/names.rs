//! Calls on paths.

use super::files::{self, install, stat_bytes};
use super::user;
use crate::fs::{
    self, EACCES, EEXIST, EINVAL, EISDIR, ENOENT, ENOTDIR, ENOTEMPTY, EPERM, ERANGE, File, Inode,
    Kind, Node, Place, Result, S_IFDIR, S_IFLNK, S_IFREG, lookup, lookup_parent, procfs,
};
use crate::task;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

pub(super) const AT_FDCWD: i32 = -100;
pub(super) const AT_SYMLINK_NOFOLLOW: u32 = 0x100;
pub(super) const AT_REMOVEDIR: u32 = 0x200;
const AT_EMPTY_PATH: u32 = 0x1000;
const O_CREAT: u32 = 0o100;
const O_EXCL: u32 = 0o200;
const O_TRUNC: u32 = 0o1000;
const O_DIRECTORY: u32 = 0o200_000;
const O_NOFOLLOW: u32 = 0o400_000;
const O_CLOEXEC: u32 = 0o2_000_000;
const O_TMPFILE: u32 = 0o20_000_000;

fn umask() -> u32 {
    task::current().process.umask.load(Ordering::Relaxed)
}

/// Where a relative path begins, and its path.
fn base(at: i32, path: &str) -> Result<Place> {
    if at == AT_FDCWD || path.starts_with('/') {
        return Ok(task::current().process.place.lock().clone());
    }
    let file = fs::file(at)?;
    match &file.inode {
        Some(inode) if inode.kind() == S_IFDIR => Ok(Place {
            folder: inode.clone(),
            path: file.path.clone(),
        }),
        _ => Err(ENOTDIR),
    }
}

/// An absolute path without `.`, `..` and double slashes; links are not followed.
fn absolute(base: &str, path: &str) -> String {
    let mut names: alloc::vec::Vec<&str> = alloc::vec::Vec::new();
    let start = if path.starts_with('/') { "" } else { base };
    for name in start.split('/').chain(path.split('/')) {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    let mut text = String::new();
    for name in names {
        text.push('/');
        text.push_str(name);
    }
    if text.is_empty() {
        "/".to_string()
    } else {
        text
    }
}

fn find(at: i32, path: &str, follow: bool) -> Result<Arc<Inode>> {
    let base = base(at, path)?;
    lookup(&base.folder, path, follow)
}

pub(super) fn open(at: i32, path: u64, flags: u32, mode: u32) -> Result<u64> {
    let path = user::path(path)?;
    let base = base(at, &path)?;
    let full = absolute(&base.path, &path);
    if let Some(name) = full.strip_prefix("/proc/") {
        let text = procfs::text(name).ok_or(ENOENT)??;
        return install(
            File::new(Kind::Text(text), None, full, flags & 0o6003),
            flags,
        );
    }
    if flags & O_TMPFILE != 0 {
        let inode = Inode::regular(mode & !umask())?;
        return install(
            File::new(Kind::Regular, Some(inode), full, flags & 0o6003),
            flags,
        );
    }
    let follow = flags & (O_NOFOLLOW | O_EXCL) == 0;
    let inode = match lookup(&base.folder, &path, follow) {
        Ok(_) if flags & (O_CREAT | O_EXCL) == O_CREAT | O_EXCL => return Err(EEXIST),
        Err(ENOENT) if flags & O_CREAT != 0 => {
            let (folder, name) = lookup_parent(&base.folder, &path)?;
            let inode = Inode::regular(mode & !umask())?;
            folder.add(name, inode.clone())?;
            inode
        }
        result => result?,
    };
    let writes = flags & 3 != 0;
    let kind = match &inode.node {
        Node::Folder(_) if writes || flags & O_CREAT != 0 => return Err(EISDIR),
        Node::Folder(_) => Kind::Folder,
        _ if flags & O_DIRECTORY != 0 => return Err(ENOTDIR),
        Node::Link(_) => return Err(40),
        Node::Device(device) => Kind::Device(*device),
        Node::Regular(_) => {
            if flags & O_TRUNC != 0 && writes {
                files::resize(&inode, 0)?;
            }
            Kind::Regular
        }
    };
    install(
        File::new(kind, Some(inode), full, flags & 0o6003),
        flags & O_CLOEXEC,
    )
}

fn stat_of(at: i32, path: u64, flags: u32) -> Result<[u8; 144]> {
    let path = user::path(path)?;
    if path.is_empty() && flags & AT_EMPTY_PATH != 0 {
        if at == AT_FDCWD {
            return Ok(files::inode_stat(
                &task::current().process.place.lock().folder,
            ));
        }
        return Ok(files::file_stat(&*fs::file(at)?));
    }
    let follow = flags & AT_SYMLINK_NOFOLLOW == 0;
    let full = absolute(&base(at, &path)?.path, &path);
    if let Some(name) = full.strip_prefix("/proc/") {
        if procfs::link(name).is_some() {
            return match procfs::link(name) {
                Some(target) if follow => {
                    Ok(files::inode_stat(&*lookup(fs::root(), &target, true)?))
                }
                _ => Ok(stat_bytes(2, S_IFLNK | 0o777, 1, 0, 0, 0)),
            };
        }
        if procfs::is_folder(name) {
            return Ok(stat_bytes(2, S_IFDIR | 0o555, 1, 0, 0, 0));
        }
        procfs::text(name).ok_or(ENOENT)??;
        return Ok(stat_bytes(2, S_IFREG | 0o444, 1, 0, 0, 0));
    }
    Ok(files::inode_stat(&*find(at, &path, follow)?))
}

pub(super) fn stat(at: i32, path: u64, to: u64, flags: u32) -> Result<u64> {
    let bytes = stat_of(at, path, flags)?;
    user::put(to, &bytes).map(|()| 0)
}

/// statx(2), from what stat knows.
pub(super) fn statx(at: i32, path: u64, flags: u32, to: u64) -> Result<u64> {
    let stat = stat_of(at, path, flags)?;
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&stat[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    let mut out = [0u8; 256];
    let mut put = |at: usize, len: usize, value: u64| {
        out[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
    };
    put(0, 4, 0x7ff);
    put(4, 4, word(56));
    put(16, 4, word(16));
    put(28, 2, word(24));
    put(32, 8, word(8));
    put(40, 8, word(48));
    put(48, 8, word(64));
    for at in [64, 80, 96, 112] {
        put(at, 8, word(88));
        put(at + 8, 4, word(96));
    }
    put(128, 4, word(40) >> 8);
    put(132, 4, word(40) & 0xff);
    user::put(to, &out).map(|()| 0)
}

pub(super) fn access(at: i32, path: u64, mode: u32) -> Result<u64> {
    let path = user::path(path)?;
    let full = absolute(&base(at, &path)?.path, &path);
    if let Some(name) = full.strip_prefix("/proc/") {
        let known =
            procfs::is_folder(name) || procfs::link(name).is_some() || procfs::text(name).is_some();
        return if known { Ok(0) } else { Err(ENOENT) };
    }
    let inode = find(at, &path, true)?;
    // Root may do anything but run what nobody may run.
    let runs = inode.mode.load(Ordering::Relaxed) & 0o111 != 0;
    if mode & 1 != 0 && !runs {
        Err(EACCES)
    } else {
        Ok(0)
    }
}

pub(super) fn readlink(at: i32, path: u64, to: u64, len: u64) -> Result<u64> {
    let path = user::path(path)?;
    let full = absolute(&base(at, &path)?.path, &path);
    let target = match full.strip_prefix("/proc/").and_then(procfs::link) {
        Some(target) => target,
        None => match &find(at, &path, false)?.node {
            Node::Link(target) => target.clone(),
            _ => return Err(EINVAL),
        },
    };
    let n = target.len().min(len as usize);
    user::put(to, &target.as_bytes()[..n])?;
    Ok(n as u64)
}

pub(super) fn getcwd(to: u64, len: u64) -> Result<u64> {
    let path = task::current().process.place.lock().path.clone();
    if path.len() as u64 + 1 > len {
        return Err(ERANGE);
    }
    user::put(to, path.as_bytes())?;
    user::put(to + path.len() as u64, &[0])?;
    Ok(path.len() as u64 + 1)
}

pub(super) fn chdir(path: u64) -> Result<u64> {
    let path = user::path(path)?;
    let folder = find(AT_FDCWD, &path, true)?;
    if folder.kind() != S_IFDIR {
        return Err(ENOTDIR);
    }
    let mut place = task::current().process.place.lock();
    place.path = absolute(&place.path, &path);
    place.folder = folder;
    Ok(0)
}

pub(super) fn fchdir(fd: i32) -> Result<u64> {
    let file = fs::file(fd)?;
    match &file.inode {
        Some(inode) if inode.kind() == S_IFDIR => {
            *task::current().process.place.lock() = Place {
                folder: inode.clone(),
                path: file.path.clone(),
            };
            Ok(0)
        }
        _ => Err(ENOTDIR),
    }
}

pub(super) fn mkdir(at: i32, path: u64, mode: u32) -> Result<u64> {
    let path = user::path(path)?;
    let base = base(at, &path)?;
    let (folder, name) = lookup_parent(&base.folder, &path)?;
    folder.add(name, Inode::folder(mode & !umask()))?;
    Ok(0)
}

pub(super) fn symlink(target: u64, at: i32, path: u64) -> Result<u64> {
    let (target, path) = (user::path(target)?, user::path(path)?);
    let base = base(at, &path)?;
    let (folder, name) = lookup_parent(&base.folder, &path)?;
    folder.add(name, Inode::link(&target))?;
    Ok(0)
}

pub(super) fn link(from_at: i32, from: u64, at: i32, path: u64, flags: u32) -> Result<u64> {
    let (from, path) = (user::path(from)?, user::path(path)?);
    let inode = find(from_at, &from, flags & 0x400 != 0)?;
    if inode.kind() == S_IFDIR {
        return Err(EPERM);
    }
    let base = base(at, &path)?;
    let (folder, name) = lookup_parent(&base.folder, &path)?;
    folder.add(name, inode.clone())?;
    inode.links.fetch_add(1, Ordering::Relaxed);
    Ok(0)
}

pub(super) fn unlink(at: i32, path: u64, flags: u32) -> Result<u64> {
    let path = user::path(path)?;
    let base = base(at, &path)?;
    let (folder, name) = lookup_parent(&base.folder, &path)?;
    let Node::Folder(entries) = &folder.node else {
        return Err(ENOTDIR);
    };
    let mut entries = entries.lock();
    let inode = entries.get(name).ok_or(ENOENT)?;
    match &inode.node {
        Node::Folder(_) if flags & AT_REMOVEDIR == 0 => return Err(EISDIR),
        Node::Folder(inner) if !inner.lock().is_empty() => return Err(ENOTEMPTY),
        Node::Folder(_) => {}
        _ if flags & AT_REMOVEDIR != 0 => return Err(ENOTDIR),
        _ => {}
    }
    let gone = entries.remove(name);
    drop(entries);
    if let Some(inode) = &gone {
        inode.links.fetch_sub(1, Ordering::Relaxed);
    }
    Ok(0)
}

pub(super) fn rename(from_at: i32, from: u64, at: i32, path: u64, flags: u32) -> Result<u64> {
    let (from, path) = (user::path(from)?, user::path(path)?);
    let from_base = base(from_at, &from)?;
    let to_base = base(at, &path)?;
    let (source, old) = lookup_parent(&from_base.folder, &from)?;
    let (target, new) = lookup_parent(&to_base.folder, &path)?;
    let (Node::Folder(source_entries), Node::Folder(target_entries)) = (&source.node, &target.node)
    else {
        return Err(ENOTDIR);
    };
    let inode = source_entries.lock().get(old).cloned().ok_or(ENOENT)?;
    let there = target_entries.lock().get(new).cloned();
    if let Some(there) = &there {
        if flags & 1 != 0 {
            return Err(EEXIST);
        }
        match (&inode.node, &there.node) {
            _ if Arc::ptr_eq(&inode, there) => return Ok(0),
            (Node::Folder(_), Node::Folder(inner)) if !inner.lock().is_empty() => {
                return Err(ENOTEMPTY);
            }
            (Node::Folder(_), Node::Folder(_)) => {}
            (_, Node::Folder(_)) => return Err(EISDIR),
            (Node::Folder(_), _) => return Err(ENOTDIR),
            _ => {}
        }
        target_entries.lock().remove(new);
    }
    source_entries.lock().remove(old);
    target.add(new, inode)?;
    drop(there);
    Ok(0)
}

pub(super) fn truncate(path: u64, size: u64) -> Result<u64> {
    let path = user::path(path)?;
    files::resize(&*find(AT_FDCWD, &path, true)?, size)
}

pub(super) fn chmod(at: i32, path: u64, mode: u32) -> Result<u64> {
    let path = user::path(path)?;
    let inode = find(at, &path, true)?;
    inode
        .mode
        .store(inode.kind() | mode & 0o7777, Ordering::Relaxed);
    Ok(0)
}
