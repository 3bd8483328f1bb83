//! One address space.

use crate::backing::VmBacking;
use core::sync::atomic::{AtomicU32, Ordering};
use vellum_machine::{LockRank, SpinGuard, SpinLock};
use vellum_object::KArc;
use vellum_page::PageState;
use vellum_page_table::{LeafTable, PageTable, X86_64FourLevel};
use vellum_types::{PAGE_SIZE, Pfn, SpaceId, VirtRange, VmFlags};
use vellum_vma::VmaSet;
use vellum_vmalloc::{KmapLocal, Vmalloc};

/// The page tables of user programs.
pub(crate) type UserTable<'m> = PageTable<'m, X86_64FourLevel>;
/// The kernel's own, in the same format: the half above programs is that of all address spaces.
pub type KernelMappings<'m, M> = Vmalloc<'m, M, X86_64FourLevel>;
/// Addresses for frames above the direct map, for the time of a copy.
pub type LocalMappings<'m, M> = KmapLocal<'m, M, X86_64FourLevel>;
/// One of their last-level tables.
pub(crate) type UserLeaf<'m> = LeafTable<'m, X86_64FourLevel>;
/// The areas of an address space.
pub(crate) type Areas<'m> = VmaSet<'m, VmBacking<'m>>;
/// One area of an address space.
pub type Area<'m> = vellum_vma::Vma<VmBacking<'m>>;
/// A counted address space.
pub type MmRef<'m> = KArc<'m, Mm<'m>>;

/// Where the parts of a program lie. Bytes; set once by whoever loads the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MmLayout {
    /// One past the last usable address.
    pub task_size: u64,
    /// The lowest address that mmap gives out, Linux's `mmap_min_addr`.
    pub mmap_min: u64,
    /// mmap searches downwards from here.
    pub mmap_base: u64,
    /// Where the heap starts; the break is set there too.
    pub start_brk: u64,
    /// Text.
    pub start_code: u64,
    /// End of text.
    pub end_code: u64,
    /// Data.
    pub start_data: u64,
    /// End of data.
    pub end_data: u64,
    /// The initial stack pointer.
    pub start_stack: u64,
    /// Arguments.
    pub arg_start: u64,
    /// End of arguments.
    pub arg_end: u64,
    /// Environment.
    pub env_start: u64,
    /// End of environment.
    pub env_end: u64,
}

impl Default for MmLayout {
    fn default() -> Self {
        Self {
            task_size: 0x7fff_ffff_f000,
            mmap_min: 0x1_0000,
            mmap_base: 0x7fff_f000_0000,
            start_brk: 0x5555_5600_0000,
            start_code: 0,
            end_code: 0,
            start_data: 0,
            end_data: 0,
            start_stack: 0,
            arg_start: 0,
            arg_end: 0,
            env_start: 0,
            env_end: 0,
        }
    }
}

/// Resource limits, bytes; `u64::MAX` is unlimited. setrlimit(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// RLIMIT_AS.
    pub address_space: u64,
    /// RLIMIT_DATA.
    pub data: u64,
    /// RLIMIT_STACK.
    pub stack: u64,
    /// RLIMIT_MEMLOCK.
    pub memlock: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            address_space: u64::MAX,
            data: u64::MAX,
            stack: 8 << 20,
            memlock: 8 << 20,
        }
    }
}

/// Resident pages by kind, Linux's `mm_rss_stat`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rss {
    /// Private pages.
    pub anon: u64,
    /// Pages of files.
    pub file: u64,
    /// Pages of shared memory.
    pub shmem: u64,
}

impl Rss {
    /// All of them.
    pub const fn total(&self) -> u64 {
        self.anon + self.file + self.shmem
    }
}

/// Numbers of an address space, pages unless said otherwise. `/proc/PID/status` and `statm`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MmStats {
    /// Mapped pages.
    pub total_vm: u64,
    /// The most that ever was.
    pub hiwater_vm: u64,
    /// Resident pages.
    pub rss: Rss,
    /// The most that ever was.
    pub hiwater_rss: u64,
    /// mlocked.
    pub locked_vm: u64,
    /// In swap.
    pub swap: u64,
    /// Private writable, not stack.
    pub data_vm: u64,
    /// Stack.
    pub stack_vm: u64,
    /// Executable, not writable.
    pub exec_vm: u64,
    /// Bytes of page tables.
    pub pgtables_bytes: u64,
    /// Areas.
    pub map_count: usize,
    /// The current break, bytes.
    pub brk: u64,
}

/// What `mmap_lock` protects.
pub(crate) struct MmInner<'m> {
    pub(crate) areas: Areas<'m>,
    pub(crate) table: UserTable<'m>,
    pub(crate) rss: Rss,
    pub(crate) hiwater_rss: u64,
    pub(crate) hiwater_vm: u64,
    pub(crate) locked_vm: u64,
    /// Entries that stand for slots of swap, Linux's `MM_SWAPENTS`.
    pub(crate) swap_entries: u64,
    pub(crate) layout: MmLayout,
    pub(crate) limits: Limits,
    pub(crate) brk: u64,
    /// Flags for all later mappings: mlockall(MCL_FUTURE).
    pub(crate) def_flags: VmFlags,
}

