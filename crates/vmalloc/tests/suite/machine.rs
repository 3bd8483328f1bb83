//! RAM of which only the low part has a kernel address, and a machine with a TLB that goes stale.

use std::alloc::{Layout, alloc_zeroed};
use std::cell::Cell;
use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use vellum_machine::{CpuLocal, Cpus, DirectMap, Features, Fill, Machine, MemoryRegion, VmStat};
use vellum_object::{HeapSource, ObjectCache};
use vellum_page::{AllocRequest, Memmap, PageSource, PageState};
use vellum_page_table::{Format, LeafTable};
use vellum_types::{
    CpuId, GfpFlags, Order, OutOfMemory, PAGE_SIZE, Pfn, PfnRange, PhysRange, SpaceId, VirtAddr,
    VirtRange,
};
use vellum_vmalloc::{KernelLayout, Vmalloc, VmapNode};

std::thread_local! {
    /// The CPU that a thread stands for.
    pub(crate) static CPU: Cell<u16> = const { Cell::new(0) };
}

struct Threads;

// SAFETY: each thread of a test sets a number of its own.
unsafe impl CpuLocal for Threads {
    fn pin(&self) -> CpuId {
        CpuId(CPU.get())
    }
    fn unpin(&self, _: CpuId) {}
}

/// Frames, a kernel TLB, counters. Lives until the end of the test process.
pub(crate) struct TestMachine {
    /// All of RAM, as the memory bus sees it.
    bus: DirectMap<'static>,
    low: DirectMap<'static>,
    memmap: Memmap<'static>,
    used: Mutex<Used>,
    tlb: Mutex<Tlb>,
    cpus: u16,
    fail_after: AtomicI64,
    /// Called at the next flush.
    pub(crate) at_flush: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    pub(crate) flushes: AtomicU64,
    pub(crate) local_flushes: AtomicU64,
    pub(crate) vmstat: VmStat,
    pub(crate) nodes: HeapSource,
}

/// Translations of the kernel half that were used since the last flush.
struct Tlb {
    /// Page number to frame.
    entries: HashMap<u64, Pfn>,
    /// How many entries each frame has.
    of_frame: Vec<u16>,
}

impl Tlb {
    fn frame(&mut self, page: u64, walked: Pfn) -> Pfn {
        *self.entries.entry(page).or_insert_with(|| {
            self.of_frame[(walked - Pfn::new(FIRST)) as usize] += 1;
            walked
        })
    }

    fn flush(&mut self, range: VirtRange) {
        let of_frame = &mut self.of_frame;
        self.entries.retain(|page, pfn| {
            let keep = !range.contains(VirtAddr::from_page_number(*page));
            of_frame[(*pfn - Pfn::new(FIRST)) as usize] -= u16::from(!keep);
            keep
        });
    }
}

struct Used {
    frames: Vec<bool>,
    /// Where the last search of low and high frames ended.
    hints: [usize; 2],
}

const FIRST: u32 = 0x100;

