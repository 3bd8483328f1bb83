//! The host's files as the core's backing store.
//!
//! ```text
//!   (device, inode) ──▶ FileId ──▶ HostFile { reader, writer, stamp }
//! ```
//!
//! A descriptor held here is always opened anew and never a duplicate of a program's: locks made
//! with flock(2) live as long as the last duplicate. It also keeps the inode, so that its number is
//! not given to another file while we know it.
//!
//! # Coherence
//! Programs write to files through the core, which writes through to the host. Others may write to
//! the same files; [`HostStore::is_stale`] notices by comparing time and size of the file with
//! those recorded after our own last change.

use super::fd::{self, Inode, Piece, Stat};
use crate::facade::{BackingStore, IoError};
use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vellum_machine::DirectMap;
use vellum_types::{FileId, PAGE_SIZE, Pfn};

/// The most pieces that one vectored transfer of the host takes.
pub(super) const IOV_MAX: usize = 1024;

/// `RWF_NOAPPEND` of Linux 6.9: write at the offset although the descriptor appends.
const RWF_NOAPPEND: i32 = 0x20;

/// New files between two sweeps, at least.
const SWEEP: usize = 32;
/// More files than are kept on a whim; each has one descriptor, or two.
const MANY: usize = 4096;

#[derive(Debug)]
struct HostFile {
    dev: u64,
    ino: u64,
    reader: Option<Arc<OwnedFd>>,
    writer: Option<Arc<OwnedFd>>,
    /// Content time and size after our own last look.
    stamp: (i128, u64),
}

impl HostFile {
    fn any(&self) -> Option<Arc<OwnedFd>> {
        self.reader.clone().or_else(|| self.writer.clone())
    }
}

#[derive(Debug, Default)]
struct Inner {
    /// By number, which grows with every new file.
    files: BTreeMap<FileId, HostFile>,
    by_inode: HashMap<Inode, FileId>,
    last: u64,
    /// Files that became known since the last sweep.
    new: usize,
    /// Files that stayed at the last sweep.
    stayed: usize,
}

/// Files of the host that the core caches.
#[derive(Debug, Default)]
pub struct HostStore {
    inner: Mutex<Inner>,
}

impl HostStore {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // The maps are valid after any panic: each change is one insertion or removal.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file with this inode, if it is known.
    pub(super) fn find(&self, inode: Inode) -> Option<FileId> {
        self.inner().by_inode.get(&inode).copied()
    }

    /// The number of the regular file behind `fd`, made known if need be. With `write`, it can be
    /// written back to from now on.
    ///
    /// # Errors
    /// The host cannot open it anew.
    pub(super) fn adopt(&self, fd: &OwnedFd, stat: &Stat, write: bool) -> Result<FileId, i32> {
        let key = stat.inode();
        let (known, has_reader, has_writer) = {
            let inner = self.inner();
            let known = inner.by_inode.get(&key).copied();
            let file = known.and_then(|id| inner.files.get(&id));
            (
                known,
                file.is_some_and(|file| file.reader.is_some()),
                file.is_some_and(|file| file.writer.is_some()),
            )
        };
        let mut reader = None;
        let mut writer = None;
        if write && !has_writer {
            writer = Some(Arc::new(open_anew(fd, libc::O_RDWR)?));
        }
        if !has_reader {
            reader = match &writer {
                Some(writer) => Some(writer.clone()),
                None => Some(Arc::new(open_anew(fd, libc::O_RDONLY)?)),
            };
        }
        let mut inner = self.inner();
        let id = match known {
            Some(id) => id,
            None => {
                inner.last += 1;
                inner.new += 1;
                FileId(inner.last)
            }
        };
        inner.by_inode.insert(key, id);
        let file = inner.files.entry(id).or_insert(HostFile {
            dev: stat.dev,
            ino: stat.ino,
            reader: None,
            writer: None,
            stamp: (stat.mtime, stat.size),
        });
        file.reader = reader.or(file.reader.take());
        file.writer = writer.or(file.writer.take());
        Ok(id)
    }

    /// True if enough files became known to look for those that can go.
    pub(super) fn is_time_to_sweep(&self) -> bool {
        let inner = self.inner();
        inner.new >= SWEEP.max(inner.stayed / 4)
    }

    /// Files that have no name any more and, if there are very many, the oldest half.
    pub(super) fn dispensable(&self) -> Vec<FileId> {
        let inner = self.inner();
        let old = if inner.files.len() > MANY {
            inner.files.len() / 2
        } else {
            0
        };
        let removed = |file: &HostFile| {
            file.any()
                .is_some_and(|fd| fd::stat(&*fd).is_ok_and(|stat| stat.links == 0))
        };
        inner
            .files
            .iter()
            .enumerate()
            .filter(|(i, (_, file))| *i < old || removed(file))
            .map(|(_, (id, _))| *id)
            .collect()
    }

