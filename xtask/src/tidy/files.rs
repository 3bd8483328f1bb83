//! The shape of source files.

use super::Findings;
use crate::workspace::{self, Package};

const WARN_LINES: usize = 400;
const MAX_LINES: usize = 600;

/// State outside of values that is allowed, as file and name. The one entry is the record of the
/// lock-order check, which is compiled into test builds only.
const ALLOWED_STATICS: &[(&str, &str)] = &[("crates/machine/src/lock.rs", "HELD")];

/// A file holds one noun and can be read in one sitting.
pub(crate) fn length(packages: &[Package]) -> Findings {
    let mut findings = Findings::default();
    for package in packages {
        for source in workspace::files(&package.dir, &[".rs"]) {
            let lines = source.text.lines().count();
            let path = workspace::relative(&source.path);
            if lines > MAX_LINES {
                findings.error(format!(
                    "{path}: {lines} lines, the limit is {MAX_LINES}: split it"
                ));
            } else if lines > WARN_LINES {
                findings.warning(format!("{path}: {lines} lines, more than {WARN_LINES}"));
            }
        }
    }
    findings
}

/// No stub, no note to self, no test that is switched off.
pub(crate) fn leftovers(packages: &[Package]) -> Findings {
    // Put together here so that this file does not find itself.
    let words = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("TO", "DO"),
        concat!("#[", "ignore"),
    ];
    let mut findings = Findings::default();
    for package in packages {
        for source in workspace::files(&package.dir, &[".rs", ".toml", ".py", ".sh", ".c"]) {
            for (number, line) in source.text.lines().enumerate() {
                for word in words {
                    // Templates such as mkstemp's have more than three of the same letter.
                    let template = line.contains(concat!("XX", "XX"));
                    if line.contains(word) && !template {
                        findings.error(format!(
                            "{}:{}: `{word}`: finish it, or describe it in the documents as not \
                             there",
                            workspace::relative(&source.path),
                            number + 1
                        ));
                    }
                }
            }
        }
    }
    findings
}

/// Core crates keep no state in statics: many systems live in one process.
pub(crate) fn statics(packages: &[Package]) -> Findings {
    let mut findings = Findings::default();
    for package in packages.iter().filter(|package| package.is_core()) {
        for source in workspace::files(&package.dir.join("src"), &[".rs"]) {
            let path = workspace::relative(&source.path);
            for (number, line) in source.without_tests().lines().enumerate() {
                let Some(name) = static_name(line) else {
                    continue;
                };
                if !ALLOWED_STATICS.contains(&(path.as_str(), name)) {
                    findings.error(format!(
                        "{path}:{}: static `{name}`: state belongs to a value that hangs off the \
                         system",
                        number + 1
                    ));
                }
            }
        }
    }
    findings
}

fn static_name(line: &str) -> Option<&str> {
    let code = line.trim();
    let code = match code.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(") ")?.1,
        Some(rest) => rest.trim_start(),
        None => code,
    };
    let rest = code.strip_prefix("static ")?;
    let rest = rest.strip_prefix("mut ").unwrap_or(rest);
    rest.split([':', ' ']).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statics_are_recognised() {
        assert_eq!(static_name("    static HELD: u8 = 1;"), Some("HELD"));
        assert_eq!(static_name("pub(crate) static mut A: u8 = 1;"), Some("A"));
        assert_eq!(static_name("pub static B: u8 = 1;"), Some("B"));
        assert_eq!(static_name("fn f(x: &'static str) {}"), None);
    }
}
