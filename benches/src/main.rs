//! `core-ops OP N`: does one operation of the core N times, and nothing else that grows with N.
//!
//! Under callgrind the difference between two runs, divided by the difference of their N, is the
//! exact number of instructions of one operation. `cargo xtask bench core` does just that for all
//! of them. The machine below does nothing on its hooks and does not zero, so that what is counted
//! is the core's own work.

mod machine;
mod ops;
mod rmap;
mod swap;

use machine::{BenchMachine, BenchStore};
use std::process::ExitCode;
use vellum_system::{System, SystemConfig};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [op, n] = args.as_slice() else {
        eprintln!("usage: core-ops OP N\noperations:");
        for (name, what, _) in ops::ALL {
            eprintln!("  {name:24} {what}");
        }
        return ExitCode::from(2);
    };
    let Some((_, _, run)) = ops::ALL.iter().find(|(name, _, _)| name == op) else {
        eprintln!("no operation {op:?}; run without arguments for the list");
        return ExitCode::from(2);
    };
    let Ok(n) = n.parse() else {
        eprintln!("{n:?} is not a count");
        return ExitCode::from(2);
    };
    let machine = BenchMachine::new(512 << 20);
    let store = BenchStore;
    match System::boot(&machine, &store, SystemConfig::default()) {
        Ok(system) => {
            run(&system, n);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("boot: {error}");
            ExitCode::FAILURE
        }
    }
}
