//! mmap, munmap, mremap and brk.

use super::{ARENA, BRK, PROTS, Step, World};
use crate::model::{Backing, Object, PAGE, Page, READ, WRITE};
use vellum_mm::{MmError, MmapRequest};
use vellum_types::FileId;

const MAP_SHARED: u32 = 1;
const MAP_PRIVATE: u32 = 2;
const MAP_FIXED: u32 = 0x10;
const MAP_ANONYMOUS: u32 = 0x20;
const MAP_POPULATE: u32 = 0x8000;

impl World<'_> {
    /// Private memory for a new process, in the first `len` pages of the arena.
    pub(super) fn map_all(&mut self, pid: usize, len: u64) -> Step {
        if len == 0 {
            return Ok(());
        }
        let request = MmapRequest {
            addr: ARENA * PAGE,
            len: len * PAGE,
            prot: READ | WRITE,
            flags: MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS,
            file: None,
            offset: 0,
        };
        self.host.mmap(pid, request).map_err(|e| format!("{e:?}"))?;
        for page in ARENA..ARENA + len {
            let new = Page::new(READ | WRITE, false, Backing::Anonymous);
            self.space(pid).pages.insert(page, new);
        }
        Ok(())
    }

    pub(super) fn map(&mut self, pid: usize) -> Step {
        let prot = *self.rng.pick(&PROTS);
        let len = self.some_len();
        let shared = self.rng.one_in(3);
        let mut flags = if shared { MAP_SHARED } else { MAP_PRIVATE };
        let fixed = !self.rng.one_in(6);
        let start = ARENA + self.rng.below(self.scale.arena);
        flags |= if fixed { MAP_FIXED } else { 0 };
        flags |= if self.rng.one_in(16) { MAP_POPULATE } else { 0 };
        let file = self.rng.one_in(3).then(|| self.rng.below(self.scale.files));
        let offset = self.rng.below(self.scale.file_pages - 2);
        let opened = match file {
            Some(file) => Some(
                self.host
                    .open(FileId(file + 1), true)
                    .map_err(|e| format!("{e:?}"))?,
            ),
            None => {
                flags |= MAP_ANONYMOUS;
                None
            }
        };
        let request = MmapRequest {
            addr: if fixed { start * PAGE } else { 0 },
            len: len * PAGE,
            prot,
            flags,
            file: opened,
            offset: if file.is_some() { offset * PAGE } else { 0 },
        };
        self.note(format!(
            "{pid} map {start:#x}+{len} prot {prot} flags {flags:#x} file {file:?} at {offset}"
        ));
        let at = self.host.mmap(pid, request).map_err(|e| format!("{e:?}"))? / PAGE;
        self.note(format!("   at {at:#x}"));
        let range = at..at + len;
        if fixed && at != start {
            return Err(format!("a fixed mapping went to {at:#x}"));
        }
        if !fixed && !self.space(pid).is_free(range.clone()) {
            return Err(format!("a mapping was put over another at {at:#x}"));
        }
        let anonymous = shared.then(|| Object::with_pages(len));
        // Populating a private writable mapping of a file copies its pages.
        let copies = flags & MAP_POPULATE != 0 && !shared && prot & WRITE != 0;
        for (i, page) in range.enumerate() {
            let backing = match (&file, &anonymous) {
                (Some(f), _) => Backing::Object(self.files[*f as usize].clone(), offset + i as u64),
                (None, Some(object)) => Backing::Object(object.clone(), i as u64),
                (None, None) => Backing::Anonymous,
            };
            let mut new = Page::new(prot, shared, backing);
            if let (true, Backing::Object(object, index)) = (copies, &new.backing) {
                let object = object.borrow();
                new.own = object
                    .has_page(*index)
                    .then(|| object.pages[*index as usize]);
            }
            self.space(pid).pages.insert(page, new);
        }
        Ok(())
    }

    pub(super) fn unmap(&mut self, pid: usize) -> Step {
        let range = self.some_range(pid);
        self.note(format!("{pid} unmap {range:x?}"));
        let (addr, len) = (range.start * PAGE, (range.end - range.start) * PAGE);
        let result = self.host.syscall(pid, |s, mm| s.munmap(mm, addr, len));
        self.space(pid).unmap(range);
        result.map_err(|e| format!("{e:?}"))
    }

    pub(super) fn remap(&mut self, pid: usize) -> Step {
        let old = self.some_range(pid);
        if !self.space(pid).is_uniform(old.clone()) {
            return Ok(());
        }
        let old_len = old.end - old.start;
        let new_len = if self.rng.one_in(2) {
            old_len
        } else {
            self.some_len()
        };
        // What is locked may grow, but there must be memory for it.
        let locked = self.space(pid).pages[&old.start].locked;
        if locked && new_len > old_len && self.scale.locked < usize::MAX {
            return Ok(());
        }
        let target = ARENA + self.rng.below(self.scale.arena);
        let new = target..target + new_len;
        let kind = self.rng.below(4);
        let apart = new.end <= old.start || old.end <= new.start;
        let simple = old
            .clone()
            .all(|n| self.space(pid).pages[&n].is_private_anonymous());
        let (flags, new_len, to) = match kind {
            0 => (0, new_len, 0),
            1 => (1, new_len, 0),
            2 if simple && apart => (1 | 4, old_len, 0),
            _ if apart => (1 | 2, new_len, target),
            _ => (1, new_len, 0),
        };
        self.note(format!(
            "{pid} remap {old:x?} to {to:#x}+{new_len} flags {flags}"
        ));
        let (from, from_len) = (old.start * PAGE, old_len * PAGE);
        let got = self.host.syscall(pid, |s, mm| {
            s.mremap(mm, from, from_len, new_len * PAGE, flags, to * PAGE)
        });
        self.note(format!("   {got:x?}"));
        let model = self.space(pid);
        match got {
            Ok(at) => {
                let at = at / PAGE;
                if flags & 2 != 0 {
                    if at != to {
                        return Err("a fixed move went elsewhere".into());
                    }
                    model.unmap(to..to + new_len);
                }
                let kept = old_len.min(new_len);
                model.unmap(old.start + kept..old.end);
                let stays = old.start..old.start + kept;
                let grow = new_len - kept;
                let taken = if at == old.start {
                    stays.end..at + new_len
                } else {
                    at..at + new_len
                };
                if !model.is_free(taken) {
                    return Err(format!("the pages at {at:#x} were not free"));
                }
                model.relocate(stays, at, grow, flags & 4 != 0);
                Ok(())
            }
            // Pages that look alike may still be two areas.
            Err(MmError::Fault) if flags & 2 == 0 => Ok(()),
            Err(MmError::Fault) => {
                // What was in the way, and what was too much, may be gone already.
                let addr = to * PAGE;
                if self.host.areas(pid, addr, new_len * PAGE) == 0 {
                    self.space(pid).unmap(to..to + new_len);
                }
                if new_len < old_len {
                    let tail = old.start + new_len..old.end;
                    let addr = tail.start * PAGE;
                    if self.host.areas(pid, addr, (tail.end - tail.start) * PAGE) == 0 {
                        self.space(pid).unmap(tail);
                    }
                }
                Ok(())
            }
            Err(MmError::NoMem) if flags == 0 && new_len > old_len => {
                if model.is_free(old.end..old.start + new_len) {
                    return Err("no growth although there is room".into());
                }
                Ok(())
            }
            Err(error) => Err(format!("{error:?}")),
        }
    }

    pub(super) fn brk(&mut self, pid: usize) -> Step {
        let old = self.spaces[&pid].1;
        let new = BRK + self.rng.below(40) * PAGE / 2;
        self.note(format!("{pid} brk {old:#x} to {new:#x}"));
        let got = self.host.syscall(pid, |s, mm| s.brk(mm, new));
        let (space, now) = self.spaces.get_mut(&pid).expect("a live process");
        let (from, to) = (old.div_ceil(PAGE), new.div_ceil(PAGE));
        // Linux keeps one page between the break and what is above it.
        let want = if to > from && !space.is_free(from..to + 1) {
            old
        } else {
            new
        };
        if got != want {
            return Err(format!("core {got:#x}, model {want:#x}"));
        }
        if want == new {
            space.unmap(to..from);
            for n in from..to {
                space
                    .pages
                    .insert(n, Page::new(READ | WRITE, false, Backing::Anonymous));
            }
            *now = new;
        }
        Ok(())
    }
}
