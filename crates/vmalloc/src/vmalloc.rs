//! `vmalloc`, `vmap`, and their opposites.

use crate::area::{Area, AreaKind, VmallocError, VmallocRequest};
use crate::arena::Arena;
use crate::frames;
use crate::layout::KernelLayout;
use crate::node::VmapNode;
use crate::tables::KernelTables;
use crate::window::KernelWindow;
use core::panic::Location;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use vellum_machine::{LockRank, Machine, SpinGuard, SpinLock, Trace, VmStat};
use vellum_object::ObjectCache;
use vellum_page::{Memmap, PageSource};
use vellum_page_table::{Format, PageTable, TlbGather};
use vellum_types::{GfpFlags, OutOfMemory, PAGE_SIZE, Pfn, PfnRange, SpaceId, VirtAddr, VirtRange};

/// What the lock protects.
pub(crate) struct State<'m, F: Format> {
    pub(crate) arena: Arena<'m>,
    pub(crate) tables: KernelTables<'m, F>,
    /// Somebody is between unmapping and giving back.
    pub(crate) purging: bool,
    /// Pages of areas in use that `vmalloc` took.
    pub(crate) alloc_pages: u64,
}

/// The kernel's page tables and the window of addresses that changes in them.
pub struct Vmalloc<'m, M: Machine, F: Format> {
    pub(crate) machine: &'m M,
    pub(crate) source: &'m dyn PageSource,
    pub(crate) memmap: Memmap<'m>,
    vmstat: &'m VmStat,
    layout: KernelLayout,
    pub(crate) state: SpinLock<State<'m, F>>,
    lazy_max_pages: AtomicU64,
    pub(crate) purges: AtomicU64,
    /// As `purging` of the state, for those who wait.
    pub(crate) purge_runs: AtomicBool,
}

impl<'m, M: Machine, F: Format> Vmalloc<'m, M, F> {
    /// Makes the kernel's page tables, with nothing mapped, and the empty window of `layout`.
    ///
    /// `source` is called with the lock of the arena held, for tables: it must not wait or reclaim.
    ///
    /// # Errors
    /// Out of memory; nothing is left.
    ///
    /// # Panics
    /// If the format has no such addresses as the layout's.
    pub fn boot(
        machine: &'m M,
        source: &'m dyn PageSource,
        vmstat: &'m VmStat,
        layout: KernelLayout,
        nodes: ObjectCache<'m, VmapNode<'m>>,
    ) -> Result<Self, OutOfMemory> {
        let window = strip::<F>(layout.vmalloc);
        let start = F::strip(layout.start).expect("a layout of this format");
        let arena = Arena::new(window, nodes)?;
        let table = PageTable::new_kernel(source, vmstat, SpaceId::KERNEL.0, start)?;
        let this = Self {
            machine,
            source,
            memmap: source.memmap(),
            vmstat,
            layout,
            state: SpinLock::new(
                LockRank::Vmalloc,
                State {
                    arena,
                    tables: KernelTables::new(table),
                    purging: false,
                    alloc_pages: 0,
                },
            ),
            lazy_max_pages: AtomicU64::new(default_lazy_max(
                source.memmap().span(),
                machine.cpus().len(),
            )),
            purges: AtomicU64::new(0),
            purge_runs: AtomicBool::new(false),
        };
        // With two levels, each 4 MiB have a root entry: these come by fault instead.
        if F::LEVELS > 2 {
            let done = this.lock().tables.table.prealloc_root(window);
            if let Err(error) = done {
                this.destroy_tables();
                return Err(error);
            }
        }
        Ok(this)
    }

    pub(crate) fn lock(&self) -> SpinGuard<'_, State<'m, F>> {
        self.state.lock()
    }

    /// Where what lies.
    pub const fn layout(&self) -> KernelLayout {
        self.layout
    }

    /// Pages that may wait for a flush before `vfree` makes one. Linux's `lazy_max_pages`.
    pub fn lazy_max_pages(&self) -> u64 {
        // Relaxed: a bound that need not be exact.
        self.lazy_max_pages.load(Ordering::Relaxed)
    }

