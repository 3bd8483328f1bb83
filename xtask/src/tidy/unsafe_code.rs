//! Unsafe code: where it may be, and that each use says why it is sound.

use super::Findings;
use crate::workspace::{self, Package};

/// Crates of pure policy: they decide, and others touch memory.
const FORBIDDEN: &[&str] = &[
    "types",
    "memblock",
    "vma",
    "collections",
    "page-cache",
    "mm",
    "system",
];

/// Lines of code that may stand between a `SAFETY` comment and its block, the block's own
/// beginning included: a statement may be broken over lines.
const REACH: usize = 3;

/// Policy crates forbid unsafe code; elsewhere each block and impl has a `SAFETY` comment.
pub(crate) fn comments(packages: &[Package]) -> Findings {
    let mut findings = Findings::default();
    for package in packages {
        let forbidden = package.is_core() && FORBIDDEN.contains(&package.short_name().as_str());
        if forbidden {
            let lib = package.dir.join("src/lib.rs");
            let text = std::fs::read_to_string(&lib).unwrap_or_default();
            if !text.contains("#![forbid(unsafe_code)]") {
                findings.error(format!(
                    "{}: a policy crate says `#![forbid(unsafe_code)]`",
                    workspace::relative(&lib)
                ));
            }
        }
        for source in workspace::files(&package.dir, &[".rs"]) {
            let lines: Vec<&str> = source.text.lines().collect();
            for (at, line) in lines.iter().enumerate() {
                if !opens_unsafe(line) {
                    continue;
                }
                let place = format!("{}:{}", workspace::relative(&source.path), at + 1);
                if forbidden && source.path.starts_with(package.dir.join("src")) {
                    findings.error(format!("{place}: unsafe code in a policy crate"));
                } else if !is_answered(&lines, at) {
                    findings.error(format!("{place}: no `// SAFETY:` comment above"));
                }
            }
        }
    }
    findings
}

/// True if `line` begins an unsafe block or impl. Declarations of unsafe functions are the
/// compiler's and clippy's business.
fn opens_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or("");
    code.contains(concat!("unsafe", " {")) || code.contains(concat!("unsafe", " impl"))
}

fn is_answered(lines: &[&str], at: usize) -> bool {
    let mut code_lines = 0;
    for line in lines[..at].iter().rev() {
        let text = line.trim();
        if text.starts_with("//") {
            if text.contains("SAFETY:") {
                return true;
            }
        } else if !text.starts_with("#[") {
            code_lines += 1;
            if code_lines > REACH {
                return false;
            }
        }
    }
    false
}

/// Prints how many unsafe blocks and impls each crate has, so that growth is seen.
pub(crate) fn print_counts(packages: &[Package]) {
    println!("tidy: unsafe blocks and impls per crate, tests included:");
    for package in packages {
        let count: usize = workspace::files(&package.dir, &[".rs"])
            .iter()
            .map(|source| {
                source
                    .text
                    .lines()
                    .filter(|line| opens_unsafe(line))
                    .count()
            })
            .sum();
        println!("  {:20} {count:4}", workspace::relative(&package.dir));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_reaches_over_a_broken_statement() {
        let block = concat!("    unsafe", " { f() }");
        let near = ["// SAFETY: long since", "// checked.", "let x =", block];
        assert!(is_answered(&near, 3));
        let far = ["// SAFETY: another", "a;", "b;", "c;", "d;", block];
        assert!(!is_answered(&far, 5));
        assert!(opens_unsafe(block));
        assert!(!opens_unsafe("// an unsafe { in a comment"));
    }
}
