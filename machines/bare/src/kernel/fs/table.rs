//! Descriptors.

use super::{EBADF, EMFILE, File, Result};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// RLIMIT_NOFILE.
pub(crate) const MAX_FILES: usize = 1024;

#[derive(Clone)]
struct Slot {
    file: Arc<File>,
    close_on_exec: bool,
}

/// The descriptors of a process.
#[derive(Clone, Default)]
pub(crate) struct FdTable(Vec<Option<Slot>>);

impl FdTable {
    #[inline]
    pub(crate) fn get(&self, fd: i32) -> Result<Arc<File>> {
        match self.0.get(fd as usize) {
            Some(Some(slot)) => Ok(slot.file.clone()),
            _ => Err(EBADF),
        }
    }

    /// The lowest free descriptor, at least `least`.
    pub(crate) fn add(
        &mut self,
        file: Arc<File>,
        close_on_exec: bool,
        least: usize,
    ) -> Result<i32> {
        let mut fd = least;
        while self.0.get(fd).is_some_and(Option::is_some) {
            fd += 1;
        }
        self.put(fd, file, close_on_exec)?;
        Ok(fd as i32)
    }

    /// Exactly this descriptor; returns what it was.
    pub(crate) fn put(
        &mut self,
        fd: usize,
        file: Arc<File>,
        close_on_exec: bool,
    ) -> Result<Option<Arc<File>>> {
        if fd >= MAX_FILES {
            return Err(EMFILE);
        }
        if self.0.len() <= fd {
            self.0.resize(fd + 1, None);
        }
        let slot = Slot {
            file,
            close_on_exec,
        };
        Ok(self.0[fd].replace(slot).map(|old| old.file))
    }

    pub(crate) fn remove(&mut self, fd: i32) -> Result<Arc<File>> {
        match self.0.get_mut(fd as usize).and_then(Option::take) {
            Some(slot) => Ok(slot.file),
            None => Err(EBADF),
        }
    }

    pub(crate) fn close_on_exec(&self, fd: i32) -> Result<bool> {
        match self.0.get(fd as usize) {
            Some(Some(slot)) => Ok(slot.close_on_exec),
            _ => Err(EBADF),
        }
    }

    pub(crate) fn set_close_on_exec(&mut self, fd: i32, on: bool) -> Result<()> {
        match self.0.get_mut(fd as usize) {
            Some(Some(slot)) => {
                slot.close_on_exec = on;
                Ok(())
            }
            _ => Err(EBADF),
        }
    }

    /// What execve(2) closes.
    pub(crate) fn take_close_on_exec(&mut self) -> Vec<Arc<File>> {
        let mut closed = Vec::new();
        for slot in &mut self.0 {
            if slot.as_ref().is_some_and(|slot| slot.close_on_exec) {
                closed.extend(slot.take().map(|slot| slot.file));
            }
        }
        closed
    }
}
