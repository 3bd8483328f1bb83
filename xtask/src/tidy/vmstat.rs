//! A counter that nothing increments says zero, which is worse than saying nothing.

use super::Findings;
use crate::workspace::{self, Package};
use std::fs;

/// Each variant of `VmEvent` and `VmItem` is used by code that is neither a test nor a mere reader.
pub(crate) fn counted(packages: &[Package]) -> Findings {
    let mut findings = Findings::default();
    let path = workspace::root().join("crates/machine/src/vmstat.rs");
    let declared = fs::read_to_string(&path).unwrap_or_default();
    let sources: Vec<_> = packages
        .iter()
        .filter(|package| package.layer.is_some_and(|layer| layer < 10))
        .flat_map(|package| workspace::files(&package.dir.join("src"), &[".rs"]))
        .filter(|source| source.path != path)
        .collect();
    let names = variants(&declared);
    if names.is_empty() {
        findings.error("crates/machine/src/vmstat.rs: no counters found");
    }
    for (type_name, variant) in names {
        let full = format!("{type_name}::{variant}");
        let counted = sources.iter().any(|source| {
            let code = source.without_tests();
            // Where many are named, the type goes by one letter.
            let short = format!("E::{variant}");
            let has_short = code.contains(&format!("use {type_name} as E;"));
            code.lines().any(|line| {
                let named = mentions(line, &full) || (has_short && mentions(line, &short));
                named && !only_reads(line)
            })
        });
        if !counted {
            findings.error(format!("{full}: nothing counts it; count it or remove it"));
        }
    }
    findings
}

/// True if `line` has `full` as a whole path, not as the beginning of a longer one.
fn mentions(line: &str, full: &str) -> bool {
    line.match_indices(full).any(|(at, _)| {
        !line[at + full.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_')
    })
}

fn only_reads(line: &str) -> bool {
    line.contains(".events(") || line.contains(".item(") || line.trim().starts_with("//")
}

/// `(type, variant)` of every `Variant = "name",` inside the two `counters!` blocks.
fn variants(text: &str) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let mut current = None;
    for line in text.lines() {
        let code = line.trim();
        match code {
            "VmEvent {" => current = Some("VmEvent"),
            "VmItem {" => current = Some("VmItem"),
            "}" => current = None,
            _ => {
                if let (Some(type_name), Some((variant, rest))) = (current, code.split_once(" = "))
                    && rest.starts_with('"')
                {
                    found.push((type_name, variant.to_string()));
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_found_and_told_apart() {
        let text =
            "VmEvent {\n /// Doc.\n PgFault = \"pgfault\",\n}\nVmItem {\n NrMlock = \"x\",\n}";
        let expected = [
            ("VmEvent", "PgFault".to_string()),
            ("VmItem", "NrMlock".to_string()),
        ];
        assert_eq!(variants(text), expected);
        assert!(mentions("count(VmEvent::PgFree);", "VmEvent::PgFree"));
        assert!(!mentions("count(VmEvent::PgFreeAll);", "VmEvent::PgFree"));
    }
}
