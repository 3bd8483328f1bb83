//! The project must build anywhere, so it names no machine in particular.

use super::Findings;
use crate::workspace::{self, Package};

/// Paths that exist on one developer's machine only.
const PRIVATE: &[&str] = &[
    concat!("/ro", "ot/"),
    concat!("/wo", "rk/"),
    concat!("/tmp/", "target-"),
    concat!("/ho", "me/"),
];

/// The only registry that a lock file or a cargo setting may name.
const REGISTRY: &str = "https://github.com/rust-lang/crates.io-index";

/// No private path, no private registry.
pub(crate) fn names(_packages: &[Package]) -> Findings {
    let mut findings = Findings::default();
    let extensions = [
        ".rs", ".toml", ".md", ".lock", ".py", ".sh", ".c", ".txt", "run",
    ];
    for source in workspace::files(&workspace::root(), &extensions) {
        let path = workspace::relative(&source.path);
        for (number, line) in source.text.lines().enumerate() {
            for word in PRIVATE {
                if line.contains(word) {
                    findings.error(format!("{path}:{}: names `{word}`", number + 1));
                }
            }
            let registry = line.contains("registry+") || line.contains("replace-with");
            if registry && !line.contains(REGISTRY) && !path.starts_with("xtask/") {
                findings.error(format!("{path}:{}: names a private registry", number + 1));
            }
        }
    }
    findings
}
