//! Shared anonymous memory: files without a store behind them. Linux: `mm/shmem.c`.

use crate::backing::is_shmem;
use core::fmt;
use vellum_machine::DirectMap;
use vellum_page_cache::SwapSlots;
use vellum_page_cache::{BackingStore, IoError};
use vellum_swap::Swap;
use vellum_types::{FileId, Pfn, SwapEntry};

/// The machine's store, and in front of it the files of shared anonymous memory, whose pages exist
/// nowhere but in the page cache.
pub struct ShmemStore<'m> {
    files: &'m dyn BackingStore,
}

impl<'m> ShmemStore<'m> {
    /// In front of `files`, which must not use file numbers of 2^63 and above.
    pub const fn new(files: &'m dyn BackingStore) -> Self {
        Self { files }
    }
}

impl BackingStore for ShmemStore<'_> {
    fn read(
        &self,
        file: FileId,
        offset: u64,
        frames: &[Pfn],
        ram: DirectMap<'_>,
    ) -> Result<u64, IoError> {
        // Never written anywhere, so new pages are all zero.
        if is_shmem(file) {
            Ok(0)
        } else {
            self.files.read(file, offset, frames, ram)
        }
    }

    fn write(
        &self,
        file: FileId,
        offset: u64,
        frames: &[Pfn],
        bytes: u64,
        ram: DirectMap<'_>,
    ) -> Result<(), IoError> {
        // EINVAL: whoever asks forgot that these pages have nowhere to go.
        if is_shmem(file) {
            Err(IoError { errno: 22 })
        } else {
            self.files.write(file, offset, frames, bytes, ram)
        }
    }

    fn sync(&self, file: FileId) -> Result<(), IoError> {
        if is_shmem(file) {
            Ok(())
        } else {
            self.files.sync(file)
        }
    }

    fn swap_backed(&self, file: FileId) -> bool {
        is_shmem(file) || self.files.swap_backed(file)
    }

    fn size(&self, file: FileId) -> u64 {
        if is_shmem(file) {
            0
        } else {
            self.files.size(file)
        }
    }

    fn name(&self, file: FileId, out: &mut dyn fmt::Write) -> fmt::Result {
        if is_shmem(file) {
            out.write_str("/dev/zero (deleted)")
        } else {
            self.files.name(file, out)
        }
    }

    fn dev_ino(&self, file: FileId) -> (u32, u32, u64) {
        // Linux shows its internal tmpfs as 00:01 on most systems.
        if is_shmem(file) {
            (0, 1, file.0 & !crate::backing::FIRST_SHMEM_FILE)
        } else {
            self.files.dev_ino(file)
        }
    }

    fn release(&self, file: FileId) {
        if !is_shmem(file) {
            self.files.release(file);
        }
    }
}

/// The swap areas, as the page cache knows them.
#[derive(Clone, Copy)]
pub struct ShmemSwap<'m>(pub &'m Swap<'m>);

impl SwapSlots for ShmemSwap<'_> {
    fn lookup(&self, entry: SwapEntry) -> Option<Pfn> {
        self.0.lookup(entry)
    }
    fn free(&self, entry: SwapEntry) {
        self.0.free(entry);
    }
    fn try_to_free_swap(&self, pfn: Pfn) {
        self.0.try_to_free_swap(pfn);
    }
    fn put_page(&self, pfn: Pfn) {
        self.0.put_page(pfn);
    }
}