    /// A sweep is over.
    pub(super) fn swept(&self) {
        let mut inner = self.inner();
        inner.new = 0;
        inner.stayed = inner.files.len();
    }

    /// Closes the descriptors of a file that the core knows nothing of any more.
    pub(super) fn forget(&self, id: FileId) {
        let mut inner = self.inner();
        if let Some(gone) = inner.files.remove(&id) {
            inner.by_inode.remove(&(gone.dev, gone.ino));
        }
    }

    /// True if somebody else changed the file since [`HostStore::record`].
    pub(super) fn is_stale(&self, id: FileId, stat: &Stat) -> bool {
        self.inner()
            .files
            .get(&id)
            .is_some_and(|file| file.stamp != (stat.mtime, stat.size))
    }

    /// The core's copy is as of `stat` now.
    pub(super) fn record(&self, id: FileId, stat: &Stat) {
        if let Some(file) = self.inner().files.get_mut(&id) {
            file.stamp = (stat.mtime, stat.size);
        }
    }

    fn record_now(&self, id: FileId, fd: &OwnedFd) {
        if let Ok(stat) = fd::stat(fd) {
            self.record(id, &stat);
        }
    }

    fn reader(&self, id: FileId) -> Result<Arc<OwnedFd>, IoError> {
        self.inner()
            .files
            .get(&id)
            .and_then(|file| file.reader.clone())
            .ok_or(IoError { errno: libc::EIO })
    }

    fn writer(&self, id: FileId) -> Result<Arc<OwnedFd>, IoError> {
        self.inner()
            .files
            .get(&id)
            .and_then(|file| file.writer.clone())
            .ok_or(IoError { errno: libc::EIO })
    }

    /// Any descriptor of the file.
    pub(super) fn descriptor(&self, id: FileId) -> Option<Arc<OwnedFd>> {
        self.inner().files.get(&id).and_then(HostFile::any)
    }
}

/// Opens the file behind `fd` anew; if its permissions changed since, a duplicate must do.
fn open_anew(fd: &OwnedFd, mode: i32) -> Result<OwnedFd, i32> {
    match fd::reopen(fd, mode) {
        Ok(anew) => Ok(anew),
        Err(error @ (libc::EMFILE | libc::ENFILE | libc::ENOMEM)) => Err(error),
        Err(error) => {
            let flags = fd::flags(fd)?;
            let access = flags & libc::O_ACCMODE;
            let usable = flags & libc::O_PATH == 0
                && (access == libc::O_RDWR || (access == mode && mode == libc::O_RDONLY));
            if !usable {
                return Err(error);
            }
            fd.try_clone()
                .map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))
        }
    }
}

/// Host addresses of `bytes` bytes in `frames`, adjacent frames joined.
fn pieces(frames: &[Pfn], bytes: u64, ram: DirectMap<'_>) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut left = bytes;
    for frame in frames {
        let len = left.min(PAGE_SIZE);
        if len == 0 {
            break;
        }
        let base = ram.ptr(frame.addr(), len).as_ptr();
        match pieces.last_mut() {
            Some(last) if last.iov_base as usize + last.iov_len == base as usize => {
                last.iov_len += len as usize;
            }
            _ => pieces.push(Piece {
                iov_base: base.cast(),
                iov_len: len as usize,
            }),
        }
        left -= len;
    }
    pieces
}

/// The pieces after the first `done` bytes.
fn advance(pieces: &mut Vec<Piece>, done: u64) {
    let mut left = done as usize;
    let mut whole = 0;
    for piece in pieces.iter_mut() {
        if piece.iov_len > left {
            piece.iov_base = piece.iov_base.wrapping_byte_add(left);
            piece.iov_len -= left;
            break;
        }
        left -= piece.iov_len;
        whole += 1;
    }
    pieces.drain(..whole);
}

impl BackingStore for HostStore {
    fn read(
        &self,
        file: FileId,
        offset: u64,
        frames: &[Pfn],
        ram: DirectMap<'_>,
    ) -> Result<u64, IoError> {
        let reader = self.reader(file)?;
        let mut pieces = pieces(frames, frames.len() as u64 * PAGE_SIZE, ram);
        let mut done = 0;
        while !pieces.is_empty() {
            let batch = &pieces[..pieces.len().min(IOV_MAX)];
            // SAFETY: the pieces are frames of RAM, which no reference covers.
            let result = unsafe { fd::read_pieces(&*reader, batch, offset + done) };
            match result {
                Ok(0) => break,
                Ok(n) => {
                    done += n;
                    advance(&mut pieces, n);
                }
                Err(libc::EINTR) => {}
                Err(errno) => return Err(IoError { errno }),
            }
        }
        Ok(done)
    }

