//! Reading and writing a program's memory.

use crate::facade::Mm;
use crate::facade::System;
use vellum_machine::Machine;
use vellum_types::{PAGE_SIZE, VirtAddr};

/// The longest path, with its NUL.
pub(super) const PATH_MAX: usize = 4096;

/// One address space's memory.
pub(super) struct User<'a, 'm, M: Machine> {
    pub(super) system: &'a System<'m, M>,
    pub(super) mm: &'a Mm<'m>,
}

impl<M: Machine> User<'_, '_, M> {
    /// Fills `to`, or EFAULT.
    pub(super) fn read(&self, from: u64, to: &mut [u8]) -> Result<(), i32> {
        if to.is_empty() {
            return Ok(());
        }
        self.system
            .copy_from_user(self.mm, VirtAddr::new(from), to)
            .map_err(|_| libc::EFAULT)
    }

    pub(super) fn read_u64(&self, from: u64) -> Result<u64, i32> {
        let mut bytes = [0; 8];
        self.read(from, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// A string without its NUL; `too_long` if it does not end within `max` bytes.
    pub(super) fn read_string(&self, from: u64, max: usize, too_long: i32) -> Result<Vec<u8>, i32> {
        let mut string = Vec::new();
        let mut at = from;
        let mut chunk = [0; 256];
        while string.len() < max {
            // Never past the end of a page: the next one may be missing, and need not be there.
            let in_page = PAGE_SIZE - at % PAGE_SIZE;
            let len = in_page.min(chunk.len() as u64) as usize;
            let len = len.min(max - string.len());
            self.read(at, &mut chunk[..len])?;
            if let Some(nul) = chunk[..len].iter().position(|byte| *byte == 0) {
                string.extend_from_slice(&chunk[..nul]);
                return Ok(string);
            }
            string.extend_from_slice(&chunk[..len]);
            at = at.checked_add(len as u64).ok_or(libc::EFAULT)?;
        }
        Err(too_long)
    }

    /// A path: at most [`PATH_MAX`] bytes.
    pub(super) fn read_path(&self, from: u64) -> Result<Vec<u8>, i32> {
        self.read_string(from, PATH_MAX, libc::ENAMETOOLONG)
    }
}

/// The little-endian word at byte `at` of `bytes`, zero where there is none.
pub(super) fn word_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    if let Some(source) = bytes.get(at..at + 8) {
        word.copy_from_slice(source);
    }
    u64::from_le_bytes(word)
}

/// The little-endian half word at byte `at` of `bytes`, zero where there is none.
pub(super) fn half_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    if let Some(source) = bytes.get(at..at + 4) {
        word.copy_from_slice(source);
    }
    u32::from_le_bytes(word)
}
