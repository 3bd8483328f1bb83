//! From any allocation memory is found, or there is a clean failure, in bounded work: whatever cannot be
//! reclaimed, be it locked, pinned, dirty and unwritable, or without a slot.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use vellum_machine::VmEvent;
use vellum_mm::{MmError, MmapRequest};
use vellum_sim::{
    Injection, Rng, SimArea, SimConfig, SimHost, SimMachine, SimStore, SwapFaults, Trouble,
};
use vellum_system::PolicyKind;
use vellum_types::{FileId, PAGE_SIZE, VirtAddr};

const FILE: FileId = FileId(1);
const FILE_PAGES: u64 = 2000;
const BASE: u64 = 0x1000_0000_0000;
const PAGES: u64 = 3000;
/// An operation that fails may look so often at each frame of the machine.
const LOOKS: u64 = 40;

/// What stands in reclaim's way; each is there or not.
#[derive(Clone, Copy, Debug)]
struct Obstacles {
    mlocked: bool,
    pinned: bool,
    file_unwritable: bool,
    swap_unwritable: bool,
    swap_full: bool,
    shared: bool,
}

impl Obstacles {
    const NR: u64 = 6;

    fn of(bits: u64) -> Self {
        let bit = |n: u64| bits >> n & 1 == 1;
        Self {
            mlocked: bit(0),
            pinned: bit(1),
            file_unwritable: bit(2),
            swap_unwritable: bit(3),
            swap_full: bit(4),
            shared: bit(5),
        }
    }
}

/// Operations ended so far, by all tests of the process.
static STEPS: AtomicU64 = AtomicU64::new(0);

/// Ends the process if nothing ends for two minutes: a hang cannot fail by itself.
fn watch() {
    std::thread::spawn(|| {
        let mut seen = u64::MAX;
        loop {
            let now = STEPS.load(Ordering::Relaxed);
            if now == seen {
                eprintln!("no operation has ended for two minutes");
                std::process::abort();
            }
            seen = now;
            std::thread::sleep(Duration::from_secs(120));
        }
    });
}

struct Run<'m> {
    host: SimHost<'m>,
    pid: usize,
    rng: Rng,
    frames: u64,
    failures: u64,
}

impl Run<'_> {
    fn looked_at(&self) -> u64 {
        let vmstat = self.host.system().vmstat();
        let events = [
            VmEvent::PgScanKswapd,
            VmEvent::PgScanDirect,
            VmEvent::PgRefill,
        ];
        events.map(|event| vmstat.events(event)).iter().sum()
    }

    /// Runs an operation, which must end in bounded work: one that fails, by what a constant number of
    /// rounds look at; one that succeeds, by as many for each batch that it freed.
    fn bounded<T: core::fmt::Debug, E: core::fmt::Debug>(
        &mut self,
        what: &str,
        operation: impl FnOnce(&mut Self) -> Result<T, E>,
        expected: fn(&E) -> bool,
    ) -> bool {
        let stolen = |run: &Self| {
            let vmstat = run.host.system().vmstat();
            vmstat.events(VmEvent::PgStealKswapd) + vmstat.events(VmEvent::PgStealDirect)
        };
        let (before, had) = (self.looked_at(), stolen(self));
        let result = operation(self);
        STEPS.fetch_add(1, Ordering::Relaxed);
        let (looked, freed) = (self.looked_at() - before, stolen(self) - had);
        // A round that frees something is repeated.
        let bound = LOOKS * self.frames * (freed + 1);
        assert!(
            looked <= bound,
            "{what}: {looked} looks, {freed} freed, {result:?}"
        );
        match result {
            Ok(_) => true,
            Err(error) => {
                assert!(expected(&error), "{what}: {error:?}");
                self.failures += 1;
                false
            }
        }
    }

    fn touch(&mut self, at: u64) -> bool {
        self.bounded(
            "a store",
            |run| run.host.write(run.pid, at, &at.to_ne_bytes()),
            |trouble| *trouble == Trouble::OutOfMemory,
        )
    }

    fn step(&mut self, obstacles: Obstacles) {
        let page = self.rng.below(PAGES);
        let at = BASE + page * PAGE_SIZE;
        let no_memory = |error: &MmError| matches!(error, MmError::NoMem | MmError::Again);
        match self.rng.below(12) {
            0 if obstacles.mlocked => {
                let len = (1 + self.rng.below(64)) * PAGE_SIZE;
                self.bounded(
                    "mlock",
                    |run| {
                        run.host
                            .syscall(run.pid, |system, mm| system.mlock(mm, at, len))
                    },
                    no_memory,
                );
            }
            1 if obstacles.pinned => {
                let space = self.host.mm(self.pid).space();
                let machine = self.host.machine();
                machine.pin_page(space, VirtAddr::new(at), true);
            }
            2 => {
                let offset = self.rng.below(FILE_PAGES) * PAGE_SIZE;
                self.bounded(
                    "a write to a file",
                    |run| run.host.pwrite(run.pid, FILE, offset, &[1; 64]),
                    no_memory,
                );
            }
            3 => {
                let offset = self.rng.below(FILE_PAGES) * PAGE_SIZE;
                self.bounded(
                    "a read of a file",
                    |run| run.host.pread(FILE, offset, &mut [0; 64]),
                    no_memory,
                );
            }
            4 => {
                let child = self.pid + 1;
                let forked = self.bounded("fork", |run| run.host.fork(run.pid, child), no_memory);
                if forked {
                    self.host.exit(child);
                }
            }
            5 => {
                self.bounded(
                    "background work",
                    |run| {
                        run.host.system().housekeeping();
                        Ok::<(), ()>(())
                    },
                    |_| false,
                );
            }
            _ => {
                for next in 0..16 {
                    self.touch(BASE + (page + next) % PAGES * PAGE_SIZE);
                }
            }
        }
    }
}

