//! `scenario-run FILE...`: runs scenarios by real system calls. Natively it tells what Linux does;
//! under `vellum run` it tells whether the core does the same.

use std::process::ExitCode;
use vellum_testkit::native::Native;
use vellum_testkit::{Scenario, Shortage, run};

fn one(path: &str) -> Result<usize, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let scenario = Scenario::parse(&text).map_err(|error| error.to_string())?;
    let mut native = Native::start().map_err(|error| error.to_string())?;
    run(&scenario, &mut native, Shortage::Forbidden).map_err(|error| error.to_string())?;
    Ok(scenario.statements.len())
}

fn main() -> ExitCode {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    if paths.is_empty() {
        eprintln!("usage: scenario-run FILE...");
        return ExitCode::from(2);
    }
    let mut failed = 0;
    for path in &paths {
        match one(path) {
            Ok(lines) => println!("ok   {path} ({lines} lines)"),
            Err(error) => {
                failed += 1;
                println!("FAIL {path}: {error}");
            }
        }
    }
    println!(
        "{} of {} scenarios went as written",
        paths.len() - failed,
        paths.len()
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
