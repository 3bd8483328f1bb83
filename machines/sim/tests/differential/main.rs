//! Random system calls and accesses by three processes, on the core and on a naive model: after each
//! step both must have said the same, and in between all of memory is compared.

mod model;

use model::{
    Backing, CELLS, EFAULT, EINVAL, Object, ObjectRef, Outcome, PAGE, Page, READ, Space, WRITE,
};
use std::collections::BTreeMap;
use std::ops::Range;
use vellum_mm::{MmError, MmapRequest};
use vellum_sim::{FlushMode, Refill, Rng, SimConfig, SimHost, SimMachine, SimStore, Trouble};
use vellum_types::{FileId, Order, VirtAddr};

const PROCESSES: usize = 3;
const FILES: u64 = 2;
/// Pages of the arena in which fixed mappings are made; three leaf tables meet in it.
const ARENA: Range<u64> = 0x7_0000 + 488..0x7_0000 + 1048;
const BRK: u64 = 0x5555_5600_0000;

const MAP_SHARED: u32 = 1;
const MAP_PRIVATE: u32 = 2;
const MAP_FIXED: u32 = 0x10;
const MAP_ANONYMOUS: u32 = 0x20;
const MAP_POPULATE: u32 = 0x8000;
/// On x86 whatever allows anything allows loads.
const PROTS: [u32; 9] = [0, 1, 2, 3, 3, 4, 5, 6, 7];

struct World<'m> {
    host: SimHost<'m>,
    rng: Rng,
    spaces: BTreeMap<usize, (Space, u64 /* break */)>,
    files: Vec<ObjectRef>,
    stamp: u64,
    log: Vec<String>,
}

type Step = Result<(), String>;

fn number(errno: &Result<(), MmError>) -> i32 {
    errno.as_ref().err().map_or(0, |error| error.errno())
}

impl<'m> World<'m> {
    fn new(machine: &'m SimMachine, store: &'m SimStore, seed: u64) -> Self {
        let host = SimHost::boot(machine, store, seed).expect("a boot");
        let mut rng = Rng::new(seed);
        let mut files = Vec::new();
        for i in 0..FILES {
            let pages = 4 + rng.below(8);
            store.create(
                FileId(i + 1),
                &format!("/file{i}"),
                vec![0; (pages * PAGE) as usize],
            );
            files.push(Object::with_pages(pages));
        }
        Self {
            host,
            rng,
            spaces: BTreeMap::new(),
            files,
            stamp: 0,
            log: Vec::new(),
        }
    }

    fn note(&mut self, text: String) {
        if self.log.len() == 60 {
            self.log.remove(0);
        }
        self.log.push(text);
    }

