//! `bench-core CASE prepare|run COUNT`: the core alone, on a machine that costs nothing.
//!
//! Two uses. `time` prints nanoseconds for each operation, the best of several rounds. `prepare` and
//! `run` do one round with COUNT operations, the first without the operations themselves: the
//! difference of their instruction counts under callgrind, divided by COUNT, is what one costs.
//! `cargo xtask bench core` drives both.

mod cases;
mod machine;

use cases::{CASES, Case};
use machine::{BareMachine, NoFiles};
use std::process::ExitCode;
use std::time::Instant;
use vellum_system::{System, SystemConfig};

/// The core on the bare machine, for as long as the process lives.
pub(crate) type Core = System<'static, BareMachine>;

const RAM: u64 = 256 << 20;
const ROUNDS: usize = 15;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["list"] => {
            for case in CASES {
                println!("{}\t{}", case.count, case.name);
            }
            ExitCode::SUCCESS
        }
        ["time", name] => with_case(name, |case| {
            let best = (0..ROUNDS)
                .map(|_| round(case, case.count))
                .fold(f64::INFINITY, f64::min);
            println!("{best:.1}");
        }),
        ["prepare", name] => with_case(name, |case| {
            (case.prepare)(&boot(), case.count);
        }),
        ["run", name] => with_case(name, |case| {
            round(case, case.count);
        }),
        _ => {
            eprintln!("usage: bench-core list | time CASE | prepare CASE | run CASE");
            ExitCode::FAILURE
        }
    }
}

fn with_case(name: &str, action: impl Fn(&Case)) -> ExitCode {
    match CASES.iter().find(|case| case.name == name) {
        Some(case) => {
            action(case);
            ExitCode::SUCCESS
        }
        None => {
            eprintln!("bench-core: no case {name}");
            ExitCode::FAILURE
        }
    }
}

fn boot() -> Core {
    let machine: &'static BareMachine = Box::leak(Box::new(BareMachine::new(RAM)));
    System::boot(machine, &NoFiles, SystemConfig::default()).expect("256 MiB boot")
}

/// Nanoseconds for each of `count` operations on a fresh system.
fn round(case: &Case, count: u64) -> f64 {
    let core = boot();
    let state = (case.prepare)(&core, count);
    let start = Instant::now();
    for i in 0..count {
        (case.operate)(&core, &state, i);
    }
    start.elapsed().as_nanos() as f64 / count as f64
}
