//! From boot memory to a running allocator.

use crate::allocator::PageAllocator;
use crate::frames::{Frames, NEW_PAGEBLOCK, PAGEBLOCK_ORDER};
use crate::free_area::ListEnd;
use crate::node::Node;
use crate::pcp::{self, CpuSet, Tuning};
use crate::place::Storage;
use crate::watermark;
use crate::zone;
use core::sync::atomic::AtomicU32;
use vellum_machine::{Cpus, DirectMap, Trace, VmItem, VmStat};
use vellum_memblock::{HandOver, MemBlock};
use vellum_page::{Memmap, PageState};
use vellum_types::{GfpFlags, Order, PAGE_SIZE, Pfn, PfnRange};

/// Why there is no allocator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BootError {
    /// There is no whole frame of memory.
    NoMemory,
    /// Some memory has no address in the direct map.
    OutsideDirectMap,
    /// The memory is too small, or too much in pieces, for its own descriptors.
    NoRoomForTables,
}

impl core::fmt::Display for BootError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NoMemory => "no memory",
            Self::OutsideDirectMap => "memory outside the direct map",
            Self::NoRoomForTables => "no room for the memory map",
        })
    }
}

impl core::error::Error for BootError {}

impl<'m> PageAllocator<'m> {
    /// Bytes of memory that [`PageAllocator::boot`] keeps for itself on a machine whose memory
    /// spans `span`: descriptors, pageblock mobilities, the lists of `nr_cpus` CPUs and the allocator,
    /// each in whole pages.
    pub fn boot_bytes(span: PfnRange, nr_cpus: u16) -> u64 {
        let pageblocks = Frames::nr_pageblocks(span) as u64;
        let own = size_of::<Self>() as u64;
        Memmap::bytes_for(span.len())
            + (pageblocks * 4).next_multiple_of(PAGE_SIZE)
            + own.next_multiple_of(PAGE_SIZE)
            + (u64::from(nr_cpus) * size_of::<CpuSet>() as u64).next_multiple_of(PAGE_SIZE)
    }

    /// Builds the allocator inside the machine's own memory and frees all free memory into it.
    ///
    /// Call it once for a machine: whoever boots a second allocator from another description of the
    /// same bytes has two that give out the same frames.
    ///
    /// # Errors
    /// See [`BootError`].
    pub fn boot(
        ram: DirectMap<'m>,
        mut memblock: MemBlock,
        cpus: Cpus<'m>,
        vmstat: &'m VmStat,
        trace: Trace<'m>,
    ) -> Result<&'m Self, BootError> {
        let span = memblock.span().ok_or(BootError::NoMemory)?;
        if !ram.span().contains_range(&span.to_phys()) {
            return Err(BootError::OutsideDirectMap);
        }
        let nr_pageblocks = Frames::nr_pageblocks(span);
        let mut take =
            |bytes| Storage::take(ram, &mut memblock, bytes).ok_or(BootError::NoRoomForTables);
        let descriptors = take(Memmap::bytes_for(span.len()))?;
        let pageblocks = take(nr_pageblocks as u64 * 4)?;
        let own = take(size_of::<Self>() as u64)?;
        let sets = take(u64::from(cpus.len()) * size_of::<CpuSet>() as u64)?;

        let pageblocks = pageblocks.into_slice(nr_pageblocks, |_| AtomicU32::new(NEW_PAGEBLOCK));
        let frames = Frames::new(descriptors.into_memmap(span), pageblocks);

        let node = populate(frames, memblock.hand_over());
        let free = node.zones().map(|zone| zone.managed).sum();
        vmstat.add(VmItem::NrFreePages, free);
        note_zones(frames);
        let sets = sets.into_slice(usize::from(cpus.len()), |cpu| cpu_set(cpu, &node, cpus));
        let allocator = Self::new(node, frames, ram, (cpus, sets), vmstat, trace);
        allocator.set_default_min_free_kbytes();
        Ok(own.into_value(allocator))
    }
}

/// Tells each pageblock whose frames are all in one zone which that is.
fn note_zones(frames: Frames<'_>) {
    let span = frames.memmap.span();
    for pfn in span.iter().step_by(PAGEBLOCK_ORDER.pages() as usize) {
        let Some(range) = frames.pageblock_frames(pfn) else {
            continue;
        };
        let (first, last) = (range.start(), Pfn::new(range.end().as_u32() - 1));
        let zone = zone::zone_type_of(first).index();
        if zone == zone::zone_type_of(last).index() {
            frames.set_zone(pfn, zone as u8);
        }
    }
}

/// The lists of one of `cpus`, empty.
fn cpu_set(cpu: usize, node: &Node, cpus: Cpus<'_>) -> CpuSet {
    let mut route = [pcp::NO_LIST; pcp::ROUTES];
    for (bits, list) in route.iter_mut().enumerate() {
        let gfp = GfpFlags::from_bits_retain(bits as u32);
        let zone = node.zonelist(gfp.highest_zone()).next();
        let at = zone.and_then(|zone| pcp::list_of(zone.zone_type.index(), gfp.migrate_type()));
        *list = at
            .and_then(|at| u8::try_from(at).ok())
            .unwrap_or(pcp::NO_LIST);
    }
    let managed: u64 = node.zones().map(|zone| zone.managed).sum();
    let min_free = watermark::default_min_free_kbytes(managed * (PAGE_SIZE / 1024));
    let tuning = |index: usize| {
        let zone = node.zone(index);
        let min_free_pages = min_free / (PAGE_SIZE / 1024);
        let marks = watermark::Watermarks::new(min_free_pages, zone.managed, managed);
        Tuning::new(zone.managed, marks.low, cpus.len())
    };
    CpuSet::new(cpu, tuning, route)
}

/// Frees all memory that boot left over.
fn populate(frames: Frames<'_>, memory: HandOver) -> Node {
    let mut node = Node::new();
    for region in memory.memory() {
        if let Some(range) = region.range.whole_frames() {
            node.add_present(range);
        }
    }
    for (range, _) in memory {
        free_range(&mut node, frames, range);
    }
    node.finish();
    node
}

/// Frees a run of frames in blocks as large as alignment allows, lowest first on the lists.
fn free_range(node: &mut Node, frames: Frames<'_>, range: PfnRange) {
    for pfn in range.iter() {
        frames.page(pfn).set_state(PageState::Tail);
    }
    let mut at = range.start();
    while at < range.end() {
        let order = largest_block(at, range.end());
        let zone = node.zone_mut(at);
        zone.managed += u64::from(order.pages());
        zone.state_mut()
            .areas
            .give(frames, at, order, ListEnd::Tail);
        at = at + order.pages();
    }
}

/// The largest block that may start at `pfn` and ends no later than `end`.
fn largest_block(pfn: Pfn, end: Pfn) -> Order {
    let fits = |order: &Order| order.is_aligned(pfn) && order.pages() <= end - pfn;
    let order = Order::all().rev().find(fits).unwrap_or(Order::ZERO);
    debug_assert_eq!(
        zone::zone_type_of(pfn),
        zone::zone_type_of(pfn + (order.pages() - 1))
    );
    order
}
