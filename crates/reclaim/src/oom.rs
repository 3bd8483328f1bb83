//! Who dies when nothing can be had back. Linux: `oom_badness` in `mm/oom_kill.c`.

/// Below this no task is killed. Linux: `OOM_SCORE_ADJ_MIN`.
pub const OOM_SCORE_ADJ_MIN: i16 = -1000;

/// What killing a task would bring, all in pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OomUsage {
    /// Resident pages.
    pub rss: u64,
    /// Swap slots that its entries refer to.
    pub swap: u64,
    /// Pages of its page tables.
    pub pgtables: u64,
}

/// How much a task deserves to be killed, in pages; the highest is the victim. `None`: never. Each
/// point of `oom_score_adj` (-1000 to 1000) stands for a thousandth of `total_pages`, the RAM and swap
/// that the tasks compete for. A score may be negative, and the task still be chosen.
pub fn oom_badness(usage: OomUsage, oom_score_adj: i16, total_pages: u64) -> Option<i64> {
    if oom_score_adj <= OOM_SCORE_ADJ_MIN {
        return None;
    }
    let points = usage
        .rss
        .saturating_add(usage.swap)
        .saturating_add(usage.pgtables);
    let thousandth = i64::try_from(total_pages / 1000).unwrap_or(i64::MAX);
    let adjustment = thousandth.saturating_mul(i64::from(oom_score_adj));
    let points = i64::try_from(points).unwrap_or(i64::MAX);
    Some(points.saturating_add(adjustment))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjustment_counts_in_thousandths_of_all_memory() {
        let usage = OomUsage {
            rss: 1000,
            swap: 200,
            pgtables: 30,
        };
        assert_eq!(oom_badness(usage, 0, 100_000), Some(1230));
        assert_eq!(oom_badness(usage, 500, 100_000), Some(51_230));
        assert_eq!(oom_badness(usage, -999, 100_000), Some(1230 - 99_900));
        assert_eq!(oom_badness(usage, -1000, 100_000), None);
        assert_eq!(oom_badness(usage, 1000, u64::MAX), Some(i64::MAX));
    }
}
