//! Random system calls and accesses by three processes, on the core and on a naive model: after each
//! step both must have said the same, and in between all of memory is compared.

mod model;
mod world;

use vellum_sim::{FlushMode, Refill, SimConfig, SimMachine, SimStore};
use vellum_types::Order;
use world::{Scale, World};

/// Little memory, much happening to each page of it. Three leaf tables meet in the arena.
const SCALE: Scale = Scale {
    processes: 3,
    arena: 560,
    longest: 64,
    files: 2,
    file_pages: 14,
    locked: usize::MAX,
    mapped: 0,
    sweeps: 0,
};

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
    let mut world = World::new(&machine, &store, seed, SCALE);
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
