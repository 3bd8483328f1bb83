//! A host for the page cache: RAM, a frame allocator, a scripted store.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(unreachable_pub, reason = "a module of each test binary")]

use std::alloc::Layout;
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use vellum_machine::{DirectMap, Trace, VmItem, VmStat};
use vellum_object::{HeapSource, ObjectCache};
use vellum_page::{AllocRequest, Memmap, PageSource, PageState};
use vellum_page_cache::{BackingStore, IoError, MappingRef, PageCache, Readahead};
use vellum_types::{FileId, Order, OutOfMemory, PAGE_SIZE, Pfn, PfnRange, PhysAddr, PhysRange};

mod swap;
pub use swap::Swap;

pub const PAGE: usize = PAGE_SIZE as usize;

/// Frames from a bitmap: first fit, aligned to the order.
pub struct Frames {
    ram: DirectMap<'static>,
    memmap: Memmap<'static>,
    taken: Mutex<Vec<bool>>,
    vmstat: &'static VmStat,
    /// Every n-th allocation fails; 0 for none.
    fail_every: AtomicU64,
    calls: AtomicU64,
    /// Frames that came back to a shadow, and the shadow.
    pub refaults: Mutex<Vec<(u32, u32)>>,
    /// Allocations above this order fail.
    pub max_order: AtomicU32,
}

impl Frames {
    pub fn fail_every(&self, n: u64) {
        self.fail_every.store(n, Ordering::Relaxed);
    }
    pub fn used(&self) -> usize {
        self.taken.lock().unwrap().iter().filter(|t| **t).count()
    }
    fn account(&self, taken: &[bool]) {
        let free = taken.iter().filter(|t| !**t).count() as u64;
        self.vmstat
            .sub(VmItem::NrFreePages, self.vmstat.item(VmItem::NrFreePages));
        self.vmstat.add(VmItem::NrFreePages, free);
    }
}

impl PageSource for Frames {
    fn alloc_pages(&self, request: AllocRequest) -> Result<Pfn, OutOfMemory> {
        let every = self.fail_every.load(Ordering::Relaxed);
        if every != 0 && self.calls.fetch_add(1, Ordering::Relaxed) % every == every - 1 {
            return Err(OutOfMemory);
        }
        if u32::from(request.order.as_u8()) > self.max_order.load(Ordering::Relaxed) {
            return Err(OutOfMemory);
        }
        let mut taken = self.taken.lock().unwrap();
        let step = request.order.pages() as usize;
        let start = (0..taken.len())
            .step_by(step)
            .find(|&s| s + step <= taken.len() && taken[s..s + step].iter().all(|t| !*t))
            .ok_or(OutOfMemory)?;
        for i in start..start + step {
            taken[i] = true;
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
        self.account(&taken);
        Ok(first)
    }
    fn free_pages(&self, pfn: Pfn) {
        let mut taken = self.taken.lock().unwrap();
        let page = self.memmap.page(pfn);
        assert_ne!(page.state(), PageState::Tail, "free of a tail");
        for i in 0..page.order().pages() {
            let slot = &mut taken[pfn.index() + i as usize];
            assert!(*slot, "double free of {pfn:?}");
            *slot = false;
            self.memmap.page(pfn + i).set_state(PageState::Free);
            self.memmap.page(pfn + i).set_refcount(0);
        }
        self.ram.fill_pages(pfn, page.order().pages(), 0x5a);
        self.account(&taken);
    }
    fn split_page(&self, pfn: Pfn) {
        for i in 0..self.memmap.page(pfn).order().pages() {
            let page = self.memmap.page(pfn + i);
            page.set_state_order(PageState::Allocated, Order::ZERO);
            page.set_refcount(1);
        }
    }
    fn lru_refault(&self, pfn: Pfn, shadow: u32) {
        let page = self.memmap.page(pfn);
        assert_eq!(page.state(), PageState::File, "its class is known");
        self.refaults.lock().unwrap().push((pfn.as_u32(), shadow));
    }
    fn memmap(&self) -> Memmap<'_> {
        self.memmap
    }
    fn ram(&self) -> DirectMap<'_> {
        self.ram
    }
}

/// Files in vectors, with failures on demand.
#[derive(Default)]
pub struct Store {
    pub files: Mutex<BTreeMap<u64, Vec<u8>>>,
    /// So many reads fail from now on.
    pub fail_reads: AtomicI64,
    /// So many writes fail from now on.
    pub fail_writes: AtomicI64,
    /// Reads that touch this page of any file fail.
    pub bad_page: Mutex<Option<u64>>,
    pub reads: Mutex<Vec<(u64, usize)>>,
    pub writes: Mutex<Vec<(u64, u64)>>,
    pub released: Mutex<Vec<u64>>,
}

