//! `cargo xtask bench core`: operations of the core alone, in nanoseconds and in instructions.
//!
//! The program `bench-core` does the operations on a machine whose hooks do nothing and whose frames
//! need no zeroing. Instructions are counted by callgrind: one run prepares only, one prepares and
//! operates; the difference, divided by the number of operations, is exact and the same on every run.

use super::measure;
use crate::workspace;
use std::process::Command;

struct Row {
    name: String,
    nanoseconds: f64,
    instructions: Option<f64>,
}

/// The benchmark.
pub(crate) fn run(words: &[&str]) -> Result<(), String> {
    let markdown = match words {
        [] => false,
        ["--markdown"] => true,
        _ => return Err("bench core takes --markdown and nothing else".to_string()),
    };
    let program = super::build(&["-p", "xtask", "--features", "core", "--bin", "bench-core"])?;
    let callgrind = measure::find("valgrind").is_some();
    if !callgrind {
        eprintln!("valgrind is not installed: no instruction counts");
    }
    let mut rows = Vec::new();
    for line in output(Command::new(&program).arg("list"))?.lines() {
        let Some((count, name)) = line.split_once('\t') else {
            continue;
        };
        let count: f64 = count
            .parse()
            .map_err(|_| format!("bench-core said: {line}"))?;
        eprintln!("{name} …");
        let time = output(Command::new(&program).args(["time", name]))?;
        let nanoseconds = time
            .trim()
            .parse()
            .map_err(|_| format!("bench-core said: {time}"))?;
        let instructions = if callgrind {
            let whole = instructions(&program, "run", name)?;
            Some((whole - instructions(&program, "prepare", name)?) / count)
        } else {
            None
        };
        rows.push(Row {
            name: name.to_string(),
            nanoseconds,
            instructions,
        });
    }
    if markdown {
        println!("| operation | ns | instructions |\n|---|--:|--:|");
    }
    for Row {
        name,
        nanoseconds,
        instructions,
    } in rows
    {
        let count = instructions.map_or("–".to_string(), |count| format!("{count:.0}"));
        if markdown {
            println!("| {name} | {nanoseconds:.0} | {count} |");
        } else {
            println!("{name:36} {nanoseconds:8.0} ns {count:>8} instructions");
        }
    }
    Ok(())
}

/// What callgrind says at its end: `==PID== Collected : N`.
fn instructions(program: &str, what: &str, name: &str) -> Result<f64, String> {
    let result = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            program,
            what,
            name,
        ])
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let text = String::from_utf8_lossy(&result.stderr);
    text.lines()
        .find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok())
        .ok_or_else(|| format!("valgrind said: {text}"))
}

fn output(command: &mut Command) -> Result<String, String> {
    let result = command
        .current_dir(workspace::root())
        .output()
        .map_err(|e| e.to_string())?;
    if result.status.success() {
        Ok(String::from_utf8_lossy(&result.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&result.stderr).into_owned())
    }
}
