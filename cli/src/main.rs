//! The `vellum` command: run an unmodified Linux program on a memory system of your own.
//!
//! ```text
//!   vellum run --ram 128M -- python3 app.py
//!      │
//!      ├─ args     what was asked for, with clap's errors for what was not understood
//!      ├─ engine   hands it to the `um` machine and waits
//!      ├─ trace    typed events of the core, as JSON lines
//!      ├─ replay   another command: traces of page references under each policy
//!      └─ report   what the memory system did: for people, or one JSON object for tools
//! ```
//!
//! The exit status is the program's own, or 128 plus the signal that killed it. The command's own
//! failures have the numbers that shells and `env` use: 127 no such program, 126 it cannot be
//! executed, 125 anything else that kept the program from starting, 2 a mistake in the arguments.
//!
//! Standard input and output belong to the program alone; the report goes to standard error or to
//! a file.

mod args;
mod engine;
mod replay;
mod report;
mod size;
mod swap_arg;
mod trace;

use args::{Cli, Command, RunArgs};
use clap::Parser;
use std::process::ExitCode;

/// Something other than the program itself kept it from running.
const CANNOT_START: u8 = 125;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(arguments) => run(&arguments),
        Command::Replay(arguments) => replay::replay(&arguments),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            eprintln!("vellum: {}", failure.message);
            ExitCode::from(failure.status)
        }
    }
}

/// Why the program did not run, in one line, and the exit status that says so.
struct Failure {
    status: u8,
    message: String,
}

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Self {
            status: CANNOT_START,
            message: message.into(),
        }
    }
}

fn run(arguments: &RunArgs) -> Result<u8, Failure> {
    // Opened first: a path that cannot be written must not cost a whole run.
    let report = report::Target::open(arguments)?;
    let trace = trace::JsonLines::open(arguments)?;
    let facts = engine::run(arguments, trace)?;
    report.write(&facts)?;
    Ok(facts.exit.status())
}
