//! `PageCache`: what all mappings share, and the table of them.

use crate::dirty::DirtyState;
use crate::{BackingStore, CacheSlot, IoError, Mapping, MappingRef, SwapSlots};
use core::fmt;
use vellum_collections::{Mark, RadixNode, RadixTree};
use vellum_machine::{DirectMap, LockRank, SpinLock, Trace, VmItem, VmStat};
use vellum_object::{KArc, ObjectCache};
use vellum_page::{AllocRequest, Memmap, Page, PageFlags, PageSource};
use vellum_types::{FileId, GfpFlags, Order, OutOfMemory, Pfn, SwapEntry};

/// The page cache of one system.
pub struct PageCache<'m> {
    pub(crate) store: &'m dyn BackingStore,
    pub(crate) source: &'m dyn PageSource,
    /// What frames of files are asked for with: those that have an address, for a store reads and
    /// writes there. Linux: `mapping_gfp_mask`, which is `GFP_USER` for such file systems.
    pub(crate) gfp: GfpFlags,
    pub(crate) vmstat: &'m VmStat,
    pub(crate) trace: Trace<'m>,
    pub(crate) ram: DirectMap<'m>,
    pub(crate) nodes: ObjectCache<'m, RadixNode<'m, CacheSlot>>,
    pub(crate) swap: Option<&'m dyn SwapSlots>,
    pub(crate) dirty: DirtyState,
    memmap: Memmap<'m>,
    mappings: ObjectCache<'m, Mapping<'m>>,
    table_nodes: ObjectCache<'m, RadixNode<'m, MappingRef<'m>>>,
    table: SpinLock<Table<'m>>,
}

/// All mappings.
struct Table<'m> {
    /// With the mark Dirty at least those that have dirty pages.
    by_file: RadixTree<'m, MappingRef<'m>>,
    /// The same ones by the owner word of their pages.
    by_id: RadixTree<'m, MappingRef<'m>>,
    last_id: u32,
    /// The file at which the next [`PageCache::shrink`] begins.
    hand: u64,
}

/// Handles to a mapping that the table holds.
const IN_TABLE: u32 = 2;

impl<'m> Table<'m> {
    fn remove(&mut self, file: FileId) -> Option<MappingRef<'m>> {
        let mapping = self.by_file.remove(file.0)?;
        self.by_id.remove(mapping.id().into());
        Some(mapping)
    }
}

impl<'m> PageCache<'m> {
    /// An empty cache.
    ///
    /// `nodes` are for the trees of pages (boxes), `mappings` for the mappings (shared),
    /// `table_nodes` for the table of mappings (boxes).
    pub fn new(
        store: &'m dyn BackingStore,
        source: &'m dyn PageSource,
        vmstat: &'m VmStat,
        trace: Trace<'m>,
        nodes: ObjectCache<'m, RadixNode<'m, CacheSlot>>,
        mappings: ObjectCache<'m, Mapping<'m>>,
        table_nodes: ObjectCache<'m, RadixNode<'m, MappingRef<'m>>>,
    ) -> Self {
        let table = Table {
            by_file: RadixTree::new(),
            by_id: RadixTree::new(),
            last_id: 0,
            hand: 0,
        };
        let span = source.memmap().span();
        let all_low = source.ram().covers(span.start() + (span.len() - 1));
        Self {
            store,
            source,
            gfp: if all_low {
                GfpFlags::HIGHUSER_MOVABLE
            } else {
                GfpFlags::HIGHUSER_MOVABLE.difference(GfpFlags::HIGHMEM)
            },
            vmstat,
            trace,
            ram: source.ram(),
            nodes,
            swap: None,
            dirty: DirtyState::new(),
            memmap: source.memmap(),
            mappings,
            table_nodes,
            table: SpinLock::new(LockRank::Files, table),
        }
    }

    /// Tells it where the slots of shared memory are given back. Without, no page goes there.
    #[must_use]
    pub fn with_swap(self, swap: &'m dyn SwapSlots) -> Self {
        let swap = Some(swap);
        Self { swap, ..self }
    }

