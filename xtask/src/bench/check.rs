//! `cargo xtask bench core --check` and `--record`: nobody makes a hot path longer without noticing.
//!
//! `benches/instructions.txt` has the instruction counts of the operations that are looked at. They are
//! exact for one compiler, so the file says which; with another one there is nothing to compare.

use super::core;
use crate::workspace;
use std::path::PathBuf;
use std::process::Command;

/// By how much a count may grow.
const TOLERANCE: f64 = 0.03;
/// Instructions that do not count as growth: a third percent of a short path is none.
const SLACK: f64 = 1.0;

/// What is looked at when counts are recorded.
const WATCHED: &[&str] = &[
    "alloc-free-page",
    "alloc-free-bulk",
    "alloc-free-order3",
    "alloc-free-order9",
    "kmem-cache",
    "kmem-cache-miss",
    "kmalloc",
    "vmalloc-vfree-4k",
    "vmalloc-vfree-1m",
    "fault-anon-write",
];

fn file() -> PathBuf {
    workspace::root().join("benches/instructions.txt")
}

fn compiler() -> Result<String, String> {
    let output = Command::new("rustc")
        .arg("--version")
        .output()
        .map_err(|error| format!("rustc: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
}

/// Writes the counts of now.
pub(crate) fn record(program: &str) -> Result<(), String> {
    let mut text = format!(
        "# Instructions of one operation: cargo xtask bench core --record\n# {}\n",
        compiler()?
    );
    for name in WATCHED {
        let count = core::count(program, name)?;
        text += &format!("{name} {count:.1}\n");
        println!("{name:22} {count:>9.1}");
    }
    std::fs::write(file(), text).map_err(|error| format!("benches/instructions.txt: {error}"))
}

/// Compares the counts of now with those that were recorded.
///
/// # Errors
/// One of them grew by more than the tolerance.
pub(crate) fn check(program: &str) -> Result<(), String> {
    let text = std::fs::read_to_string(file())
        .map_err(|error| format!("benches/instructions.txt: {error}"))?;
    let now = compiler()?;
    let mut recorded = text.lines().filter_map(|line| line.strip_prefix("# "));
    let with = recorded.next_back().unwrap_or_default();
    if with != now {
        println!("bench core --check: skipped, recorded with {with}, this is {now}");
        return Ok(());
    }
    let mut grown = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, Ok(before))) = line.split_once(' ').map(|(n, c)| (n, c.parse::<f64>()))
        else {
            return Err(format!("benches/instructions.txt: {line:?} is no count"));
        };
        let count = core::count(program, name)?;
        let verdict = if count > before * (1.0 + TOLERANCE) + SLACK {
            grown.push(name.to_string());
            "LONGER"
        } else if count < before * (1.0 - TOLERANCE) - SLACK {
            "shorter: record it"
        } else {
            "ok"
        };
        println!("{name:22} {before:>9.1} {count:>9.1}  {verdict}");
    }
    if grown.is_empty() {
        Ok(())
    } else {
        Err(format!(
            "bench core --check: more than {:.0} % longer: {}",
            TOLERANCE * 100.0,
            grown.join(", ")
        ))
    }
}
