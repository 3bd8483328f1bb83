//! `cargo xtask bench core`: operations of the core alone, in instructions and in nanoseconds.
//!
//! The program `core-ops` does one operation N times on a machine whose hooks do nothing and whose
//! frames need no zeroing. The difference of two runs, divided by the difference of their N, is what
//! one operation costs. Instructions are counted by callgrind and are the same on every run.

use super::{check, measure};
use crate::workspace;
use std::process::Command;
use std::time::Instant;

/// N of the two runs whose instructions are compared.
const COUNTED: (u32, u32) = (1000, 3000);
/// N of the two runs whose times are compared; the best of several.
const TIMED: (u32, u32) = (2000, 402_000);
const TIMED_RUNS: usize = 5;

/// The benchmark.
pub(crate) fn run(words: &[&str]) -> Result<(), String> {
    let markdown = match words {
        [] | ["--check" | "--record"] => false,
        ["--markdown"] => true,
        _ => return Err("bench core takes one of --markdown, --check, --record".to_string()),
    };
    let program = super::build(&["-p", "vellum-benches", "--bin", "core-ops"])?;
    let callgrind = measure::find("valgrind").is_some();
    if !callgrind {
        println!("valgrind is not installed: no instruction counts");
    }
    match words {
        ["--check" | "--record"] if !callgrind => return Ok(()),
        ["--check"] => return check::check(&program),
        ["--record"] => return check::record(&program),
        _ => {}
    }
    if markdown {
        println!("| operation | | instructions | ns |\n|---|---|--:|--:|");
    }
    for (name, what) in operations(&program)? {
        let count = if callgrind {
            format!("{:.0}", count(&program, &name)?)
        } else {
            "–".to_string()
        };
        let time = nanoseconds(&program, &name)?;
        if markdown {
            println!("| `{name}` | {what} | {count} | {time:.0} |");
        } else {
            println!("{name:22} {count:>8} instructions {time:8.0} ns   {what}");
        }
    }
    Ok(())
}

/// Instructions of one operation.
pub(super) fn count(program: &str, name: &str) -> Result<f64, String> {
    let (few, many) = COUNTED;
    let difference = instructions(program, name, many)? - instructions(program, name, few)?;
    Ok(difference / f64::from(many - few))
}

/// Names and descriptions, as the program lists them when it is called without arguments.
fn operations(program: &str) -> Result<Vec<(String, String)>, String> {
    let output = Command::new(program)
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let list: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split_once(' '))
        .map(|(name, what)| (name.to_string(), what.trim().to_string()))
        .collect();
    if list.is_empty() {
        Err(format!("core-ops said: {text}"))
    } else {
        Ok(list)
    }
}

/// What callgrind says at its end: `==PID== Collected : N`.
fn instructions(program: &str, name: &str, count: u32) -> Result<f64, String> {
    let result = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            program,
            name,
        ])
        .arg(count.to_string())
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let text = String::from_utf8_lossy(&result.stderr);
    text.lines()
        .find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok())
        .ok_or_else(|| format!("valgrind said: {text}"))
}

fn nanoseconds(program: &str, name: &str) -> Result<f64, String> {
    let (few, many) = TIMED;
    let (mut short, mut long) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..TIMED_RUNS {
        short = short.min(seconds(program, name, few)?);
        long = long.min(seconds(program, name, many)?);
    }
    Ok((long - short) / f64::from(many - few) * 1e9)
}

fn seconds(program: &str, name: &str, count: u32) -> Result<f64, String> {
    let mut command = Command::new(program);
    command
        .current_dir(workspace::root())
        .args([name, &count.to_string()]);
    let start = Instant::now();
    let status = command
        .status()
        .map_err(|error| format!("{program}: {error}"))?;
    let elapsed = start.elapsed().as_secs_f64();
    if status.success() {
        Ok(elapsed)
    } else {
        Err(format!("core-ops {name}: {status}"))
    }
}