fn run(seed: u64, policy: PolicyKind, obstacles: Obstacles, by_hardware: bool, steps: u64) -> u64 {
    let ram = SimConfig::with_ram(5 << 20).cpus(2).policy(policy);
    let machine = SimMachine::new(ram.access_dirty(by_hardware).swap(SimArea::Disk {
        slots: 700,
        check: false,
    }));
    machine.disk(0).inject(SwapFaults {
        unwritable: (1..if obstacles.swap_unwritable { 700 } else { 1 }).collect(),
        full: obstacles.swap_full,
        ..SwapFaults::default()
    });
    let store = SimStore::new();
    store.create(FILE, "/data", vec![7; (FILE_PAGES * PAGE_SIZE) as usize]);
    if obstacles.file_unwritable {
        store.inject(
            FILE,
            Injection {
                fail_writes_after: Some((0, 5)),
                ..Injection::default()
            },
        );
    }
    let mut host = SimHost::boot(&machine, &store, seed).expect("a boot");
    let pid = host.spawn().expect("a process");
    let request = MmapRequest {
        addr: BASE,
        len: PAGES * PAGE_SIZE,
        prot: 3,
        flags: if obstacles.shared { 0x31 } else { 0x32 },
        file: None,
        offset: 0,
    };
    assert_eq!(host.mmap(pid, request), Ok(BASE));
    let mut run = Run {
        host,
        pid,
        rng: Rng::new(seed),
        frames: 1280,
        failures: 0,
    };
    for _ in 0..steps {
        run.step(obstacles);
    }
    assert!(machine.failures().is_empty(), "{:?}", machine.failures());
    run.host.check().expect("a valid system");
    let Run { mut host, .. } = run;
    // Whoever dies gives everything back: another can use it all.
    host.exit(pid);
    let next = host.spawn().expect("memory of the dead");
    host.exit(next);
    store.inject(FILE, Injection::default());
    let _ = host.system().writeback_all();
    host.shutdown().expect("everything back");
    run.failures
}

/// All combinations of obstacles, each with `policies` of the policies in turn.
fn all(policies: u64, steps: u64) {
    watch();
    let mut failures = 0;
    for bits in 0..1 << Obstacles::NR {
        for n in 0..policies {
            let seed = bits * 4 + n;
            let policy = PolicyKind::ALL[(bits + bits / 4 + n) as usize % 4];
            let by_hardware = seed.is_multiple_of(3);
            failures += run(seed, policy, Obstacles::of(bits), by_hardware, steps);
        }
    }
    assert!(failures > 500, "{failures} operations found no memory");
}

#[test]
fn every_operation_ends_whatever_cannot_be_reclaimed() {
    let var = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    // POLICIES=4 STEPS=400 takes minutes.
    all(var("POLICIES").unwrap_or(1), var("STEPS").unwrap_or(100));
}
