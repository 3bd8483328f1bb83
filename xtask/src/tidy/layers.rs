//! An arrow between two crates may only go down.

use super::Findings;
use crate::workspace::{self, Package};
use std::collections::HashMap;
use std::process::Command;

/// What core crates may use besides each other: small, `no_std`, without allocation.
const CORE_MAY_USE: &[&str] = &["bitflags", "lock_api"];

const BARE_TARGET: &str = "x86_64-unknown-none";

/// Each dependency within the workspace has a lower layer than its user.
pub(crate) fn arrows(packages: &[Package]) -> Findings {
    let mut findings = Findings::default();
    let layers: HashMap<&str, u64> = packages
        .iter()
        .filter_map(|p| Some((p.name.as_str(), p.layer?)))
        .collect();
    for package in packages {
        let Some(layer) = package.layer else {
            findings.error(format!(
                "{}: Cargo.toml has no `[package.metadata.vellum] layer`",
                package.name
            ));
            continue;
        };
        for dependency in &package.inner {
            match layers.get(dependency.as_str()) {
                Some(lower) if *lower < layer => {}
                Some(other) => findings.error(format!(
                    "{} (layer {layer}) uses {dependency} (layer {other}): arrows go strictly \
                     down; move the shared part below both, or turn the call into a trait that \
                     the lower crate owns",
                    package.name
                )),
                None => findings.error(format!(
                    "{} uses {dependency}, which has no layer",
                    package.name
                )),
            }
        }
    }
    findings
}

/// Core crates are `no_std`, without a heap of the host and without foreign crates that need one.
pub(crate) fn hostless(packages: &[Package]) -> Findings {
    let mut findings = Findings::default();
    for package in packages.iter().filter(|package| package.is_core()) {
        let lib = package.dir.join("src/lib.rs");
        let text = std::fs::read_to_string(&lib).unwrap_or_default();
        if !text.lines().any(|line| line.trim() == "#![no_std]") {
            findings.error(format!("{}: no `#![no_std]`", workspace::relative(&lib)));
        }
        for name in &package.outer {
            if !CORE_MAY_USE.contains(&name.as_str()) {
                findings.error(format!(
                    "{}: uses {name}; a core crate may use {CORE_MAY_USE:?} and its own kind",
                    package.name
                ));
            }
        }
        for source in workspace::files(&package.dir.join("src"), &[".rs"]) {
            let mut before = "";
            for (number, line) in source.without_tests().lines().enumerate() {
                let code = line.trim();
                let hosted = code.starts_with("extern crate alloc")
                    || code.starts_with("extern crate std") && !before.starts_with("#[cfg(");
                if hosted {
                    findings.error(format!(
                        "{}:{}: `{code}` outside of tests and optional features",
                        workspace::relative(&source.path),
                        number + 1
                    ));
                }
                before = code;
            }
        }
    }
    findings
}

/// Builds the core for a target that has no `std` at all, where that target is installed.
pub(crate) fn build_without_std(packages: &[Package]) -> Result<(), String> {
    let installed = Command::new("rustup")
        .args(["target", "list", "--installed"])
        .output()
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(BARE_TARGET));
    if !installed {
        println!(
            "tidy: build without std: skipped, target {BARE_TARGET} is not installed (the \
             `#![no_std]` lines were checked)"
        );
        return Ok(());
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .current_dir(workspace::root())
        .args(["build", "--quiet", "--target", BARE_TARGET]);
    for package in packages.iter().filter(|package| package.is_core()) {
        cargo.args(["-p", &package.name]);
    }
    match cargo.status() {
        Ok(status) if status.success() => {
            println!("tidy: build without std: ok");
            Ok(())
        }
        _ => Err(format!("tidy: the core does not build for {BARE_TARGET}")),
    }
}
