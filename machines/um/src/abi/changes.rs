//! Calls that copy between files or change their size.

use super::calls::{AtExit, fail};
use super::fd;
use super::files::{self, Regular};
use super::prefault::prefault_call;
use crate::engine::{Action, Engine};
use crate::task::Task;
use std::os::fd::OwnedFd;
use vellum_machine::VmItem;

/// The most that one call copies between files: the machine stands still meanwhile, and callers
/// must expect less than they asked for.
const MAX_COPY: u64 = 64 << 20;

fn give(result: Result<u64, i32>) -> Action {
    match result {
        Ok(value) => Action::Return(value as i64),
        Err(errno) => fail(errno),
    }
}

/// Two regular files: the host copies between our duplicates, and the core looks again.
fn between<'m>(
    engine: &mut Engine<'m>,
    from: &Regular,
    to: &Regular,
    copy: impl FnOnce(&OwnedFd, &OwnedFd) -> Result<u64, i32>,
) -> Result<u64, i32> {
    files::write_back(engine, from)?;
    files::write_back(engine, to)?;
    let copied = copy(&from.fd, &to.fd)?;
    if let Some(id) = engine.store.find(to.inode) {
        files::refresh(engine, id);
    }
    Ok(copied)
}

/// A file offset that the program passes by pointer.
fn offset<'m>(engine: &Engine<'m>, task: &Task<'m>, at: u64) -> Result<Option<i64>, i32> {
    match at {
        0 => Ok(None),
        _ => engine
            .read_u64(task, at)
            .map(|v| Some(v as i64))
            .ok_or(libc::EFAULT),
    }
}

fn put_offset<'m>(
    engine: &Engine<'m>,
    task: &Task<'m>,
    at: u64,
    value: Option<i64>,
) -> Result<(), i32> {
    match value {
        Some(value) if !engine.write_user(task, at, &value.to_le_bytes()) => Err(libc::EFAULT),
        _ => Ok(()),
    }
}

/// sendfile(2).
pub(super) fn send_file<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>) -> Action {
    let from = files::regular(engine, task, task.arg(1));
    let to = files::regular(engine, task, task.arg(0));
    match (from, to) {
        (Some(from), Some(to)) => {
            let len = task.arg(3).min(MAX_COPY) as usize;
            give(offset(engine, task, task.arg(2)).and_then(|mut at| {
                let copied = between(engine, &from, &to, |from, to| {
                    fd::send_file(to, from, at.as_mut(), len)
                })?;
                put_offset(engine, task, task.arg(2), at)?;
                Ok(copied)
            }))
        }
        (from, to) => outside(engine, task, from, to),
    }
}

/// copy_file_range(2).
pub(super) fn copy_range<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>) -> Action {
    let from = files::regular(engine, task, task.arg(0));
    let to = files::regular(engine, task, task.arg(2));
    match (from, to) {
        (Some(from), Some(to)) => {
            let len = task.arg(4).min(MAX_COPY) as usize;
            let flags = task.arg(5) as u32;
            let offsets = offset(engine, task, task.arg(1))
                .and_then(|a| Ok((a, offset(engine, task, task.arg(3))?)));
            give(offsets.and_then(|(mut a, mut b)| {
                let copied = between(engine, &from, &to, |from, to| {
                    fd::copy_range(from, a.as_mut(), to, b.as_mut(), len, flags)
                })?;
                put_offset(engine, task, task.arg(1), a)?;
                put_offset(engine, task, task.arg(3), b)?;
                Ok(copied)
            }))
        }
        (from, to) => outside(engine, task, from, to),
    }
}

/// splice(2): one end is a pipe, so the host does it.
pub(super) fn splice<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>) -> Action {
    let from = files::regular(engine, task, task.arg(0));
    let to = files::regular(engine, task, task.arg(2));
    outside(engine, task, from, to)
}

/// The host moves bytes between a file and something else.
fn outside<'m>(
    engine: &mut Engine<'m>,
    task: &mut Task<'m>,
    from: Option<Regular>,
    to: Option<Regular>,
) -> Action {
    for file in [&from, &to].into_iter().flatten() {
        if let Err(errno) = files::write_back(engine, file) {
            return fail(errno);
        }
    }
    let action = prefault_call(engine, task);
    match to.and_then(|to| engine.store.find(to.inode)) {
        Some(id) => {
            task.abi.at_exit = AtExit::Refresh(id);
            Action::NativeExit
        }
        None => action,
    }
}

/// ftruncate(2).
pub(super) fn truncate_open<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>) -> Action {
    let Some(open) = files::regular(engine, task, task.arg(0)) else {
        return Action::Native;
    };
    let size = task.arg(1) as i64;
    let cached = files::cached(engine, open.inode);
    if let Some((id, mapping)) = &cached {
        match open.stat() {
            Ok(stat) => files::freshen(engine, *id, mapping, stat),
            Err(errno) => return fail(errno),
        }
    }
    if let Err(errno) = fd::truncate(&open.fd, size) {
        return fail(errno);
    }
    if let Some((id, mapping)) = cached {
        engine.sys.truncate(&mapping, size as u64);
        files::record(engine.store, id, &open.fd);
    }
    Action::Return(0)
}

/// truncate(2): the host does it, and then the core looks at the file if it knows it.
pub(super) fn truncate<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>) -> Action {
    let action = prefault_call(engine, task);
    let known = super::paths::resolve(engine, task, libc::AT_FDCWD, task.arg(0))
        .and_then(|path| fd::stat(&path))
        .ok()
        .and_then(|stat| engine.store.find(stat.inode()));
    match known {
        Some(id) => {
            task.abi.at_exit = AtExit::Refresh(id);
            Action::NativeExit
        }
        None => action,
    }
}

/// fallocate(2).
pub(super) fn allocate<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>) -> Action {
    let Some(open) = files::regular(engine, task, task.arg(0)) else {
        return Action::Native;
    };
    let (mode, at, len) = (task.arg(1) as i32, task.arg(2), task.arg(3));
    let moves = mode & (libc::FALLOC_FL_COLLAPSE_RANGE | libc::FALLOC_FL_INSERT_RANGE) != 0;
    if let Err(errno) = files::write_back(engine, &open)
        .and_then(|()| fd::allocate(&open.fd, mode, at as i64, len as i64))
    {
        return fail(errno);
    }
    if let Some((id, mapping)) = files::cached(engine, open.inode) {
        if moves {
            // As in `files::freshen`: nobody can be told.
            let _ = engine.sys.invalidate(&mapping);
        } else if mode & (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE) != 0 {
            engine.sys.punch(&mapping, at, len);
        }
        if let Some(stat) = files::record(engine.store, id, &open.fd)
            && stat.size != mapping.size()
        {
            engine.sys.truncate(&mapping, stat.size);
        }
    }
    Action::Return(0)
}

/// fsync and its kin: what was written through mappings goes first.
pub(super) fn sync<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>) -> Action {
    // What write(2) took is in the host's file already.
    if engine.sys.vmstat().item(VmItem::NrDirty) > 0
        && let Some(open) = files::regular(engine, task, task.arg(0))
        && let Err(errno) = files::write_back(engine, &open)
    {
        return fail(errno);
    }
    Action::Native
}
