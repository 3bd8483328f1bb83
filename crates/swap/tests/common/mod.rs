//! A host for swap: RAM, a frame allocator, a device that fails by script.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(unreachable_pub, reason = "a module of each test binary")]

use std::alloc::Layout;
use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use vellum_machine::{CpuLocal, Cpus, DirectMap, MAX_CPUS, PerCpuSlot, VmStat};
use vellum_page::{AllocRequest, Memmap, PageFlags, PageSource, PageState};
use vellum_swap::{Compressor, Corrupt, IoError, Stream, Streams, Swap, SwapDevice, WriteError};
use vellum_types::{CpuId, Order, OutOfMemory, PAGE_SIZE, Pfn, PfnRange, PhysAddr, PhysRange};

pub const PAGE: usize = PAGE_SIZE as usize;

/// Frames from a bitmap: first fit, aligned to the order.
pub struct Frames {
    ram: DirectMap<'static>,
    memmap: Memmap<'static>,
    taken: Mutex<(Vec<bool>, usize)>,
    fail_every: AtomicU64,
    calls: AtomicU64,
    /// Allocations above this order fail.
    pub max_order: AtomicU32,
    /// After so many allocations all fail.
    pub budget: AtomicI64,
}

impl Frames {
    /// Every n-th allocation fails; 0 for none.
    pub fn fail_every(&self, n: u64) {
        self.fail_every.store(n, Ordering::Relaxed);
    }
    pub fn used(&self) -> usize {
        self.taken.lock().unwrap().0.iter().filter(|t| **t).count()
    }
    pub fn put(&self, pfn: Pfn) {
        if self.memmap.page(pfn).put() {
            self.free_pages(pfn);
        }
    }
}

impl PageSource for Frames {
    fn alloc_pages(&self, request: AllocRequest) -> Result<Pfn, OutOfMemory> {
        let every = self.fail_every.load(Ordering::Relaxed);
        if every != 0 && self.calls.fetch_add(1, Ordering::Relaxed) % every == every - 1 {
            return Err(OutOfMemory);
        }
        if u32::from(request.order.as_u8()) > self.max_order.load(Ordering::Relaxed)
            || self.budget.fetch_sub(1, Ordering::Relaxed) <= 0
        {
            return Err(OutOfMemory);
        }
        let mut guard = self.taken.lock().unwrap();
        let (taken, hint) = &mut *guard;
        let step = request.order.pages() as usize;
        let fits = |s: &usize| s + step <= taken.len() && taken[*s..s + step].iter().all(|t| !*t);
        let from = *hint / step * step;
        let start = (from..taken.len())
            .step_by(step)
            .find(fits)
            .or_else(|| (0..from).step_by(step).find(fits))
            .ok_or(OutOfMemory)?;
        *hint = (start + step) % taken.len();
        taken[start..start + step].fill(true);
        for i in start..start + step {
            let page = self.memmap.page(Pfn::new(i as u32));
            page.set_owner(0);
            page.set_index(0);
            page.set_mapcount(0);
            page.set_refcount(u32::from(i == start));
            page.set_state(PageState::Tail);
        }
        let first = Pfn::new(start as u32);
        self.memmap
            .page(first)
            .set_state_order(PageState::Allocated, request.order);
        // Junk, so that a page that was not filled shows.
        self.ram.fill_pages(first, step as u32, 0xa5);
        Ok(first)
    }
    fn free_pages(&self, pfn: Pfn) {
        let mut guard = self.taken.lock().unwrap();
        let page = self.memmap.page(pfn);
        assert_ne!(page.state(), PageState::Tail, "free of a tail");
        assert!(!page.flags().contains(PageFlags::SWAPCACHE));
        assert_eq!(page.mapcount(), 0);
        for i in 0..page.order().pages() {
            let slot = &mut guard.0[pfn.index() + i as usize];
            assert!(*slot, "double free of {pfn:?}");
            *slot = false;
        }
        let pages = page.order().pages();
        for i in 0..pages {
            self.memmap.page(pfn + i).set_state(PageState::Free);
            self.memmap.page(pfn + i).set_refcount(0);
        }
        self.ram.fill_pages(pfn, pages, 0x5a);
    }
    fn split_page(&self, _: Pfn) {}
    fn memmap(&self) -> Memmap<'_> {
        self.memmap
    }
    fn ram(&self) -> DirectMap<'_> {
        self.ram
    }
}

