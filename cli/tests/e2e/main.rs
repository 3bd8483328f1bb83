//! Whole programs and the scenario files, run natively and under `vellum run`, and what the command does with bad input.
//!
//! `cargo test -p vellum --test e2e -- [--all] [--jobs N] [--list] [NAME…]`
//!
//! A program test passes if standard output, standard error and exit status are the same as
//! natively, every frame came back, and no process is left behind. A program that is not installed
//! is skipped and said so; it does not pass. `--all` adds the long tests; `NAME` selects by
//! substring.

mod case;
mod command;
mod list;
mod long;
mod pressure;
mod process;
mod report;
mod scenarios;

use case::{Outcome, Test};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

struct Options {
    all: bool,
    list: bool,
    jobs: usize,
    names: Vec<String>,
}

impl Options {
    /// Options of the standard test runner that make no sense here are taken and ignored.
    fn read() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut options = Self {
            all: false,
            list: false,
            jobs: cpus.min(4),
            names: Vec::new(),
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--all" => options.all = true,
                "--list" => options.list = true,
                "--jobs" | "--test-threads" => {
                    options.jobs = words
                        .next()
                        .and_then(|n| n.parse().ok())
                        .unwrap_or(1)
                        .max(1);
                }
                _ if word.starts_with('-') => {}
                _ => options.names.push(word),
            }
        }
        options
    }

    fn selects(&self, test: &Test) -> bool {
        if !self.names.is_empty() {
            return self
                .names
                .iter()
                .any(|name| test.name.contains(name.as_str()));
        }
        self.all || !test.long
    }
}

fn main() {
    let options = Options::read();
    let mut tests = long::programs();
    tests.extend(pressure::long());
    tests.extend(pressure::programs());
    tests.extend(list::programs());
    tests.extend(scenarios::tests());
    tests.extend(command::tests());
    let total = tests.len();
    tests.retain(|test| options.selects(test));
    if options.list {
        for test in &tests {
            println!("{}: test", test.name);
        }
        return;
    }
    let left_out = total - tests.len();
    let start = Instant::now();
    println!("\nrunning {} tests", tests.len());
    let scratch = case::Scratch::new();
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(&Test, Outcome)>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(|| {
                while let Some(test) = tests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = test.run(&scratch);
                    println!("test {} ... {}", test.name, outcome.line());
                    results
                        .lock()
                        .expect("no thread panicked")
                        .push((test, outcome));
                }
            });
        }
    });
    let results = results.into_inner().expect("no thread panicked");
    let failed: Vec<_> = results
        .iter()
        .filter(|(_, outcome)| outcome.failed().is_some())
        .collect();
    let skipped = results
        .iter()
        .filter(|(_, o)| matches!(o, Outcome::Skipped(_)))
        .count();
    let passed = results.len() - failed.len() - skipped;
    if !failed.is_empty() {
        println!("\nfailures:");
        for (test, outcome) in &failed {
            println!(
                "\n---- {} ----\n{}",
                test.name,
                outcome.failed().unwrap_or_default()
            );
        }
        println!(
            "\nthe files of the failed runs are in {}",
            scratch.path().display()
        );
    }
    let word = if failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {passed} passed; {} failed; {skipped} ignored; 0 measured; \
         {left_out} filtered out; finished in {:.2}s",
        failed.len(),
        start.elapsed().as_secs_f64()
    );
    println!(
        "e2e: {passed} passed, {} failed, {skipped} skipped\n",
        failed.len()
    );
    if !failed.is_empty() {
        std::process::exit(101);
    }
    scratch.remove();
}
