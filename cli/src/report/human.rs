//! The report for people: a few lines.

use super::{Exit, Facts};
use crate::size::human;
use std::fmt::Write;

const PAGE: u64 = 4096;

pub(super) fn text(facts: &Facts) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_lines(&mut out, facts);
    out
}

fn write_lines(out: &mut String, facts: &Facts) -> std::fmt::Result {
    let end = match facts.exit {
        Exit::Code(code) => format!("exit status {code}"),
        Exit::Signal(signal) => format!("killed by signal {signal}"),
    };
    writeln!(
        out,
        "vellum: {} of RAM, {:.2} s, {end}",
        human(facts.ram_bytes),
        facts.elapsed_ns as f64 / 1e9
    )?;
    let major = facts.vmstat("pgmajfault");
    writeln!(
        out,
        "  faults      {} minor, {major} major; zero page {}, copied on write {}, reused {}",
        facts.vmstat("pgfault").saturating_sub(major),
        facts.vmstat("vellum_zero_page_mapped"),
        facts.vmstat("vellum_cow_copy"),
        facts.vmstat("vellum_cow_reuse"),
    )?;
    writeln!(
        out,
        "  page cache  {} pages; peak resident {}",
        facts.vmstat("nr_file_pages"),
        human(facts.peak_bytes),
    )?;
    write_swap(out, facts)?;
    for zone in &facts.buddyinfo {
        let blocks: Vec<String> = zone.free_area.iter().map(u64::to_string).collect();
        writeln!(
            out,
            "  free        {:7} {} (blocks by order)",
            zone.name,
            blocks.join(" ")
        )?;
    }
    write_slabs(out, facts)?;
    for note in &facts.notes {
        writeln!(out, "  {note}")?;
    }
    if facts.frames_leaked == 0 {
        return writeln!(out, "  all frames returned");
    }
    writeln!(out, "  {} frames NOT returned:", facts.frames_leaked)?;
    for leak in &facts.leaks {
        writeln!(out, "    {leak}")?;
    }
    let unnamed = facts.frames_leaked.saturating_sub(facts.leaks.len() as u64);
    if unnamed > 0 && !facts.leaks.is_empty() {
        writeln!(out, "    and {unnamed} more")?;
    }
    Ok(())
}

/// One line for all areas; none if there are none.
fn write_swap(out: &mut String, facts: &Facts) -> std::fmt::Result {
    if facts.swap.is_empty() {
        return Ok(());
    }
    let areas: Vec<String> = facts
        .swap
        .iter()
        .map(|area| format!("{} {}", area.name, human(area.size_kb << 10)))
        .collect();
    let used: u64 = facts.swap.iter().map(|area| area.used_kb).sum();
    writeln!(
        out,
        "  swap        {}; {} in use at the end; {} pages out, {} in; policy {}",
        areas.join(", "),
        human(used << 10),
        facts.vmstat("pswpout"),
        facts.vmstat("pswpin"),
        facts.policy,
    )
}

/// All caches in one line, then the largest few.
fn write_slabs(out: &mut String, facts: &Facts) -> std::fmt::Result {
    const SHOWN: usize = 4;
    let pages: u64 = facts
        .slabinfo
        .iter()
        .map(|slab| slab.num_slabs * slab.pagesperslab)
        .sum();
    let mut largest: Vec<_> = facts
        .slabinfo
        .iter()
        .filter(|slab| slab.num_slabs > 0)
        .collect();
    largest.sort_by_key(|slab| std::cmp::Reverse(slab.num_slabs * slab.pagesperslab));
    let named: Vec<String> = largest
        .iter()
        .take(SHOWN)
        .map(|slab| format!("{} {}/{}", slab.name, slab.active_objs, slab.num_objs))
        .collect();
    write!(
        out,
        "  slab        {} in {} caches",
        human(pages * PAGE),
        facts.slabinfo.len()
    )?;
    if named.is_empty() {
        writeln!(out)
    } else {
        writeln!(out, ": {}", named.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn the_report_reads_well() {
        let expected = "\
vellum: 128 MiB of RAM, 1.23 s, exit status 0
  faults      960 minor, 40 major; zero page 30, copied on write 20, reused 10
  page cache  700 pages; peak resident 8 MiB
  free        DMA32   3 0 1 (blocks by order)
  slab        4 KiB in 1 caches: vm_area_struct 0/42
  all frames returned
";
        assert_eq!(text(&sample()), expected);
    }

    #[test]
    fn swap_has_a_line_if_there_is_any() {
        let mut facts = sample();
        assert!(!text(&facts).contains("swap"));
        let area = |name: &str, size_kb, used_kb| crate::report::Swap {
            name: name.to_string(),
            size_kb,
            used_kb,
            priority: 0,
        };
        facts.swap = vec![area("temporary", 8 << 10, 1024), area("zram", 64 << 10, 0)];
        facts.vmstat.push(("pswpout".to_string(), 12));
        facts.vmstat.push(("pswpin".to_string(), 3));
        let line = "  swap        temporary 8 MiB, zram 64 MiB; 1 MiB in use at the end; \
                    12 pages out, 3 in; policy two-list\n";
        let text = text(&facts);
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn leaks_are_listed() {
        let mut facts = sample();
        facts.frames_leaked = 3;
        facts.leaks = vec!["pfn 7: Anon".to_string()];
        let text = text(&facts);
        assert!(text.contains("3 frames NOT returned:\n    pfn 7: Anon\n    and 2 more\n"));
    }
}
