//! Open files.

use super::pipe::Pipe;
use super::{
    Device, EAGAIN, EBADF, EINTR, EINVAL, EISDIR, ERESTARTSYS, ESPIPE, Inode, Result, console,
};
use crate::machine::system;
use crate::sync::Lock;
use crate::sys::user;
use crate::task;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use vellum_types::VirtAddr;

pub(crate) const O_ACCMODE: u32 = 3;
pub(crate) const O_WRONLY: u32 = 1;
pub(crate) const O_APPEND: u32 = 0o2000;
pub(crate) const O_NONBLOCK: u32 = 0o4000;

/// What a descriptor refers to.
pub(crate) enum Kind {
    Regular,
    Folder,
    Device(Device),
    /// The end that is read.
    PipeOut(Arc<Pipe>),
    /// The end that is written.
    PipeIn(Arc<Pipe>),
    /// A text of /proc, made when it was opened.
    Text(Vec<u8>),
    /// An epoll-less event counter.
    Event(Lock<u64>),
}

/// An open file description.
pub(crate) struct File {
    pub(crate) kind: Kind,
    pub(crate) inode: Option<Arc<Inode>>,
    pub(crate) path: String,
    pub(crate) flags: AtomicU32,
    pub(crate) position: AtomicU64,
}

impl File {
    pub(crate) fn new(
        kind: Kind,
        inode: Option<Arc<Inode>>,
        path: String,
        flags: u32,
    ) -> Arc<Self> {
        Arc::new(Self {
            kind,
            inode,
            path,
            flags: AtomicU32::new(flags),
            position: AtomicU64::new(0),
        })
    }

    #[inline]
    fn flag(&self, bit: u32) -> bool {
        self.flags.load(Ordering::Relaxed) & bit != 0
    }

    pub(crate) fn readable(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & O_ACCMODE != O_WRONLY
    }

    pub(crate) fn writable(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & O_ACCMODE != 0
    }

    pub(crate) fn nonblocking(&self) -> bool {
        self.flag(O_NONBLOCK)
    }

    fn seekable(&self) -> bool {
        matches!(self.kind, Kind::Regular | Kind::Text(_) | Kind::Folder)
    }

    /// read(2), at `offset` or at the file's position.
    pub(crate) fn read(&self, offset: Option<u64>, to: u64, len: u64) -> Result<u64> {
        if !self.readable() {
            return Err(EBADF);
        }
        if offset.is_some() && !self.seekable() {
            return Err(ESPIPE);
        }
        let at = offset.unwrap_or_else(|| self.position.load(Ordering::Relaxed));
        let read = match &self.kind {
            Kind::Regular => {
                let Some(mapping) = self.inode.as_ref().and_then(|inode| inode.mapping()) else {
                    return Err(EINVAL);
                };
                let mm = task::current().memory();
                system()
                    .file_read(mapping, at, mm, VirtAddr::new(to), len)
                    .map_err(|error| error.errno())?
            }
            Kind::Text(text) => {
                let start = (at as usize).min(text.len());
                let end = text.len().min(start.saturating_add(len as usize));
                user::put(to, &text[start..end])?;
                (end - start) as u64
            }
            Kind::Folder => return Err(EISDIR),
            Kind::Device(Device::Null | Device::FaultAround) => 0,
            Kind::Device(Device::Zero | Device::Full) => {
                user::fill(to, len, |bytes| bytes.fill(0))?
            }
            Kind::Device(Device::Random) => user::fill(to, len, crate::random::fill)?,
            Kind::Device(Device::Console) => console::read(to, len, self.nonblocking())?,
            Kind::PipeOut(pipe) => pipe.read(to, len, self.nonblocking())?,
            Kind::PipeIn(_) => return Err(EBADF),
            Kind::Event(count) => {
                let mut count = count.lock();
                if len < 8 {
                    return Err(EINVAL);
                }
                if *count == 0 {
                    return Err(EAGAIN);
                }
                user::put(to, &count.to_le_bytes())?;
                *count = 0;
                8
            }
        };
        if offset.is_none() {
            self.position.store(at + read, Ordering::Relaxed);
        }
        Ok(read)
    }

