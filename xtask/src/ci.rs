//! `cargo xtask ci` and `cargo xtask e2e`.

use crate::{tidy, workspace};
use std::process::Command;
use std::time::Instant;

/// What must pass before a change is taken, cheapest first.
pub(crate) fn run() -> Result<(), String> {
    cargo("format", &["fmt", "--all", "--check"], &[])?;
    cargo(
        "lints",
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
        &[],
    )?;
    cargo(
        "kernel lints",
        &[
            "clippy",
            "-p",
            "vellum-bare",
            "--features",
            "kernel",
            "--profile",
            "kernel",
            "--bin",
            "vellum-kernel",
            "--",
            "-D",
            "warnings",
        ],
        &[],
    )?;
    let strict = [("RUSTDOCFLAGS", "-D warnings")];
    cargo(
        "documents",
        &["doc", "--workspace", "--no-deps", "--quiet"],
        &strict,
    )?;
    tidy::run()?;
    cargo("tests", &["test", "--workspace"], &[])
}

/// Whole programs, natively and under `vellum run`. The harness is `cli/tests/e2e`; here it is
/// built with optimisation, which the long programs need.
pub(crate) fn e2e(rest: &[&str]) -> Result<(), String> {
    let mut arguments = vec!["test", "--release", "-p", "vellum", "--test", "e2e", "--"];
    arguments.extend_from_slice(rest);
    cargo("programs", &arguments, &[])
}

/// Random histories of zones and slabs, for minutes.
pub(crate) fn soak(words: &[&str]) -> Result<(), String> {
    let minutes: u64 = match words {
        [] => 1,
        ["--minutes", text] => text
            .parse()
            .map_err(|_| format!("--minutes {text}: a number is needed"))?,
        _ => return Err("soak takes --minutes N and nothing else".to_string()),
    };
    let seconds = (minutes * 60).to_string();
    let build = ["run", "--release", "-p", "vellum-benches", "--bin", "soak"];
    cargo("soak", &[&build[..], &["--", &seconds]].concat(), &[])
}

fn cargo(what: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<(), String> {
    println!("== {what}: cargo {}", arguments.join(" "));
    let start = Instant::now();
    let status = Command::new(env!("CARGO"))
        .current_dir(workspace::root())
        .args(arguments)
        .envs(environment.iter().copied())
        .status()
        .map_err(|error| format!("cargo: {error}"))?;
    println!("== {what}: {:.0} s", start.elapsed().as_secs_f64());
    if status.success() {
        Ok(())
    } else {
        Err(format!("{what}: failed ({status})"))
    }
}
