//! Reading and writing regular files through the core.

use super::fd::{self, Piece};
use super::files::{self, OpenFile, Regular};
use super::store::IOV_MAX;
use super::user::word_at;
use super::{prefault, procfs};
use crate::engine::{Action, Engine};
use crate::facade::MmError;
use crate::task::Task;
use vellum_machine::Machine as _;
use vellum_types::{Access, PAGE_SIZE, VirtAddr, VirtRange};

type Result<T> = core::result::Result<T, i32>;

/// The most that one call transfers, `MAX_RW_COUNT`.
const MAX_COUNT: u64 = 0x7fff_f000;

/// `RWF_` flags that change nothing about a cached file's bytes.
const HARMLESS: i32 = libc::RWF_HIPRI | libc::RWF_NOWAIT | RWF_DONTCACHE;
const RWF_DONTCACHE: i32 = 0x80;

/// A buffer of the program: address and length.
type Buffer = (u64, u64);

/// Where a transfer takes place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    /// At the file's position, which moves.
    Position,
    /// At this byte.
    Offset(u64),
}

/// One read or write call, decoded.
#[derive(Debug)]
struct Transfer {
    buffers: Vec<Buffer>,
    at: At,
    flags: i32,
}

/// read, pread64, readv, preadv, preadv2.
pub(super) fn read<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>) -> Action {
    let open = match files::open_file(engine, task, task.arg(0)) {
        Ok(OpenFile::Regular(open)) => open,
        Ok(OpenFile::Stream) => return prefault::prefault_call(engine, task),
        Ok(OpenFile::Other { fd, stat, .. }) => {
            return match procfs::read_pagemap(engine, task, &fd, &stat) {
                Some(action) => action,
                None if stat.is_char_device() => prefault::prefault_full(engine, task),
                None => prefault::prefault_call(engine, task),
            };
        }
        // The host says what is wrong with it.
        Err(_) => return prefault::prefault_call(engine, task),
    };
    if open.flags & libc::O_ACCMODE == libc::O_WRONLY {
        return Action::Return(-i64::from(libc::EBADF));
    }
    let transfer = match decode(engine, task) {
        Ok(transfer) => transfer,
        Err(errno) => return Action::Return(-i64::from(errno)),
    };
    if transfer.flags & !HARMLESS != 0 {
        return Action::Return(-i64::from(libc::EOPNOTSUPP));
    }
    match read_cached(engine, task, &open, &transfer) {
        Ok(bytes) => Action::Return(bytes as i64),
        Err(libc::ENOMEM) => {
            // No frame for the page cache: the host can still read into the program's own memory.
            match files::write_back(engine, &open) {
                Ok(()) => prefault::prefault_call(engine, task),
                Err(errno) => Action::Return(-i64::from(errno)),
            }
        }
        Err(errno) => Action::Return(-i64::from(errno)),
    }
}

fn read_cached<'m>(
    engine: &Engine<'m>,
    task: &Task<'m>,
    open: &Regular,
    transfer: &Transfer,
) -> Result<u64> {
    let start = match transfer.at {
        At::Position => fd::seek(&open.fd, 0, libc::SEEK_CUR)?,
        At::Offset(offset) => offset,
    };
    // At the end of a file that is not cached, as databases look at a journal, nothing need be.
    if files::cached(engine, open.inode).is_none() && start >= open.stat()?.size {
        return Ok(0);
    }
    let mapping = files::mapping(engine, open, false)?;
    let mut done = 0;
    let mut error = None;
    for (to, len) in &transfer.buffers {
        if *len == 0 {
            continue;
        }
        let to = VirtAddr::new(*to);
        match engine
            .sys
            .file_read(&mapping, start + done, &task.mm, to, *len)
        {
            Ok(n) => {
                done += n;
                if n < *len {
                    break;
                }
            }
            Err(e) => {
                error = Some(e);
                break;
            }
        }
    }
    if done == 0
        && let Some(error) = error
    {
        return Err(error.errno());
    }
    if done > 0 && transfer.at == At::Position {
        fd::seek(&open.fd, (start + done) as i64, libc::SEEK_SET)?;
    }
    Ok(done)
}

