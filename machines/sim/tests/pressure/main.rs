//! Random system calls and accesses by processes that together use several times the memory there is,
//! on the core and on a model whose memory has no end: what they see must be the same.

#[path = "../differential/model.rs"]
mod model;
#[path = "../differential/world/mod.rs"]
mod world;

use vellum_machine::VmEvent;
use vellum_sim::{Refill, SimArea, SimConfig, SimMachine, SimStore, SwapFaults};
use vellum_system::PolicyKind;
use world::{Scale, World};

/// Three processes with up to 3600 pages each, and 600 pages of files, in 1280 or 2048 frames.
const SCALE: Scale = Scale {
    processes: 3,
    arena: 3600,
    longest: 160,
    files: 3,
    file_pages: 200,
    locked: 100,
    mapped: 3400,
    sweeps: 8,
};

const DISK: SimArea = SimArea::Disk {
    slots: 12_000,
    check: true,
};

fn config(seed: u64, policy: PolicyKind) -> SimConfig {
    let ram = SimConfig::with_ram(5 << 20);
    let base = match seed % 5 {
        0 => ram.cpus(2),
        1 => ram.cpus(3).access_dirty(false).tlb(16),
        2 => ram
            .cpus(2)
            .access_dirty(false)
            .refill(Refill::HintsOnly)
            .tlb(128),
        3 => SimConfig::with_ram(8 << 20).cpus(2).nodes(2).tlb(32),
        _ => SimConfig {
            swappiness: 200,
            ..ram.refill(Refill::WalkerAndHints)
        },
    };
    let zram = SimArea::Zram {
        bytes: 48 << 20,
        limit: 2 << 20,
    };
    let base = base.policy(policy).housekeeping(20);
    match seed / 5 % 3 {
        0 => base.swap(DISK),
        1 => base.swap(zram).swap(DISK),
        _ => base.swap(DISK).swap(DISK),
    }
}

/// Returns pages swapped out and in.
fn run(seed: u64, policy: PolicyKind, steps: u64) -> (u64, u64) {
    let machine = SimMachine::new(config(seed, policy));
    if seed % 2 == 1 {
        machine.disk(0).inject(SwapFaults {
            fail_every_write: Some(211),
            ..SwapFaults::default()
        });
    }
    let store = SimStore::new();
    let mut world = World::new(&machine, &store, seed, SCALE);
    for step in 0..steps {
        let mut result = world.step();
        if result.is_ok() {
            // The whole check is slow: often enough to be near the cause.
            result = match machine.failures().first() {
                Some(failure) => Err(failure.to_string()),
                None if step % 256 == 0 => world.host.check(),
                None => Ok(()),
            };
        }
        if let Err(wrong) = result {
            panic!(
                "{policy}, seed {seed}, step {step}: {wrong}\n{}",
                world.log.join("\n")
            );
        }
        store.take_log();
    }
    let vmstat = world.host.system().vmstat();
    let swapped = (
        vmstat.events(VmEvent::PSwpOut),
        vmstat.events(VmEvent::PSwpIn),
    );
    world.host.system().writeback_all().expect("a write-back");
    if let Err(wrong) = world.host.shutdown() {
        panic!("{policy}, seed {seed}, at the end: {wrong}");
    }
    swapped
}

fn var(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn runs(policy: PolicyKind, seeds: u64, steps: u64) {
    let seeds = match var("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..var("SEEDS").unwrap_or(seeds),
    };
    for seed in seeds {
        let (out, back) = run(seed, policy, var("STEPS").unwrap_or(steps));
        if std::env::var("SHOW").is_ok() {
            println!("{policy}, seed {seed}: {out} out, {back} in");
        }
        assert!(
            out > 300 && back > 100,
            "{policy}, seed {seed}: no pressure"
        );
    }
}

const SEEDS: u64 = 15;
const STEPS: u64 = 2000;

#[test]
fn two_list_gives_the_bytes_of_endless_memory() {
    runs(PolicyKind::TwoList, SEEDS, STEPS);
}

#[test]
fn linux24_gives_the_bytes_of_endless_memory() {
    runs(PolicyKind::Linux24, SEEDS, STEPS);
}

#[test]
fn mglru_gives_the_bytes_of_endless_memory() {
    runs(PolicyKind::Mglru, SEEDS, STEPS);
}

#[test]
fn lru_gives_the_bytes_of_endless_memory() {
    runs(PolicyKind::Lru, SEEDS, STEPS);
}
