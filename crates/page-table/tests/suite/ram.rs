//! RAM on the host's heap and a simple page source on it, for tests.

use std::alloc::{Layout, alloc_zeroed};
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use vellum_machine::DirectMap;
use vellum_page::{AllocRequest, Memmap, Page, PageSource, PageState};
use vellum_types::{GfpFlags, Order, OutOfMemory, PAGE_SIZE, Pfn, PfnRange, PhysRange};

/// First-fit pages. Freed pages are filled with junk, so that their further use shows.
pub(crate) struct HostRam {
    ram: DirectMap<'static>,
    memmap: Memmap<'static>,
    used: Mutex<Vec<bool>>,
    fail_after: AtomicI64,
}

/// The first frame: not zero, so that a frame number is never an offset by accident.
const FIRST: u32 = 0x400;

impl HostRam {
    /// `pages` frames, the first of which hold the memmap. Lives until the end of the test process.
    pub(crate) fn new(pages: u32) -> &'static Self {
        let bytes = u64::from(pages) * PAGE_SIZE;
        // The alignment of the largest block, as physical memory has it.
        let layout = Layout::from_size_align(bytes as usize, 1 << 16).unwrap();
        // SAFETY: the size is not zero.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) }).expect("host memory");
        let start = Pfn::new(FIRST).addr();
        let span = PhysRange::from_len(start, bytes).unwrap();
        // SAFETY: 1. just allocated and never freed; 2. both are page aligned; 3. no other pointer.
        let ram = unsafe { DirectMap::new(base, span) };
        // SAFETY: the first pages are given up for the memmap: marked used below.
        let memmap = unsafe { Memmap::init(ram, start, span.whole_frames().unwrap()) };
        let reserved = (Memmap::bytes_for(pages) / PAGE_SIZE) as usize;
        let used = (0..pages as usize).map(|i| i < reserved).collect();
        for pfn in PfnRange::from_len(Pfn::new(FIRST), pages)
            .unwrap()
            .iter()
            .skip(reserved)
        {
            memmap.page(pfn).set_state(PageState::Free);
        }
        Box::leak(Box::new(Self {
            ram,
            memmap,
            used: Mutex::new(used),
            fail_after: AtomicI64::new(i64::MAX),
        }))
    }
    /// The next `n` allocations succeed, all later ones fail.
    pub(crate) fn fail_after(&self, n: i64) {
        self.fail_after.store(n, Ordering::Relaxed);
    }
    /// Pages that are taken, without the memmap.
    pub(crate) fn used_pages(&self) -> usize {
        let reserved = (Memmap::bytes_for(self.memmap.span().len()) / PAGE_SIZE) as usize;
        self.used
            .lock()
            .unwrap()
            .iter()
            .filter(|used| **used)
            .count()
            - reserved
    }
    /// The descriptor of a frame.
    pub(crate) fn page(&self, pfn: Pfn) -> &'static Page {
        self.memmap.page(pfn)
    }
}

impl PageSource for HostRam {
    fn alloc_pages(&self, request: AllocRequest) -> Result<Pfn, OutOfMemory> {
        if self.fail_after.fetch_sub(1, Ordering::Relaxed) <= 0 {
            self.fail_after.store(0, Ordering::Relaxed);
            return Err(OutOfMemory);
        }
        let pages = request.order.pages() as usize;
        let mut used = self.used.lock().unwrap();
        let at = (0..used.len())
            .step_by(pages)
            .find(|at| {
                used.get(*at..at + pages)
                    .is_some_and(|run| run.iter().all(|u| !u))
            })
            .ok_or(OutOfMemory)?;
        used[at..at + pages].fill(true);
        let pfn = Pfn::new(FIRST + at as u32);
        for i in 0..pages as u32 {
            let page = self.memmap.page(pfn + i);
            page.set_state(PageState::Tail);
            page.set_refcount(0);
        }
        let head = self.memmap.page(pfn);
        head.set_state_order(PageState::Allocated, request.order);
        head.set_refcount(1);
        head.set_mapcount(0);
        head.set_owner(0);
        head.set_index(0);
        if request.gfp.contains(GfpFlags::ZERO) {
            self.ram.fill_pages(pfn, pages as u32, 0);
        }
        Ok(pfn)
    }

    fn free_pages(&self, pfn: Pfn) {
        let head = self.memmap.page(pfn);
        assert!(
            !matches!(head.state(), PageState::Free | PageState::Tail),
            "bad free of {pfn:?}"
        );
        let pages = head.order().pages();
        self.ram.fill_pages(pfn, pages, 0xdb);
        for i in 0..pages {
            self.memmap.page(pfn + i).set_state(PageState::Free);
        }
        let at = (pfn - Pfn::new(FIRST)) as usize;
        self.used.lock().unwrap()[at..at + pages as usize].fill(false);
    }

    fn split_page(&self, pfn: Pfn) {
        for i in 0..self.memmap.page(pfn).order().pages() {
            let page = self.memmap.page(pfn + i);
            page.set_state_order(PageState::Allocated, Order::ZERO);
            page.set_refcount(1);
        }
    }

    fn memmap(&self) -> Memmap<'_> {
        self.memmap
    }

    fn ram(&self) -> DirectMap<'_> {
        self.ram
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