    /// Sets [`Vmalloc::lazy_max_pages`]; with 0 each `vfree` flushes.
    pub fn set_lazy_max_pages(&self, pages: u64) {
        self.lazy_max_pages.store(pages, Ordering::Relaxed);
    }

    /// `size` bytes at consecutive kernel addresses, in frames from anywhere. The address is
    /// canonical and page aligned; a guard page that is never mapped follows.
    ///
    /// # Errors
    /// Invalid for no bytes, OutOfMemory, NoSpace. Nothing is left of a failed call.
    #[track_caller]
    pub fn vmalloc(&self, size: u64) -> Result<VirtAddr, VmallocError> {
        self.vmalloc_with(VmallocRequest {
            size,
            align: PAGE_SIZE,
            gfp: GfpFlags::KERNEL | GfpFlags::HIGHMEM,
            huge: false,
        })
    }

    /// As [`Vmalloc::vmalloc`], zeroed.
    ///
    /// # Errors
    /// As [`Vmalloc::vmalloc`].
    #[track_caller]
    pub fn vzalloc(&self, size: u64) -> Result<VirtAddr, VmallocError> {
        self.vmalloc_with(VmallocRequest {
            size,
            align: PAGE_SIZE,
            gfp: GfpFlags::KERNEL | GfpFlags::HIGHMEM | GfpFlags::ZERO,
            huge: false,
        })
    }

    /// As [`Vmalloc::vmalloc`], mapped by huge entries where its frames allow it.
    ///
    /// # Errors
    /// As [`Vmalloc::vmalloc`].
    #[track_caller]
    pub fn vmalloc_huge(&self, size: u64) -> Result<VirtAddr, VmallocError> {
        self.vmalloc_with(VmallocRequest {
            size,
            align: PAGE_SIZE,
            gfp: GfpFlags::KERNEL | GfpFlags::HIGHMEM,
            huge: true,
        })
    }

    /// With all choices. Linux's `__vmalloc_node_range`.
    ///
    /// # Errors
    /// As [`Vmalloc::vmalloc`]; Invalid also for an alignment that is no power of two of at least a
    /// page.
    #[track_caller]
    pub fn vmalloc_with(&self, request: VmallocRequest) -> Result<VirtAddr, VmallocError> {
        let caller = Location::caller();
        let pages = self.check(request.size, request.align)?;
        let zero = request.gfp.contains(GfpFlags::ZERO);
        let gfp = request.gfp.difference(GfpFlags::ZERO);
        let first = match frames::take(self.source, self.memmap, pages, gfp) {
            Ok(first) => first,
            // Frames that wait for a flush are frames too.
            Err(error) if self.purge() == 0 => return Err(error.into()),
            Err(_) => frames::take(self.source, self.memmap, pages, gfp)?,
        };
        let mut zero_later = false;
        if zero {
            for (block, pages) in frames::blocks(self.memmap, first) {
                match PfnRange::from_len(block, pages) {
                    Some(frames) if self.has_address(frames) => self.machine.zero_pages(frames),
                    _ => zero_later = true,
                }
            }
        }
        let huge_bytes = KernelTables::<F>::huge_bytes()
            .filter(|bytes| request.huge && u64::from(pages) * PAGE_SIZE >= *bytes);
        let area = Area {
            kind: AreaKind::Alloc,
            huge: huge_bytes.is_some(),
            pages,
            first,
            caller: Some(caller),
        };
        let align = request.align.max(huge_bytes.unwrap_or(PAGE_SIZE));
        let start = match self.reserve(align, area) {
            Ok(reserved) => reserved,
            Err(error) => {
                frames::give(self.source, self.memmap, first);
                return Err(error);
            }
        };
        let (start, mut state) = start;
        state.alloc_pages += u64::from(pages);
        let tables = &mut state.tables;
        let mut at = VirtAddr::new(start);
        let mut result = Ok(());
        for (block, pages) in frames::blocks(self.memmap, first) {
            result = if area.huge {
                tables
                    .map_huge(at, block, pages, self.machine, self.source)
                    .map(drop)
            } else {
                tables.map(at, block, pages)
            };
            if result.is_err() {
                break;
            }
            at = at + u64::from(pages) * PAGE_SIZE;
        }
        let addr = self.finish(state, start, AreaKind::Alloc, result)?;
        if zero_later {
            self.zero_high(addr, pages)?;
        }
        Ok(addr)
    }