    /// write(2), at `offset` or at the file's position.
    pub(crate) fn write(&self, offset: Option<u64>, from: u64, len: u64) -> Result<u64> {
        if !self.writable() {
            return Err(EBADF);
        }
        if offset.is_some() && !self.seekable() {
            return Err(ESPIPE);
        }
        match &self.kind {
            Kind::Regular => {
                let Some(inode) = &self.inode else {
                    return Err(EINVAL);
                };
                let Some(mapping) = inode.mapping() else {
                    return Err(EINVAL);
                };
                let at = if self.flag(O_APPEND) {
                    mapping.size()
                } else {
                    offset.unwrap_or_else(|| self.position.load(Ordering::Relaxed))
                };
                if len == 0 {
                    return Ok(0);
                }
                let mm = task::current().memory();
                let written = system()
                    .file_write(mapping, at, mm, VirtAddr::new(from), len)
                    .map_err(|error| error.errno())?;
                inode.touch();
                if offset.is_none() {
                    self.position.store(at + written, Ordering::Relaxed);
                }
                Ok(written)
            }
            Kind::Folder => Err(EISDIR),
            Kind::Text(_) => Err(EINVAL),
            Kind::Device(Device::Full) => Err(28),
            Kind::Device(Device::Console) => console::write(from, len),
            Kind::Device(Device::FaultAround) => {
                let mut text = [0; 20];
                let text = &mut text[..(len as usize).min(20)];
                user::get(from, text)?;
                let text = core::str::from_utf8(text).map_err(|_| EINVAL)?;
                let bytes = text.trim().parse().map_err(|_| EINVAL)?;
                system().machine().set_fault_around(bytes);
                Ok(len)
            }
            Kind::Device(_) => Ok(len),
            Kind::PipeIn(pipe) => pipe.write(from, len, self.nonblocking()),
            Kind::PipeOut(_) => Err(EBADF),
            Kind::Event(count) => {
                let add = user::word(from)?;
                let mut count = count.lock();
                *count = count.checked_add(add).ok_or(EAGAIN)?;
                Ok(8)
            }
        }
    }

    /// lseek(2).
    pub(crate) fn seek(&self, offset: i64, whence: u32) -> Result<u64> {
        if !self.seekable() {
            return Err(ESPIPE);
        }
        let size = match &self.kind {
            Kind::Text(text) => text.len() as u64,
            _ => self.inode.as_ref().map_or(0, |inode| inode.size()),
        };
        let base = match whence {
            0 => 0,
            1 => self.position.load(Ordering::Relaxed),
            2 => size,
            // SEEK_DATA and SEEK_HOLE of a file without holes.
            3 | 4 if offset >= 0 && (offset as u64) < size => {
                let at = if whence == 3 { offset as u64 } else { size };
                self.position.store(at, Ordering::Relaxed);
                return Ok(at);
            }
            3 | 4 => return Err(6),
            _ => return Err(EINVAL),
        };
        let at = base
            .checked_add_signed(offset)
            .filter(|&at| at <= i64::MAX as u64)
            .ok_or(EINVAL)?;
        self.position.store(at, Ordering::Relaxed);
        Ok(at)
    }

    /// What poll(2) would say: POLLIN, POLLOUT, POLLHUP, POLLERR.
    pub(crate) fn readiness(&self) -> u32 {
        match &self.kind {
            Kind::PipeOut(pipe) => pipe.readiness(true),
            Kind::PipeIn(pipe) => pipe.readiness(false),
            Kind::Device(Device::Console) => 4 | u32::from(console::has_input()),
            Kind::Event(count) => 4 | u32::from(*count.lock() > 0),
            _ => 5,
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        match &self.kind {
            Kind::PipeOut(pipe) => pipe.close(true),
            Kind::PipeIn(pipe) => pipe.close(false),
            _ => {}
        }
    }
}

/// What a wait that a signal ended answers.
pub(crate) fn interrupted(woken: crate::wait::Woken) -> i32 {
    match woken {
        crate::wait::Woken::Signal => ERESTARTSYS,
        crate::wait::Woken::Timeout => EINTR,
    }
}
