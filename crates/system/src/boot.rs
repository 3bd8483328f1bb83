//! From a memory map to a running system.

use crate::System;
use crate::pressure::{NodeMarks, Shrinkers};
use vellum_machine::{Machine, MemoryKind, MemoryRegion, PerCpuSlot, Trace, VmStat};
use vellum_memblock::{MemBlock, MemBlockError};
use vellum_mm::{
    KernelMappings, LocalMappings, MmCaches, MmContext, MmParts, ShmemStore, ShmemSwap,
};
use vellum_page::{PageSource as _, place, place_slice};
use vellum_page_alloc::{BootParts, PageAllocator, ZoneProfile, place_at_boot};
use vellum_page_cache::{BackingStore, PageCache};
use vellum_page_table::X86_64FourLevel;
use vellum_reclaim::{LruNode, Nodes as _, PolicyKind, Reclaim};
use vellum_rmap::{AnonTable, RmapCaches};
use vellum_slab::SlabAllocator;
use vellum_swap::Swap;
use vellum_types::OutOfMemory;
use vellum_vma::VmaCaches;
use vellum_vmalloc::{KernelLayout, KmapDepth};

/// The least RAM, in bytes, that boots and leaves room for a program.
pub const MIN_RAM: u64 = 4 << 20;

/// Bytes of kernel addresses for vmalloc: what one table below the root translates.
const VMALLOC_BYTES: u64 = 512 << 30;

/// Choices at boot.
#[derive(Clone, Copy, Debug)]
pub struct SystemConfig<'m> {
    /// Where events go.
    pub trace: Trace<'m>,
    /// `vm.max_map_count`: areas in one address space.
    pub max_map_count: u32,
    /// Which page goes when memory runs short.
    pub policy: PolicyKind,
    /// `vm.swappiness`, 0 to 200.
    pub swappiness: u8,
    /// Which frames belong to which kind of zone.
    pub zones: ZoneProfile,
}

impl Default for SystemConfig<'_> {
    fn default() -> Self {
        Self {
            trace: Trace::OFF,
            max_map_count: 65530,
            policy: PolicyKind::TwoList,
            swappiness: Reclaim::SWAPPINESS,
            zones: ZoneProfile::X86_64,
        }
    }
}

/// Why a machine cannot be booted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BootError {
    /// Less usable memory than [`MIN_RAM`].
    TooSmall {
        /// Bytes that are usable.
        have: u64,
        /// Bytes that it takes.
        least: u64,
    },
    /// The memory map has more pieces than boot memory can list.
    MemoryMap(MemBlockError),
    /// The allocator refused the memory.
    Pages(vellum_page_alloc::BootError),
    /// Memory ended before the system was up.
    OutOfMemory,
}

impl core::fmt::Display for BootError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TooSmall { have, least } => {
                write!(
                    f,
                    "{have} bytes of RAM are too few to boot; the least is {least}"
                )
            }
            Self::MemoryMap(error) => write!(f, "memory map: {error:?}"),
            Self::Pages(error) => write!(f, "page allocator: {error}"),
            Self::OutOfMemory => f.write_str("out of memory during boot"),
        }
    }
}

impl core::error::Error for BootError {}