/// write, pwrite64, writev, pwritev, pwritev2.
///
/// Written through: the host takes the bytes from the program's frames and says how many it could
/// take; then the core's copy is brought up to date.
pub(super) fn write<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>) -> Action {
    let Some(open) = files::regular(engine, task, task.arg(0)) else {
        return prefault::prefault_call(engine, task);
    };
    if open.flags & libc::O_ACCMODE == libc::O_RDONLY {
        return Action::Return(-i64::from(libc::EBADF));
    }
    let result = decode(engine, task).and_then(|transfer| {
        let limit = if engine.abi.file_size_limited {
            size_limit(task.tgid)
        } else {
            u64::MAX
        };
        write_through(engine, task, &open, &transfer, limit)
    });
    match result {
        Ok(bytes) => Action::Return(bytes as i64),
        Err(errno) => Action::Return(-i64::from(errno)),
    }
}

fn size_limit(tgid: i32) -> u64 {
    fd::limit(tgid, libc::RLIMIT_FSIZE).map_or(u64::MAX, |limit| limit.rlim_cur)
}

fn write_through<'m>(
    engine: &Engine<'m>,
    task: &Task<'m>,
    open: &Regular,
    transfer: &Transfer,
    limit: u64,
) -> Result<u64> {
    let cached = files::cached(engine, open.inode);
    if let Some((id, mapping)) = &cached {
        files::freshen(engine, *id, mapping, open.stat()?);
    }
    let appends = open.flags & libc::O_APPEND != 0 && transfer.flags & RWF_NOAPPEND == 0
        || transfer.flags & libc::RWF_APPEND != 0;
    let mut room = u64::MAX;
    if limit != u64::MAX {
        let start = match transfer.at {
            _ if appends => open.stat()?.size,
            At::Position => fd::seek(&open.fd, 0, libc::SEEK_CUR)?,
            At::Offset(offset) => offset,
        };
        room = limit.saturating_sub(start);
        if room == 0 && transfer.buffers.iter().any(|(_, len)| *len > 0) {
            // SAFETY: takes no pointer; the thread is ours and stopped.
            unsafe { libc::syscall(libc::SYS_tgkill, task.tgid, task.tid, libc::SIGXFSZ) };
            return Err(libc::EFBIG);
        }
    }
    let mut total = 0;
    let mut failure = None;
    for buffer in &transfer.buffers {
        let mut done = 0;
        let len = buffer.1.min(room - total);
        while done < len {
            let from = buffer.0 + done;
            let at = match transfer.at {
                At::Position => At::Position,
                At::Offset(offset) => At::Offset(offset + total + done),
            };
            match write_piece(engine, task, open, at, transfer.flags, from, len - done) {
                Ok((n, want)) => {
                    if let Some((id, mapping)) = &cached
                        && n > 0
                    {
                        written(engine, task, open, *id, mapping, (at, appends), (from, n));
                    }
                    done += n;
                    if n < want || n == 0 {
                        break;
                    }
                }
                Err(errno) => {
                    failure = Some(errno);
                    break;
                }
            }
        }
        total += done;
        if done < buffer.1 {
            break;
        }
    }
    if let Some((id, _)) = cached {
        files::record(engine.store, id, &open.fd);
    }
    match failure {
        Some(errno) if total == 0 => Err(errno),
        _ => Ok(total),
    }
}

const RWF_NOAPPEND: i32 = 0x20;

/// Hands one stretch of the program's memory to the host. Returns what it took and what it was
/// offered.
fn write_piece<'m>(
    engine: &Engine<'m>,
    task: &Task<'m>,
    open: &Regular,
    at: At,
    flags: i32,
    from: u64,
    len: u64,
) -> Result<(u64, u64)> {
    // A page may be a piece of its own, and the first and last are broken.
    let len = len
        .min((IOV_MAX as u64 - 1) * PAGE_SIZE)
        .min(engine.pin_limit());
    let start = VirtAddr::new(from);
    // The pieces must be good until the host has read them: none may be taken away for another.
    let pinned = VirtRange::from_len(start, len).and_then(|range| range.to_pages());
    if let Some(pinned) = pinned {
        engine.machine.pin(task.space, task.tid, pinned);
    }
    let taken = write_pinned(engine, task, open, at, flags, (start, len));
    engine.machine.unpin(task.space, task.tid);
    Ok((taken?, len))
}

