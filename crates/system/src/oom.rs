//! Who dies when nothing is left. Linux: `mm/oom_kill.c`.

use crate::System;
use vellum_machine::{Machine, TraceEvent, VmEvent};
use vellum_types::{PAGE_SIZE, SpaceId};

/// The address space that frees the most if its program dies, with the numbers of Linux's line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OomVictim {
    /// Which.
    pub space: SpaceId,
    /// Mapped, kB.
    pub total_vm_kb: u64,
    /// Resident, kB.
    pub rss_kb: u64,
    /// Of that anonymous, kB.
    pub anon_kb: u64,
    /// Of that file pages, kB.
    pub file_kb: u64,
    /// Of that shared memory, kB.
    pub shmem_kb: u64,
    /// Page tables, kB.
    pub pgtables_kb: u64,
}

impl<M: Machine> System<'_, M> {
    /// Chooses by `oom_badness` without adjustments: resident pages and page tables. Unlike Linux's it
    /// does not count pages in swap. `None` if there is no address space with a page. The machine kills it.
    pub fn oom_victim(&self) -> Option<OomVictim> {
        let kb = |pages: u64| pages * (PAGE_SIZE / 1024);
        let mut worst: Option<(u64, OomVictim)> = None;
        self.for_each_mm(&mut |mm| {
            let stats = mm.stats();
            let points = stats.rss.total() + stats.pgtables_bytes / PAGE_SIZE;
            let victim = OomVictim {
                space: mm.space(),
                total_vm_kb: kb(stats.total_vm),
                rss_kb: kb(stats.rss.total()),
                anon_kb: kb(stats.rss.anon),
                file_kb: kb(stats.rss.file),
                shmem_kb: kb(stats.rss.shmem),
                pgtables_kb: stats.pgtables_bytes / 1024,
            };
            if stats.rss.total() > 0 && worst.is_none_or(|(most, _)| points > most) {
                worst = Some((points, victim));
            }
            true
        });
        let (_, victim) = worst?;
        self.vmstat().count(VmEvent::OomKill);
        self.trace().emit(TraceEvent::MarkVictim {
            space: victim.space,
            rss_pages: victim.rss_kb / (PAGE_SIZE / 1024),
        });
        Some(victim)
    }
}
