//! `cargo xtask fuzz [TARGET] [--seconds N]`: inputs that a fuzzer makes.
//!
//! libFuzzer with coverage counters, on the stable compiler: the counters are a pass of LLVM that
//! `-C passes` names, as cargo-fuzz does it. What cargo-fuzz adds and stable lacks is the address
//! sanitizer.

use crate::workspace;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Coverage at each edge, and the operands of comparisons.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Cllvm-args=-simplifycfg-branch-fold-threshold=0";

/// Seconds for each target, where none are asked for.
const SECONDS: u64 = 7;
/// The longest input.
const MAX_LEN: &str = "1024";

/// Fuzzes one target, or each in turn.
pub(crate) fn run(words: &[&str]) -> Result<(), String> {
    let folder = workspace::root().join("fuzz");
    let targets = targets(&folder)?;
    let mut seconds = SECONDS;
    let mut chosen = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--seconds" => {
                let text = words.next().copied().unwrap_or_default();
                seconds = text
                    .parse()
                    .map_err(|_| format!("--seconds {text}: a number is needed"))?;
            }
            name if targets.iter().any(|target| target == name) => chosen.push(name.to_string()),
            name => return Err(format!("fuzz: no target {name:?}; {}", targets.join(", "))),
        }
    }
    if chosen.is_empty() {
        chosen = targets;
    }
    if !has("c++") {
        println!("fuzz: skipped, no C++ compiler for libFuzzer (random inputs are still run)");
        return replay(&folder);
    }
    let programs = build(&folder)?;
    for target in &chosen {
        fuzz(&folder, &programs.join(target), target, seconds)?;
    }
    Ok(())
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

/// The programs, by the files that they are made of.
fn targets(folder: &Path) -> Result<Vec<String>, String> {
    let entries = std::fs::read_dir(folder.join("fuzz_targets"))
        .map_err(|error| format!("fuzz/fuzz_targets: {error}"))?;
    let mut names: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_str()?.to_string()))
        .collect();
    names.sort();
    Ok(names)
}

/// Random inputs without a fuzzer.
fn replay(folder: &Path) -> Result<(), String> {
    let status = Command::new(env!("CARGO"))
        .current_dir(folder)
        .args(["test", "--release", "--no-default-features"])
        .status()
        .map_err(|error| format!("cargo: {error}"))?;
    status
        .success()
        .then_some(())
        .ok_or_else(|| "fuzz: the random inputs failed".to_string())
}

/// Builds all of them; returns where they are.
fn build(folder: &Path) -> Result<PathBuf, String> {
    let target_dir = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => PathBuf::from(dir).join("fuzz"),
        None => folder.join("target"),
    };
    let triple = host_triple()?;
    let status = Command::new(env!("CARGO"))
        .current_dir(folder)
        .env("RUSTFLAGS", FLAGS)
        .env("CARGO_TARGET_DIR", &target_dir)
        // With a target named, the flags are not for build scripts.
        .args(["build", "--release", "--bins", "--target", &triple])
        .status()
        .map_err(|error| format!("cargo: {error}"))?;
    if !status.success() {
        return Err("fuzz: the targets do not build".to_string());
    }
    Ok(target_dir.join(triple).join("release"))
}

fn host_triple() -> Result<String, String> {
    let output = Command::new("rustc")
        .arg("-vV")
        .output()
        .map_err(|error| format!("rustc: {error}"))?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(|line| Some(line.strip_prefix("host: ")?.to_string()))
        .ok_or_else(|| "rustc names no host".to_string())
}

fn fuzz(folder: &Path, program: &Path, target: &str, seconds: u64) -> Result<(), String> {
    let corpus = folder.join("corpus").join(target);
    let kept = folder.join("regressions").join(target);
    let found = folder.join("artifacts").join(target);
    for path in [&corpus, &found] {
        std::fs::create_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let mut command = Command::new(program);
    command
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={MAX_LEN}"))
        .arg(format!("-artifact_prefix={}/", found.display()))
        // Long histories from the start: short ones find little here.
        .arg("-len_control=0")
        .args(["-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1"])
        .arg("-verbosity=0")
        .arg(&corpus);
    if kept.exists() {
        command.arg(&kept);
    }
    let output = command
        .output()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let stat = |name: &str| {
        let line = text.lines().find(|line| line.contains(name));
        line.and_then(|line| line.rsplit_once(' '))
            .map_or("?", |found| found.1)
            .to_string()
    };
    let files = std::fs::read_dir(&corpus).map_or(0, Iterator::count);
    println!(
        "fuzz: {target:12} {:>8} inputs in {seconds} s, {files} kept for their coverage",
        stat("number_of_executed_units")
    );
    if output.status.success() {
        return Ok(());
    }
    eprintln!("{text}");
    Err(format!(
        "fuzz: {target} failed; the input is in {}",
        workspace::relative(&found)
    ))
}
