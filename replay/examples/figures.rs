//! Prints the table of docs/PERFORMANCE.md: faults of each policy divided by the optimum's, for the
//! made-up and the recorded traces, at half and a quarter of their pages. With the argument
//! `pack FILE DEPTH` it packs a trace from standard input instead, without uses of the DEPTH latest
//! pages.

use std::io::{BufReader, Write};
use std::path::Path;
use vellum_reclaim::PolicyKind;
use vellum_replay::{Comparison, Recorder, Trace, generate, geometric_mean};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [verb, path, depth] = &arguments[..]
        && verb == "pack"
    {
        let input = BufReader::with_capacity(1 << 20, std::io::stdin());
        let trace = Trace::read(input, Recorder::filtered(depth.parse()?))?;
        std::fs::write(path, trace.pack())?;
        return Ok(());
    }
    let mut traces = vec![
        ("loop".to_owned(), generate::looping(1)),
        ("scan+hot".to_owned(), generate::scan_hot(1)),
        ("zipf".to_owned(), generate::zipf(1)),
        ("mixed".to_owned(), generate::mixed(1)),
    ];
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces");
    for name in ["gcc", "sqlite3", "python3", "sort"] {
        let bytes = std::fs::read(recorded.join(name).with_extension("vpt"))?;
        traces.push((name.to_owned(), Trace::unpack(&bytes)?));
    }
    let mut out = std::io::stdout().lock();
    write!(out, "| trace | pages | RAM | OPT faults | exact LRU |")?;
    for policy in PolicyKind::ALL {
        write!(out, " {policy} |")?;
    }
    writeln!(
        out,
        "\n|---|---|---|---|---|{}",
        "---|".repeat(PolicyKind::ALL.len())
    )?;
    let mut ratios = vec![Vec::new(); PolicyKind::ALL.len() + 1];
    for (name, trace) in &traces {
        for part in [2, 4] {
            let at = Comparison::new(trace, trace.pages / part, &PolicyKind::ALL);
            let lru = at.lru as f64 / at.optimum as f64;
            write!(
                out,
                "| {name} | {} | {} | {} | {lru:.3} |",
                at.pages, at.ram, at.optimum
            )?;
            ratios[0].push(lru);
            for (nth, policy) in PolicyKind::ALL.into_iter().enumerate() {
                let ratio = at.ratio(policy).unwrap_or(f64::NAN);
                ratios[nth + 1].push(ratio);
                write!(out, " {ratio:.3} |")?;
            }
            writeln!(out)?;
        }
    }
    write!(out, "| geometric mean | | | |")?;
    for ratios in ratios {
        write!(out, " {:.3} |", geometric_mean(ratios))?;
    }
    writeln!(out)?;
    Ok(())
}
