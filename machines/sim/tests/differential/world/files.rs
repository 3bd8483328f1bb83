//! read, write, truncation and write-back of files.

use super::{Step, World};
use crate::model::{CELLS, EFAULT, ENOMEM, Outcome, PAGE};
use vellum_types::{FileId, VirtAddr};

impl World<'_> {
    /// A write(2) of one cell from memory of the process.
    pub(super) fn pwrite(&mut self, pid: usize) -> Step {
        let file = self.rng.below(self.scale.files);
        let (source, cell) = (self.some_page(pid), self.rng.below(4) as usize);
        let (index, at) = (
            self.rng.below(self.scale.file_pages),
            self.rng.below(4) as usize,
        );
        self.note(format!(
            "{pid} pwrite file {file} page {index}.{at} from {source:#x}.{cell}"
        ));
        let mapping = self
            .host
            .system()
            .mapping(FileId(file + 1))
            .map_err(|e| format!("{e:?}"))?;
        let from = VirtAddr::new(source * PAGE + CELLS[cell]);
        let offset = index * PAGE + CELLS[at];
        let vanishing = self
            .space(pid)
            .pages
            .get(&source)
            .is_some_and(|p| p.may_vanish);
        if vanishing {
            self.compare_cell(pid, source, cell)?;
        }
        let got = self
            .host
            .syscall(pid, |s, mm| s.file_write(&mapping, offset, mm, from, 8));
        match (got, self.space(pid).load(source, cell)) {
            (Ok(8), Outcome::Value(value)) => {
                let mut object = self.files[file as usize].borrow_mut();
                if offset + 8 > object.size {
                    object.resize(offset + 8);
                }
                object.pages[index as usize][at] = value;
                Ok(())
            }
            (Err(error), outcome)
                if error.errno() == EFAULT && !matches!(outcome, Outcome::Value(_)) =>
            {
                Ok(())
            }
            (got, want) => Err(format!("core {got:?}, model {want:x?}")),
        }
    }

    /// A read(2) of one cell into memory of the process.
    pub(super) fn pread(&mut self, pid: usize) -> Step {
        let file = self.rng.below(self.scale.files);
        let (target, cell) = (self.some_page(pid), self.rng.below(4) as usize);
        let (index, at) = (
            self.rng.below(self.scale.file_pages),
            self.rng.below(4) as usize,
        );
        let inside = self.files[file as usize].borrow().has_cell(index, at);
        if !inside || !self.space(pid).may_store(target, cell) {
            return Ok(());
        }
        self.note(format!(
            "{pid} pread file {file} page {index}.{at} to {target:#x}.{cell}"
        ));
        let mapping = self
            .host
            .system()
            .mapping(FileId(file + 1))
            .map_err(|e| format!("{e:?}"))?;
        let to = VirtAddr::new(target * PAGE + CELLS[cell]);
        let offset = index * PAGE + CELLS[at];
        let got = self
            .host
            .syscall(pid, |s, mm| s.file_read(&mapping, offset, mm, to, 8));
        let value = self.files[file as usize].borrow().pages[index as usize][at];
        match (got, self.space(pid).store(target, cell, value)) {
            (Ok(8), Outcome::Value(_)) => self.settle(pid, target),
            (Err(error), outcome)
                if error.errno() == EFAULT && !matches!(outcome, Outcome::Value(_)) =>
            {
                Ok(())
            }
            (got, want) => Err(format!("core {got:?}, model {want:x?}")),
        }
    }

    pub(super) fn truncate(&mut self) -> Step {
        let file = self.rng.below(self.scale.files);
        let size = self.rng.below(self.scale.file_pages) * PAGE + *self.rng.pick(&[0, 0, 2048]);
        self.note(format!("truncate file {file} to {size:#x}"));
        self.host.truncate(FileId(file + 1), size);
        let object = self.files[file as usize].clone();
        object.borrow_mut().resize(size);
        for (space, _) in self.spaces.values_mut() {
            space.cut(&object);
        }
        Ok(())
    }

    /// msync of a range, then a write-back of everything: the store must have what the model has.
    pub(super) fn sync(&mut self, pid: usize) -> Step {
        let range = self.some_range(pid);
        self.note(format!("{pid} sync {range:x?}"));
        let (addr, len) = (range.start * PAGE, (range.end - range.start) * PAGE);
        let got = self.host.syscall(pid, |s, mm| s.msync(mm, addr, len, 4));
        let whole = self.space(pid).is_mapped(range);
        Self::same(got, if whole { Ok(()) } else { Err(ENOMEM) })?;
        self.host
            .syscall(pid, |s, _| s.writeback_all())
            .map_err(|e| format!("{e:?}"))?;
        for (i, object) in self.files.iter().enumerate() {
            let (bytes, object) = (
                self.host.store().bytes(FileId(i as u64 + 1)),
                object.borrow(),
            );
            // A file that only grew by truncate has no pages to write.
            if bytes.len() as u64 > object.size {
                return Err(format!(
                    "file {i}: {:#x} bytes stored, size {:#x}",
                    bytes.len(),
                    object.size
                ));
            }
            for (index, cells) in object.pages.iter().enumerate() {
                for (cell, offset) in cells.iter().zip(CELLS) {
                    let at = index * PAGE as usize + offset as usize;
                    let stored = bytes
                        .get(at..at + 8)
                        .map_or(0, |b| u64::from_ne_bytes(b.try_into().expect("8")));
                    if stored != *cell {
                        return Err(format!(
                            "file {i} at {at:#x}: stored {stored:x}, model {cell:x}"
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}
