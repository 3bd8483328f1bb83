//! From boot memory to a running allocator.

use crate::allocator::PageAllocator;
use crate::frames::Frames;
use crate::free_area::ListEnd;
use crate::layout::Layout;
use crate::node::{MAX_NODES, Node, Nodes};
use crate::pace::Tuning;
use crate::pcp::{self, CpuSet};
use crate::place::{CACHE_LINE, Storage};
use crate::profile::ZoneProfile;
use crate::watermark;
use crate::zone::Zone;
use crate::zonelist::ZoneId;
use core::sync::atomic::AtomicU8;
use vellum_machine::{Cpus, DirectMap, Trace, VmItem, VmStat};
use vellum_memblock::{HandOver, MemBlock};
use vellum_page::{Memmap, PAGEBLOCK_ORDER, PageState, Run, RunTable};
use vellum_types::{
    CpuId, GfpFlags, MigrateType, NodeId, Order, PAGE_SIZE, Pfn, PfnRange, PhysAddr, PhysRange,
    ZoneType,
};

/// Why there is no allocator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BootError {
    /// There is no whole frame of memory.
    NoMemory,
    /// Some memory has no address in the direct map.
    OutsideDirectMap,
    /// The memory is too small, or too much in pieces, for its own descriptors.
    NoRoomForTables,
    /// A node's number is 8 or more.
    TooManyNodes,
    /// The profile's zones do not ascend, or do not begin at blocks of the largest order.
    BadProfile,
}

impl core::fmt::Display for BootError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NoMemory => "no memory",
            Self::OutsideDirectMap => "memory outside the direct map",
            Self::NoRoomForTables => "no room for the memory map",
            Self::TooManyNodes => "too many nodes",
            Self::BadProfile => "zones that cannot be",
        })
    }
}

impl core::error::Error for BootError {}

/// What an allocator is made from.
pub struct BootParts<'m, 'd> {
    /// RAM that has an address. Memory outside it must be ZONE_HIGHMEM by the profile.
    pub ram: DirectMap<'m>,
    /// What memory there is.
    pub memblock: MemBlock,
    /// Where to count.
    pub vmstat: &'m VmStat,
    /// Where events go.
    pub trace: Trace<'m>,
    /// Who asks.
    pub cpus: Cpus<'m>,
    /// Which frames belong to which kind of zone.
    pub profile: ZoneProfile,
    /// How far apart two nodes are, as in ACPI's SLIT.
    pub distance: &'d dyn Fn(NodeId, NodeId) -> u8,
}

impl<'m> BootParts<'m, '_> {
    /// Zones as on x86-64, all other nodes equally far.
    pub fn new(
        ram: DirectMap<'m>,
        memblock: MemBlock,
        cpus: Cpus<'m>,
        vmstat: &'m VmStat,
        trace: Trace<'m>,
    ) -> Self {
        Self {
            ram,
            memblock,
            vmstat,
            trace,
            cpus,
            profile: ZoneProfile::X86_64,
            distance: &|from, to| if from == to { 10 } else { 20 },
        }
    }

    fn layout(&self) -> Result<Layout, BootError> {
        let layout = Layout::of(&self.memblock, &self.profile);
        let direct = self.ram.span();
        for run in layout.runs() {
            let lowmem = PfnRange::new(Pfn::ZERO, self.profile.normal_end);
            let needs_address = lowmem.and_then(|lowmem| run.range.intersect(&lowmem));
            if needs_address.is_some_and(|frames| !direct.contains_range(&frames.to_phys())) {
                return Err(BootError::OutsideDirectMap);
            }
            if usize::from(run.node.0) >= MAX_NODES {
                return Err(BootError::TooManyNodes);
            }
        }
        if self.profile.is_valid() {
            Ok(layout)
        } else {
            Err(BootError::BadProfile)
        }
    }

    /// What the directory of descriptors must cover: memory, and what may be added.
    fn directory_span(&self, layout: &Layout) -> Option<PfnRange> {
        let memory = layout.span()?;
        let direct = self.ram.span().whole_frames().unwrap_or(memory);
        let start = memory.start().min(direct.start());
        PfnRange::new(start, memory.end().max(direct.end()))
    }

    fn nodes(&self, layout: &Layout) -> impl Iterator<Item = NodeId> + use<> {
        let nodes = layout.nodes() | self.profile.possible_nodes;
        let all = (0..MAX_NODES as u8).map(NodeId);
        all.filter(move |node| nodes >> node.0 & 1 == 1)
    }

    fn sets_bytes(&self) -> u64 {
        u64::from(self.cpus.len()) * size_of::<CpuSet>() as u64
    }

    fn bytes(&self, layout: &Layout) -> Option<u64> {
        let pages = |bytes: u64| bytes.next_multiple_of(PAGE_SIZE);
        let directory = RunTable::sections(self.directory_span(layout)?);
        let runs = layout.runs().map(|run| RunTable::bytes_for(run.range));
        let nodes = self.nodes(layout).count() as u64;
        Some(
            runs.sum::<u64>()
                + pages(table_bytes(nr_runs(layout), directory))
                + nodes * pages(size_of::<Node>() as u64)
                + pages(self.sets_bytes())
                + pages(size_of::<PageAllocator<'m>>() as u64),
        )
    }
}

