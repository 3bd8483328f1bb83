//! What every operation on an address space needs at hand.

use crate::MmError;
use crate::backing::{VmBacking, is_shmem};
use crate::host::Shrinker;
use crate::mm::{Area, KernelMappings, LocalMappings, RssKind, UserLeaf};
use crate::spaces::SpaceTable;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use vellum_collections::RadixNode;
use vellum_machine::{DirectMap, Fill, Machine, Trace, VmItem, VmStat};
use vellum_object::ObjectCache;
use vellum_page::{AllocRequest, Memmap, OwnedPages, Page, PageFlags, PageSource, PageState};
use vellum_page_cache::{Mapping, MappingRef, PageCache};
use vellum_page_table::{Pte, PteFlags, TlbGather};
use vellum_reclaim::Reclaim;
use vellum_rmap::{AnonTable, Registration, RmapCaches};
use vellum_swap::Swap;
use vellum_types::{FileId, Order, OutOfMemory, Pfn, Prot, SpaceId, VirtAddr, VmFlags};
use vellum_vma::VmaCaches;

/// Pages of the 16 MiB below which old devices reach.
const LOW_ZONE_PAGES: u64 = 4096;

/// The object caches that address spaces draw from.
#[derive(Clone, Copy)]
pub struct MmCaches<'m> {
    /// `vm_area_struct` and the nodes of area sets.
    pub areas: VmaCaches<'m, VmBacking<'m>>,
    /// Reverse mapping.
    pub rmap: RmapCaches<'m>,
    /// Places of areas among those who map a file (shared).
    pub file_maps: ObjectCache<'m, Registration<'m, Mapping<'m>>>,
    /// `mm_struct`.
    pub mm: ObjectCache<'m, crate::Mm<'m>>,
    /// Nodes of the table of address spaces.
    pub spaces: ObjectCache<'m, RadixNode<'m, crate::MmRef<'m>>>,
}

/// The parts of a system that address spaces use, and the home of all their operations.
pub struct MmContext<'m, M: Machine> {
    pub(crate) machine: &'m M,
    pub(crate) ram: DirectMap<'m>,
    pub(crate) source: &'m dyn PageSource,
    pub(crate) memmap: Memmap<'m>,
    pub(crate) vmstat: &'m VmStat,
    pub(crate) trace: Trace<'m>,
    pub(crate) cache: PageCache<'m>,
    pub(crate) swap: &'m Swap<'m>,
    pub(crate) reclaim: &'m Reclaim<'m>,
    pub(crate) shrinker: &'m dyn Shrinker,
    pub(crate) caches: MmCaches<'m>,
    pub(crate) vmalloc: KernelMappings<'m, M>,
    pub(crate) local: Option<LocalMappings<'m, M>>,
    pub(crate) zero_page: Pfn,
    pub(crate) max_map_count: usize,
    pub(crate) spaces: SpaceTable<'m>,
    pub(crate) anon_table: &'m AnonTable<'m>,
    peak_rss: AtomicU64,
    next_shmem: AtomicU32,
}

/// Everything that [`MmContext::new`] wires together.
pub struct MmParts<'m, M: Machine> {
    /// The machine.
    pub machine: &'m M,
    /// The counters.
    pub vmstat: &'m VmStat,
    /// Where events go.
    pub trace: Trace<'m>,
    /// The page cache.
    pub cache: PageCache<'m>,
    /// Swap, with or without areas.
    pub swap: &'m Swap<'m>,
    /// Who gets frames back; also where they come from.
    pub reclaim: &'m Reclaim<'m>,
    /// Who else has some.
    pub shrinker: &'m dyn Shrinker,
    /// The object caches.
    pub caches: MmCaches<'m>,
    /// The kernel half, which all address spaces share.
    pub vmalloc: KernelMappings<'m, M>,
    /// For a machine whose direct map does not cover all of RAM.
    pub local: Option<LocalMappings<'m, M>>,
    /// All `anon_vma`s.
    pub anon_table: &'m AnonTable<'m>,
    /// `vm.max_map_count`.
    pub max_map_count: u32,
}

