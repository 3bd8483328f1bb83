//! Prints the tables of docs/PERFORMANCE.md: faults of each policy divided by the optimum's, at half and
//! a quarter of a trace's pages, for the traces that policies were tuned on and for others that were
//! held out; and how often a policy asked whether a page was used, per fault.

use std::path::Path;
use vellum_reclaim::PolicyKind;
use vellum_replay::{Comparison, Trace, generate, geometric_mean};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
type Made = (&'static str, fn(u64) -> Trace);

const TUNING: ([Made; 5], [&str; 4]) = (
    [
        ("loop", generate::looping),
        ("scan+hot", generate::scan_hot),
        ("zipf", generate::zipf),
        ("mixed", generate::mixed),
        ("file scan", generate::file_scan),
    ],
    ["gcc", "sqlite3", "python3", "sort"],
);

const HELD_OUT: ([Made; 3], [&str; 5]) = (
    [
        ("drift", generate::drift),
        ("nested loops", generate::nested_loops),
        ("database", generate::database),
    ],
    ["perl", "bash", "git", "xz", "awk"],
);

fn main() -> Result<()> {
    table("Tuning set", &load(&TUNING.0, &TUNING.1)?);
    table("Held-out set", &load(&HELD_OUT.0, &HELD_OUT.1)?);
    Ok(())
}

fn load(made: &[Made], recorded: &[&str]) -> Result<Vec<(String, Trace)>> {
    let mut traces = Vec::new();
    for (name, make) in made {
        traces.push(((*name).to_owned(), make(1)));
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces");
    for name in recorded {
        let bytes = std::fs::read(folder.join(name).with_extension("vpt"))?;
        traces.push(((*name).to_owned(), Trace::unpack(&bytes)?));
    }
    Ok(traces)
}

fn table(title: &str, traces: &[(String, Trace)]) {
    println!("{title}: faults / OPT (looks per fault)\n");
    print!("| trace | pages | RAM | OPT faults | exact LRU |");
    PolicyKind::ALL
        .iter()
        .for_each(|policy| print!(" {policy} |"));
    println!(
        "\n|---|--:|--:|--:|--:|{}",
        "--:|".repeat(PolicyKind::ALL.len())
    );
    // Exact LRU, then the policies: ratios, looks, and rows worse than the plain policy.
    let mut ratios = vec![Vec::new(); PolicyKind::ALL.len() + 1];
    let mut looks = vec![Vec::new(); PolicyKind::ALL.len()];
    let mut worse = vec![0; PolicyKind::ALL.len()];
    for (name, trace) in traces {
        for part in [2, 4] {
            let at = Comparison::new(trace, trace.pages / part, &PolicyKind::ALL);
            let lru = at.lru as f64 / at.optimum as f64;
            ratios[0].push(lru);
            let plain = at.ratio(PolicyKind::Lru).unwrap_or(f64::NAN);
            let (pages, ram, optimum) = (at.pages, at.ram, at.optimum);
            print!("| {name} | {pages} | {ram} | {optimum} | {lru:.3} |");
            for (nth, row) in at.rows.iter().enumerate() {
                let ratio = at.ratio(row.policy).unwrap_or(f64::NAN);
                let asked = row.counts.looks as f64 / row.counts.faults as f64;
                ratios[nth + 1].push(ratio);
                looks[nth].push(asked);
                worse[nth] += i32::from(ratio > plain * 1.005);
                print!(" {ratio:.3} ({asked:.1}) |");
            }
            println!();
        }
    }
    print!("| geometric mean | | | |");
    for (nth, ratios) in ratios.into_iter().enumerate() {
        print!(" {:.3}", geometric_mean(ratios));
        if let Some(looks) = nth.checked_sub(1).map(|nth| looks[nth].clone()) {
            print!(" ({:.1})", geometric_mean(looks));
        }
        print!(" |");
    }
    print!("\n| rows worse than `lru` | | | | |");
    worse.iter().for_each(|rows| print!(" {rows} |"));
    println!("\n");
}