    fn has_address(&self, frames: PfnRange) -> bool {
        let ram = self.source.ram();
        ram.covers(frames.start()) && ram.covers(frames.start() + (frames.len() - 1))
    }

    /// Zeroes those pages of a new area that only it gives an address.
    fn zero_high(&self, addr: VirtAddr, pages: u32) -> Result<(), VmallocError> {
        let ram = self.source.ram();
        for page in 0..u64::from(pages) {
            let at = addr + page * PAGE_SIZE;
            if self.vmalloc_to_page(at).is_some_and(|pfn| !ram.covers(pfn)) {
                for offset in (0..PAGE_SIZE).step_by(256) {
                    self.write(at + offset, &[0; 256])?;
                }
            }
        }
        Ok(())
    }

    /// Maps `frames` at consecutive kernel addresses. They stay the caller's.
    ///
    /// # Errors
    /// Invalid for no frames or one that is not RAM; OutOfMemory; NoSpace. Nothing is left of a
    /// failed call.
    #[track_caller]
    pub fn vmap(&self, frames: &[Pfn]) -> Result<VirtAddr, VmallocError> {
        let caller = Location::caller();
        let pages = self.check(frames.len() as u64 * PAGE_SIZE, PAGE_SIZE)?;
        if frames
            .iter()
            .any(|pfn| self.memmap.try_page(*pfn).is_none())
        {
            return Err(VmallocError::Invalid);
        }
        let area = Area {
            kind: AreaKind::Map,
            huge: false,
            pages,
            first: Pfn::NONE,
            caller: Some(caller),
        };
        let (start, mut state) = self.reserve(PAGE_SIZE, area)?;
        let mut at = VirtAddr::new(start);
        let mut result = Ok(());
        for pfn in frames {
            result = state.tables.map(at, *pfn, 1);
            if result.is_err() {
                break;
            }
            at = at + PAGE_SIZE;
        }
        self.finish(state, start, AreaKind::Map, result)
    }

    /// Frees what `vmalloc` gave; the size is known. The addresses and the frames are used again
    /// after the next flush only, which many frees share.
    ///
    /// # Errors
    /// NotFound if no area of `vmalloc` begins at `addr`; nothing changes then.
    pub fn vfree(&self, addr: VirtAddr) -> Result<(), VmallocError> {
        let mut state = self.lock();
        self.retire(&mut state, addr, AreaKind::Alloc)?;
        let lazy = state.arena.lazy_pages();
        drop(state);
        if lazy > self.lazy_max_pages() {
            self.purge();
        }
        Ok(())
    }

    /// Unmaps what `vmap` mapped. On return no CPU reaches the frames by these addresses.
    ///
    /// # Errors
    /// NotFound if no area of `vmap` begins at `addr`; nothing changes then.
    pub fn vunmap(&self, addr: VirtAddr) -> Result<(), VmallocError> {
        self.retire(&mut self.lock(), addr, AreaKind::Map)?;
        self.purge();
        Ok(())
    }

