//! The allocator's face: checks, counters, events; the work is done by the zones.

use crate::frames::Frames;
use crate::hooks::{Hook, Hooks};
use crate::inject::FailSwitch;
use crate::node::{Node, NodeInfo, Nodes, NumaEvent};
use crate::pcp::CpuSet;
use crate::profile::ZoneProfile;
use crate::watermark;
use crate::zone::{Zone, ZoneInfo};
use crate::zonelist::ZoneId;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use vellum_machine::{Cpus, DirectMap, LockRank, SpinLock, Trace, VmEvent, VmStat};
use vellum_page::{PageState, RunTable};
use vellum_types::{GfpFlags, MigrateType, NodeId, PAGE_SIZE, Pfn, ZoneType};

/// The page allocator of a machine. Lives in the machine's RAM; see [`PageAllocator::boot`].
pub struct PageAllocator<'m> {
    pub(crate) nodes: Nodes<'m>,
    pub(crate) frames: Frames<'m>,
    pub(crate) runs: &'m RunTable<'m>,
    pub(crate) profile: ZoneProfile,
    /// Some frames lie outside the direct map.
    zeroes_only_lowmem: bool,
    pub(crate) plugging: AtomicBool,
    pub(crate) ram: DirectMap<'m>,
    pub(crate) cpus: Cpus<'m>,
    /// The lists of all CPUs. Each changes its own, see `with_set`.
    pub(crate) cpu_sets: &'m [CpuSet],
    /// The lists of the first CPU.
    pub(crate) first_set: &'m CpuSet,
    pub(crate) vmstat: &'m VmStat,
    pub(crate) trace: Trace<'m>,
    pub(crate) hooks: Hooks,
    pub(crate) fail: FailSwitch,
    /// For each zone, allocations and frees on per-CPU lists that `vmstat` knows of.
    pub(crate) folded: SpinLock<[[u64; 2]; ZoneId::COUNT]>,
    min_free_kbytes: AtomicU64,
}

impl<'m> PageAllocator<'m> {
    pub(crate) fn new(
        nodes: Nodes<'m>,
        (frames, runs): (Frames<'m>, &'m RunTable<'m>),
        profile: ZoneProfile,
        ram: DirectMap<'m>,
        (cpus, cpu_sets): (Cpus<'m>, &'m [CpuSet]),
        vmstat: &'m VmStat,
        trace: Trace<'m>,
    ) -> Self {
        let hooks = Hooks::new();
        hooks.set(Hook::Trace, trace.is_on());
        hooks.set(Hook::Cpus, !cpus.is_single() || nodes.are_several());
        let memory = frames.memmap.span();
        Self {
            zeroes_only_lowmem: !ram.span().contains_range(&memory.to_phys()),
            nodes,
            frames,
            runs,
            profile,
            plugging: AtomicBool::new(false),
            ram,
            cpus,
            cpu_sets,
            first_set: &cpu_sets[0],
            vmstat,
            trace,
            hooks,
            fail: FailSwitch::off(),
            folded: SpinLock::new(LockRank::Zone, [[0; 2]; ZoneId::COUNT]),
            min_free_kbytes: AtomicU64::new(0),
        }
    }

    /// Zones that exist on this machine, node by node, lowest first.
    pub fn zones(&self) -> impl Iterator<Item = ZoneInfo> {
        self.present_zones().map(Zone::info)
    }

    pub(crate) fn present_zones(&self) -> impl Iterator<Item = &Zone> + Clone {
        self.nodes.zones().filter(|zone| zone.span().is_some())
    }

    /// The nodes of this machine.
    pub fn nodes(&self) -> impl Iterator<Item = NodeInfo> {
        self.fold_counters();
        self.nodes.infos()
    }

    /// The zones that an allocation of `gfp` from `node` tries, in this order. Empty if there is no
    /// such node.
    pub fn zonelist(
        &self,
        node: NodeId,
        gfp: GfpFlags,
    ) -> impl Iterator<Item = (NodeId, ZoneType)> {
        let zones = self.nodes.zone_ids(node, gfp.highest_zone());
        zones.filter_map(|id| self.nodes.zone(id).map(|zone| (zone.node, zone.zone_type)))
    }

    /// The kind of zone that holds `pfn`; `None` in a hole. Linux's `page_zonenum`.
    pub fn zone_type_of(&self, pfn: Pfn) -> Option<ZoneType> {
        self.zone_at(pfn).map(|zone| zone.zone_type)
    }

    #[inline]
    pub(crate) fn zone_at(&self, pfn: Pfn) -> Option<&'m Zone> {
        self.nodes.zone(self.frames.zone_id(pfn)?)
    }

    /// Pages that nobody uses: those of all zones, and those on the lists of all CPUs. The latter are
    /// not part of the counter `nr_free_pages`, as on Linux.
    pub fn nr_free_pages(&self) -> u64 {
        let zones = self.present_zones();
        let in_zones: u64 = zones.map(|zone| zone.lock().areas.pages()).sum();
        in_zones + self.nr_per_cpu_pages()
    }

    /// Pages that were ever given to the allocator. Linux's `totalram_pages`.
    pub fn managed_pages(&self) -> u64 {
        self.present_zones().map(|zone| zone.managed()).sum()
    }

    /// Pages of memory, those kept by boot included.
    pub fn present_pages(&self) -> u64 {
        self.present_zones().map(|zone| zone.present()).sum()
    }