    fn stamp(&mut self) -> u64 {
        self.stamp += 1;
        // Distinct in every byte position that a wrong offset could confuse.
        self.stamp.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn space(&mut self, pid: usize) -> &mut Space {
        &mut self.spaces.get_mut(&pid).expect("a live process").0
    }

    /// A page near something interesting: mapped, or in the arena.
    fn some_page(&mut self, pid: usize) -> u64 {
        let mapped = self.spaces[&pid].0.pages.len() as u64;
        if mapped > 0 && !self.rng.one_in(4) {
            let nth = self.rng.below(mapped) as usize;
            return *self.spaces[&pid]
                .0
                .pages
                .keys()
                .nth(nth)
                .expect("a mapped page");
        }
        ARENA.start + self.rng.below(ARENA.end - ARENA.start)
    }

    fn some_len(&mut self) -> u64 {
        match self.rng.below(8) {
            0 => 1 + self.rng.below(64),
            1..4 => 1 + self.rng.below(12),
            _ => 1 + self.rng.below(4),
        }
    }

    fn some_range(&mut self, pid: usize) -> Range<u64> {
        let start = self.some_page(pid);
        start..start + self.some_len()
    }

    fn step(&mut self) -> Step {
        let live: Vec<usize> = self.spaces.keys().copied().collect();
        if live.is_empty() {
            let pid = self.host.spawn().map_err(|e| format!("{e:?}"))?;
            self.spaces.insert(pid, (Space::default(), BRK));
            return Ok(());
        }
        let pid = *self.rng.pick(&live);
        match self.rng.below(100) {
            0..26 => self.access_write(pid),
            26..46 => self.access_read(pid),
            46..48 => self.access_exec(pid),
            48..58 => self.map(pid),
            58..63 => self.unmap(pid),
            63..70 => self.protect(pid),
            70..76 => self.remap(pid),
            76..83 => self.advise(pid),
            83..85 => self.lock(pid),
            85..88 => self.brk(pid),
            88..91 => self.pwrite(pid),
            91..93 => self.pread(pid),
            93..95 => self.truncate(),
            95..96 => self.sync(pid),
            96..98 => self.fork(pid),
            98 => self.exit(pid),
            _ => self.compare_all(),
        }
    }

    /// What the core's answer to an access means in the model's words.
    fn outcome(result: Result<u64, Trouble>) -> Result<Outcome, String> {
        Ok(match result {
            Ok(value) => Outcome::Value(value),
            Err(Trouble::Signal {
                number: 11,
                code: 1,
                ..
            }) => Outcome::MapErr,
            Err(Trouble::Signal {
                number: 11,
                code: 2,
                ..
            }) => Outcome::AccErr,
            Err(Trouble::Signal { number: 7, .. }) => Outcome::Bus,
            Err(other) => return Err(format!("{other:?}")),
        })
    }

    fn load(&mut self, pid: usize, page: u64, cell: usize) -> Result<Outcome, String> {
        let mut bytes = [0; 8];
        let result = self.host.read(pid, page * PAGE + CELLS[cell], &mut bytes);
        Self::outcome(result.map(|()| u64::from_ne_bytes(bytes)))
    }

    fn compare_cell(&mut self, pid: usize, page: u64, cell: usize) -> Step {
        let got = self.load(pid, page, cell)?;
        let want = self.space(pid).load(page, cell);
        if got == want {
            return Ok(());
        }
        let vanished = got == Outcome::Value(0);
        if let Some(model) = self.space(pid).pages.get_mut(&page)
            && model.may_vanish
            && vanished
        {
            model.own = None;
            return Ok(());
        }
        Err(format!(
            "process {pid} page {page:#x} cell {cell}: core {got:x?}, model {want:x?}"
        ))
    }

    fn access_read(&mut self, pid: usize) -> Step {
        let page = self.some_page(pid);
        let cell = self.rng.below(4) as usize;
        self.note(format!("{pid} read {page:#x}.{cell}"));
        self.compare_cell(pid, page, cell)
    }

    fn access_write(&mut self, pid: usize) -> Step {
        let page = self.some_page(pid);
        let cell = self.rng.below(4) as usize;
        if !self.space(pid).may_store(page, cell) {
            return Ok(());
        }
        let value = self.stamp();
        self.note(format!("{pid} write {page:#x}.{cell} {value:x}"));
        let bytes = value.to_ne_bytes();
        let result = self.host.write(pid, page * PAGE + CELLS[cell], &bytes);
        let got = Self::outcome(result.map(|()| value))?;
        let before = self.space(pid).pages.get(&page).cloned();
        let want = self.space(pid).store(page, cell, value);
        if got != want {
            return Err(format!(
                "core {got:x?}, model {want:x?}, where was {before:x?}"
            ));
        }
        self.settle(pid, page)
    }

    /// After a write to a page that might have vanished, finds out whether it had.
    fn settle(&mut self, pid: usize, page: u64) -> Step {
        if self
            .space(pid)
            .pages
            .get(&page)
            .is_some_and(|p| p.may_vanish && p.prot & WRITE != 0)
        {
            for cell in 0..4 {
                if let Outcome::Value(0) = self.load(pid, page, cell)?
                    && let Some(Page { own: Some(own), .. }) = self.space(pid).pages.get_mut(&page)
                {
                    own[cell] = 0;
                }
                self.compare_cell(pid, page, cell)?;
            }
            if let Some(model) = self.space(pid).pages.get_mut(&page) {
                model.may_vanish = false;
            }
        }
        Ok(())
    }

    fn access_exec(&mut self, pid: usize) -> Step {
        let page = self.some_page(pid);
        self.note(format!("{pid} exec {page:#x}"));
        let result = self.host.exec(pid, page * PAGE);
        let got = Self::outcome(result.map(|()| 0))?;
        let want = match self.space(pid).exec(page) {
            Outcome::Value(_) => Outcome::Value(0),
            other => other,
        };
        if got == want {
            Ok(())
        } else {
            Err(format!("core {got:x?}, model {want:x?}"))
        }
    }

    fn map(&mut self, pid: usize) -> Step {
        let prot = *self.rng.pick(&PROTS);
        let len = self.some_len();
        let shared = self.rng.one_in(3);
        let mut flags = if shared { MAP_SHARED } else { MAP_PRIVATE };
        let fixed = !self.rng.one_in(6);
        let start = ARENA.start + self.rng.below(ARENA.end - ARENA.start);
        flags |= if fixed { MAP_FIXED } else { 0 };
        flags |= if self.rng.one_in(16) { MAP_POPULATE } else { 0 };
        let file = self.rng.one_in(3).then(|| self.rng.below(FILES));
        let offset = self.rng.below(12);
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

    fn unmap(&mut self, pid: usize) -> Step {
        let range = self.some_range(pid);
        self.note(format!("{pid} unmap {range:x?}"));
        let (addr, len) = (range.start * PAGE, (range.end - range.start) * PAGE);
        let result = self.host.syscall(pid, |s, mm| s.munmap(mm, addr, len));
        self.space(pid).unmap(range);
        result.map_err(|e| format!("{e:?}"))
    }

    fn same(got: Result<(), MmError>, want: Result<(), i32>) -> Step {
        let (got, want) = (number(&got), want.err().unwrap_or(0));
        if got == want {
            Ok(())
        } else {
            Err(format!("core says errno {got}, model {want}"))
        }
    }

    fn protect(&mut self, pid: usize) -> Step {
        let range = self.some_range(pid);
        let prot = *self.rng.pick(&PROTS);
        self.note(format!("{pid} protect {range:x?} {prot}"));
        let (addr, len) = (range.start * PAGE, (range.end - range.start) * PAGE);
        let got = self
            .host
            .syscall(pid, |s, mm| s.mprotect(mm, addr, len, prot));
        let want = self.space(pid).protect(range, prot);
        Self::same(got, want)
    }

    fn remap(&mut self, pid: usize) -> Step {
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
        let target = ARENA.start + self.rng.below(ARENA.end - ARENA.start);
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

    fn advise(&mut self, pid: usize) -> Step {
        let range = self.some_range(pid);
        let advice = *self.rng.pick(&[4, 4, 4, 8, 8, 10, 11, 18, 19, 0, 3]);
        self.note(format!("{pid} advise {range:x?} {advice}"));
        let (addr, len) = (range.start * PAGE, (range.end - range.start) * PAGE);
        let got = self
            .host
            .syscall(pid, |s, mm| s.madvise(mm, addr, len, advice));
        let want = self.space(pid).advise(range, |page| {
            match advice {
                4 if page.locked => return Err(EINVAL),
                4 => {
                    page.own = None;
                    page.may_vanish = false;
                }
                8 if page.locked || !page.is_private_anonymous() => return Err(EINVAL),
                8 => page.may_vanish = page.own.is_some(),
                10 => page.dont_fork = true,
                11 => page.dont_fork = false,
                18 if !page.is_private_anonymous() => return Err(EINVAL),
                18 => page.wipe_on_fork = true,
                19 => page.wipe_on_fork = false,
                _ => {}
            }
            Ok(())
        });
        Self::same(got, want)
    }

    fn lock(&mut self, pid: usize) -> Step {
        let range = self.some_range(pid);
        // Locking copies private pages of files, up to the first that cannot be had: not modelled.
        if range.clone().any(|n| {
            let page = self.space(pid).pages.get(&n);
            page.is_some_and(|p| !p.shared && !p.is_private_anonymous())
        }) {
            return Ok(());
        }
        let lock = self.rng.one_in(2);
        self.note(format!("{pid} lock {lock} {range:x?}"));
        let (addr, len) = (range.start * PAGE, (range.end - range.start) * PAGE);
        let got = self.host.syscall(pid, |s, mm| match lock {
            true => s.mlock(mm, addr, len),
            false => s.munlock(mm, addr, len),
        });
        let model = self.space(pid);
        for n in range.clone() {
            let Some(page) = model.pages.get_mut(&n) else {
                break;
            };
            page.locked = lock;
        }
        let whole = model.is_mapped(range.clone());
        let reachable = range
            .clone()
            .all(|n| !matches!(model.load(n, 0), Outcome::AccErr | Outcome::Bus));
        match got {
            Ok(()) if whole => Ok(()),
            // Pages that cannot be brought in make mlock fail after it has marked them.
            Err(MmError::NoMem) if !whole || (lock && !reachable) => Ok(()),
            other => Err(format!("{other:?}, all mapped: {whole}")),
        }
    }

    fn brk(&mut self, pid: usize) -> Step {
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

    /// A write(2) of one cell from memory of the process.
    fn pwrite(&mut self, pid: usize) -> Step {
        let file = self.rng.below(FILES);
        let (source, cell) = (self.some_page(pid), self.rng.below(4) as usize);
        let (index, at) = (self.rng.below(14), self.rng.below(4) as usize);
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
    fn pread(&mut self, pid: usize) -> Step {
        let file = self.rng.below(FILES);
        let (target, cell) = (self.some_page(pid), self.rng.below(4) as usize);
        let (index, at) = (self.rng.below(14), self.rng.below(4) as usize);
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

    fn truncate(&mut self) -> Step {
        let file = self.rng.below(FILES);
        let size = self.rng.below(14) * PAGE + *self.rng.pick(&[0, 0, 2048]);
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
    fn sync(&mut self, pid: usize) -> Step {
        let range = self.some_range(pid);
        self.note(format!("{pid} sync {range:x?}"));
        let (addr, len) = (range.start * PAGE, (range.end - range.start) * PAGE);
        let got = self.host.syscall(pid, |s, mm| s.msync(mm, addr, len, 4));
        let whole = self.space(pid).is_mapped(range);
        Self::same(got, if whole { Ok(()) } else { Err(model::ENOMEM) })?;
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

    fn fork(&mut self, pid: usize) -> Step {
        let Some(child) = (0..PROCESSES).find(|slot| !self.spaces.contains_key(slot)) else {
            return self.exit(pid);
        };
        self.note(format!("{pid} fork {child}"));
        self.host.fork(pid, child).map_err(|e| format!("{e:?}"))?;
        let (space, at) = &self.spaces[&pid];
        let copy = (space.fork(), *at);
        self.spaces.insert(child, copy);
        Ok(())
    }

    fn exit(&mut self, pid: usize) -> Step {
        if self.spaces.len() == 1 && !self.rng.one_in(8) {
            return Ok(());
        }
        self.note(format!("{pid} exit"));
        self.host.exit(pid);
        self.spaces.remove(&pid);
        Ok(())
    }

    fn compare_all(&mut self) -> Step {
        if !self.rng.one_in(10) {
            return Ok(());
        }
        self.note("compare all".into());
        let pids: Vec<usize> = self.spaces.keys().copied().collect();
        for pid in pids {
            let pages: Vec<u64> = self.spaces[&pid].0.pages.keys().copied().collect();
            for page in pages {
                let cell = self.rng.below(4) as usize;
                self.compare_cell(pid, page, cell)?;
            }
        }
        Ok(())
    }
}

fn config(seed: u64) -> SimConfig {
    let base = SimConfig::with_ram(32 << 20);
    let order = |n| Order::new(n).expect("an order");
    match seed % 6 {
        0 => base,
        1 => base.cpus(4).tlb(32),
        2 => base.cpus(2).access_dirty(false).tlb(8),
        3 => base
            .cpus(2)
            .access_dirty(false)
            .refill(Refill::HintsOnly)
            .tlb(128),
        4 => SimConfig {
            anon_order_max: order(4),
            ..base.cpus(2).refill(Refill::WalkerAndHints)
        },
        _ => SimConfig {
            anon_order_max: order(9),
            ..base.cpus(4).flush(FlushMode::Immediate)
        },
    }
}

fn run(seed: u64, steps: u64) {
    let machine = SimMachine::new(config(seed));
    let store = SimStore::new();
    let mut world = World::new(&machine, &store, seed);
    for step in 0..steps {
        let mut result = world.step();
        if result.is_ok() {
            // The whole check is slow: often enough to be near the cause.
            result = match machine.failures().first() {
                Some(failure) => Err(failure.to_string()),
                None if step % 64 == 0 => world.host.check(),
                None => Ok(()),
            };
        }
        if let Err(wrong) = result {
            panic!(
                "seed {seed}, step {step}: {wrong}\n{}",
                world.log.join("\n")
            );
        }
    }
    world.host.system().writeback_all().expect("a write-back");
    if let Err(wrong) = world.host.shutdown() {
        panic!("seed {seed}, at the end: {wrong}");
    }
}

#[test]
fn the_core_and_the_model_agree() {
    let var = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seeds = match var("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..var("SEEDS").unwrap_or(48),
    };
    for seed in seeds {
        run(seed, var("STEPS").unwrap_or(2500));
    }
}
