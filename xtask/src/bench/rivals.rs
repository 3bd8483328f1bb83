//! `cargo xtask bench rivals`: the core's allocators beside others.
//!
//! The program is a workspace of its own, `benches/rivals`, so that nobody else needs what it uses.

use crate::workspace;
use std::process::Command;

/// Builds it and lets it print its tables.
pub(crate) fn run(words: &[&str]) -> Result<(), String> {
    let status = Command::new(env!("CARGO"))
        .current_dir(workspace::root().join("benches/rivals"))
        .args(["run", "--release", "--quiet", "--bin", "rivals", "--"])
        .args(words)
        .status()
        .map_err(|error| format!("cargo: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("bench rivals: {status}"))
    }
}