    /// The mobility of the 2 MiB pageblock around `pfn`.
    ///
    /// # Panics
    /// If `pfn` is outside the memmap.
    pub fn pageblock_migrate_type(&self, pfn: Pfn) -> MigrateType {
        assert!(
            self.frames.memmap.try_page(pfn).is_some(),
            "{pfn:?} is not memory"
        );
        self.frames.migrate_type(pfn)
    }

    /// Pages of the zones that the kernel can use without tricks.
    fn lowmem_pages(&self) -> u64 {
        let low = self
            .present_zones()
            .filter(|zone| zone.zone_type <= ZoneType::Normal);
        low.map(|zone| zone.managed()).sum()
    }

    pub(crate) fn set_default_min_free_kbytes(&self) {
        let kbytes = self.lowmem_pages() * (PAGE_SIZE / 1024);
        self.set_min_free_kbytes(watermark::default_min_free_kbytes(kbytes));
    }

    /// Works out all that depends on how much memory each zone has.
    pub(crate) fn memory_changed(&self) {
        self.nodes.rebuild();
        self.set_min_free_kbytes(self.min_free_kbytes());
    }

    /// The node that an allocation starts from.
    #[inline]
    pub(crate) fn start_node(&self, wanted: Option<NodeId>) -> &'m Node {
        self.nodes.start(wanted, || self.cpus.local_node())
    }

    /// The sets of CPUs whose lists hold blocks of `zone`.
    pub(crate) fn sets_near(&self, zone: &Zone) -> impl Iterator<Item = &'m CpuSet> {
        let node = zone.node;
        self.cpu_sets.iter().filter(move |set| set.node == node)
    }

    /// Counts whether a block came from where it was wanted.
    #[cold]
    #[inline(never)]
    pub(crate) fn count_numa(&self, wanted: &Node, zone: &Zone, pages: u64) {
        let (how, here) = self
            .nodes
            .count(wanted, zone, self.cpus.local_node(), pages);
        for event in [how, here] {
            let event = match event {
                NumaEvent::Hit => VmEvent::NumaHit,
                NumaEvent::Miss => VmEvent::NumaMiss,
                NumaEvent::Foreign => VmEvent::NumaForeign,
                NumaEvent::Local => VmEvent::NumaLocal,
                NumaEvent::Other => VmEvent::NumaOther,
            };
            self.vmstat.count_many(event, pages);
        }
        if how == NumaEvent::Miss {
            self.vmstat.count_many(VmEvent::NumaForeign, pages);
        }
    }

    /// The highest zone that `gfp` allows: pages without an address cannot be zeroed here.
    #[inline(always)]
    pub(crate) fn highest_zone(&self, gfp: GfpFlags) -> ZoneType {
        let highest = gfp.highest_zone();
        if gfp.contains(GfpFlags::ZERO) && self.zeroes_only_lowmem {
            highest.min(ZoneType::Normal)
        } else {
            highest
        }
    }

    /// `vm.min_free_kbytes`: kilobytes that the sum of all zones' `min` marks stands for.
    pub fn min_free_kbytes(&self) -> u64 {
        self.min_free_kbytes.load(Ordering::Relaxed)
    }

    /// Sets `vm.min_free_kbytes` and works out the watermarks anew.
    pub fn set_min_free_kbytes(&self, kbytes: u64) {
        // Relaxed: for the reader's eyes; the marks themselves are under the zones' locks.
        self.min_free_kbytes.store(kbytes, Ordering::Relaxed);
        let (pages, lowmem) = (kbytes / (PAGE_SIZE / 1024), self.lowmem_pages());
        for zone in self.present_zones() {
            zone.set_watermarks(pages, lowmem);
        }
    }

    /// For tests: after `n` more successes every allocation fails, until called with `None`.
    pub fn fail_after(&self, n: Option<u64>) {
        self.fail.set(n);
        self.hooks.set(Hook::Fail, n.is_some());
    }

    /// The number of a zone among all of the machine.
    #[inline(always)]
    pub(crate) fn zone_index(&self, zone: &Zone) -> usize {
        zone.id().index()
    }

    /// The zone of a frame that is memory.
    #[inline(always)]
    pub(crate) fn zone_of(&self, pfn: Pfn) -> &'m Zone {
        match self.zone_at(pfn) {
            Some(zone) => zone,
            None => not_allocated(pfn, None),
        }
    }
}

impl core::fmt::Debug for PageAllocator<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (free, managed) = (self.nr_free_pages(), self.managed_pages());
        write!(f, "PageAllocator({free} of {managed} pages free)")
    }
}

pub(crate) const fn alloc_event(zone_type: ZoneType) -> VmEvent {
    match zone_type {
        ZoneType::Dma => VmEvent::PgAllocDma,
        ZoneType::Dma32 => VmEvent::PgAllocDma32,
        ZoneType::Normal => VmEvent::PgAllocNormal,
        ZoneType::HighMem => VmEvent::PgAllocHigh,
        ZoneType::Movable => VmEvent::PgAllocMovable,
    }
}

#[cold]
#[inline(never)]
pub(crate) fn not_allocated(pfn: Pfn, state: Option<PageState>) -> ! {
    match state {
        Some(PageState::Free | PageState::PerCpu) => panic!("double free of {pfn:?}"),
        Some(PageState::Tail) => panic!("{pfn:?} does not start a block: double or wrong free"),
        Some(state) => panic!("wrong free of {pfn:?}: it is {state:?}"),
        None => panic!("wrong free of {pfn:?}: not memory"),
    }
}
