//! All policies side by side.

use crate::simulate::{Counts, replay};
use crate::trace::Trace;
use crate::{lru_faults, optimal_faults};
use std::fmt;
use vellum_reclaim::PolicyKind;

/// One policy's result.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Which.
    pub policy: PolicyKind,
    /// What it cost.
    pub counts: Counts,
}

/// Results of several policies for one trace and one size of memory.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Pages of memory.
    pub ram: u32,
    /// Pages of the trace.
    pub pages: u32,
    /// Uses in the trace.
    pub references: u64,
    /// Faults of Bélády's optimum.
    pub optimum: u64,
    /// Faults of exact LRU.
    pub lru: u64,
    /// One per policy asked for.
    pub rows: Vec<Row>,
}

impl Comparison {
    /// Replays `trace` with `ram` pages of memory, at least one, under each of `policies`.
    pub fn new(trace: &Trace, ram: u32, policies: &[PolicyKind]) -> Self {
        let ram = ram.max(1);
        let curve = lru_faults(trace);
        let all = u64::from(trace.pages);
        Self {
            ram,
            pages: trace.pages,
            references: trace.references.len() as u64,
            optimum: optimal_faults(trace, ram),
            lru: curve.get(ram as usize).copied().unwrap_or(all),
            rows: policies
                .iter()
                .map(|policy| Row {
                    policy: *policy,
                    counts: replay(trace, ram, *policy),
                })
                .collect(),
        }
    }

    /// Faults of a policy divided by those of the optimum.
    pub fn ratio(&self, policy: PolicyKind) -> Option<f64> {
        let row = self.rows.iter().find(|row| row.policy == policy)?;
        Some(row.counts.faults as f64 / self.optimum as f64)
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} uses of {} pages, {} pages of memory",
            self.references, self.pages, self.ram
        )?;
        writeln!(
            f,
            "{:<10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>9}",
            "policy", "faults", "refaults", "writes", "scanned", "looks", "/ OPT"
        )?;
        for Row { policy, counts } in &self.rows {
            let Counts {
                faults,
                refaults,
                writes,
                scanned,
                looks,
            } = counts;
            let ratio = *faults as f64 / self.optimum as f64;
            writeln!(
                f,
                "{policy:<10}{faults:>10}{refaults:>10}{writes:>10}{scanned:>10}{looks:>10}{ratio:>9.3}"
            )?;
        }
        let first = u64::from(self.pages);
        for (name, faults) in [("exact LRU", self.lru), ("optimum", self.optimum)] {
            let ratio = faults as f64 / self.optimum as f64;
            let refaults = faults.saturating_sub(first);
            writeln!(
                f,
                "{name:<10}{faults:>10}{refaults:>10}{:>10}{:>10}{:>10}{ratio:>9.3}",
                "-", "-", "-"
            )?;
        }
        Ok(())
    }
}

/// Comparisons at `steps` sizes of memory up to all pages of the trace: the miss-ratio curve.
pub fn curve(trace: &Trace, steps: u32, policies: &[PolicyKind]) -> Vec<Comparison> {
    (1..=steps.max(1))
        .map(|step| {
            let ram = u64::from(trace.pages) * u64::from(step) / u64::from(steps.max(1));
            Comparison::new(trace, ram as u32, policies)
        })
        .collect()
}

/// The geometric mean; 1 of nothing.
pub fn geometric_mean(ratios: impl IntoIterator<Item = f64>) -> f64 {
    let (sum, n) = ratios
        .into_iter()
        .fold((0.0, 0), |(sum, n), ratio| (sum + ratio.ln(), n + 1));
    if n == 0 {
        1.0
    } else {
        (sum / f64::from(n)).exp()
    }
}
