//! The memory calls: straight to the core.

use super::user;
use crate::fs::{self, EFAULT, EINVAL, ENODEV, ESRCH, Kind, Result};
use crate::machine::system;
use crate::task;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use vellum_system::{FileRef, Mm, MmError, MmapRequest};
use vellum_types::VirtAddr;

const MAP_ANONYMOUS: u32 = 0x20;
const IOV_MAX: u64 = 1024;

#[inline]
fn answer<T>(result: core::result::Result<T, MmError>) -> Result<u64> {
    match result {
        Ok(_) => Ok(0),
        Err(error) => Err(error.errno()),
    }
}

#[inline]
fn mm() -> &'static Mm<'static> {
    task::current().memory()
}

pub(super) fn mmap(
    addr: u64,
    len: u64,
    prot: u32,
    flags: u32,
    fd: i32,
    offset: u64,
) -> Result<u64> {
    let mut flags = flags;
    let file = if flags & MAP_ANONYMOUS != 0 {
        None
    } else {
        file_to_map(fd, &mut flags)?
    };
    let request = MmapRequest {
        addr,
        len,
        prot,
        flags,
        file,
        offset,
    };
    system().mmap(mm(), request).map_err(|error| error.errno())
}

#[inline(never)]
fn file_to_map(fd: i32, flags: &mut u32) -> Result<Option<FileRef<'static>>> {
    let file = fs::file(fd)?;
    match &file.kind {
        Kind::Regular => {
            let mapping = file
                .inode
                .as_ref()
                .and_then(|inode| inode.mapping())
                .ok_or(ENODEV)?;
            Ok(Some(FileRef {
                mapping: mapping.clone(),
                readable: file.readable(),
                writable: file.flags.load(Ordering::Relaxed) & 3 == 2,
                exec_ok: true,
            }))
        }
        // A private mapping of /dev/zero is anonymous memory.
        Kind::Device(fs::Device::Zero) => {
            *flags |= MAP_ANONYMOUS;
            Ok(None)
        }
        _ => Err(ENODEV),
    }
}

#[inline]
pub(super) fn munmap(addr: u64, len: u64) -> Result<u64> {
    answer(system().munmap(mm(), addr, len))
}

#[inline]
pub(super) fn mprotect(addr: u64, len: u64, prot: u32) -> Result<u64> {
    answer(system().mprotect(mm(), addr, len, prot))
}

#[inline]
pub(super) fn brk(addr: u64) -> u64 {
    system().brk(mm(), addr)
}

pub(super) fn mremap(old: u64, old_len: u64, new_len: u64, flags: u32, new: u64) -> Result<u64> {
    system()
        .mremap(mm(), old, old_len, new_len, flags, new)
        .map_err(|error| error.errno())
}

pub(super) fn msync(addr: u64, len: u64, flags: u32) -> Result<u64> {
    answer(system().msync(mm(), addr, len, flags))
}

pub(super) fn mincore(addr: u64, len: u64, vector: u64) -> Result<u64> {
    answer(system().mincore(mm(), addr, len, vector))
}

#[inline]
pub(super) fn madvise(addr: u64, len: u64, advice: i32) -> Result<u64> {
    answer(system().madvise(mm(), addr, len, advice))
}

pub(super) fn mlock(addr: u64, len: u64) -> Result<u64> {
    answer(system().mlock(mm(), addr, len))
}

pub(super) fn mlock2(addr: u64, len: u64, flags: u32) -> Result<u64> {
    answer(system().mlock2(mm(), addr, len, flags))
}

pub(super) fn munlock(addr: u64, len: u64) -> Result<u64> {
    answer(system().munlock(mm(), addr, len))
}

pub(super) fn mlockall(flags: u32) -> Result<u64> {
    answer(system().mlockall(mm(), flags))
}

pub(super) fn munlockall() -> Result<u64> {
    answer(system().munlockall(mm()))
}

/// process_vm_readv(2) and process_vm_writev(2): the copy goes page by page through both tables.
pub(super) fn process_vm(pid: u32, local: [u64; 2], remote: [u64; 2], write: bool) -> Result<u64> {
    if local[1] > IOV_MAX || remote[1] > IOV_MAX {
        return Err(EINVAL);
    }
    let target = task::find(pid).ok_or(ESRCH)?;
    let other = target.mm.lock().clone().ok_or(ESRCH)?;
    let pieces = |list: [u64; 2]| -> Result<Vec<[u64; 2]>> {
        (0..list[1])
            .map(|n| user::words::<2>(list[0] + n * 16))
            .collect()
    };
    let (ours, theirs) = (pieces(local)?, pieces(remote)?);
    let (mut here, mut there) = (Cursor::new(&ours), Cursor::new(&theirs));
    let mut chunk = [0; 1024];
    let mut done = 0;
    while let (Some((a, an)), Some((b, bn))) = (here.piece(), there.piece()) {
        let n = an.min(bn).min(chunk.len() as u64);
        let part = &mut chunk[..n as usize];
        let (from, from_mm, to, to_mm): (u64, &Mm<'static>, u64, &Mm<'static>) = if write {
            (a, mm(), b, &other)
        } else {
            (b, &other, a, mm())
        };
        let copied = system()
            .copy_from_user(from_mm, VirtAddr::new(from), part)
            .is_ok()
            && system()
                .copy_to_user(to_mm, VirtAddr::new(to), part)
                .is_ok();
        if !copied {
            return if done > 0 { Ok(done) } else { Err(EFAULT) };
        }
        here.advance(n);
        there.advance(n);
        done += n;
    }
    Ok(done)
}

/// A place in a list of pieces.
struct Cursor<'a> {
    pieces: &'a [[u64; 2]],
    done: u64,
}

impl<'a> Cursor<'a> {
    fn new(pieces: &'a [[u64; 2]]) -> Self {
        Self { pieces, done: 0 }
    }

    fn piece(&mut self) -> Option<(u64, u64)> {
        while let Some([at, len]) = self.pieces.first() {
            if self.done < *len {
                return Some((at + self.done, len - self.done));
            }
            self.pieces = &self.pieces[1..];
            self.done = 0;
        }
        None
    }

    fn advance(&mut self, bytes: u64) {
        self.done += bytes;
    }
}
