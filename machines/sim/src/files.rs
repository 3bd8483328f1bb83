//! System calls on files, and those that need a buffer of the process.

use crate::host::{BUFFER, BUFFER_LEN, SimHost};
use vellum_mm::{Limits, MmError};
use vellum_page_cache::BackingStore;
use vellum_types::{FileId, PAGE_SIZE, VirtAddr, VirtRange};

impl SimHost<'_> {
    /// pwrite(2) of bytes that the process has in its buffer.
    ///
    /// # Errors
    /// Those of pwrite.
    ///
    /// # Panics
    /// If there are more bytes than the buffer holds.
    pub fn pwrite(
        &mut self,
        pid: usize,
        file: FileId,
        offset: u64,
        bytes: &[u8],
    ) -> Result<u64, MmError> {
        assert!(bytes.len() as u64 <= BUFFER_LEN);
        if self.write(pid, BUFFER, bytes).is_err() {
            return Err(MmError::NoMem);
        }
        let mapping = self.system.mapping(file)?;
        let len = bytes.len() as u64;
        self.syscall(pid, |system, mm| {
            system.file_write(&mapping, offset, mm, VirtAddr::new(BUFFER), len)
        })
    }

    /// pread(2) to no memory of a process.
    ///
    /// # Errors
    /// Those of pread.
    pub fn pread(&mut self, file: FileId, offset: u64, out: &mut [u8]) -> Result<usize, MmError> {
        self.migrate();
        let mapping = self.system.mapping(file)?;
        self.system.kernel_read(&mapping, offset, out)
    }

    /// ftruncate(2) by nobody in particular.
    pub fn truncate(&mut self, file: FileId, size: u64) {
        self.migrate();
        self.store.truncate(file, size);
        if let Some(mapping) = self.system.find_mapping(file) {
            self.system.truncate(&mapping, size);
        }
    }

    /// The size of a file, which a write may have changed before the store knows.
    pub fn file_size(&self, file: FileId) -> u64 {
        match self.system.find_mapping(file) {
            None => self.store.size(file),
            Some(mapping) => mapping.size(),
        }
    }

    /// mincore(2): one bit for each page, the first in bit 0.
    ///
    /// # Errors
    /// Those of mincore.
    pub fn mincore(&mut self, pid: usize, addr: u64, len: u64) -> Result<u64, MmError> {
        self.syscall(pid, |system, mm| system.mincore(mm, addr, len, BUFFER))?;
        let mut bytes = [0; 64];
        let pages = len.div_ceil(PAGE_SIZE).min(64) as usize;
        self.read(pid, BUFFER, &mut bytes[..pages])
            .map_err(|_| MmError::NoMem)?;
        Ok(bytes
            .iter()
            .rev()
            .fold(0, |sum, byte| sum << 1 | u64::from(byte & 1)))
    }

    /// How many areas share a byte with `[addr, addr + len)`.
    pub fn areas(&mut self, pid: usize, addr: u64, len: u64) -> u64 {
        let mut count = 0;
        if let Some(range) = VirtRange::from_len(VirtAddr::new(addr), len) {
            self.mm(pid)
                .for_each_area(&mut |area| count += u64::from(area.range().overlaps(&range)));
        }
        count
    }

    /// setrlimit(2).
    pub fn limit(&mut self, pid: usize, change: impl FnOnce(&mut Limits)) {
        let mm = self.mm(pid);
        let mut limits = mm.limits();
        change(&mut limits);
        mm.set_limits(limits);
    }
}
