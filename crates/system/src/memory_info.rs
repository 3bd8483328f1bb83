//! `/proc/meminfo`.

use crate::System;
use vellum_machine::{Machine, VmItem};
use vellum_types::PAGE_SIZE;

/// The numbers of `/proc/meminfo`, in kilobytes and in its order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemInfo {
    fields: [(&'static str, u64); 34],
}

impl MemInfo {
    /// Names and kilobytes.
    pub const fn fields(&self) -> &[(&'static str, u64)] {
        &self.fields
    }

    /// One number.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.fields
            .iter()
            .find(|(field, _)| *field == name)
            .map(|(_, kb)| *kb)
    }
}

impl<M: Machine> System<'_, M> {
    /// What memory is used for.
    pub fn meminfo(&self) -> MemInfo {
        let kb = |pages: u64| pages * (PAGE_SIZE / 1024);
        let item = |item| kb(self.vmstat().item(item));
        let pages = self.pages();
        let total = kb(pages.managed_pages());
        let free = kb(pages.nr_free_pages());
        let low: u64 = pages.zones().map(|zone| kb(zone.low)).sum();
        let cached = item(VmItem::NrFilePages);
        let shmem = item(VmItem::NrShmem);
        let anon = item(VmItem::NrAnonPages);
        let slab_re = item(VmItem::NrSlabReclaimable);
        let slab_un = item(VmItem::NrSlabUnreclaimable);
        // Linux: si_mem_available. Half of the cache, or all but the low mark, counts as available.
        let file = cached.saturating_sub(shmem);
        let available = (free + file - (file / 2).min(low)).saturating_sub(low);
        MemInfo {
            fields: [
                ("MemTotal", total),
                ("MemFree", free),
                ("MemAvailable", available),
                ("Buffers", 0),
                ("Cached", cached),
                ("SwapCached", 0),
                ("Active", 0),
                ("Inactive", anon + cached),
                ("Active(anon)", 0),
                ("Inactive(anon)", anon + shmem),
                ("Active(file)", 0),
                ("Inactive(file)", file),
                ("Unevictable", item(VmItem::NrMlock)),
                ("Mlocked", item(VmItem::NrMlock)),
                ("SwapTotal", 0),
                ("SwapFree", 0),
                ("Dirty", item(VmItem::NrDirty)),
                ("Writeback", 0),
                ("AnonPages", anon),
                ("Mapped", item(VmItem::NrMapped)),
                ("Shmem", shmem),
                ("KReclaimable", slab_re),
                ("Slab", slab_re + slab_un),
                ("SReclaimable", slab_re),
                ("SUnreclaim", slab_un),
                ("KernelStack", 0),
                ("PageTables", item(VmItem::NrPageTablePages)),
                ("NFS_Unstable", 0),
                ("Bounce", 0),
                ("CommitLimit", total / 2),
                ("Committed_AS", anon + shmem),
                ("VmallocTotal", 34_359_738_367),
                ("VmallocUsed", 0),
                ("VmallocChunk", 0),
            ],
        }
    }
}