/// The second half of `write_piece`.
fn write_pinned<'m>(
    engine: &Engine<'m>,
    task: &Task<'m>,
    open: &Regular,
    at: At,
    flags: i32,
    (start, len): (VirtAddr, u64),
) -> Result<u64> {
    let ram = engine.machine.direct_map();
    let mut pieces: Vec<Piece> = Vec::new();
    let mut each = |phys, bytes: u64| {
        let base = ram.ptr(phys, bytes).as_ptr();
        match pieces.last_mut() {
            Some(last) if last.iov_base as usize + last.iov_len == base as usize => {
                last.iov_len += bytes as usize;
            }
            _ => pieces.push(Piece {
                iov_base: base.cast(),
                iov_len: bytes as usize,
            }),
        }
    };
    let good = engine
        .sys
        .user_segments(&task.mm, start, len, Access::Read, &mut each)
        .map_err(MmError::errno)?;
    if good == 0 {
        return Err(libc::EFAULT);
    }
    let offset = match at {
        At::Position => None,
        At::Offset(offset) => Some(offset),
    };
    // SAFETY: the pieces are frames of RAM, which stay mapped in the direct map.
    unsafe { fd::write_pieces(&open.fd, &pieces, offset, flags) }
}

/// The host took `n` bytes from `from`: the core's copy follows.
fn written<'m>(
    engine: &Engine<'m>,
    task: &Task<'m>,
    open: &Regular,
    id: vellum_types::FileId,
    mapping: &crate::facade::MappingRef<'m>,
    (at, appends): (At, bool),
    (from, n): (u64, u64),
) {
    let start = match at {
        At::Offset(offset) if !appends => Some(offset),
        At::Position => fd::seek(&open.fd, 0, libc::SEEK_CUR)
            .ok()
            .and_then(|end| end.checked_sub(n)),
        At::Offset(_) => fd::stat(&open.fd)
            .ok()
            .and_then(|stat| stat.size.checked_sub(n)),
    };
    let from = VirtAddr::new(from);
    let followed = start.is_some_and(|start| {
        engine
            .sys
            .file_written(mapping, start, &task.mm, from, n)
            .is_ok()
    });
    if !followed {
        let _ = engine.sys.invalidate(mapping);
        files::record(engine.store, id, &open.fd);
    }
}

fn decode<'m>(engine: &Engine<'m>, task: &Task<'m>) -> Result<Transfer> {
    let one = || vec![(task.arg(1), task.arg(2).min(MAX_COUNT))];
    let at = |raw: u64| {
        if (raw as i64) < 0 {
            Err(libc::EINVAL)
        } else {
            Ok(At::Offset(raw))
        }
    };
    Ok(match task.nr() {
        libc::SYS_read | libc::SYS_write => Transfer {
            buffers: one(),
            at: At::Position,
            flags: 0,
        },
        libc::SYS_pread64 | libc::SYS_pwrite64 => Transfer {
            at: at(task.arg(3))?,
            buffers: one(),
            flags: 0,
        },
        libc::SYS_readv | libc::SYS_writev => Transfer {
            buffers: vector(engine, task)?,
            at: At::Position,
            flags: 0,
        },
        libc::SYS_preadv | libc::SYS_pwritev => Transfer {
            at: at(task.arg(3))?,
            buffers: vector(engine, task)?,
            flags: 0,
        },
        _ => Transfer {
            at: if task.arg(3) as i64 == -1 {
                At::Position
            } else {
                at(task.arg(3))?
            },
            buffers: vector(engine, task)?,
            flags: task.arg(5) as i32,
        },
    })
}

fn vector<'m>(engine: &Engine<'m>, task: &Task<'m>) -> Result<Vec<Buffer>> {
    let (at, count) = (task.arg(1), task.arg(2));
    if count > IOV_MAX as u64 {
        return Err(libc::EINVAL);
    }
    let mut bytes = vec![0; count as usize * 16];
    if !bytes.is_empty()
        && engine
            .sys
            .copy_from_user(&task.mm, VirtAddr::new(at), &mut bytes)
            .is_err()
    {
        return Err(libc::EFAULT);
    }
    let mut left = MAX_COUNT;
    bytes
        .chunks_exact(16)
        .map(|iov| {
            let len = word_at(iov, 8);
            if (len as i64) < 0 {
                return Err(libc::EINVAL);
            }
            let len = len.min(left);
            left -= len;
            Ok((word_at(iov, 0), len))
        })
        .collect()
}
