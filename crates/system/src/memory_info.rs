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
        let (active_anon, inactive_anon) =
            (item(VmItem::NrActiveAnon), item(VmItem::NrInactiveAnon));
        let (active_file, inactive_file) =
            (item(VmItem::NrActiveFile), item(VmItem::NrInactiveFile));
        let kernel = self.vmalloc().stats();
        let (mut swap_total, mut swap_free) = (0, 0);
        self.swaps(&mut |area, _| {
            swap_total += kb(area.usable.into());
            swap_free += kb((area.usable - area.used).into());
        });
        MemInfo {
            fields: [
                ("MemTotal", total),
                ("MemFree", free),
                ("MemAvailable", available),
                ("Buffers", 0),
                ("Cached", cached),
                ("SwapCached", item(VmItem::NrSwapCached)),
                ("Active", active_anon + active_file),
                ("Inactive", inactive_anon + inactive_file),
                ("Active(anon)", active_anon),
                ("Inactive(anon)", inactive_anon),
                ("Active(file)", active_file),
                ("Inactive(file)", inactive_file),
                ("Unevictable", item(VmItem::NrUnevictable)),
                ("Mlocked", item(VmItem::NrMlock)),
                ("SwapTotal", swap_total),
                ("SwapFree", swap_free),
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
                ("VmallocTotal", kernel.total / 1024),
                ("VmallocUsed", kernel.used / 1024),
                // Linux says 0 since 4.4, for it would have to search; here it is known.
                ("VmallocChunk", kernel.chunk / 1024),
            ],
        }
    }
}