impl TestMachine {
    /// `pages` frames, the first `low` of which are in the direct map.
    pub(crate) fn new(pages: u32, low: u32, cpus: u16) -> &'static Self {
        let bytes = u64::from(pages) * PAGE_SIZE;
        // The alignment of a huge page, as physical memory has it: FIRST is no multiple, though.
        let layout = Layout::from_size_align(bytes as usize, 4096).unwrap();
        // SAFETY: the size is not zero.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) }).expect("host memory");
        let start = Pfn::new(FIRST).addr();
        let span = PhysRange::from_len(start, bytes).unwrap();
        // SAFETY: 1. just allocated and never freed; 2. both are page aligned; 3. no other pointer.
        let bus = unsafe { DirectMap::new(base, span) };
        // SAFETY: the first pages are given up for the memmap: marked used below.
        let memmap = unsafe { Memmap::init(bus, start, span.whole_frames().unwrap()) };
        let reserved = (Memmap::bytes_for(pages) / PAGE_SIZE) as usize;
        Box::leak(Box::new(Self {
            bus,
            low: bus.below(Pfn::new(FIRST + low).addr()).expect("some low"),
            memmap,
            used: Mutex::new(Used {
                frames: (0..pages as usize).map(|i| i < reserved).collect(),
                hints: [0, low as usize],
            }),
            tlb: Mutex::new(Tlb {
                entries: HashMap::new(),
                of_frame: vec![0; pages as usize],
            }),
            cpus,
            fail_after: AtomicI64::new(i64::MAX),
            at_flush: Mutex::new(None),
            flushes: AtomicU64::new(0),
            local_flushes: AtomicU64::new(0),
            vmstat: VmStat::new(),
            nodes: HeapSource::new(ObjectCache::<VmapNode<'static>>::BOX_LAYOUT),
        }))
    }
    /// The kernel mappings of this machine.
    pub(crate) fn boot<F: Format>(
        &'static self,
        layout: KernelLayout,
    ) -> Vmalloc<'static, Self, F> {
        Vmalloc::boot(
            self,
            self,
            &self.vmstat,
            layout,
            ObjectCache::new(&self.nodes),
        )
        .expect("memory")
    }
    /// The next `n` allocations of frames succeed, all later ones fail.
    pub(crate) fn fail_after(&self, n: i64) {
        self.fail_after.store(n, Ordering::Relaxed);
    }
    /// Frames that are taken, without the memmap.
    pub(crate) fn used_pages(&self) -> usize {
        let reserved = (Memmap::bytes_for(self.memmap.span().len()) / PAGE_SIZE) as usize;
        let used = self.used.lock().unwrap();
        used.frames.iter().filter(|used| **used).count() - reserved
    }
    pub(crate) fn is_high(&self, pfn: Pfn) -> bool {
        !self.low.covers(pfn)
    }
    /// Single frames, from above the direct map if there is such.
    pub(crate) fn frames(&self, n: usize) -> Vec<Pfn> {
        let request = AllocRequest {
            order: Order::ZERO,
            gfp: GfpFlags::HIGHUSER,
        };
        (0..n).map(|_| self.alloc_pages(request).unwrap()).collect()
    }

    fn translate(&self, va: VirtAddr, phys: vellum_types::PhysAddr) -> vellum_types::PhysAddr {
        let walked = Pfn::containing(phys).expect("RAM");
        let mut tlb = self.tlb.lock().unwrap();
        // A translation that was not flushed wins over the page table.
        let pfn = tlb.frame(va.page_number(), walked);
        pfn.addr() + va.page_offset()
    }
}

impl PageSource for TestMachine {
    fn alloc_pages(&self, request: AllocRequest) -> Result<Pfn, OutOfMemory> {
        if self.fail_after.fetch_sub(1, Ordering::Relaxed) <= 0 {
            self.fail_after.store(0, Ordering::Relaxed);
            return Err(OutOfMemory);
        }
        let pages = request.order.pages() as usize;
        let low = (self.low.span().len() / PAGE_SIZE) as usize;
        let used = &mut *self.used.lock().unwrap();
        let all = used.frames.len();
        let zones: &[(usize, usize, usize)] = if request.gfp.contains(GfpFlags::HIGHMEM) {
            &[(1, low, all), (0, 0, low)]
        } else {
            &[(0, 0, low)]
        };
        for (zone, start, end) in zones {
            // Blocks are aligned as frame numbers are.
            let aligned =
                |at: usize| (at + FIRST as usize).next_multiple_of(pages) - FIRST as usize;
            let hint = used.hints[*zone];
            let mut at = [aligned(hint), aligned(*start)]
                .into_iter()
                .flat_map(|from| (from..*end).step_by(pages));
            let free = |at: &usize| {
                at + pages <= *end && used.frames[*at..at + pages].iter().all(|used| !used)
            };
            let Some(at) = at.find(free) else { continue };
            used.hints[*zone] = at + pages;
            used.frames[at..at + pages].fill(true);
            let pfn = Pfn::new(FIRST + at as u32);
            for i in 1..pages as u32 {
                self.memmap.page(pfn + i).set_state(PageState::Tail);
            }
            let head = self.memmap.page(pfn);
            head.set_state_order(PageState::Allocated, request.order);
            head.set_refcount(1);
            head.set_owner(0);
            // Junk, so that who forgets to zero is seen.
            let byte = if request.gfp.contains(GfpFlags::ZERO) {
                0
            } else {
                0xa5
            };
            self.bus.fill_pages(pfn, pages as u32, byte);
            return Ok(pfn);
        }
        Err(OutOfMemory)
    }

