//! `cargo xtask bench um`: programs under `vellum run` beside their native speed.
//!
//! Each case runs natively and under vellum in turn, on one CPU, so that whatever else the machine
//! does hits both. The ratio is of the best times.

pub(crate) mod bare;
mod cases;
mod check;
pub(crate) mod core;
mod measure;
pub(crate) mod rivals;
mod table;

use crate::workspace;
use cases::Case;
use measure::Setting;
use std::process::Command;

/// What was asked for.
struct Options {
    runs: usize,
    only: Option<String>,
    markdown: bool,
}

impl Options {
    fn read(words: &[&str]) -> Result<Self, String> {
        let mut options = Self {
            runs: 7,
            only: None,
            markdown: false,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match *word {
                "--markdown" => options.markdown = true,
                "--only" => options.only = Some(value()?.to_string()),
                "--runs" => {
                    let text = value()?;
                    options.runs = match text.parse() {
                        Ok(runs) if runs > 0 => runs,
                        _ => return Err(format!("--runs {text}: a number above zero is needed")),
                    };
                }
                _ => return Err(format!("bench um: unknown option {word}")),
            }
        }
        Ok(options)
    }

    fn selects(&self, case: &Case) -> bool {
        self.only
            .as_ref()
            .is_none_or(|part| case.name.contains(part.as_str()))
    }
}

/// The benchmark.
pub(crate) fn run(words: &[&str]) -> Result<(), String> {
    let options = Options::read(words)?;
    let vellum = build(&["-p", "vellum"])?;
    let setting = Setting::new(vellum)?;
    let all = cases::all();
    let mut rows = Vec::new();
    for case in all.iter().filter(|case| options.selects(case)) {
        if let Some(missing) = case.needs.iter().find(|name| measure::find(name).is_none()) {
            eprintln!("{}: skipped, {missing} is not installed", case.name);
            continue;
        }
        eprintln!("{} …", case.name);
        match measure::case(&setting, case, options.runs) {
            Ok(result) => rows.push((case, result)),
            Err(message) => eprintln!("{}: {message}", case.name),
        }
    }
    let pinned = setting.cpu.map_or("not pinned".to_string(), |cpu| {
        format!("pinned to CPU {cpu}")
    });
    println!("{} runs of each, {pinned}", options.runs);
    if options.markdown {
        print!("{}", table::markdown(&rows));
    } else {
        print!("{}", table::plain(&rows));
    }
    Ok(())
}

/// Builds a program with optimisation; returns its path.
fn build(what: &[&str]) -> Result<String, String> {
    let output = Command::new(env!("CARGO"))
        .current_dir(workspace::root())
        .args([
            "build",
            "--release",
            "--message-format",
            "json-render-diagnostics",
        ])
        .args(what)
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|error| format!("cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo build {}: failed", what.join(" ")));
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| Some(message["executable"].as_str()?.to_string()))
        .next_back()
        .ok_or_else(|| "cargo names no executable".to_string())
}