    /// An empty address space's tables, in which the kernel half is seen, now and later.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new_table(&self, owner: u32) -> Result<PageTable<'m, F>, OutOfMemory> {
        PageTable::new_sharing(self.source, self.vmstat, owner, &self.lock().tables.table)
    }

    /// A fault at the kernel address `va` in the address space of `table`: true if a root entry that
    /// was made after it is there now, and the access may be tried again. Linux's `vmalloc_fault`.
    pub fn vmalloc_fault(&self, table: &mut PageTable<'m, F>, va: VirtAddr) -> bool {
        F::strip(va).is_some_and(|va| table.sync_kernel_entry(&self.lock().tables.table, va))
    }

    /// Calls `f` with the kernel's tables, for a machine that maps more there: its image, the direct
    /// map. Outside of the windows of the layout, addresses without sign extension.
    pub fn with_kernel_table<R>(&self, f: impl FnOnce(&mut PageTable<'m, F>) -> R) -> R {
        f(&mut self.lock().tables.table)
    }

    /// A window whose tables are there for good, at canonical addresses.
    pub(crate) fn window(&self, range: VirtRange) -> Result<KernelWindow<'m, F>, OutOfMemory> {
        KernelWindow::new(&mut self.lock().tables.table, strip::<F>(range))
    }

    /// Bytes as pages, if a request makes sense.
    fn check(&self, size: u64, align: u64) -> Result<u32, VmallocError> {
        if size == 0 || align < PAGE_SIZE || !align.is_power_of_two() {
            return Err(VmallocError::Invalid);
        }
        let pages = size.div_ceil(PAGE_SIZE);
        if pages > u64::from(self.memmap.span().len()) {
            return Err(VmallocError::OutOfMemory);
        }
        Ok(pages as u32)
    }

    /// Addresses for `area`, after a purge if need be, and the lock under which they were taken.
    fn reserve(
        &self,
        align: u64,
        area: Area,
    ) -> Result<(u64, SpinGuard<'_, State<'m, F>>), VmallocError> {
        let mut state = self.lock();
        match state.arena.reserve(align, area) {
            Ok(start) => return Ok((start, state)),
            Err(VmallocError::NoSpace) => {}
            Err(error) => return Err(error),
        }
        drop(state);
        self.purge();
        let mut state = self.lock();
        let start = state.arena.reserve(align, area)?;
        Ok((start, state))
    }

    /// The address of an area that is mapped; or undoes it.
    fn finish(
        &self,
        mut state: SpinGuard<'_, State<'m, F>>,
        start: u64,
        kind: AreaKind,
        mapped: Result<(), OutOfMemory>,
    ) -> Result<VirtAddr, VmallocError> {
        let addr = F::canonical(VirtAddr::new(start));
        let Err(error) = mapped else {
            return Ok(addr);
        };
        // A processor may have loaded what was mapped: it goes the way of all areas.
        self.retire(&mut state, addr, kind)?;
        drop(state);
        self.purge();
        Err(error.into())
    }

    fn retire(
        &self,
        state: &mut State<'m, F>,
        addr: VirtAddr,
        kind: AreaKind,
    ) -> Result<(), VmallocError> {
        let start = F::strip(addr).ok_or(VmallocError::NotFound)?.as_u64();
        let mut pages = 0;
        let found = state.arena.retire(start, |area| {
            pages = u64::from(area.pages);
            area.kind == kind
        });
        if !found {
            return Err(VmallocError::NotFound);
        }
        if kind == AreaKind::Alloc {
            state.alloc_pages -= pages;
        }
        Ok(())
    }

    /// Frees everything, the kernel's tables too. No address space may share them any more, and no
    /// window be in use.
    ///
    /// # Errors
    /// How many areas are still in use; nothing is freed then.
    pub fn shutdown(&mut self) -> Result<(), usize> {
        self.purge();
        let busy = self.lock().arena.busy.len();
        if busy > 0 {
            return Err(busy);
        }
        self.destroy_tables();
        Ok(())
    }

    fn destroy_tables(&self) {
        let mut gather = TlbGather::new(self.machine, self.source, SpaceId::KERNEL, Trace::OFF);
        self.lock().tables.table.destroy(&mut gather);
    }
}

impl<M: Machine, F: Format> Drop for Vmalloc<'_, M, F> {
    /// Gives back the tables, if [`Vmalloc::shutdown`] has not; frames of areas in use are lost.
    fn drop(&mut self) {
        self.destroy_tables();
    }
}

/// As Linux, 32 MiB times the logarithm of the CPUs; but no more than a part of memory, for here the
/// frames wait too.
fn default_lazy_max(memory: PfnRange, cpus: u16) -> u64 {
    let log = u64::from(u16::BITS - cpus.leading_zeros());
    (log * (32 << 20) / PAGE_SIZE).min(u64::from(memory.len()) / 32)
}

/// A range of the layout as the tables take it.
pub(crate) fn strip<F: Format>(range: VirtRange) -> VirtRange {
    let start = F::strip(range.start()).expect("a layout of this format");
    VirtRange::from_len(start, range.len()).expect("as long as before")
}
