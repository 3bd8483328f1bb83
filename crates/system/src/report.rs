//! Everything that is counted, at one moment, in a plain value.

use crate::{MemInfo, System};
use vellum_machine::{Machine, VmEvent, VmItem};
use vellum_page_alloc::{MAX_NODES, ZoneInfo};
use vellum_slab::SlabInfo;
use vellum_types::{PAGE_SIZE, ZoneType};

const EVENTS: usize = VmEvent::ALL.len();
const ITEMS: usize = VmItem::ALL.len();
/// More caches than the core has.
const MAX_CACHES: usize = 32;

/// A snapshot of the counters.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Report {
    /// `/proc/meminfo`.
    pub meminfo: MemInfo,
    /// Frames that the system was given, bytes.
    pub managed_bytes: u64,
    /// The most bytes resident in one address space at one time.
    pub peak_rss_bytes: u64,
    /// Pages in the page cache.
    pub page_cache_pages: u64,
    items: [(&'static str, u64); ITEMS],
    events: [(&'static str, u64); EVENTS],
    /// Nodes.
    pub nr_nodes: u32,
    zones: [Option<ZoneInfo>; ZoneType::COUNT * MAX_NODES],
    slabs: [Option<SlabInfo>; MAX_CACHES],
}

impl Report {
    /// Names and values of `/proc/vmstat`: amounts first, then events, as Linux has them.
    pub fn vmstat(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.items.iter().chain(&self.events).copied()
    }

    /// One number of [`Report::vmstat`].
    pub fn vmstat_value(&self, name: &str) -> Option<u64> {
        self.vmstat()
            .find(|(field, _)| *field == name)
            .map(|(_, value)| value)
    }

    /// `/proc/zoneinfo` and `/proc/buddyinfo`, node by node, lowest zone first.
    pub fn zones(&self) -> impl Iterator<Item = &ZoneInfo> {
        self.zones.iter().flatten()
    }

    /// `/proc/slabinfo`.
    pub fn slabs(&self) -> impl Iterator<Item = &SlabInfo> {
        self.slabs.iter().flatten()
    }
}

impl<M: Machine> System<'_, M> {
    /// A snapshot.
    pub fn report(&self) -> Report {
        self.pages().fold_counters();
        let mut report = Report {
            meminfo: self.meminfo(),
            managed_bytes: self.pages().managed_pages() * PAGE_SIZE,
            peak_rss_bytes: self.peak_rss_now() * PAGE_SIZE,
            page_cache_pages: self.vmstat().item(VmItem::NrFilePages),
            items: [("", 0); ITEMS],
            events: [("", 0); EVENTS],
            nr_nodes: self.pages().nodes().count() as u32,
            zones: [None; ZoneType::COUNT * MAX_NODES],
            slabs: [None; MAX_CACHES],
        };
        for (slot, item) in report.items.iter_mut().zip(VmItem::ALL) {
            *slot = (item.name(), self.vmstat().item(*item));
        }
        for (slot, event) in report.events.iter_mut().zip(VmEvent::ALL) {
            *slot = (event.name(), self.vmstat().events(*event));
        }
        for (slot, zone) in report.zones.iter_mut().zip(self.pages().zones()) {
            *slot = Some(zone);
        }
        for (slot, slab) in report.slabs.iter_mut().zip(self.slab().slabinfo()) {
            *slot = Some(slab);
        }
        report
    }

    fn peak_rss_now(&self) -> u64 {
        let mut peak = self.peak_rss();
        self.for_each_mm(&mut |mm| {
            peak = peak.max(mm.stats().hiwater_rss);
            true
        });
        peak
    }
}
