//! What the checks look at: the packages of the workspace and their source files.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One package of the workspace.
pub(crate) struct Package {
    /// Its name in `Cargo.toml`.
    pub(crate) name: String,
    /// Its folder.
    pub(crate) dir: PathBuf,
    /// `[package.metadata.vellum] layer`.
    pub(crate) layer: Option<u64>,
    /// Ordinary dependencies on packages of the workspace.
    pub(crate) inner: Vec<String>,
    /// Ordinary dependencies on anything else.
    pub(crate) outer: Vec<String>,
}

impl Package {
    /// True for a crate under `crates/`: the part that must run without a host.
    pub(crate) fn is_core(&self) -> bool {
        self.dir
            .parent()
            .is_some_and(|parent| parent.ends_with("crates"))
    }

    /// The name of its folder, as the documents call it.
    pub(crate) fn short_name(&self) -> String {
        self.dir
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    }
}

/// One source file.
pub(crate) struct Source {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// What is in it.
    pub(crate) text: String,
}

impl Source {
    /// The text without the unit tests at its end; empty for a file of tests alone.
    pub(crate) fn without_tests(&self) -> &str {
        let is_test_file = self.path.file_stem().is_some_and(|stem| {
            let stem = stem.to_string_lossy();
            stem == "tests" || stem.ends_with("_tests") || stem == "model"
        }) || self
            .path
            .components()
            .any(|part| part.as_os_str() == "tests");
        if is_test_file {
            return "";
        }
        let mut offset = 0;
        let mut pending: Option<usize> = None;
        for line in self.text.split_inclusive('\n') {
            let trimmed = line.trim();
            if let Some(start) = pending {
                if trimmed.starts_with("mod ") && trimmed.ends_with('{') {
                    return &self.text[..start];
                }
                if !trimmed.starts_with("#[") {
                    pending = None;
                }
            }
            if trimmed.starts_with("#[cfg(test)]") || trimmed.starts_with("#[cfg(all(test") {
                pending = Some(offset);
            }
            offset += line.len();
        }
        &self.text
    }
}

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask has a parent")
        .to_path_buf()
}

/// All packages of the workspace, by layer.
pub(crate) fn packages() -> Result<Vec<Package>, String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root())
        .output()
        .map_err(|error| format!("cargo metadata: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("cargo metadata: {error}"))?;
    let list = metadata["packages"]
        .as_array()
        .ok_or("cargo metadata: no packages")?;
    let mut packages: Vec<Package> = list.iter().filter_map(package).collect();
    packages.sort_by_key(|package| (package.layer, package.name.clone()));
    Ok(packages)
}

fn package(value: &Value) -> Option<Package> {
    let dir = Path::new(value["manifest_path"].as_str()?)
        .parent()?
        .to_path_buf();
    let (mut inner, mut outer) = (Vec::new(), Vec::new());
    for dependency in value["dependencies"].as_array()? {
        if !dependency["kind"].is_null() {
            continue;
        }
        let name = dependency["name"].as_str()?.to_string();
        if dependency["path"].is_string() {
            inner.push(name);
        } else {
            outer.push(name);
        }
    }
    Some(Package {
        name: value["name"].as_str()?.to_string(),
        dir,
        layer: value["metadata"]["vellum"]["layer"].as_u64(),
        inner,
        outer,
    })
}

/// All files under `dir` whose name ends in one of `extensions`, in a stable order. Build output
/// and version control are left out.
pub(crate) fn files(dir: &Path, extensions: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    collect(dir, extensions, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn collect(dir: &Path, extensions: &[&str], found: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if path.is_dir() {
            if name != "target" && name != ".git" && name != "proptest-regressions" {
                collect(&path, extensions, found);
            }
        } else if extensions.iter().any(|extension| name.ends_with(extension))
            && let Ok(text) = fs::read_to_string(&path)
        {
            found.push(Source { path, text });
        }
    }
}

/// `path` as seen from the root of the workspace.
pub(crate) fn relative(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}
