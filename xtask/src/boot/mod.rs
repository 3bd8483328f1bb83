//! `cargo xtask boot`: the kernel of `machines/bare` in QEMU, with a program in it.
//!
//! Builds the kernel, packs the program into an initramfs, runs QEMU with a time limit, and ends
//! with the program's exit status: 101 after a panic of the kernel, 124 when the time is over.

pub(crate) mod initramfs;
mod options;
pub(crate) mod qemu;
mod symbols;

use crate::workspace;
use initramfs::Initramfs;
pub(crate) use options::{Options, USAGE};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The folder of the archive and of what the kernel reports, gone with the value.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Result<Self, String> {
        let name = format!("vellum-boot-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left lies in a folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The command.
pub(crate) fn run(words: &[&str]) -> Result<ExitCode, String> {
    let options = Options::read(words)?;
    qemu::ensure(options.install)?;
    let kernel = build_kernel()?;
    let scratch = Scratch::new()?;
    let archive = pack(&options, &scratch)?;
    let end = qemu::run(&options, &kernel, archive.as_deref(), &scratch)?;
    if let Some(note) = &end.note {
        eprintln!("{note}");
    }
    Ok(ExitCode::from(end.status))
}

/// Builds the kernel; returns its path.
pub(crate) fn build_kernel() -> Result<PathBuf, String> {
    let output = Command::new(env!("CARGO"))
        .current_dir(workspace::root())
        .args([
            "build",
            "--quiet",
            "--package",
            "vellum-bare",
            "--bin",
            "vellum-kernel",
        ])
        .args(["--features", "kernel", "--profile", "kernel"])
        .args(["--message-format", "json-render-diagnostics"])
        // Settings for the host's programs have no meaning for a kernel.
        .env_remove("RUSTFLAGS")
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|error| format!("cargo: {error}"))?;
    if !output.status.success() {
        return Err("the kernel does not build".to_string());
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| Some(PathBuf::from(message["executable"].as_str()?)))
        .next_back()
        .ok_or_else(|| "cargo names no executable".to_string())
}

/// The archive with the program and what was added; `None` for the kernel's own tests.
fn pack(options: &Options, scratch: &Scratch) -> Result<Option<PathBuf>, String> {
    let Some(program) = options.program.first() else {
        return Ok(None);
    };
    let mut archive = Initramfs::default();
    let mut arguments = options.program.clone();
    // A program of the host is copied in under its name; another name is one of the added files.
    let is_added = |path: &String| {
        path.split_once('=')
            .is_some_and(|(name, _)| name == program)
    };
    if Path::new(program).is_file() && !options.added.iter().any(is_added) {
        let inside = inside(Path::new(program))?;
        archive.add_file(&inside, Path::new(program))?;
        arguments[0] = inside;
    }
    for path in &options.added {
        match path.split_once('=') {
            Some((inside, path)) => archive.add(inside, Path::new(path))?,
            None => archive.add(&inside(Path::new(path))?, Path::new(path))?,
        }
    }
    archive.add_strings("boot/arguments", &arguments);
    let mut environment = vec![
        "PATH=/bin:/sbin:/usr/bin:/".to_string(),
        "HOME=/".to_string(),
    ];
    environment.extend(options.environment.clone());
    archive.add_strings("boot/environment", &environment);
    let path = scratch.file("initramfs.cpio");
    std::fs::write(&path, archive.finish())
        .map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Some(path))
}

/// Where a file of the host is put: at the top, under its own name.
fn inside(path: &Path) -> Result<String, String> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.map(|name| format!("/{name}"))
        .ok_or_else(|| format!("{}: has no name to use in the initramfs", path.display()))
}