impl Store {
    pub fn set(&self, file: FileId, bytes: Vec<u8>) {
        self.files.lock().unwrap().insert(file.0, bytes);
    }
    pub fn get(&self, file: FileId) -> Vec<u8> {
        self.files.lock().unwrap()[&file.0].clone()
    }
    pub fn with<R>(&self, file: FileId, f: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        f(self.files.lock().unwrap().get_mut(&file.0).unwrap())
    }
}

fn use_up(count: &AtomicI64) -> bool {
    let fails = count.load(Ordering::Relaxed) > 0;
    if fails {
        count.fetch_sub(1, Ordering::Relaxed);
    }
    fails
}

impl BackingStore for Store {
    fn read(
        &self,
        file: FileId,
        offset: u64,
        frames: &[Pfn],
        ram: DirectMap<'_>,
    ) -> Result<u64, IoError> {
        assert_eq!(offset % PAGE_SIZE, 0);
        let first = offset / PAGE_SIZE;
        if self.swap_backed(file) {
            return Ok(0);
        }
        self.reads.lock().unwrap().push((first, frames.len()));
        let bad = *self.bad_page.lock().unwrap();
        let is_bad = bad.is_some_and(|bad| (first..first + frames.len() as u64).contains(&bad));
        if is_bad || use_up(&self.fail_reads) {
            return Err(IoError { errno: 5 });
        }
        let files = self.files.lock().unwrap();
        let bytes = files[&file.0].get(offset as usize..).unwrap_or(&[]);
        for (chunk, pfn) in bytes.chunks(PAGE).zip(frames) {
            ram.write_bytes(pfn.addr(), chunk);
        }
        Ok((bytes.len() as u64).min(frames.len() as u64 * PAGE_SIZE))
    }
    fn write(
        &self,
        file: FileId,
        offset: u64,
        frames: &[Pfn],
        bytes: u64,
        ram: DirectMap<'_>,
    ) -> Result<(), IoError> {
        assert_eq!(offset % PAGE_SIZE, 0);
        assert!(bytes > 0 && bytes.div_ceil(PAGE_SIZE) == frames.len() as u64);
        self.writes.lock().unwrap().push((offset, bytes));
        if use_up(&self.fail_writes) {
            return Err(IoError { errno: 28 });
        }
        let mut files = self.files.lock().unwrap();
        let content = files.get_mut(&file.0).unwrap();
        let end = (offset + bytes) as usize;
        if content.len() < end {
            content.resize(end, 0);
        }
        for (chunk, pfn) in content[offset as usize..end].chunks_mut(PAGE).zip(frames) {
            ram.read_bytes(pfn.addr(), chunk);
        }
        Ok(())
    }
    fn swap_backed(&self, file: FileId) -> bool {
        file.0 >> 63 == 1
    }
    fn sync(&self, _: FileId) -> Result<(), IoError> {
        Ok(())
    }
    fn size(&self, file: FileId) -> u64 {
        self.files
            .lock()
            .unwrap()
            .get(&file.0)
            .map_or(0, |bytes| bytes.len() as u64)
    }
    fn name(&self, file: FileId, out: &mut dyn core::fmt::Write) -> core::fmt::Result {
        write!(out, "/file/{}", file.0)
    }
    fn dev_ino(&self, file: FileId) -> (u32, u32, u64) {
        (8, 1, file.0)
    }
    fn release(&self, file: FileId) {
        self.released.lock().unwrap().push(file.0);
    }
}

/// Everything a cache needs. Leaked: a test process is short.
pub struct Rig {
    pub store: &'static Store,
    pub frames: &'static Frames,
    pub vmstat: &'static VmStat,
    pub nodes: &'static HeapSource,
    pub mappings: &'static HeapSource,
    pub table_nodes: &'static HeapSource,
    pub ram: DirectMap<'static>,
    pub swap: &'static Swap,
    pub cache: PageCache<'static>,
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

impl Rig {
    /// RAM of `pages` frames beside the memmap.
    pub fn new(pages: u32) -> Self {
        Self::traced(pages, Trace::OFF)
    }

