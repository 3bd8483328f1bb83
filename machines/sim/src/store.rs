//! Files as bytes, with failures on demand.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard};
use vellum_machine::DirectMap;
use vellum_page_cache::{BackingStore, IoError};
use vellum_types::{FileId, PAGE_SIZE, Pfn};

/// Something that the core asked a [`SimStore`] to do. Offsets and lengths in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreOp {
    /// Bytes wanted, and what came.
    Read {
        /// Of which file.
        file: FileId,
        /// From where.
        offset: u64,
        /// How much was asked for.
        len: u64,
        /// Bytes read, or the error.
        result: Result<u64, i32>,
    },
    /// Bytes written.
    Write {
        /// To which file.
        file: FileId,
        /// To where.
        offset: u64,
        /// How much.
        len: u64,
        /// Success, or the error.
        result: Result<(), i32>,
    },
    /// Earlier writes made safe.
    Sync {
        /// Of which file.
        file: FileId,
    },
    /// The core has forgotten the file.
    Release {
        /// Which.
        file: FileId,
    },
}

/// Failures to come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Injection {
    /// Reads that touch a byte at or after this offset fail with EIO.
    pub bad_from: Option<u64>,
    /// So many reads from now succeed, then all fail with EIO.
    pub fail_reads_after: Option<u64>,
    /// So many writes from now succeed, then all fail with this error.
    pub fail_writes_after: Option<(u64, i32)>,
    /// No read returns more than this; the rest looks like the end of the file.
    pub short_reads: Option<u64>,
}

const EIO: i32 = 5;

#[derive(Debug)]
struct SimFile {
    name: String,
    bytes: Vec<u8>,
    injection: Injection,
}

#[derive(Debug, Default)]
struct Inner {
    files: HashMap<FileId, SimFile>,
    log: Vec<StoreOp>,
}

/// A [`BackingStore`] of byte vectors.
#[derive(Debug, Default)]
pub struct SimStore(Mutex<Inner>);

impl SimStore {
    /// A store without files.
    pub fn new() -> Self {
        Self::default()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Adds or replaces a file.
    pub fn create(&self, file: FileId, name: &str, bytes: Vec<u8>) {
        let injection = Injection::default();
        self.inner().files.insert(
            file,
            SimFile {
                name: name.to_string(),
                bytes,
                injection,
            },
        );
    }

    /// Changes a file's size, as ftruncate does. The core must be told separately.
    pub fn truncate(&self, file: FileId, size: u64) {
        if let Some(file) = self.inner().files.get_mut(&file) {
            file.bytes.resize(size as usize, 0);
        }
    }

    /// A file's bytes, as they would be found after a crash.
    pub fn bytes(&self, file: FileId) -> Vec<u8> {
        self.inner()
            .files
            .get(&file)
            .map(|file| file.bytes.clone())
            .unwrap_or_default()
    }

    /// Sets what will fail.
    pub fn inject(&self, file: FileId, injection: Injection) {
        if let Some(file) = self.inner().files.get_mut(&file) {
            file.injection = injection;
        }
    }

    /// What was asked so far; empties the log.
    pub fn take_log(&self) -> Vec<StoreOp> {
        std::mem::take(&mut self.inner().log)
    }
}

impl SimFile {
    fn read(&mut self, offset: u64, len: u64) -> Result<Vec<u8>, i32> {
        count_down(&mut self.injection.fail_reads_after, EIO)?;
        if self
            .injection
            .bad_from
            .is_some_and(|bad| offset + len > bad)
        {
            return Err(EIO);
        }
        let len = len.min(self.injection.short_reads.unwrap_or(u64::MAX));
        let size = self.bytes.len() as u64;
        let (start, end) = (offset.min(size), (offset + len).min(size));
        Ok(self.bytes[start as usize..end as usize].to_vec())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), i32> {
        if let Some((left, errno)) = &mut self.injection.fail_writes_after {
            *left = left.checked_sub(1).ok_or(*errno)?;
        }
        let end = offset as usize + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }
}

fn count_down(left: &mut Option<u64>, errno: i32) -> Result<(), i32> {
    match left {
        None => Ok(()),
        Some(0) => Err(errno),
        Some(n) => {
            *n -= 1;
            Ok(())
        }
    }
}

impl BackingStore for SimStore {
    fn read(
        &self,
        file: FileId,
        offset: u64,
        frames: &[Pfn],
        ram: DirectMap<'_>,
    ) -> Result<u64, IoError> {
        let mut inner = self.inner();
        let len = frames.len() as u64 * PAGE_SIZE;
        let read = inner
            .files
            .get_mut(&file)
            .map_or(Err(EIO), |file| file.read(offset, len));
        let result = read
            .as_ref()
            .map(|bytes| bytes.len() as u64)
            .map_err(|errno| *errno);
        inner.log.push(StoreOp::Read {
            file,
            offset,
            len,
            result,
        });
        let bytes = read.map_err(|errno| IoError { errno })?;
        for (chunk, pfn) in bytes.chunks(PAGE_SIZE as usize).zip(frames) {
            ram.write_bytes(pfn.addr(), chunk);
        }
        Ok(bytes.len() as u64)
    }

    fn write(
        &self,
        file: FileId,
        offset: u64,
        frames: &[Pfn],
        bytes: u64,
        ram: DirectMap<'_>,
    ) -> Result<(), IoError> {
        let mut data = vec![0; bytes as usize];
        for (chunk, pfn) in data.chunks_mut(PAGE_SIZE as usize).zip(frames) {
            ram.read_bytes(pfn.addr(), chunk);
        }
        let mut inner = self.inner();
        let result = inner
            .files
            .get_mut(&file)
            .map_or(Err(EIO), |file| file.write(offset, &data));
        inner.log.push(StoreOp::Write {
            file,
            offset,
            len: bytes,
            result,
        });
        result.map_err(|errno| IoError { errno })
    }

    fn sync(&self, file: FileId) -> Result<(), IoError> {
        self.inner().log.push(StoreOp::Sync { file });
        Ok(())
    }

    fn size(&self, file: FileId) -> u64 {
        self.inner()
            .files
            .get(&file)
            .map_or(0, |file| file.bytes.len() as u64)
    }

    fn name(&self, file: FileId, out: &mut dyn fmt::Write) -> fmt::Result {
        match self.inner().files.get(&file) {
            Some(file) => out.write_str(&file.name),
            None => write!(out, "/file{}", file.0),
        }
    }

    fn dev_ino(&self, file: FileId) -> (u32, u32, u64) {
        (0, 1, file.0)
    }

    fn release(&self, file: FileId) {
        self.inner().log.push(StoreOp::Release { file });
    }
}