impl<'m, M: Machine> MmContext<'m, M> {
    /// Wires the parts together and sets up the shared zero page.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(parts: MmParts<'m, M>) -> Result<Self, OutOfMemory> {
        let request = AllocRequest::kernel_zeroed(Order::ZERO);
        let source: &'m dyn PageSource = parts.reclaim;
        let zero_page = OwnedPages::alloc(source, request)?.into_pfn();
        let memmap = source.memmap();
        memmap.page(zero_page).set_state(PageState::Zero);
        parts.machine.set_zero_page(zero_page);
        Ok(Self {
            ram: source.ram(),
            memmap,
            machine: parts.machine,
            source,
            vmstat: parts.vmstat,
            trace: parts.trace,
            cache: parts.cache,
            swap: parts.swap,
            reclaim: parts.reclaim,
            shrinker: parts.shrinker,
            caches: parts.caches,
            vmalloc: parts.vmalloc,
            local: parts.local,
            zero_page,
            max_map_count: parts.max_map_count as usize,
            spaces: SpaceTable::new(),
            peak_rss: AtomicU64::new(0),
            anon_table: parts.anon_table,
            next_shmem: AtomicU32::new(1),
        })
    }

    /// Gives back the zero page and the kernel's page tables: the end of the context. Address spaces
    /// must be gone. Returns what is left: the page cache, and how many areas of vmalloc are in use,
    /// which keep their frames.
    pub fn shutdown(mut self) -> (PageCache<'m>, usize) {
        self.page(self.zero_page).set_state(PageState::Allocated);
        self.source.free_pages(self.zero_page);
        let areas = self.vmalloc.shutdown().err().unwrap_or(0);
        (self.cache, areas)
    }

    /// True if some frames lie above the direct map: pages of programs may, those of files do not.
    pub const fn has_high_memory(&self) -> bool {
        self.local.is_some()
    }

    /// Kernel mappings: vmalloc, and the half of the page tables that all address spaces share.
    pub const fn vmalloc(&self) -> &KernelMappings<'m, M> {
        &self.vmalloc
    }

    /// The machine.
    pub const fn machine(&self) -> &'m M {
        self.machine
    }

    /// The counters.
    pub const fn vmstat(&self) -> &'m VmStat {
        self.vmstat
    }

    /// Where events go.
    pub const fn trace(&self) -> Trace<'m> {
        self.trace
    }

    /// The pages of a file, made known at the first call.
    ///
    /// # Errors
    /// NoMem.
    pub fn mapping(&self, file: FileId) -> Result<MappingRef<'m>, MmError> {
        self.with_room(|| Ok(self.cache.mapping(file)?))
    }

    /// Where frames come from and go back to, and who gets them back when they run out.
    pub const fn reclaim(&self) -> &'m Reclaim<'m> {
        self.reclaim
    }

    /// The swap areas.
    pub const fn swap(&self) -> &'m Swap<'m> {
        self.swap
    }

    /// The page cache.
    pub const fn cache(&self) -> &PageCache<'m> {
        &self.cache
    }

    /// The most resident pages that any address space that is gone ever had.
    pub fn peak_rss(&self) -> u64 {
        // Relaxed: a number for reports.
        self.peak_rss.load(Ordering::Relaxed)
    }

    pub(crate) fn note_peak_rss(&self, pages: u64) {
        self.peak_rss.fetch_max(pages, Ordering::Relaxed);
    }

    pub(crate) fn page(&self, pfn: Pfn) -> &'m Page {
        self.memmap.page(pfn)
    }

    pub(crate) fn gather(&self, space: SpaceId) -> TlbGather<'_, M> {
        TlbGather::new(self.machine, self.source, space, self.trace)
    }

    pub(crate) fn next_shmem_id(&self) -> u32 {
        // Relaxed: only uniqueness matters.
        self.next_shmem.fetch_add(1, Ordering::Relaxed)
    }

    /// Turns an allocated frame into an anonymous page mapped once. The reference that the
    /// allocation gave becomes the entry's.
    pub(crate) fn adopt_anon(&self, pfn: Pfn, anon_vma: u32, index: u64) {
        let page = self.page(pfn);
        page.set_owner(anon_vma);
        page.set_index(index);
        page.set_mapcount(1);
        page.set_state(PageState::Anon);
        page.set_flags(PageFlags::UPTODATE | PageFlags::DIRTY | PageFlags::SWAPBACKED);
        self.vmstat.add(VmItem::NrAnonPages, 1);
    }

    /// Counts a new entry for a page that is mapped elsewhere or cached. The caller already holds
    /// the reference that becomes the entry's.
    pub(crate) fn rmap_add(&self, pfn: Pfn) {
        let page = self.page(pfn);
        if page.map() == 1 {
            match page.state() {
                PageState::File => self.vmstat.add(VmItem::NrMapped, 1),
                PageState::Anon => self.vmstat.add(VmItem::NrAnonPages, 1),
                _ => {}
            }
        }
    }

    /// Counts an entry that went. The reference is dropped by the gather, after its flush.
    pub(crate) fn rmap_remove(&self, pfn: Pfn) {
        let page = self.page(pfn);
        if page.unmap() == 0 {
            match page.state() {
                PageState::File => self.vmstat.sub(VmItem::NrMapped, 1),
                PageState::Anon => self.vmstat.sub(VmItem::NrAnonPages, 1),
                _ => {}
            }
        }
    }

    /// Takes a block of `order`, or of the largest order below that can be had cheaply; at worst one
    /// page. Each page is a block of its own from here on: the block was only a way to get
    /// neighbouring frames in one go.
    pub(crate) fn alloc_block(&self, mut order: Order) -> Result<(Pfn, Order), OutOfMemory> {
        loop {
            let request = if order == Order::ZERO {
                AllocRequest::user_movable(order)
            } else {
                AllocRequest::user_opportunistic(order)
            };
            match self.source.alloc_pages(request) {
                Ok(frames) => {
                    if order > Order::ZERO {
                        self.source.split_page(frames);
                    }
                    return Ok((frames, order));
                }
                Err(oom) => order = order.down().ok_or(oom)?,
            }
        }
    }

    /// True if less than an eighth of all frames is free: no time for generosity. (The lowest zone
    /// keeps up to that much from programs.)
    pub(crate) fn is_short(&self) -> bool {
        let all = self.memmap.nr_frames();
        self.vmstat.item(VmItem::NrFreePages) < all / 8 + LOW_ZONE_PAGES.min(all / 8)
    }

    /// Drops a reference that no entry held.
    pub(crate) fn put_page(&self, pfn: Pfn) {
        // It may be in the swap cache.
        self.cache.put_page(pfn);
    }

    /// What a resident page of `area` counts as.
    pub(crate) fn rss_kind(&self, area: &Area<'m>, pfn: Pfn) -> RssKind {
        let shmem = area.backing.mapping().is_some_and(|m| is_shmem(m.file()));
        RssKind::of(self.page(pfn).state(), shmem)
    }

    /// An entry for `pfn` with an area's permissions. Never writable: the caller adds that.
    pub(crate) fn entry(pfn: Pfn, flags: VmFlags) -> Pte {
        let mut bits = PteFlags::PRESENT | PteFlags::USER | PteFlags::ACCESSED;
        if !flags.contains(VmFlags::EXEC) {
            bits |= PteFlags::NX;
        }
        Pte::new(pfn, bits)
    }

    /// What the machine may be told about a present entry: write permission only once the entry is
    /// dirty, unless the hardware sets that bit itself.
    pub(crate) fn fill(&self, pte: Pte) -> Fill {
        let flags = pte.flags();
        let mut prot = Prot::READ;
        let may_write = self.machine.features().hw_access_dirty || flags.contains(PteFlags::DIRTY);
        prot.set(Prot::WRITE, flags.contains(PteFlags::WRITE) && may_write);
        prot.set(Prot::EXEC, !flags.contains(PteFlags::NX));
        Fill {
            pfn: pte.pfn(),
            prot,
        }
    }

    /// Tells the machine about the present entries among `pages` pages from `start`, all of one leaf
    /// table, in as few calls as their gaps allow.
    pub(crate) fn update_mmu(
        &self,
        leaf: &UserLeaf<'m>,
        space: SpaceId,
        start: VirtAddr,
        pages: u64,
    ) {
        const BATCH: usize = 64;
        if pages == 1 {
            let pte = leaf.get(start);
            if pte.is_present() {
                let fills = [self.fill(pte)];
                self.machine.update_mmu_cache_range(space, start, &fills);
            }
            return;
        }
        let mut fills = [Fill {
            pfn: Pfn::ZERO,
            prot: Prot::NONE,
        }; BATCH];
        let mut run = start;
        let mut len = 0;
        for n in 0..pages {
            let va = start + n * vellum_types::PAGE_SIZE;
            let pte = leaf.get(va);
            if len == BATCH || (!pte.is_present() && len > 0) {
                self.machine
                    .update_mmu_cache_range(space, run, &fills[..len]);
                len = 0;
            }
            if pte.is_present() {
                if len == 0 {
                    run = va;
                }
                fills[len] = self.fill(pte);
                len += 1;
            }
        }
        if len > 0 {
            self.machine
                .update_mmu_cache_range(space, run, &fills[..len]);
        }
    }
}

/// An entry that holds a frame but denies all access, for PROT_NONE: not present, with the global
/// bit as the mark, as Linux does it on x86.
pub(crate) fn to_prot_none(pte: Pte) -> Pte {
    pte.without(PteFlags::PRESENT).with(PteFlags::GLOBAL)
}

/// The inverse of [`to_prot_none`].
pub(crate) fn from_prot_none(pte: Pte) -> Pte {
    pte.without(PteFlags::GLOBAL).with(PteFlags::PRESENT)
}

/// True for an entry that [`to_prot_none`] made.
pub(crate) fn is_prot_none(pte: Pte) -> bool {
    !pte.is_present() && pte.flags().contains(PteFlags::GLOBAL)
}

/// True if the entry holds a frame, accessible or not.
pub(crate) fn has_frame(pte: Pte) -> bool {
    pte.is_present() || is_prot_none(pte)
}

/// True for an entry of the shared zero page, which is not counted anywhere.
pub(crate) fn is_zero_entry(pte: Pte) -> bool {
    has_frame(pte) && pte.flags().contains(PteFlags::SPECIAL)
}