impl From<OutOfMemory> for BootError {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

/// True if some frame lies above the direct map.
fn has_high_memory(pages: &PageAllocator<'_>) -> bool {
    let span = pages.memmap().span();
    !pages.ram().covers(span.start() + (span.len() - 1))
}

/// Usable memory first, then what is reserved: the order of the map does not matter.
fn read_map(map: &[MemoryRegion]) -> Result<MemBlock, BootError> {
    let mut memblock = MemBlock::new();
    for region in map.iter().filter(|r| r.kind == MemoryKind::Usable) {
        memblock
            .add(region.range, region.node)
            .map_err(BootError::MemoryMap)?;
    }
    for region in map.iter().filter(|r| r.kind == MemoryKind::Reserved) {
        memblock
            .reserve(region.range)
            .map_err(BootError::MemoryMap)?;
    }
    Ok(memblock)
}

impl<'m, M: Machine> System<'m, M> {
    /// Boots `machine`, with `store` behind its files.
    ///
    /// # Errors
    /// See [`BootError`].
    pub fn boot(
        machine: &'m M,
        store: &'m dyn BackingStore,
        config: SystemConfig<'m>,
    ) -> Result<Self, BootError> {
        let ram = machine.direct_map();
        let mut memblock = read_map(machine.memory_map())?;
        let have = memblock.memory_bytes();
        if have < MIN_RAM {
            return Err(BootError::TooSmall {
                have,
                least: MIN_RAM,
            });
        }
        let vmstat =
            place_at_boot(ram, &mut memblock, VmStat::new()).ok_or(BootError::OutOfMemory)?;
        let store = place_at_boot(ram, &mut memblock, ShmemStore::new(store))
            .ok_or(BootError::OutOfMemory)?;
        let anon_table =
            place_at_boot(ram, &mut memblock, AnonTable::new()).ok_or(BootError::OutOfMemory)?;
        let parts = BootParts::new(ram, memblock, machine.cpus(), vmstat, config.trace);
        let pages = PageAllocator::boot_from(BootParts {
            profile: config.zones,
            distance: &|from, to| machine.node_distance(from, to),
            ..parts
        })
        .map_err(BootError::Pages)?;
        let slab = SlabAllocator::boot(pages, vmstat, machine.cpus())?;
        let caches = MmCaches {
            areas: VmaCaches {
                areas: slab.typed_box("vm_area_struct")?,
                leaves: slab.typed_box("vma_leaf")?,
                inners: slab.typed_box("vma_inner")?,
            },
            rmap: RmapCaches {
                anon_vma: slab.typed_arc("anon_vma")?,
                links: slab.typed_arc("anon_vma_chain")?,
                numbers: slab.typed_box("anon_vma_node")?,
                mappers: slab.typed_box("rmap_node")?,
            },
            file_maps: slab.typed_arc("file_map")?,
            mm: slab.typed_arc("mm_struct")?,
            spaces: slab.typed_box("mm_table_node")?,
        };
        let nodes = place(pages, NodeMarks::new(pages))?;
        let lru = place_slice(pages, nodes.nr_nodes().into(), |_| {
            LruNode::new(config.policy)
        })?;
        let reclaim = place(pages, Reclaim::new(pages, nodes, lru, vmstat))?;
        reclaim.set_swappiness(config.swappiness);
        let swap = place(pages, Swap::new(reclaim, vmstat)?)?;
        let cache = PageCache::new(
            store,
            reclaim,
            vmstat,
            config.trace,
            slab.typed_box("radix_tree_node")?,
            slab.typed_arc("address_space")?,
            slab.typed_box("file_table_node")?,
        )
        .with_swap(place(pages, ShmemSwap(swap))?);
        let shrinker = place(pages, Shrinkers { pages, slab })?;
        let areas = slab.typed_box("vmap_area")?;
        let depths = match has_high_memory(pages) {
            true => Some(place_slice(pages, machine.cpus().len().into(), |_| {
                PerCpuSlot::new(KmapDepth::NONE)
            })?),
            false => None,
        };
        slab.shrink();
        let free_at_boot = pages.nr_free_pages();
        let layout = KernelLayout::x86_64::<X86_64FourLevel>(VMALLOC_BYTES, machine.cpus().len());
        let vmalloc = KernelMappings::boot(machine, reclaim, vmstat, layout, areas)?;
        let local = match depths {
            Some(depths) => Some(LocalMappings::new(&vmalloc, depths)?),
            None => None,
        };
        let context = MmContext::new(MmParts {
            machine,
            vmstat,
            trace: config.trace,
            cache,
            caches,
            vmalloc,
            local,
            swap,
            reclaim,
            shrinker,
            anon_table,
            max_map_count: config.max_map_count,
        })?;
        Ok(Self::assemble(context, pages, slab, free_at_boot))
    }
}
