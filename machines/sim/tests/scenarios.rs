//! Every scenario on every kind of machine.

use std::panic::{AssertUnwindSafe, catch_unwind};
use vellum_sim::{FlushMode, Refill, SimConfig, SimExecutor, SimHost, SimMachine, SimStore};
use vellum_system::ZoneProfile;
use vellum_testkit::{Ending, Scenario, Shortage, run};
use vellum_types::{NodeId, Order};

fn scenarios() -> Vec<(String, Scenario)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scenarios");
    let mut all: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder of scenarios")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "scn"))
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("a text");
            let scenario = Scenario::parse(&text).unwrap_or_else(|e| panic!("{path:?}: {e}"));
            (
                path.file_stem()
                    .expect("a name")
                    .to_string_lossy()
                    .into_owned(),
                scenario,
            )
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(all.len() >= 30);
    all
}

/// Runs one; `fail_after` makes every later allocation of frames fail.
fn play(
    scenario: &Scenario,
    config: &SimConfig,
    seed: u64,
    fail_after: Option<u64>,
) -> Result<Ending, String> {
    let machine = SimMachine::new(config.clone());
    let store = SimStore::new();
    let host = SimHost::boot(&machine, &store, seed)?;
    let mut executor = SimExecutor::start(host).map_err(|error| format!("{error:?}"))?;
    executor.host().system().pages().fail_after(fail_after);
    let shortage = if fail_after.is_some() {
        Shortage::Allowed
    } else {
        Shortage::Forbidden
    };
    let result = run(scenario, &mut executor, shortage).map_err(|mismatch| mismatch.to_string());
    executor.host().system().pages().fail_after(None);
    executor.shutdown()?;
    result
}

/// Runs all scenarios on one kind of machine; gathers what went wrong.
fn all_on(kind: &str, config: &SimConfig, seeds: std::ops::Range<u64>) {
    let only = std::env::var("SCENARIO").unwrap_or_default();
    let mut wrong = Vec::new();
    for (name, scenario) in scenarios().iter().filter(|(name, _)| name.contains(&only)) {
        for seed in seeds.clone() {
            let played = catch_unwind(AssertUnwindSafe(|| play(scenario, config, seed, None)));
            match played {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => wrong.push(format!("{name} on {kind}, seed {seed}: {error}")),
                Err(_) => wrong.push(format!("{name} on {kind}, seed {seed}: panicked")),
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} failed:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

fn small() -> SimConfig {
    SimConfig::with_ram(8 << 20)
}

#[test]
fn one_cpu_with_a_walker() {
    all_on("1 CPU", &small(), 0..3);
}

#[test]
fn several_cpus_with_tiny_tlbs() {
    for cpus in [2, 4] {
        for entries in [1, 8, 64] {
            let kind = format!("{cpus} CPUs, {entries} entries");
            all_on(&kind, &small().cpus(cpus).tlb(entries), 0..3);
        }
    }
}

#[test]
fn flushes_that_arrive_at_once() {
    all_on(
        "immediate",
        &small().cpus(4).flush(FlushMode::Immediate),
        0..2,
    );
}

#[test]
fn accessed_and_dirty_by_software() {
    for cpus in [1, 2, 4] {
        all_on(
            "software bits",
            &small().cpus(cpus).access_dirty(false).tlb(16),
            0..3,
        );
    }
}

#[test]
fn hints_beside_the_walker() {
    for hardware in [false, true] {
        let config = small()
            .cpus(2)
            .access_dirty(hardware)
            .refill(Refill::WalkerAndHints);
        all_on("hints", &config, 0..3);
    }
}

#[test]
fn hints_only() {
    let config = small().access_dirty(false).refill(Refill::HintsOnly);
    for cpus in [1, 2, 4] {
        all_on("hints only", &config.clone().cpus(cpus), 0..3);
    }
    // One entry is enough if a fault maps one page.
    all_on(
        "one hint",
        &SimConfig {
            fault_around_pages: 1,
            ..config.tlb(1)
        },
        0..2,
    );
}

#[test]
fn large_anonymous_blocks() {
    for order in [2, 4, 9] {
        let anon_order_max = Order::new(order).expect("an order");
        let config = SimConfig {
            anon_order_max,
            ..small().cpus(2).tlb(16)
        };
        all_on("blocks", &config, 0..3);
        let software = config
            .access_dirty(false)
            .refill(Refill::HintsOnly)
            .tlb(1024);
        all_on("blocks, hints only", &software, 0..2);
    }
}

#[test]
fn several_nodes() {
    for nodes in [2, 4] {
        let config = SimConfig::with_ram(u64::from(nodes) * (4 << 20)).nodes(nodes);
        all_on(&format!("{nodes} nodes"), &config.clone(), 0..2);
        let busy = config.cpus(4).tlb(8);
        all_on(&format!("{nodes} nodes, 4 CPUs"), &busy, 0..2);
    }
    let ring = |from: NodeId, to: NodeId| 10 + 10 * from.0.abs_diff(to.0).min(2);
    let config = SimConfig::with_ram(16 << 20).nodes(4).distance(ring);
    all_on("a line of nodes", &config.cpus(2), 0..1);
    let holes = SimConfig::with_holes(16 << 20).nodes(2).cpus(2);
    all_on("2 nodes with holes", &holes, 0..2);
}

#[test]
fn the_zones_of_32_bits() {
    let config = SimConfig::with_ram(1024 << 20).zones(ZoneProfile::X86_32);
    all_on("32 bits", &config.cpus(2), 0..1);
}

#[test]
fn every_allocation_fails_on_two_nodes() {
    without_memory(&small().nodes(2).cpus(2).tlb(8));
}

#[test]
fn memory_with_holes() {
    all_on("holes", &SimConfig::with_holes(8 << 20).cpus(2), 0..2);
}

/// From the n-th allocation on, for every n, memory is out: scenarios may end early, but nothing
/// may leak, break or panic.
fn without_memory(config: &SimConfig) {
    let only = std::env::var("SCENARIO").unwrap_or_default();
    let mut wrong = Vec::new();
    for (name, scenario) in scenarios().iter().filter(|(name, _)| name.contains(&only)) {
        // A break that is refused for another reason looks like a shortage and ends the story.
        let last = play(scenario, config, 1, Some(u64::MAX)).expect("an ending");
        for n in 0..5000 {
            let played = catch_unwind(AssertUnwindSafe(|| play(scenario, config, 1, Some(n))));
            match played {
                Ok(Ok(ending)) if ending == last => break,
                Ok(Ok(_)) => {}
                Ok(Err(error)) => wrong.push(format!("{name}, allocation {n}: {error}")),
                Err(_) => wrong.push(format!("{name}, allocation {n}: panicked")),
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} failed:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn every_allocation_fails() {
    without_memory(&small().cpus(2).tlb(8));
}

#[test]
fn every_allocation_fails_with_blocks_and_hints() {
    let anon_order_max = Order::new(4).expect("an order");
    let config = small()
        .cpus(2)
        .access_dirty(false)
        .refill(Refill::HintsOnly);
    without_memory(&SimConfig {
        anon_order_max,
        ..config
    });
}
