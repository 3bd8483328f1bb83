//! A newcomer must be able to read what a crate is for before reading its code.

use super::Findings;
use crate::workspace::{self, Package};
use std::fs;

/// The least length of the story at the head of `lib.rs`, in lines.
const STORY_LINES: usize = 15;

/// Each library begins with a story.
pub(crate) fn openings(packages: &[Package]) -> Findings {
    let mut findings = Findings::default();
    for package in packages {
        let lib = package.dir.join("src/lib.rs");
        let Ok(text) = fs::read_to_string(&lib) else {
            continue;
        };
        let lines = text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .count();
        if lines < STORY_LINES {
            findings.error(format!(
                "{}: opens with {lines} lines of `//!`; at least {STORY_LINES} should say what the \
                 crate is for, its layer, concepts, invariants, locks, failure, and what it does \
                 not do",
                workspace::relative(&lib)
            ));
        }
    }
    findings
}

/// The code map names each crate with its layer.
pub(crate) fn code_map(packages: &[Package]) -> Findings {
    let mut findings = Findings::default();
    let path = workspace::root().join("docs/ARCHITECTURE.md");
    let text = fs::read_to_string(&path).unwrap_or_default();
    for package in packages {
        let folder = workspace::relative(&package.dir);
        let layer = package
            .layer
            .map(|layer| layer.to_string())
            .unwrap_or_default();
        let row = text
            .lines()
            .find(|line| line.starts_with(&format!("| `{folder}` |")));
        match row {
            None => findings.error(format!("docs/ARCHITECTURE.md: no row for `{folder}`")),
            Some(row) if !row.contains(&format!("| {layer} |")) => findings.error(format!(
                "docs/ARCHITECTURE.md: `{folder}` is at layer {layer}, the row says otherwise"
            )),
            Some(_) => {}
        }
    }
    findings
}