    fn write(
        &self,
        file: FileId,
        offset: u64,
        frames: &[Pfn],
        bytes: u64,
        ram: DirectMap<'_>,
    ) -> Result<(), IoError> {
        let writer = self.writer(file)?;
        let appends = fd::flags(&*writer).is_ok_and(|flags| flags & libc::O_APPEND != 0);
        let flags = if appends { RWF_NOAPPEND } else { 0 };
        let mut pieces = pieces(frames, bytes, ram);
        let mut done = 0;
        while !pieces.is_empty() {
            let batch = &pieces[..pieces.len().min(IOV_MAX)];
            // SAFETY: the pieces are frames of RAM.
            let result = unsafe { fd::write_pieces(&*writer, batch, Some(offset + done), flags) };
            match result {
                Ok(0) => return Err(IoError { errno: libc::EIO }),
                Ok(n) => {
                    done += n;
                    advance(&mut pieces, n);
                }
                Err(libc::EINTR) => {}
                Err(errno) => return Err(IoError { errno }),
            }
        }
        self.record_now(file, &writer);
        Ok(())
    }

    fn sync(&self, file: FileId) -> Result<(), IoError> {
        match self.descriptor(file) {
            Some(descriptor) => fd::sync(&*descriptor).map_err(|errno| IoError { errno }),
            None => Ok(()),
        }
    }

    fn size(&self, file: FileId) -> u64 {
        self.descriptor(file)
            .and_then(|fd| fd::stat(&*fd).ok())
            .map_or(0, |stat| stat.size)
    }

    fn name(&self, file: FileId, out: &mut dyn core::fmt::Write) -> core::fmt::Result {
        let Some(descriptor) = self.descriptor(file) else {
            return Ok(());
        };
        let link = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
        match fd::read_link(link.as_bytes()) {
            // As the kernel prints paths in maps: a newline would break the line.
            Ok(path) => out.write_str(&String::from_utf8_lossy(&path).replace('\n', "\\012")),
            Err(_) => Ok(()),
        }
    }

    fn dev_ino(&self, file: FileId) -> (u32, u32, u64) {
        let inner = self.inner();
        inner.files.get(&file).map_or((0, 0, 0), |file| {
            (libc::major(file.dev), libc::minor(file.dev), file.ino)
        })
    }

    fn release(&self, file: FileId) {
        self.forget(file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::ram;

    #[test]
    fn reads_and_writes_scattered_frames() {
        let ram = ram(4);
        let store = HostStore::default();
        let mut content = vec![1u8; 4096];
        content.extend(vec![2u8; 100]);
        let file = fd::memory_file("f", &content).unwrap();
        let stat = fd::stat(&file).unwrap();
        let id = store.adopt(&file, &stat, false).unwrap();
        assert_eq!(store.adopt(&file, &stat, false), Ok(id));
        assert_eq!(store.size(id), 4196);
        let frames = [Pfn::new(3), Pfn::new(1)];
        assert_eq!(store.read(id, 0, &frames, ram), Ok(4196));
        let mut bytes = [0; 2];
        ram.read_bytes(Pfn::new(3).addr(), &mut bytes);
        assert_eq!(bytes, [1, 1]);
        ram.read_bytes(Pfn::new(1).addr() + 99, &mut bytes);
        assert_eq!(bytes, [2, 0]);
        assert!(
            store.write(id, 0, &frames, 10, ram).is_err(),
            "adopted for reading only"
        );

        assert_eq!(store.adopt(&file, &stat, true), Ok(id));
        ram.write_bytes(Pfn::new(1).addr(), b"changed");
        assert_eq!(store.write(id, 4096, &frames[1..], 7, ram), Ok(()));
        assert!(
            !store.is_stale(id, &fd::stat(&file).unwrap()),
            "our own change"
        );
        fd::truncate(&file, 5000).unwrap();
        assert!(store.is_stale(id, &fd::stat(&file).unwrap()));
        let mut name = String::new();
        store.name(id, &mut name).unwrap();
        assert_eq!(name, "/memfd:f (deleted)");
        store.release(id);
        assert_eq!(store.find(stat.inode()), None);
    }

    #[test]
    fn advance_walks_over_pieces() {
        let piece = |base: usize, len| Piece {
            iov_base: base as *mut _,
            iov_len: len,
        };
        let mut pieces = vec![piece(0x1000, 10), piece(0x2000, 10), piece(0x3000, 10)];
        advance(&mut pieces, 15);
        assert_eq!(
            (pieces.len(), pieces[0].iov_base as usize, pieces[0].iov_len),
            (2, 0x2005, 5)
        );
        advance(&mut pieces, 15);
        assert!(pieces.is_empty());
    }
}