/// Runs to have room for: those of boot, and some that may be added.
fn nr_runs(layout: &Layout) -> usize {
    const SPARE: usize = 32;
    (layout.runs().count() + SPARE).min(RunTable::MAX_RUNS)
}

/// Bytes of the table of runs, of its slots and of its directory, each in whole cache lines.
fn table_parts(runs: usize, sections: usize) -> [u64; 3] {
    let parts = [size_of::<RunTable<'_>>(), runs * size_of::<Run>(), sections];
    parts.map(|bytes| (bytes as u64).next_multiple_of(CACHE_LINE))
}

fn table_bytes(runs: usize, sections: usize) -> u64 {
    table_parts(runs, sections).iter().sum()
}

impl<'m> PageAllocator<'m> {
    /// Bytes of memory that [`PageAllocator::boot`] keeps for itself: descriptors, pageblocks, the
    /// table of runs, nodes and the allocator, each in whole pages. Zero if there is no memory.
    pub fn boot_bytes(ram: DirectMap<'m>, memblock: &MemBlock, cpus: Cpus<'m>) -> u64 {
        let vmstat = VmStat::new();
        let parts = BootParts::new(ram, memblock.clone(), cpus, &vmstat, Trace::OFF);
        let layout = Layout::of(&parts.memblock, &parts.profile);
        parts.bytes(&layout).unwrap_or(0)
    }

    /// As [`PageAllocator::boot_from`], for a machine with the defaults of [`BootParts::new`].
    ///
    /// # Errors
    /// See [`BootError`].
    pub fn boot(
        ram: DirectMap<'m>,
        memblock: MemBlock,
        cpus: Cpus<'m>,
        vmstat: &'m VmStat,
        trace: Trace<'m>,
    ) -> Result<&'m Self, BootError> {
        Self::boot_from(BootParts::new(ram, memblock, cpus, vmstat, trace))
    }

    /// Builds the allocator inside the machine's own memory and frees all free memory into it. The
    /// descriptors of a node's frames lie on that node, if there is room, and below ZONE_MOVABLE.
    ///
    /// Call it once for a machine: whoever boots a second allocator from another description of the
    /// same bytes has two that give out the same frames.
    ///
    /// # Errors
    /// See [`BootError`].
    pub fn boot_from(mut parts: BootParts<'m, '_>) -> Result<&'m Self, BootError> {
        let layout = parts.layout()?;
        let span = parts.directory_span(&layout).ok_or(BootError::NoMemory)?;
        let home = layout.runs().next().ok_or(BootError::NoMemory)?.node;
        let sections = RunTable::sections(span);
        let [table, slots, _] = table_parts(nr_runs(&layout), sections);
        let storage = parts.take(&layout, home, table_bytes(nr_runs(&layout), sections))?;
        let (table, rest) = storage.split(table).ok_or(BootError::NoRoomForTables)?;
        let (slots, directory) = rest.split(slots).ok_or(BootError::NoRoomForTables)?;
        let slots = slots.into_slice(nr_runs(&layout), |_| Run::default());
        let directory = directory.into_slice(sections, |_| AtomicU8::new(0));
        let runs = table.into_value(RunTable::new(slots, directory, span));
        for run in layout.runs() {
            let storage = parts.take(&layout, run.node, RunTable::bytes_for(run.range))?;
            storage
                .into_run(runs, run.range)
                .map_err(|_| BootError::NoRoomForTables)?;
        }
        let mut nodes = [None; MAX_NODES];
        for id in parts.nodes(&layout) {
            let distance = core::array::from_fn(|to| (parts.distance)(id, NodeId(to as u8)));
            let node = Node::new(id, layout.movable_start(id), distance);
            let storage = parts.take(&layout, id, size_of::<Node>() as u64)?;
            nodes[usize::from(id.0)] = Some(storage.into_value(node));
        }
        let own = parts.take(&layout, home, size_of::<Self>() as u64)?;
        let sets = parts.take(&layout, home, parts.sets_bytes())?;

        let frames = Frames::new(Memmap::of(runs));
        let nodes = Nodes::new(nodes);
        name_zones(&layout, &parts.profile, frames);
        let free = populate(&nodes, frames, parts.memblock.hand_over());
        nodes.rebuild();
        parts.vmstat.add(VmItem::NrFreePages, free);
        let cpus = parts.cpus;
        let sets = sets.into_slice(usize::from(cpus.len()), |cpu| cpu_set(cpu, &nodes, cpus));
        let allocator = Self::new(
            nodes,
            (frames, runs),
            parts.profile,
            parts.ram,
            (cpus, sets),
            parts.vmstat,
            parts.trace,
        );
        allocator.set_default_min_free_kbytes();
        Ok(own.into_value(allocator))
    }
}