    fn free_pages(&self, pfn: Pfn) {
        let head = self.memmap.page(pfn);
        assert!(
            !matches!(
                head.state(),
                PageState::Reserved | PageState::Free | PageState::Tail
            ),
            "bad free of {pfn:?}"
        );
        let pages = head.order().pages();
        let freed = PfnRange::from_len(pfn, pages).unwrap();
        let at = (pfn - Pfn::new(FIRST)) as usize;
        let stale = self.tlb.lock().unwrap().of_frame[at..at + pages as usize]
            .iter()
            .any(|users| *users > 0);
        assert!(
            !stale,
            "{pfn:?} is free before its translations are flushed"
        );
        for frame in freed.iter() {
            self.memmap.page(frame).set_state(PageState::Free);
        }
        self.used.lock().unwrap().frames[at..at + pages as usize].fill(false);
    }

    fn split_page(&self, pfn: Pfn) {
        for i in 0..self.memmap.page(pfn).order().pages() {
            self.memmap
                .page(pfn + i)
                .set_state_order(PageState::Allocated, Order::ZERO);
        }
    }

    fn memmap(&self) -> Memmap<'_> {
        self.memmap
    }

    fn ram(&self) -> DirectMap<'_> {
        self.low
    }
}

impl Machine for TestMachine {
    fn memory_map(&self) -> &[MemoryRegion] {
        &[]
    }
    fn direct_map(&self) -> DirectMap<'_> {
        self.low
    }
    fn features(&self) -> Features {
        Features {
            nr_cpus: self.cpus,
            hw_access_dirty: true,
            fault_around_pages: 1,
            anon_order_max: Order::ZERO,
        }
    }
    fn cpus(&self) -> Cpus<'_> {
        Cpus::new(self.cpus, &Threads)
    }
    fn now_ns(&self) -> u64 {
        0
    }
    fn zero_pages(&self, frames: PfnRange) {
        self.bus.fill_pages(frames.start(), frames.len(), 0);
    }
    fn update_mmu_cache_range(&self, _: SpaceId, _: VirtAddr, _: &[Fill]) {}
    fn flush_tlb_range(&self, _: SpaceId, _: VirtRange) {}
    fn flush_tlb_mm(&self, _: SpaceId) {}
    fn wrprotect_range(&self, _: SpaceId, _: VirtRange) {}
    fn flush_wait(&self, _: SpaceId) {}
    fn flush_tlb_kernel_range(&self, range: VirtRange) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        let hook = self.at_flush.lock().unwrap().take();
        if let Some(hook) = hook {
            hook();
        }
        self.tlb.lock().unwrap().flush(range);
    }
    fn flush_tlb_kernel_local(&self, range: VirtRange) {
        self.local_flushes.fetch_add(1, Ordering::Relaxed);
        self.tlb.lock().unwrap().flush(range);
    }
    fn read_kernel(&self, va: VirtAddr, phys: vellum_types::PhysAddr, out: &mut [u8]) {
        self.bus.read_bytes(self.translate(va, phys), out);
    }
    fn write_kernel(&self, va: VirtAddr, phys: vellum_types::PhysAddr, bytes: &[u8]) {
        self.bus.write_bytes(self.translate(va, phys), bytes);
    }
}

/// Xorshift: the same numbers in each run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

/// A layout with a window of `bytes` for vmalloc, in either kind of format.
pub(crate) fn layout<F: Format>(bytes: u64, cpus: u16) -> KernelLayout {
    let mut layout = if F::VA_BITS == 32 {
        KernelLayout::x86_32::<F>(64 << 20, cpus)
    } else {
        KernelLayout::x86_64::<F>(bytes, cpus)
    };
    // Off the boundary of a table, so that areas lie across some.
    let start = layout.vmalloc.start() + (LeafTable::<F>::SPAN - 16 * PAGE_SIZE);
    layout.vmalloc = VirtRange::from_len(start, bytes - LeafTable::<F>::SPAN).unwrap();
    layout
}
