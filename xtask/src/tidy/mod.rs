//! Rules of the project that the compiler does not know.
//!
//! Each rule is a function from the packages to a [`Findings`]; each finding names a file, a line
//! and what to do about it.

mod files;
mod hosts;
mod layers;
mod stories;
mod unsafe_code;
mod vmstat;

use crate::workspace::{self, Package};

/// What a rule found.
#[derive(Default)]
pub(crate) struct Findings {
    /// Must be mended.
    pub(crate) errors: Vec<String>,
    /// Should be looked at.
    pub(crate) warnings: Vec<String>,
}

impl Findings {
    fn error(&mut self, message: impl Into<String>) {
        self.errors.push(message.into());
    }

    fn warning(&mut self, message: impl Into<String>) {
        self.warnings.push(message.into());
    }
}

type Rule = fn(&[Package]) -> Findings;

/// The rules, with the names under which they are reported.
const RULES: &[(&str, Rule)] = &[
    ("layers go strictly down", layers::arrows),
    ("core crates need no host", layers::hostless),
    ("each crate tells its story", stories::openings),
    ("docs/ARCHITECTURE.md names each crate", stories::code_map),
    ("files are short", files::length),
    ("nothing is left for later", files::leftovers),
    ("no state outside values", files::statics),
    ("unsafe code is answered for", unsafe_code::comments),
    ("every counter counts", vmstat::counted),
    ("no machine of a developer is named", hosts::names),
];

/// `cargo xtask tidy`.
pub(crate) fn run() -> Result<(), String> {
    let packages = workspace::packages()?;
    let mut errors = 0;
    for (name, rule) in RULES {
        let findings = rule(&packages);
        println!(
            "tidy: {name}: {}",
            if findings.errors.is_empty() {
                "ok"
            } else {
                "FAILED"
            }
        );
        for message in &findings.warnings {
            println!("  warning: {message}");
        }
        for message in &findings.errors {
            println!("  error: {message}");
        }
        errors += findings.errors.len();
    }
    layers::build_without_std(&packages)?;
    unsafe_code::print_counts(&packages);
    if errors == 0 {
        Ok(())
    } else {
        Err(format!("tidy: {errors} errors"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str) {
        let packages = workspace::packages().expect("cargo metadata works");
        let (_, rule) = RULES
            .iter()
            .find(|(rule, _)| *rule == name)
            .expect("the rule exists");
        let errors = rule(&packages).errors;
        assert!(errors.is_empty(), "{name}:\n{}", errors.join("\n"));
    }

    #[test]
    fn layers_go_strictly_down() {
        check("layers go strictly down");
    }

    #[test]
    fn core_crates_need_no_host() {
        check("core crates need no host");
    }

    #[test]
    fn each_crate_tells_its_story() {
        check("each crate tells its story");
    }

    #[test]
    fn the_code_map_names_each_crate() {
        check("docs/ARCHITECTURE.md names each crate");
    }

    #[test]
    fn nothing_is_left_for_later() {
        check("nothing is left for later");
    }

    #[test]
    fn unsafe_code_is_answered_for() {
        check("unsafe code is answered for");
    }

    #[test]
    fn every_counter_counts() {
        check("every counter counts");
    }
}