impl<'m> BootParts<'m, '_> {
    /// Memory for a table: on `node` below its ZONE_MOVABLE, or wherever there is some.
    fn take(
        &mut self,
        layout: &Layout,
        node: NodeId,
        bytes: u64,
    ) -> Result<Storage<'m>, BootError> {
        let end = self
            .profile
            .normal_end
            .min(layout.movable_start(node).unwrap_or(Pfn::NONE));
        let (ram, memblock) = (self.ram, &mut self.memblock);
        let fixed = PhysRange::new(PhysAddr::ZERO, end.addr());
        fixed
            .and_then(|fixed| Storage::take_near(ram, memblock, bytes, node, fixed))
            .or_else(|| Storage::take(ram, memblock, bytes))
            .ok_or(BootError::NoRoomForTables)
    }
}

/// The lists of one of `cpus`, empty.
fn cpu_set(cpu: usize, nodes: &Nodes<'_>, cpus: Cpus<'_>) -> CpuSet {
    let node = nodes.start(Some(cpus.node_of(CpuId(cpu as u16))), || NodeId(0));
    let mut route = [pcp::NO_LIST; pcp::ROUTES];
    for (bits, list) in route.iter_mut().enumerate() {
        let gfp = GfpFlags::from_bits_retain(bits as u32);
        let zone = nodes.zonelist(node, gfp.highest_zone(), true).next();
        let at = zone.and_then(|zone| pcp::list_of(zone.zone_type.index(), gfp.migrate_type()));
        *list = at
            .and_then(|at| u8::try_from(at).ok())
            .unwrap_or(pcp::NO_LIST);
    }
    let managed: u64 = nodes.zones().map(Zone::managed).sum();
    let min_free = watermark::default_min_free_kbytes(managed * (PAGE_SIZE / 1024));
    let near = (0..cpus.len()).filter(|at| cpus.node_of(CpuId(*at)) == node.id);
    let near = near.count().max(1) as u16;
    let tuning = |index: usize| {
        let here = nodes
            .zone(ZoneId::new(node.id, ZoneType::ALL[index]))
            .map_or(0, Zone::managed);
        let min_free_pages = min_free / (PAGE_SIZE / 1024);
        let marks = watermark::Watermarks::new(min_free_pages, here, managed);
        Tuning::new(here, marks.low, near)
    };
    CpuSet::new(cpu, node.id, tuning, route)
}

/// Says of each pageblock to which zone it belongs. Most memory will be the programs', which is
/// movable; Linux starts like this too.
fn name_zones(layout: &Layout, profile: &ZoneProfile, frames: Frames<'_>) {
    for run in layout.runs() {
        for piece in pieces(run.range) {
            let pfn = piece.start();
            let zone_type = layout.zone_type_of(profile, run.node, pfn);
            frames.set_zone_id(pfn, ZoneId::new(run.node, zone_type));
            frames.set_migrate_type(pfn, PAGEBLOCK_ORDER, MigrateType::Movable);
        }
    }
}

/// Cuts a range at the borders of pageblocks.
pub(crate) fn pieces(range: PfnRange) -> impl Iterator<Item = PfnRange> {
    let mut at = range.start();
    core::iter::from_fn(move || {
        let raw = at.as_u32() | (PAGEBLOCK_ORDER.pages() - 1);
        let end = Pfn::new(raw.saturating_add(1)).min(range.end());
        let piece = PfnRange::new(at, end)?;
        at = end;
        Some(piece)
    })
}

/// Frees all memory that boot left over. Returns how many pages that is.
fn populate(nodes: &Nodes<'_>, frames: Frames<'_>, memory: HandOver) -> u64 {
    let whole = memory
        .memory()
        .filter_map(|region| region.range.whole_frames());
    for piece in whole.flat_map(pieces) {
        if let Some(zone) = frames.zone_id(piece.start()).and_then(|id| nodes.zone(id)) {
            zone.add_present(piece);
        }
    }
    memory
        .map(|(range, _)| {
            free_range(nodes, frames, range);
            u64::from(range.len())
        })
        .sum()
}

/// Frees a run of frames in blocks as large as alignment allows, lowest first on the lists.
pub(crate) fn free_range(nodes: &Nodes<'_>, frames: Frames<'_>, range: PfnRange) {
    for pfn in range.iter() {
        frames.page(pfn).set_state(PageState::Tail);
    }
    for (at, order) in blocks(range) {
        if let Some(zone) = frames.zone_id(at).and_then(|id| nodes.zone(id)) {
            zone.add_managed(u64::from(order.pages()));
            zone.lock().areas.give(frames, at, order, ListEnd::Tail);
        }
    }
}

/// Cuts a range into blocks as large as alignment allows.
pub(crate) fn blocks(range: PfnRange) -> impl Iterator<Item = (Pfn, Order)> {
    let mut at = range.start();
    core::iter::from_fn(move || {
        if at >= range.end() {
            return None;
        }
        let order = largest_block(at, range.end());
        let block = (at, order);
        at = at + order.pages();
        Some(block)
    })
}

/// The largest block that may start at `pfn` and ends no later than `end`.
fn largest_block(pfn: Pfn, end: Pfn) -> Order {
    let fits = |order: &Order| order.is_aligned(pfn) && order.pages() <= end - pfn;
    Order::all().rev().find(fits).unwrap_or(Order::ZERO)
}