/// A disk in a map, with failures by script.
pub struct Disk {
    name: &'static str,
    slots: u32,
    content: Mutex<HashMap<u32, Box<[u8]>>>,
    /// Slots that cannot be written, ever.
    pub bad_writes: Mutex<Vec<u32>>,
    /// Slots that cannot be read, ever.
    pub bad_reads: Mutex<Vec<u32>>,
    /// Every n-th page read, or written, fails; 0 for none.
    pub fail_every: AtomicU64,
    /// All writes fail with ENOSPC.
    pub full: AtomicBool,
    ops: AtomicU64,
    pub reads: AtomicU64,
    pub writes: Mutex<Vec<(u32, usize)>>,
    pub discards: Mutex<Vec<u32>>,
}

impl Disk {
    pub fn new(name: &'static str, slots: u32) -> &'static Self {
        Box::leak(Box::new(Self {
            name,
            slots,
            content: Mutex::default(),
            bad_writes: Mutex::default(),
            bad_reads: Mutex::default(),
            fail_every: AtomicU64::new(0),
            full: AtomicBool::new(false),
            ops: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            writes: Mutex::default(),
            discards: Mutex::default(),
        }))
    }
    fn fails(&self) -> bool {
        let every = self.fail_every.load(Ordering::Relaxed);
        every != 0 && self.ops.fetch_add(1, Ordering::Relaxed) % every == every - 1
    }
    /// Changes one bit of what a slot holds.
    pub fn flip(&self, slot: u32, byte: usize) {
        self.content.lock().unwrap().get_mut(&slot).unwrap()[byte] ^= 4;
    }
    pub fn holds(&self, slot: u32) -> bool {
        self.content.lock().unwrap().contains_key(&slot)
    }
}

impl SwapDevice for Disk {
    fn name(&self) -> &str {
        self.name
    }
    fn nr_slots(&self) -> u32 {
        self.slots
    }
    fn read(&self, slot: u32, frame: Pfn, ram: DirectMap<'_>) -> Result<(), IoError> {
        assert!(slot > 0 && slot < self.slots);
        self.reads.fetch_add(1, Ordering::Relaxed);
        if self.fails() || self.bad_reads.lock().unwrap().contains(&slot) {
            ram.fill_pages(frame, 1, 0xee);
            return Err(IoError::EIO);
        }
        let content = self.content.lock().unwrap();
        ram.write_bytes(frame.addr(), content.get(&slot).expect("was written"));
        Ok(())
    }
    fn write(&self, slot: u32, frames: &[Pfn], ram: DirectMap<'_>) -> Result<(), WriteError> {
        self.writes.lock().unwrap().push((slot, frames.len()));
        for (done, (frame, slot)) in frames.iter().zip(slot..).enumerate() {
            assert!(slot > 0 && slot < self.slots);
            let error = if self.full.load(Ordering::Relaxed) {
                Some(IoError::ENOSPC)
            } else if self.fails() || self.bad_writes.lock().unwrap().contains(&slot) {
                Some(IoError::EIO)
            } else {
                None
            };
            if let Some(error) = error {
                return Err(WriteError { done, error });
            }
            let mut page = vec![0; PAGE];
            ram.read_bytes(frame.addr(), &mut page);
            self.content.lock().unwrap().insert(slot, page.into());
        }
        Ok(())
    }
    fn discard(&self, slot: u32) {
        self.discards.lock().unwrap().push(slot);
        self.content.lock().unwrap().remove(&slot);
    }
    fn wants_discard(&self) -> bool {
        self.name == "discards"
    }
    fn has_room(&self) -> bool {
        !self.full.load(Ordering::Relaxed)
    }
}

/// A kept compressor, as machines use it.
pub struct Lz4;

impl Compressor for Lz4 {
    fn name(&self) -> &str {
        "lz4"
    }
    fn compress(&self, page: &[u8], out: &mut [u8]) -> Option<usize> {
        lz4_flex::block::compress_into(page, out).ok()
    }
    fn decompress(&self, data: &[u8], page: &mut [u8]) -> Result<(), Corrupt> {
        match lz4_flex::block::decompress_into(data, page) {
            Ok(PAGE) => Ok(()),
            _ => Err(Corrupt),
        }
    }
}

/// Each thread is a CPU.
struct Threads;

std::thread_local! {
    static CPU: u16 = NEXT_CPU.fetch_add(1, Ordering::Relaxed) as u16;
}
static NEXT_CPU: AtomicU32 = AtomicU32::new(0);

// SAFETY: each thread has a number of its own, less than MAX_CPUS by the assertion.
unsafe impl CpuLocal for Threads {
    fn pin(&self) -> CpuId {
        let cpu = CPU.with(|cpu| *cpu);
        assert!(cpu < MAX_CPUS);
        CpuId(cpu)
    }
    fn unpin(&self, _: CpuId) {}
}

/// Buffers for the threads of one test.
pub fn streams() -> &'static Streams<'static> {
    let slots = (0..MAX_CPUS)
        .map(|_| PerCpuSlot::new(Stream::new()))
        .collect();
    let slots = Vec::leak(slots);
    Box::leak(Box::new(Streams::new(Cpus::new(MAX_CPUS, &Threads), slots)))
}

/// All of it. Lives until the process ends: tests are short.
pub struct Rig {
    pub frames: &'static Frames,
    pub ram: DirectMap<'static>,
    pub memmap: Memmap<'static>,
    pub vmstat: &'static VmStat,
    pub swap: &'static Swap<'static>,
}

impl Rig {
    pub fn new(pages: u32) -> Self {
        let frames = frames(pages);
        let vmstat = Box::leak(Box::new(VmStat::new()));
        let swap = Box::leak(Box::new(Swap::new(frames, vmstat).unwrap()));
        Self {
            frames,
            ram: frames.ram,
            memmap: frames.memmap,
            vmstat,
            swap,
        }
    }
    /// A page as `mm` makes one, filled with a repeated word.
    pub fn anon(&self, fill: u64) -> Pfn {
        let pfn = self.alloc().unwrap();
        self.memmap.page(pfn).set_state(PageState::Anon);
        self.memmap.page(pfn).set_flags(PageFlags::UPTODATE);
        self.fill(pfn, fill);
        pfn
    }
    pub fn alloc(&self) -> Result<Pfn, OutOfMemory> {
        self.frames
            .alloc_pages(AllocRequest::user_movable(Order::ZERO))
    }
    pub fn fill(&self, pfn: Pfn, fill: u64) {
        self.ram.write_bytes(pfn.addr(), &page_of(fill));
    }
    pub fn expect(&self, pfn: Pfn, fill: u64) {
        let mut page = vec![0; PAGE];
        self.ram.read_bytes(pfn.addr(), &mut page);
        assert!(page == page_of(fill), "{pfn:?} does not hold {fill:#x}");
    }
    pub fn flags(&self, pfn: Pfn) -> PageFlags {
        self.memmap.page(pfn).flags()
    }
    /// Writes one page.
    pub fn write(&self, pfn: Pfn) -> Result<(), IoError> {
        let page = self.memmap.page(pfn);
        assert!(page.try_lock());
        let mut result = None;
        self.swap.write(&[pfn], &mut |done, r| {
            assert_eq!(done, pfn);
            assert!(result.replace(r).is_none());
        });
        page.unlock();
        result.unwrap()
    }
    /// What reclaim does to a page that one table entry maps: afterwards the entry has the slot.
    pub fn swap_out(&self, pfn: Pfn, shadow: Option<u32>) -> vellum_swap::SwapEntry {
        let entry = self.swap.add_to_swap(pfn).unwrap();
        self.swap.dup(entry).unwrap();
        self.write(pfn).unwrap();
        assert!(self.swap.remove_for_reclaim(pfn, shadow));
        self.frames.free_pages(pfn);
        entry
    }
}

pub fn frames(pages: u32) -> &'static Frames {
    let span = PhysRange::from_len(PhysAddr::ZERO, u64::from(pages) * PAGE_SIZE).unwrap();
    let layout = Layout::from_size_align(span.len() as usize, PAGE).unwrap();
    // SAFETY: the size is not zero.
    let base = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).unwrap();
    // SAFETY: just allocated, page aligned, never freed, used through the map alone.
    let ram = unsafe { DirectMap::new(base, span) };
    let bytes = Memmap::bytes_for(pages);
    let first = u32::try_from(bytes / PAGE_SIZE).unwrap();
    let pfns = PfnRange::from_len(Pfn::ZERO, pages).unwrap();
    // SAFETY: the first frames are given up: they are marked as taken below.
    let memmap = unsafe { Memmap::init(ram, PhysAddr::ZERO, pfns) };
    let mut taken = vec![false; pages as usize];
    taken[..first as usize].fill(true);
    Box::leak(Box::new(Frames {
        ram,
        memmap,
        taken: Mutex::new((taken, 0)),
        fail_every: AtomicU64::new(0),
        calls: AtomicU64::new(0),
        max_order: AtomicU32::new(10),
        budget: AtomicI64::new(i64::MAX),
    }))
}

/// A page that is made of `fill`: the same word all over if `fill` is small, text of some entropy if
/// it is larger, noise if its top bit is set.
pub fn page_of(fill: u64) -> Vec<u8> {
    let mut page = Vec::with_capacity(PAGE);
    let mut random = Rng(fill | 1);
    while page.len() < PAGE {
        let word = if fill < 1 << 16 {
            fill
        } else if fill >> 63 != 0 {
            random.next()
        } else {
            fill ^ (random.next() & 3)
        };
        page.extend(word.to_le_bytes());
    }
    page
}

/// xorshift64*.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}
