//! Counters with the names of `/proc/vmstat`.

use core::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($(#[$doc:meta])* $type:ident { $($(#[$vdoc:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(usize)]
        pub enum $type { $($(#[$vdoc])* $variant,)* }

        impl $type {
            /// All of them, in order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Linux's name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

counters! {
    /// Things that happened; these only grow.
    VmEvent {
        /// Pages taken from the node that was wanted. These are counted on machines with
        /// several nodes only.
        NumaHit = "numa_hit",
        /// Pages taken from a node although another was wanted.
        NumaMiss = "numa_miss",
        /// Pages wanted from a node and taken elsewhere: the other side of each miss.
        NumaForeign = "numa_foreign",
        /// Pages taken from the node of the CPU that asked.
        NumaLocal = "numa_local",
        /// Pages taken from another node than that of the CPU that asked.
        NumaOther = "numa_other",
        /// All page faults.
        PgFault = "pgfault",
        /// Page faults that waited for I/O.
        PgMajFault = "pgmajfault",
        /// Pages allocated from ZONE_DMA.
        PgAllocDma = "pgalloc_dma",
        /// Pages allocated from ZONE_DMA32.
        PgAllocDma32 = "pgalloc_dma32",
        /// Pages allocated from ZONE_NORMAL.
        PgAllocNormal = "pgalloc_normal",
        /// Pages allocated from ZONE_HIGHMEM.
        PgAllocHigh = "pgalloc_high",
        /// Pages allocated from ZONE_MOVABLE.
        PgAllocMovable = "pgalloc_movable",
        /// Pages freed.
        PgFree = "pgfree",
        /// Kilobytes read from backing stores.
        PgPgIn = "pgpgin",
        /// Kilobytes written to backing stores.
        PgPgOut = "pgpgout",
        /// Pages read from swap areas of any kind. Linux leaves out those that zswap holds.
        PSwpIn = "pswpin",
        /// Pages written to swap areas of any kind. Linux leaves out those that zswap holds.
        PSwpOut = "pswpout",
        /// Pages read from zswap's memory.
        ZswpIn = "zswpin",
        /// Pages kept in zswap's memory.
        ZswpOut = "zswpout",
        /// Pages that zswap moved to the device behind it.
        ZswpWb = "zswpwb",
        /// Pages read from swap areas before they were asked for.
        SwapRa = "swap_ra",
        /// Of these, pages that were asked for later.
        SwapRaHit = "swap_ra_hit",
        /// Pages that went from MADV_FREE to free.
        PgLazyFree = "pglazyfree",
        /// Processes killed for lack of memory.
        OomKill = "oom_kill",
        /// Page-cache pages dropped by truncation and invalidation.
        PgInvalidate = "pginvalidate",
        /// Faults that mapped the shared zero page. Linux has no such counter.
        ZeroPageMapped = "vellum_zero_page_mapped",
        /// Private copies made by a write to a shared frame. Linux has no such counter.
        CowCopy = "vellum_cow_copy",
        /// Writes that found themselves the sole owner. Linux has no such counter.
        CowReuse = "vellum_cow_reuse",
        /// Faults on entries that were already right: TLB refills. Linux's
        /// `spurious_fault` path; it has no such counter.
        SpuriousFault = "vellum_spurious_fault",
        /// Pages mapped by fault-around. Linux has no such counter.
        FaultAround = "vellum_fault_around",
        /// Pages filled beside the faulting one by a multi-page anonymous fault. Linux counts
        /// `anon_fault_alloc` per order in sysfs.
        AnonFaultAround = "vellum_anon_fault_around",
        /// Kernel entries copied into an address space by a fault, where they could not be shared
        /// beforehand. Linux's `vmalloc_fault`; it has no such counter.
        VmallocFault = "vellum_vmalloc_fault",
        /// Stacks grown by a fault. Linux has no such counter.
        StackGrow = "vellum_stack_grow",
        /// Pages that kswapd looked at on inactive lists.
        PgScanKswapd = "pgscan_kswapd",
        /// Pages that allocating programs looked at on inactive lists.
        PgScanDirect = "pgscan_direct",
        /// Of those, anonymous ones.
        PgScanAnon = "pgscan_anon",
        /// Of those, file pages.
        PgScanFile = "pgscan_file",
        /// Pages that kswapd freed.
        PgStealKswapd = "pgsteal_kswapd",
        /// Pages that allocating programs freed.
        PgStealDirect = "pgsteal_direct",
        /// Of those, anonymous ones.
        PgStealAnon = "pgsteal_anon",
        /// Of those, file pages.
        PgStealFile = "pgsteal_file",
        /// Pages that became active.
        PgActivate = "pgactivate",
        /// Pages that stopped being active.
        PgDeactivate = "pgdeactivate",
        /// Pages looked at on active lists.
        PgRefill = "pgrefill",
        /// Pages sent to the end of their inactive list because they were being written.
        PgRotated = "pgrotated",
        /// Direct reclaims. Linux counts them by zone.
        AllocStall = "allocstall",
        /// Rounds of kswapd that ended because nothing could be freed. Linux has no such counter.
        KswapdHopeless = "vellum_kswapd_hopeless",
        /// Times that kswapd went to work. Linux has no such counter.
        KswapdRuns = "vellum_kswapd_runs",
        /// Anonymous pages that came back after they had been reclaimed.
        WorkingsetRefaultAnon = "workingset_refault_anon",
        /// File pages that came back after they had been reclaimed.
        WorkingsetRefaultFile = "workingset_refault_file",
        /// Of the anonymous ones, those that were made active or may become so.
        WorkingsetActivateAnon = "workingset_activate_anon",
        /// Of the file pages, those that were made active or may become so.
        WorkingsetActivateFile = "workingset_activate_file",
        /// Of the anonymous ones, those that had been active before.
        WorkingsetRestoreAnon = "workingset_restore_anon",
        /// Of the file pages, those that had been active before.
        WorkingsetRestoreFile = "workingset_restore_file",
        /// Pages that moved to another frame.
        PgMigrateSuccess = "pgmigrate_success",
        /// Pages that could not.
        PgMigrateFail = "pgmigrate_fail",
        /// Requests for which memory was compacted.
        CompactStall = "compact_stall",
        /// Of those, compactions that ended in vain.
        CompactFail = "compact_fail",
        /// Of those, compactions that made a block.
        CompactSuccess = "compact_success",
        /// Frames looked at for pages to move.
        CompactMigrateScanned = "compact_migrate_scanned",
        /// Free frames found on the way, that need not be emptied.
        CompactFreeScanned = "compact_free_scanned",
        /// Pages taken off their lists to be moved.
        CompactIsolated = "compact_isolated",
        /// Anonymous pages that MADV_FREE had given up, dropped.
        PgLazyFreed = "pglazyfreed",
        /// Tree nodes freed that held nothing but shadows.
        WorkingsetNodeReclaim = "workingset_nodereclaim",
        /// Page-cache pages that became dirty.
        NrDirtied = "nr_dirtied",
        /// Page-cache pages that were written to their store.
        NrWritten = "nr_written",
        /// Pages that went to the unevictable list.
        UnevictablePgsCulled = "unevictable_pgs_culled",
        /// Pages that came back from it.
        UnevictablePgsRescued = "unevictable_pgs_rescued",
    }
}

counters! {
    /// Amounts at this moment; these go up and down.
    VmItem {
        /// Free pages.
        NrFreePages = "nr_free_pages",
        /// Anonymous pages mapped.
        NrAnonPages = "nr_anon_pages",
        /// File pages mapped.
        NrMapped = "nr_mapped",
        /// Page-cache pages.
        NrFilePages = "nr_file_pages",
        /// Dirty page-cache pages.
        NrDirty = "nr_dirty",
        /// Page-cache pages being written to their store.
        NrWriteback = "nr_writeback",
        /// Dirty pages at which programs must write.
        NrDirtyThreshold = "nr_dirty_threshold",
        /// Dirty pages at which writing in the background begins.
        NrDirtyBackgroundThreshold = "nr_dirty_background_threshold",
        /// Tree nodes that hold nothing but shadows.
        WorkingsetNodes = "workingset_nodes",
        /// Pages of shared memory and tmpfs.
        NrShmem = "nr_shmem",
        /// Pages of page tables.
        NrPageTablePages = "nr_page_table_pages",
        /// Slab pages that a shrinker can free.
        NrSlabReclaimable = "nr_slab_reclaimable",
        /// Slab pages that stay.
        NrSlabUnreclaimable = "nr_slab_unreclaimable",
        /// Pages locked by mlock.
        NrMlock = "nr_mlock",
        /// Pages in the swap cache.
        NrSwapCached = "nr_swapcached",
        /// Anonymous pages not used lately.
        NrInactiveAnon = "nr_inactive_anon",
        /// Anonymous pages in use.
        NrActiveAnon = "nr_active_anon",
        /// File pages not used lately.
        NrInactiveFile = "nr_inactive_file",
        /// File pages in use.
        NrActiveFile = "nr_active_file",
        /// Pages that reclaim must leave alone.
        NrUnevictable = "nr_unevictable",
    }
}

/// The counters of one system. All Relaxed: each stands for itself and orders nothing.
#[derive(Debug)]
pub struct VmStat {
    events: [AtomicU64; VmEvent::ALL.len()],
    items: [AtomicU64; VmItem::ALL.len()],
}

impl VmStat {
    /// All zero.
    pub const fn new() -> Self {
        Self {
            events: [const { AtomicU64::new(0) }; VmEvent::ALL.len()],
            items: [const { AtomicU64::new(0) }; VmItem::ALL.len()],
        }
    }
    /// One more `event`.
    #[inline]
    pub fn count(&self, event: VmEvent) {
        self.count_many(event, 1);
    }
    /// `n` more of `event`.
    #[inline]
    pub fn count_many(&self, event: VmEvent, n: u64) {
        self.events[event as usize].fetch_add(n, Ordering::Relaxed);
    }
    /// How often `event` happened.
    pub fn events(&self, event: VmEvent) -> u64 {
        self.events[event as usize].load(Ordering::Relaxed)
    }
    /// `n` more of `item`.
    #[inline]
    pub fn add(&self, item: VmItem, n: u64) {
        self.items[item as usize].fetch_add(n, Ordering::Relaxed);
    }
    /// `n` fewer of `item`.
    #[inline]
    pub fn sub(&self, item: VmItem, n: u64) {
        self.items[item as usize].fetch_sub(n, Ordering::Relaxed);
    }
    /// There are `n` of `item`: for what is computed now and then.
    #[inline]
    pub fn set(&self, item: VmItem, n: u64) {
        self.items[item as usize].store(n, Ordering::Relaxed);
    }
    /// How many of `item` there are.
    pub fn item(&self, item: VmItem) -> u64 {
        self.items[item as usize].load(Ordering::Relaxed)
    }
}

impl Default for VmStat {
    fn default() -> Self {
        Self::new()
    }
}
