//! The core's machine and the model side by side, and the choice of the next step.

mod access;
mod attributes;
mod files;
mod mapping;
mod processes;

use crate::model::{Object, ObjectRef, PAGE, Space};
use std::collections::BTreeMap;
use std::ops::Range;
use vellum_mm::MmError;
use vellum_sim::{Rng, SimHost, SimMachine, SimStore};
use vellum_types::FileId;

/// The first page of the arena.
const ARENA: u64 = 0x7_0000 + 488;
const BRK: u64 = 0x5555_5600_0000;
/// On x86 whatever allows anything allows loads.
const PROTS: [u32; 9] = [0, 1, 2, 3, 3, 4, 5, 6, 7];

/// How large a world is.
#[derive(Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) processes: usize,
    /// Pages in which fixed mappings are made.
    pub(crate) arena: u64,
    /// The longest range, in pages.
    pub(crate) longest: u64,
    pub(crate) files: u64,
    /// The longest file, in pages.
    pub(crate) file_pages: u64,
    /// So many pages may be mlocked by all processes together.
    pub(crate) locked: usize,
    /// Pages of the arena that a new process maps.
    pub(crate) mapped: u64,
    /// Steps in a hundred that use a whole range.
    pub(crate) sweeps: u64,
}

pub(crate) struct World<'m> {
    pub(crate) host: SimHost<'m>,
    rng: Rng,
    spaces: BTreeMap<usize, (Space, u64 /* break */)>,
    files: Vec<ObjectRef>,
    stamp: u64,
    scale: Scale,
    pub(crate) log: Vec<String>,
}

/// What went wrong, if anything.
pub(crate) type Step = Result<(), String>;

fn number(errno: &Result<(), MmError>) -> i32 {
    errno.as_ref().err().map_or(0, |error| error.errno())
}

impl<'m> World<'m> {
    pub(crate) fn new(
        machine: &'m SimMachine,
        store: &'m SimStore,
        seed: u64,
        scale: Scale,
    ) -> Self {
        let host = SimHost::boot(machine, store, seed).expect("a boot");
        let mut rng = Rng::new(seed);
        let mut files = Vec::new();
        for i in 0..scale.files {
            let pages = 4 + rng.below(scale.file_pages - 6);
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
            scale,
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
        let mapped = &self.spaces[&pid].0.pages;
        let anywhere = ARENA + self.rng.below(self.scale.arena);
        if self.rng.one_in(4) {
            return anywhere;
        }
        // The heap lies far above the arena.
        let from = if self.rng.one_in(8) {
            BRK / PAGE
        } else {
            anywhere
        };
        let after = mapped.range(from..).next();
        let found = after.or_else(|| mapped.first_key_value());
        found.map_or(anywhere, |(page, _)| *page)
    }

    fn some_len(&mut self) -> u64 {
        match self.rng.below(8) {
            0 => 1 + self.rng.below(self.scale.longest),
            1..4 => 1 + self.rng.below(12),
            _ => 1 + self.rng.below(4),
        }
    }

    fn some_range(&mut self, pid: usize) -> Range<u64> {
        let start = self.some_page(pid);
        start..start + self.some_len()
    }

    pub(crate) fn step(&mut self) -> Step {
        let live: Vec<usize> = self.spaces.keys().copied().collect();
        if live.is_empty() {
            let pid = self.host.spawn().map_err(|e| format!("{e:?}"))?;
            self.spaces.insert(pid, (Space::default(), BRK));
            return self.map_all(pid, self.scale.mapped);
        }
        let pid = *self.rng.pick(&live);
        if self.rng.below(100) < self.scale.sweeps {
            return self.sweep(pid);
        }
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

    fn same(got: Result<(), MmError>, want: Result<(), i32>) -> Step {
        let (got, want) = (number(&got), want.err().unwrap_or(0));
        if got == want {
            Ok(())
        } else {
            Err(format!("core says errno {got}, model {want}"))
        }
    }
}
