//! The table of results.

use super::cases::{Case, Unit};
use super::measure::Measured;
use std::fmt::Write;

/// One case, summed up.
struct Row {
    name: &'static str,
    native: String,
    vellum: String,
    best: f64,
    median: f64,
    goal: f64,
}

impl Row {
    fn new(case: &Case, measured: &Measured) -> Self {
        let best = |values: &[f64]| match case.unit {
            Unit::Seconds => values.iter().copied().fold(f64::INFINITY, f64::min),
            Unit::RequestsPerSecond => values.iter().copied().fold(0.0, f64::max),
        };
        let ratio = |native: f64, vellum: f64| match case.unit {
            Unit::Seconds => vellum / native,
            Unit::RequestsPerSecond => native / vellum,
        };
        let shown = |value: f64| match case.unit {
            Unit::Seconds => format!("{:.1} ms", value * 1e3),
            Unit::RequestsPerSecond => format!("{:.1} k/s", value / 1e3),
        };
        let (native, vellum) = (best(&measured.native), best(&measured.vellum));
        Self {
            name: case.name,
            native: shown(native),
            vellum: shown(vellum),
            best: ratio(native, vellum),
            median: ratio(median(&measured.native), median(&measured.vellum)),
            goal: case.goal,
        }
    }

    fn verdict(&self) -> &'static str {
        if self.best <= self.goal { "yes" } else { "no" }
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        (sorted[middle - 1] + sorted[middle]) / 2.0
    }
}

/// For docs/PERFORMANCE.md.
pub(super) fn markdown(rows: &[(&Case, Measured)]) -> String {
    let mut out = String::from(
        "| program | native, best | vellum, best | ratio | ratio of medians | goal | met |\n\
         |---|--:|--:|--:|--:|--:|---|\n",
    );
    for (case, measured) in rows {
        let row = Row::new(case, measured);
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "| {} | {} | {} | {:.2}× | {:.2}× | ≤ {}× | {} |",
            row.name,
            row.native,
            row.vellum,
            row.best,
            row.median,
            row.goal,
            row.verdict()
        );
    }
    out
}

/// For a terminal.
pub(super) fn plain(rows: &[(&Case, Measured)]) -> String {
    let mut out = format!(
        "{:42} {:>12} {:>12} {:>7} {:>7} {:>6} met\n",
        "program", "native", "vellum", "best", "median", "goal"
    );
    for (case, measured) in rows {
        let row = Row::new(case, measured);
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{:42} {:>12} {:>12} {:>7.2} {:>7.2} {:>6} {}",
            row.name,
            row.native,
            row.vellum,
            row.best,
            row.median,
            row.goal,
            row.verdict()
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_found() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
