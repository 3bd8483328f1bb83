//! Random system calls and accesses, on the core and on the Linux kernel below this test, by the same
//! executor interface: each reply must be the same. A difference is reduced to the fewest calls that
//! still show it.
//!
//! Takes `SEEDS` and `STEPS` from the environment, or `SEED` for one. With `RECORD=folder` each run is
//! written there as a scenario, to be played elsewhere.

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() {
    linux::main();
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod linux {
    use vellum_sim::{Rng, SimConfig, SimExecutor, SimHost, SimMachine, SimStore};
    use vellum_testkit::native::Native;
    use vellum_testkit::{Call, Executor, Op, READ_ONLY_FILE, Reply, abi, record};

    const PAGE: u64 = 4096;
    const PAGES: u64 = 48;
    /// The arena: free in every process, with a page-table boundary in its middle.
    const START: u64 = 0x100_0020_0000 - PAGES / 2 * PAGE;
    const FILES: u64 = 2;
    const PROCESSES: u64 = 3;

    /// A call by a process; files are made by process 0.
    type Event = (usize, Call);

    struct Generator {
        rng: Rng,
        live: Vec<usize>,
        started: u64,
        read_only: bool,
        /// MREMAP_DONTUNMAP of a part of a locked area unlocks all of it, which the core does not
        /// imitate: so there is one or the other.
        locks: bool,
    }

    impl Generator {
        fn page(&mut self) -> u64 {
            START + self.rng.below(PAGES) * PAGE
        }

        fn len(&mut self) -> u64 {
            let pages = if self.rng.one_in(3) { 16 } else { 4 };
            PAGE * (1 + self.rng.below(pages))
        }

        /// Sometimes not on a page boundary.
        fn ragged(&mut self, value: u64) -> u64 {
            if self.rng.one_in(16) {
                value + 1 + self.rng.below(PAGE - 1)
            } else {
                value
            }
        }

        fn prot(&mut self) -> u64 {
            *self.rng.pick(&[0, 1, 3, 3, 3, 5, 7])
        }

        fn file_at(&mut self) -> u64 {
            self.rng.below(10) * PAGE
        }

        fn next(&mut self) -> Event {
            let proc = *self.rng.pick(&self.live);
            let (at, len) = (self.page(), self.len());
            let (op, args): (Op, [u64; 6]) = match self.rng.below(100) {
                0..16 => self.map(at, len),
                16..21 => (Op::Unmap, [self.ragged(at), self.ragged(len), 0, 0, 0, 0]),
                21..30 => (
                    Op::Protect,
                    [self.ragged(at), self.ragged(len), self.prot(), 0, 0, 0],
                ),
                30..36 => self.remap(at, len),
                36..44 => {
                    let advice = *self
                        .rng
                        .pick(&[0, 1, 2, 3, 4, 4, 10, 11, 16, 17, 18, 19, 22, 23, 5, 77]);
                    (
                        Op::Advise,
                        [self.ragged(at), self.ragged(len), advice, 0, 0, 0],
                    )
                }
                44..47 => {
                    let flags = *self.rng.pick(&[1, 4, 4, 6, 0, 5, 8]);
                    (
                        Op::Sync,
                        [self.ragged(at), self.ragged(len), flags, 0, 0, 0],
                    )
                }
                47..50 if self.locks => (
                    Op::Lock,
                    [self.ragged(at), len, *self.rng.pick(&[0, 0, 1, 2]), 0, 0, 0],
                ),
                50..53 => (Op::Unlock, [self.ragged(at), len, 0, 0, 0, 0]),
                53..68 => {
                    let byte = *self.rng.pick(&[0xc3, 0x11, 0x22, 0x33]);
                    let len = *self.rng.pick(&[1, 8, PAGE, 2 * PAGE]);
                    (Op::Write, [self.ragged(at), byte, len, 0, 0, 0])
                }
                68..78 => (Op::Expect, [self.ragged(at), 0, 1, 0, 0, 0]),
                78..80 => (Op::Exec, [at, 0, 0, 0, 0, 0]),
                80..83 => {
                    let (file, offset) = (self.rng.below(FILES), self.file_at());
                    (
                        Op::Pread,
                        [
                            file,
                            offset,
                            *self.rng.pick(&[0, 64, PAGE, 3 * PAGE]),
                            self.ragged(at),
                            0,
                            0,
                        ],
                    )
                }
                83..86 => {
                    let (file, offset) = (self.rng.below(FILES), self.file_at());
                    (
                        Op::Pwrite,
                        [
                            file,
                            offset,
                            *self.rng.pick(&[0, PAGE, 3 * PAGE]),
                            self.ragged(at),
                            0,
                            0,
                        ],
                    )
                }
                86..88 => (
                    Op::FileExpect,
                    [self.rng.below(FILES), self.file_at(), 0, 2 * PAGE, 0, 0],
                ),
                88..90 => (
                    Op::FileTruncate,
                    [self.rng.below(FILES), self.file_at(), 0, 0, 0, 0],
                ),
                90..91 => (Op::FileSize, [self.rng.below(FILES), 0, 0, 0, 0, 0]),
                91..96 => (Op::Areas, [at, len, 0, 0, 0, 0]),
                96..98 if self.started < PROCESSES => {
                    let child = self.started;
                    self.started += 1;
                    self.live.push(child as usize);
                    (Op::Fork, [child, 0, 0, 0, 0, 0])
                }
                96 if self.live.len() > 1 => {
                    self.live.retain(|p| *p != proc);
                    (Op::Exit, [0; 6])
                }
                _ => (Op::Areas, [START, PAGES * PAGE, 0, 0, 0, 0]),
            };
            (proc, Call { op, args })
        }

        fn map(&mut self, at: u64, len: u64) -> (Op, [u64; 6]) {
            let mut flags = if self.rng.one_in(3) {
                abi::MAP_SHARED
            } else {
                abi::MAP_PRIVATE
            };
            flags |= if self.rng.one_in(8) {
                abi::MAP_FIXED_NOREPLACE
            } else {
                abi::MAP_FIXED
            };
            flags |= if self.rng.one_in(16) {
                abi::MAP_POPULATE
            } else {
                0
            };
            flags |= if self.rng.one_in(16) {
                abi::MAP_NORESERVE
            } else {
                0
            };
            let mut file = 0;
            let mut offset = 0;
            if self.rng.one_in(3) {
                file = 1 + self.rng.below(FILES);
                // Areas of two open files never merge, even if it is one file; the core knows only
                // files. So each is always opened in the same way.
                file |= if file == FILES && self.read_only {
                    READ_ONLY_FILE
                } else {
                    0
                };
                offset = self.rng.below(8) * PAGE;
                offset = self.ragged(offset);
            } else {
                flags |= abi::MAP_ANONYMOUS;
                flags |= if self.rng.one_in(16) {
                    abi::MAP_GROWSDOWN
                } else {
                    0
                };
                flags |= if self.locks && self.rng.one_in(16) {
                    abi::MAP_LOCKED
                } else {
                    0
                };
            }
            let len = if self.rng.one_in(32) {
                0
            } else {
                self.ragged(len)
            };
            (
                Op::Map,
                [self.ragged(at), len, self.prot(), flags, file, offset],
            )
        }

        fn remap(&mut self, at: u64, len: u64) -> (Op, [u64; 6]) {
            let new_len = if self.rng.one_in(2) { len } else { self.len() };
            let to = self.page();
            // Without MREMAP_FIXED the kernel is not asked to move: where to is its own affair.
            let flags = *self.rng.pick(&[0, 0, 3, 3, 3, 7, 2, 4, 8]);
            let flags = if self.locks { flags & !4 } else { flags };
            (
                Op::Remap,
                [
                    self.ragged(at),
                    self.ragged(len),
                    self.ragged(new_len),
                    flags,
                    self.ragged(to),
                    0,
                ],
            )
        }
    }

    fn prologue() -> Vec<Event> {
        let file = |i| {
            (
                0,
                Call {
                    op: Op::FileCreate,
                    args: [i, (3 + 2 * i) * PAGE, 256, 0, 0, 0],
                },
            )
        };
        (0..FILES).map(file).collect()
    }

    fn events(seed: u64, steps: u64) -> Vec<Event> {
        let mut generator = Generator {
            rng: Rng::new(seed),
            live: vec![0],
            started: 1,
            read_only: seed.is_multiple_of(3),
            locks: seed.is_multiple_of(2),
        };
        let mut all = prologue();
        all.extend((0..steps).map(|_| generator.next()));
        all
    }

    /// Plays events on both; the first difference, if there is one.
    fn difference(events: &[Event], seed: u64, text: &mut String) -> Option<(usize, String)> {
        text.clear();
        text.push_str("proc p0\n");
        let config = SimConfig::with_ram(16 << 20).cpus(2).tlb(16);
        let machine = SimMachine::new(config.access_dirty(seed.is_multiple_of(2)));
        let store = SimStore::new();
        let host = SimHost::boot(&machine, &store, seed).expect("a boot");
        let mut sim = SimExecutor::start(host).expect("a process");
        let mut native = Native::start().expect("a process");
        let mut live = [false; 16];
        live[0] = true;
        for (i, (proc, call)) in events.iter().enumerate() {
            if !live[*proc] || (call.op == Op::Fork && live[call.args[0] as usize]) {
                continue;
            }
            let ask = |of: &mut dyn Executor, at, len| {
                of.call(
                    *proc,
                    &Call {
                        op: Op::Areas,
                        args: [at, len, 0, 0, 0, 0],
                    },
                )
            };
            if call.op == Op::Remap {
                let (at, len) = (call.args[0], call.args[1].max(1));
                if ask(&mut sim, at, len) != ask(&mut native, at, len) {
                    continue;
                }
                // Linux 6.17 learnt to move several areas at once; older ones and the core refuse.
                let one = Ok(Reply::Done(1));
                let whole = (at..at + len)
                    .step_by(PAGE as usize)
                    .all(|page| ask(&mut sim, page, 1) == one);
                if call.args[3] & 2 != 0 && (!whole || ask(&mut sim, at, len) != one) {
                    continue;
                }
            }
            // Code that is no return instruction must not be run for real.
            if call.op == Op::Exec {
                let look = Call {
                    op: Op::Expect,
                    args: [call.args[0], 0xc3, 1, 0, 0, 0],
                };
                let (ours, theirs) = (sim.call(*proc, &look), native.call(*proc, &look));
                if ours != theirs {
                    return Some((i, format!("{look:x?}: core {ours:x?}, Linux {theirs:x?}")));
                }
                if matches!(ours, Ok(Reply::Differs { .. })) {
                    continue;
                }
            }
            // A write that fails past the end moves the end up to its start since Linux 6.16.
            if call.op == Op::Pwrite {
                let size = Call {
                    op: Op::FileSize,
                    args: [call.args[0], 0, 0, 0, 0, 0],
                };
                if !matches!(sim.call(*proc, &size), Ok(Reply::Done(size)) if size >= call.args[1])
                {
                    continue;
                }
            }
            let ours = match sim.call(*proc, call) {
                Ok(reply) => reply,
                Err(error) => return Some((i, format!("{call:x?}: the core is broken: {error}"))),
            };
            let theirs = match native.call(*proc, call) {
                Ok(reply) => reply,
                Err(error) => {
                    return Some((i, format!("{call:x?}: no answer from Linux: {error}")));
                }
            };
            let same = match (call.op, &ours, &theirs) {
                // A process id there.
                (Op::Fork, Reply::Done(_), Reply::Done(_)) => true,
                _ => ours == theirs,
            };
            if !same {
                let text =
                    format!("process {proc}: {call:x?}\n  core:  {ours:x?}\n  Linux: {theirs:x?}");
                return Some((i, text));
            }
            if let Some(line) = record(*proc, call, &theirs) {
                text.push_str(&line);
                text.push('\n');
            }
            match call.op {
                Op::Fork => live[call.args[0] as usize] = true,
                Op::Exit => live[*proc] = false,
                _ => {}
            }
        }
        sim.shutdown().err().map(|error| (events.len() - 1, error))
    }

    /// Leaves events out as long as some difference remains.
    fn reduce(mut events: Vec<Event>, seed: u64) -> (Vec<Event>, String) {
        let keep = prologue().len();
        let (mut at, mut text) =
            difference(&events, seed, &mut String::new()).expect("a difference");
        let mut size = events.len() / 2;
        while size > 0 {
            events.truncate(at + 1);
            let mut start = keep;
            while start + size < events.len() {
                let mut fewer = events.clone();
                fewer.drain(start..start + size);
                match difference(&fewer, seed, &mut String::new()) {
                    Some((new_at, new_text)) => {
                        (at, text) = (new_at, new_text);
                        events = fewer;
                        events.truncate(at + 1);
                    }
                    None => start += size,
                }
            }
            size /= 2;
        }
        (events, text)
    }

    pub(super) fn main() {
        let var = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
        let steps = var("STEPS").unwrap_or(400);
        let seeds = match var("SEED") {
            Some(seed) => seed..seed + 1,
            None => 0..var("SEEDS").unwrap_or(40),
        };
        let count = seeds.end - seeds.start;
        for seed in seeds {
            let events = events(seed, steps);
            let mut text = String::new();
            if difference(&events, seed, &mut text).is_some() {
                let (fewest, text) = reduce(events, seed);
                eprintln!("seed {seed}: the core and Linux differ:");
                for (proc, call) in &fewest {
                    eprintln!("  {proc} {:?} {:x?}", call.op, call.args);
                }
                eprintln!("{text}");
                std::process::exit(1);
            }
            if let Ok(folder) = std::env::var("RECORD") {
                let path = format!("{folder}/random-{seed}.scn");
                std::fs::write(path, text).expect("a folder to write to");
            }
        }
        println!("against Linux: {} calls, no difference", count * steps);
    }
}