    pub fn traced(pages: u32, trace: Trace<'static>) -> Self {
        let map_bytes = Memmap::bytes_for(pages);
        let bytes = u64::from(pages) * PAGE_SIZE + map_bytes;
        let layout = Layout::from_size_align(bytes as usize, PAGE).unwrap();
        // SAFETY: the size is not zero.
        let base = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).unwrap();
        let span = PhysRange::from_len(PhysAddr::ZERO, bytes).unwrap();
        // SAFETY: `bytes` bytes at `base`, page aligned, leaked, known to nobody else.
        let ram = unsafe { DirectMap::new(base, span) };
        let frames = PfnRange::from_len(Pfn::ZERO, pages).unwrap();
        let storage = PhysAddr::new(u64::from(pages) * PAGE_SIZE);
        // SAFETY: `map_bytes` bytes there lie behind the frames and are used for nothing else.
        let memmap = unsafe { Memmap::init(ram, storage, frames) };
        let vmstat = leak(VmStat::new());
        vmstat.add(VmItem::NrFreePages, u64::from(pages));
        let frames = leak(Frames {
            ram,
            memmap,
            taken: Mutex::new(vec![false; pages as usize]),
            vmstat,
            fail_every: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            refaults: Mutex::default(),
            max_order: AtomicU32::new(10),
        });
        let store = leak(Store::default());
        let nodes = leak(HeapSource::new(
            ObjectCache::<vellum_collections::RadixNode<'_, vellum_page_cache::CacheSlot>>::BOX_LAYOUT,
        ));
        let mappings = leak(HeapSource::new(
            ObjectCache::<vellum_page_cache::Mapping<'_>>::ARC_LAYOUT,
        ));
        let table_nodes =
            leak(
                HeapSource::new(
                    ObjectCache::<
                        vellum_collections::RadixNode<'_, vellum_page_cache::MappingRef<'_>>,
                    >::BOX_LAYOUT,
                ),
            );
        let swap = leak(Swap::new(frames, ram));
        let cache = PageCache::new(
            store,
            frames,
            vmstat,
            trace,
            ObjectCache::new(nodes),
            ObjectCache::new(mappings),
            ObjectCache::new(table_nodes),
        )
        .with_swap(swap);
        Self {
            store,
            frames,
            vmstat,
            nodes,
            mappings,
            table_nodes,
            ram,
            swap,
            cache,
        }
    }

    pub fn bytes(&self, phys: PhysAddr, len: u64) -> Vec<u8> {
        let mut out = vec![0; len as usize];
        self.ram.read_bytes(phys, &mut out);
        out
    }

    /// Nothing is left anywhere.
    pub fn finish(self) {
        self.cache.drop_all();
        self.cache.validate().unwrap();
        assert_eq!(self.cache.nr_mappings(), 0);
        assert_eq!(self.swap.live(), 0, "swap slots leaked");
        assert_eq!(self.frames.used(), 0, "frames leaked");
        assert_eq!(self.vmstat.item(VmItem::NrFilePages), 0);
        assert_eq!(self.vmstat.item(VmItem::NrDirty), 0);
        assert_eq!(self.nodes.live(), 0, "tree nodes leaked");
        assert_eq!(self.mappings.live(), 0, "mappings leaked");
        assert_eq!(self.table_nodes.live(), 0, "table nodes leaked");
    }
}

/// Bytes that tell their position.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i * 7 + i / 251 + i / PAGE) as u8)
        .collect()
}

/// The file of [`rig_with`].
pub const FILE: FileId = FileId(0x1_0000_0007);

/// A rig with one file, and its mapping.
pub fn rig_with(pages: u32, content: Vec<u8>) -> (Rig, MappingRef<'static>) {
    let rig = Rig::new(pages);
    rig.store.set(FILE, content);
    let mapping = rig.cache.mapping(FILE).unwrap();
    (rig, mapping)
}

/// What read(2) would give.
pub fn read_all(rig: &Rig, mapping: &MappingRef<'static>, offset: u64, len: u64) -> Vec<u8> {
    let mut all = Vec::new();
    let n = mapping
        .read(&rig.cache, offset, len, &mut |phys, len| {
            all.extend(rig.bytes(phys, len));
            true
        })
        .unwrap();
    assert_eq!(n, all.len() as u64);
    all
}

pub fn no_unmap(_: u64, _: u64) {}
pub fn no_clean(_: u64, _: &[Pfn]) {}

/// A table entry appears.
pub fn map(rig: &Rig, mapping: &MappingRef<'static>, index: u64) -> Pfn {
    let (pfn, _) = mapping
        .read_page(&rig.cache, index, Readahead::Normal)
        .unwrap();
    rig.frames.memmap().page(pfn).map();
    pfn
}

/// A table entry goes.
pub fn unmap(rig: &Rig, pfn: Pfn) {
    rig.frames.memmap().page(pfn).unmap();
    rig.cache.put_page(pfn);
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
    /// In `0..n`.
    pub fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 16) % n
    }
}
