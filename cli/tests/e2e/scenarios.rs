//! The scenario files, by real system calls: natively and under vellum.

use crate::case::{Program, Test, check, compare};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// All files in one run, which prints a line for each.
pub(crate) fn tests() -> Vec<Test> {
    vec![check("scenarios", all).needs(&["cargo"])]
}

fn all(dir: &Path) -> Result<(), String> {
    let mut argv: Vec<OsString> = vec![scenario_run()?.into()];
    argv.extend(files()?.into_iter().map(OsString::from));
    let program = Program {
        argv,
        options: "",
        ram: "256M",
        timeout: Duration::from_secs(120),
        any_stderr: false,
        prepare: None,
    };
    compare(&program, dir).map(drop)
}

fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest
        .parent()
        .expect("the command lies in the workspace")
}

fn files() -> Result<Vec<PathBuf>, String> {
    let folder = root().join("scenarios");
    let entries = std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "scn"))
        .collect();
    files.sort();
    if files.is_empty() {
        return Err(format!("no scenario in {}", folder.display()));
    }
    Ok(files)
}

/// The program that runs them. Cargo builds only this package's own programs with its tests, so it
/// is built here, beside vellum.
fn scenario_run() -> Result<PathBuf, String> {
    let profile = Path::new(env!("CARGO_BIN_EXE_vellum")).parent();
    let target = profile
        .and_then(Path::parent)
        .expect("cargo puts programs two folders down");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--quiet", "-p", "vellum-testkit"])
        .args(["--bin", "scenario-run", "--target-dir"])
        .arg(target)
        .current_dir(root())
        .output()
        .map_err(|error| format!("cargo: {error}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(format!("scenario-run could not be built: {text}"));
    }
    Ok(target.join("debug/scenario-run"))
}
