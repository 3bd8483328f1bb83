//! The daily commands of the project: `cargo xtask tidy|ci|e2e|bench|fuzz|soak|boot`.
//!
//! ```text
//!   tidy   rules that the compiler does not know: layers, stories, unsafe code, counters, …
//!   ci     what must pass before a change is taken: format, lints, documents, tidy, tests
//!   e2e    whole programs, natively and under `vellum run`, compared
//!   boot   the kernel of machines/bare in QEMU, with a program
//!   bench  the speed of programs under `vellum run`, beside their native speed
//!   fuzz   inputs that a fuzzer makes, and random histories for hours: soak
//! ```
//!
//! Everything is ordinary Rust and `std`; nothing here is needed to build or run Vellum itself.
//! `cargo test -p xtask` runs the tidy rules as tests, so that a plain test run sees them too.

mod bench;
mod boot;
mod ci;
mod fuzz;
mod tidy;
mod workspace;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  tidy                  check the project's own rules and print the unsafe count of each crate
  ci                    fmt, clippy, doc, tidy and all tests
  e2e [--all] [NAME…]   run programs natively and under vellum, and compare
                        (--all adds the long ones; NAME selects by substring)
  bench um [OPTIONS]    measure programs under vellum against native
                        --runs N      runs of each, default 7
                        --only NAME   only the cases whose name contains NAME
                        --markdown    print the table as docs/PERFORMANCE.md has it
  boot [OPTIONS] -- PROGRAM ARGUMENTS…
                        run a static program on the kernel in QEMU; `boot --help` has the options
  bench core [--markdown | --check | --record]
                        operations of the core alone, in nanoseconds and instructions;
                        --check compares with benches/instructions.txt, --record writes it
  bench rivals [heaps] [frames] [flat] [waste] [--wall]
                        the core's allocators beside others, as ratios; all tables without a name
  bench bare [--markdown] [--append WORD] [--program PATH]
                        instructions of one operation on the kernel in QEMU, beside Linux's
  fuzz [TARGET…] [--seconds N]
                        inputs that a fuzzer makes, N seconds for each target, default 7
  soak [--minutes N]    random histories of zones and slabs; a full free gives all blocks back
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["boot", "--help"] => Err(boot::USAGE.to_string()),
        ["boot", rest @ ..] => return ended(boot::run(rest)),
        ["tidy"] => tidy::run(),
        ["ci"] => ci::run(),
        ["e2e", rest @ ..] => ci::e2e(rest),
        ["bench", "um", rest @ ..] => bench::run(rest),
        ["bench", "core", rest @ ..] => bench::core::run(rest),
        ["bench", "rivals", rest @ ..] => bench::rivals::run(rest),
        ["fuzz", rest @ ..] => fuzz::run(rest),
        ["soak", rest @ ..] => ci::soak(rest),
        ["bench", "bare", rest @ ..] => bench::bare::run(rest),
        _ => Err(USAGE.to_string()),
    };
    ended(result.map(|()| ExitCode::SUCCESS))
}

fn ended(result: Result<ExitCode, String>) -> ExitCode {
    result.unwrap_or_else(|message| {
        eprintln!("{message}");
        ExitCode::FAILURE
    })
}