impl MmInner<'_> {
    /// An entry for a page of this state appeared.
    pub(crate) fn rss_add(&mut self, kind: RssKind) {
        *self.rss_slot(kind) += 1;
        self.hiwater_rss = self.hiwater_rss.max(self.rss.total());
    }

    /// An entry for a page of this state went.
    pub(crate) fn rss_sub(&mut self, kind: RssKind) {
        let slot = self.rss_slot(kind);
        debug_assert!(*slot > 0, "rss below zero");
        *slot = slot.saturating_sub(1);
    }

    fn rss_slot(&mut self, kind: RssKind) -> &mut u64 {
        match kind {
            RssKind::Anon => &mut self.rss.anon,
            RssKind::File => &mut self.rss.file,
            RssKind::Shmem => &mut self.rss.shmem,
        }
    }

    pub(crate) fn note_total(&mut self) {
        self.hiwater_vm = self.hiwater_vm.max(self.areas.total_pages());
    }

    /// True if `flags` count against RLIMIT_DATA, Linux's `is_data_mapping`.
    pub(crate) fn is_data(flags: VmFlags) -> bool {
        flags.contains(VmFlags::WRITE)
            && !flags.contains(VmFlags::SHARED)
            && !flags.contains(VmFlags::GROWSDOWN)
    }

    pub(crate) fn data_pages(&self) -> u64 {
        self.areas
            .iter()
            .filter(|a| Self::is_data(a.flags))
            .map(|a| a.range().nr_pages())
            .sum()
    }

    /// Linux's `may_expand_vm`: room for `pages` more of `flags` under the limits.
    pub(crate) fn may_expand(&self, flags: VmFlags, pages: u64, replaced: u64) -> bool {
        let total = (self.areas.total_pages() + pages).saturating_sub(replaced);
        if total > self.limits.address_space / PAGE_SIZE {
            return false;
        }
        if self.limits.data != u64::MAX && Self::is_data(flags) {
            return self.data_pages() + pages <= self.limits.data / PAGE_SIZE;
        }
        true
    }

    /// The whole of user space.
    pub(crate) fn user_range(&self) -> VirtRange {
        let end = vellum_types::VirtAddr::new(self.layout.task_size);
        VirtRange::new(vellum_types::VirtAddr::ZERO, end)
            .unwrap_or_else(|| unreachable!("task_size is not zero"))
    }
}

/// What a resident page counts as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RssKind {
    Anon,
    File,
    Shmem,
}

impl RssKind {
    pub(crate) fn of(state: PageState, shmem: bool) -> Self {
        match state {
            PageState::File if shmem => Self::Shmem,
            PageState::File => Self::File,
            _ => Self::Anon,
        }
    }
}

/// `mm_struct`: one address space.
pub struct Mm<'m> {
    space: SpaceId,
    root: Pfn,
    /// Tasks that run in it, Linux's `mm_users`. (`mm_count` is the [`KArc`]'s.)
    users: AtomicU32,
    inner: SpinLock<MmInner<'m>>,
}

impl<'m> Mm<'m> {
    pub(crate) fn new(space: SpaceId, inner: MmInner<'m>) -> Self {
        Self {
            space,
            root: inner.table.root(),
            users: AtomicU32::new(1),
            inner: SpinLock::new(LockRank::Mmap, inner),
        }
    }

    /// The machine's name for it.
    pub const fn space(&self) -> SpaceId {
        self.space
    }

    /// The frame of its top-level page table: what a CPU loads into CR3.
    pub const fn root(&self) -> Pfn {
        self.root
    }

    /// One more task runs in it.
    pub fn add_user(&self) {
        // Relaxed: the caller is a user already.
        self.users.fetch_add(1, Ordering::Relaxed);
    }

    /// One task fewer runs in it. True for the last, who must tear it down.
    #[must_use]
    pub fn drop_user(&self) -> bool {
        // AcqRel: the last user sees the others' work.
        self.users.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Takes `mmap_lock`.
    pub(crate) fn lock(&self) -> SpinGuard<'_, MmInner<'m>> {
        self.inner.lock()
    }

    /// What the lock protects, of an address space that nobody else knows yet.
    pub(crate) fn inner_mut(&mut self) -> &mut MmInner<'m> {
        self.inner.get_mut()
    }

    /// Where its parts lie.
    pub fn layout(&self) -> MmLayout {
        self.lock().layout
    }

    /// Sets where its parts lie, and the break to the start of the heap.
    pub fn set_layout(&self, layout: MmLayout) {
        let mut inner = self.lock();
        inner.brk = layout.start_brk;
        inner.layout = layout;
    }

    /// Its limits.
    pub fn limits(&self) -> Limits {
        self.lock().limits
    }

    /// Sets its limits.
    pub fn set_limits(&self, limits: Limits) {
        self.lock().limits = limits;
    }

    /// Calls `each` for every area in order of address.
    pub fn for_each_area(&self, each: &mut dyn FnMut(&Area<'m>)) {
        self.lock().areas.iter().for_each(each);
    }

    /// Its numbers. Walks the areas.
    pub fn stats(&self) -> MmStats {
        let inner = self.lock();
        let mut stats = MmStats {
            total_vm: inner.areas.total_pages(),
            hiwater_vm: inner.hiwater_vm.max(inner.areas.total_pages()),
            rss: inner.rss,
            hiwater_rss: inner.hiwater_rss,
            locked_vm: inner.locked_vm,
            swap: inner.swap_entries,
            pgtables_bytes: inner.table.nr_tables() * PAGE_SIZE,
            map_count: inner.areas.len(),
            brk: inner.brk,
            ..MmStats::default()
        };
        for area in inner.areas.iter() {
            let pages = area.range().nr_pages();
            if area.flags.contains(VmFlags::GROWSDOWN) {
                stats.stack_vm += pages;
            } else if MmInner::is_data(area.flags) {
                stats.data_vm += pages;
            } else if area.flags.contains(VmFlags::EXEC) && !area.flags.contains(VmFlags::WRITE) {
                stats.exec_vm += pages;
            }
        }
        stats
    }
}

impl core::fmt::Debug for Mm<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Mm({:?})", self.space)
    }
}