    /// The store behind it.
    pub fn store(&self) -> &'m dyn BackingStore {
        self.store
    }

    /// The mapping of `file`, made at the first call with the size that the store reports.
    ///
    /// # Errors
    /// No memory for the mapping or the table.
    pub fn mapping(&self, file: FileId) -> Result<MappingRef<'m>, OutOfMemory> {
        if let Some(mapping) = self.find(file) {
            return Ok(mapping);
        }
        let size = self.store.size(file);
        let swap_backed = self.store.swap_backed(file);
        let mut table = self.table.lock();
        if let Some(mapping) = table.by_file.get(file.0) {
            return Ok(mapping.clone());
        }
        // Owner words are never used twice; a table that ran out of them is full.
        let id = table.last_id.checked_add(1).ok_or(OutOfMemory)?;
        let mapping =
            self.mappings
                .shared(Mapping::new(id, file, size, swap_backed, self.memmap))?;
        let nodes = self.table_nodes;
        table
            .by_file
            .insert(file.0, mapping.clone(), nodes)
            .map_err(|(_, error)| error)?;
        if let Err((_, error)) = table.by_id.insert(id.into(), mapping.clone(), nodes) {
            table.by_file.remove(file.0);
            return Err(error);
        }
        table.last_id = id;
        Ok(mapping)
    }

    /// The mapping of `file`, if it has one.
    pub fn find(&self, file: FileId) -> Option<MappingRef<'m>> {
        self.table.lock().by_file.get(file.0).cloned()
    }

    /// The mapping whose pages carry `id` as owner.
    pub fn find_by_id(&self, id: u32) -> Option<MappingRef<'m>> {
        self.table.lock().by_id.get(id.into()).cloned()
    }

    /// Handles to `mapping` beside those that the table holds; a snapshot.
    pub fn users(&self, mapping: &MappingRef<'m>) -> u32 {
        KArc::strong_count(mapping) - IN_TABLE
    }

    /// Asks the store to make what was written safe; after [`Mapping::writeback`].
    ///
    /// # Errors
    /// The store failed.
    pub fn sync(&self, mapping: &Mapping<'m>) -> Result<(), IoError> {
        self.store.sync(mapping.file())
    }

    /// Mappings.
    pub fn nr_mappings(&self) -> u64 {
        self.table.lock().by_file.len()
    }

    /// Calls `each` for every mapping, by file number. No lock is held meanwhile; mappings made
    /// during the walk may be missed.
    pub fn for_each_mapping(&self, each: &mut dyn FnMut(&MappingRef<'m>)) {
        let mut from = Some(0);
        while let Some(mapping) = from.and_then(|from| self.next_mapping(from)) {
            each(&mapping);
            from = mapping.file().0.checked_add(1);
        }
    }

    /// Drops the mapping of `file` and its pages, and releases the file to the store, if nobody has
    /// a handle but the table. True if there is no such mapping afterwards. Dirty pages are lost:
    /// write back before what anybody will read again.
    pub fn drop_mapping(&self, file: FileId) -> bool {
        let mut table = self.table.lock();
        let Some(mapping) = table.by_file.get(file.0) else {
            return true;
        };
        // Exact: new handles come from the table, whose lock we hold, or from other handles.
        if KArc::strong_count(mapping) != IN_TABLE {
            return false;
        }
        let mapping = table.remove(file);
        drop(table);
        if let Some(mapping) = mapping {
            self.retire(&mapping);
        }
        true
    }

    /// Drops all mappings and all their pages, dirty ones too: write back before. For shutdown; a
    /// handle that somebody kept is to a mapping without pages, which is in no table.
    pub fn drop_all(&self) {
        while let Some(mapping) = self.next_mapping(0) {
            self.table.lock().remove(mapping.file());
            self.retire(&mapping);
        }
    }

    /// Drops a reference got from a mapping's methods; frees the frame if it was the last.
    pub fn put_page(&self, pfn: Pfn) {
        let page = self.page(pfn);
        match self.swap {
            // Shared memory that came back lately; the swap cache may have the other reference.
            Some(swap) if page.flags().contains(PageFlags::SWAPCACHE) => swap.put_page(pfn),
            _ if page.put() => self.source.free_pages(pfn),
            _ => {}
        }
    }

    /// Frees up to `target` clean pages that nobody maps or holds; returns how many it freed. Pages
    /// that were not used again since they were read go first. Linux's `shrink_page_list` on the
    /// inactive file list, with one hand that goes round the files.
    pub fn shrink(&self, target: u64) -> u64 {
        let mut freed = 0;
        // The first round takes only pages without the mark of use and takes the mark from the
        // rest, so that the second finds them bare.
        for _ in 0..2 {
            let mut left = self.nr_mappings();
            while freed < target && left > 0 {
                let hand = self.table.lock().hand;
                let Some(mapping) = self.next_mapping(hand).or_else(|| self.next_mapping(0)) else {
                    return freed;
                };
                freed += mapping.shrink(self, target - freed);
                left -= 1;
                if freed < target {
                    self.table.lock().hand = mapping.file().0.checked_add(1).unwrap_or(0);
                }
            }
        }
        freed
    }

    /// Checks the table and every mapping.
    ///
    /// # Errors
    /// What is wrong.
    pub fn validate(&self) -> Result<(), &'static str> {
        {
            let table = self.table.lock();
            table.by_file.validate()?;
            table.by_id.validate()?;
            if table.by_id.len() != table.by_file.len() {
                return Err("the tables of mappings differ");
            }
            for (file, mapping) in table.by_file.range(0..=u64::MAX) {
                let named = table.by_id.get(mapping.id().into());
                if !named.is_some_and(|same| KArc::ptr_eq(same, mapping)) {
                    return Err("a mapping is not found by its number");
                }
                // Where it is dirty first and marked after, nobody else runs here.
                if mapping.nr_dirty() > 0 && !table.by_file.is_marked(file, Mark::Dirty) {
                    return Err("a dirty mapping would not be written");
                }
                if mapping.file().0 != file || mapping.id() == 0 || mapping.id() > table.last_id {
                    return Err("a mapping has a wrong name");
                }
            }
        }
        let mut result = Ok(());
        let (mut pages, mut shadow_nodes) = (0, 0);
        self.for_each_mapping(&mut |mapping| {
            pages += mapping.nr_pages();
            shadow_nodes += mapping.lock().tree.shadow_nodes();
            result = result.and(mapping.validate());
        });
        result?;
        if pages != self.vmstat.item(VmItem::NrFilePages) {
            return Err("nr_file_pages is wrong");
        }
        if shadow_nodes != self.vmstat.item(VmItem::WorkingsetNodes) {
            return Err("workingset_nodes is wrong");
        }
        Ok(())
    }

    pub(crate) fn page(&self, pfn: Pfn) -> &'m Page {
        self.memmap.page(pfn)
    }

    pub(crate) fn nr_frames(&self) -> u64 {
        u64::from(self.memmap.span().len())
    }

    /// A page that was in swap was truncated.
    pub(crate) fn free_swap_slot(&self, entry: SwapEntry) {
        debug_assert!(
            self.swap.is_some(),
            "a page went to swap, and there is none"
        );
        if let Some(swap) = self.swap {
            swap.free(entry);
        }
    }

    /// The first dirty page of a mapping appeared; no lock is held but `mmap_lock`.
    pub(crate) fn note_dirty(&self, mapping: &Mapping<'m>) {
        self.stamp(mapping);
        let mut table = self.table.lock();
        table.by_file.set_mark(mapping.file().0, Mark::Dirty);
    }

    /// A mapping was found without dirty pages.
    pub(crate) fn forget_dirty(&self, mapping: &Mapping<'m>) {
        let file = mapping.file().0;
        self.table.lock().by_file.clear_mark(file, Mark::Dirty);
        // Of a page that became dirty meanwhile, the mark may have been cleared.
        if mapping.nr_dirty() > 0 {
            self.note_dirty(mapping);
        }
    }

    /// Calls `each` for the mappings that may have dirty pages, under the lock of the table.
    pub(crate) fn for_each_dirty(&self, each: &mut dyn FnMut(&MappingRef<'m>)) {
        let table = self.table.lock();
        let mut from = Some(0);
        while let Some((file, mapping)) =
            from.and_then(|f| table.by_file.next_marked(f, Mark::Dirty))
        {
            each(mapping);
            from = file.checked_add(1);
        }
    }

    /// Pages that one readahead may take: a quarter of what is free.
    pub(crate) fn readahead_limit(&self) -> u64 {
        (self.vmstat.item(VmItem::NrFreePages) / 4).max(1)
    }

    /// Fills the front of `out` with single frames, as contiguous as they can be had; returns how
    /// many there are.
    pub(crate) fn alloc_frames(&self, out: &mut [Pfn]) -> usize {
        let mut got = 0;
        let mut cap = Order::MAX;
        while got < out.len() {
            let left = (out.len() - got) as u64;
            let order = Order::for_pages(left).unwrap_or(Order::MAX).min(cap);
            let Ok(block) = self.source.alloc_pages(AllocRequest::new(
                order,
                self.gfp | GfpFlags::NORETRY | GfpFlags::NOWARN,
            )) else {
                match order.down() {
                    Some(smaller) => cap = smaller,
                    None => break,
                }
                continue;
            };
            if order != Order::ZERO {
                self.source.split_page(block);
            }
            for i in 0..order.pages() {
                match out.get_mut(got) {
                    Some(slot) => {
                        *slot = block + i;
                        got += 1;
                    }
                    // The block was longer than the rest, as blocks are powers of two.
                    None => self.source.free_pages(block + i),
                }
            }
        }
        got
    }

    pub(crate) fn free_frames(&self, frames: &[Pfn]) {
        for &pfn in frames {
            self.source.free_pages(pfn);
        }
    }

    fn next_mapping(&self, from: u64) -> Option<MappingRef<'m>> {
        self.table
            .lock()
            .by_file
            .next(from)
            .map(|(_, mapping)| mapping.clone())
    }

    /// The last step of a mapping that is in no table any more.
    fn retire(&self, mapping: &Mapping<'m>) {
        mapping.drop_range(self, 0, u64::MAX);
        self.store.release(mapping.file());
    }
}

impl fmt::Debug for PageCache<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageCache")
            .field("mappings", &self.nr_mappings())
            .finish_non_exhaustive()
    }
}
