//! A machine of a memmap and a list of free frames, and a host that can be told how each page is.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::alloc::Layout;
use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::sync::Mutex;
use vellum_machine::{DirectMap, SpinLock, VmItem, VmStat};
use vellum_page::{AllocRequest, Memmap, PageFlags, PageSource, PageState};
use vellum_reclaim::{
    LruNode, MayDo, Nodes, Outcome, PolicyKind, Pressure, Reclaim, ReclaimHost, Referenced,
};
use vellum_types::{NodeId, Order, OutOfMemory, PAGE_SIZE, Pfn, PfnRange, PhysAddr, PhysRange};

/// RAM that holds nothing but the memmap, and who has which frame.
pub struct Frames {
    memory: NonNull<u8>,
    layout: Layout,
    memmap: Memmap<'static>,
    ram: DirectMap<'static>,
    free: Mutex<Vec<Pfn>>,
    nodes: u8,
    pub nr: u32,
    marks: Pressure,
}

// SAFETY: the memory is reached through the memmap's atomics only.
unsafe impl Sync for Frames {}

impl Frames {
    /// `nr` frames on `nodes` nodes, with low and high marks as given.
    pub fn new(nr: u32, nodes: u8, low: u64, high: u64) -> Self {
        let bytes = Memmap::bytes_for(nr);
        let layout = Layout::from_size_align(bytes as usize, PAGE_SIZE as usize).unwrap();
        // SAFETY: the layout is not empty.
        let memory = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).unwrap();
        let span = PhysRange::from_len(PhysAddr::ZERO, bytes).unwrap();
        // SAFETY: the memory lives until drop, which comes after all uses; page aligned; no other
        // reference to it is made.
        let ram = unsafe { DirectMap::new(memory, span) };
        let frames = PfnRange::from_len(Pfn::ZERO, nr).unwrap();
        // SAFETY: the bytes are all for the memmap.
        let memmap = unsafe { Memmap::init(ram, PhysAddr::ZERO, frames) };
        let marks = Pressure {
            free: 0,
            min: low / 2,
            low,
            high,
        };
        let free = Mutex::new(frames.iter().rev().collect());
        Self {
            memory,
            layout,
            memmap,
            ram,
            free,
            nodes,
            nr,
            marks,
        }
    }
    pub fn nr_free(&self) -> u64 {
        self.free.lock().unwrap().len() as u64
    }
    pub fn lists(&self, kind: PolicyKind) -> Vec<SpinLock<LruNode>> {
        (0..self.nodes).map(|_| LruNode::new(kind)).collect()
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { std::alloc::dealloc(self.memory.as_ptr(), self.layout) };
    }
}

impl PageSource for Frames {
    fn alloc_pages(&self, request: AllocRequest) -> Result<Pfn, OutOfMemory> {
        assert_eq!(request.order, Order::ZERO);
        let pfn = self.free.lock().unwrap().pop().ok_or(OutOfMemory)?;
        let page = self.memmap.page(pfn);
        page.set_state(PageState::Allocated);
        page.set_refcount(1);
        page.set_mapcount(0);
        page.set_index(0);
        page.set_owner(0);
        Ok(pfn)
    }
    fn free_pages(&self, pfn: Pfn) {
        let page = self.memmap.page(pfn);
        assert_ne!(page.state(), PageState::Free, "double free of {pfn:?}");
        assert!(!page.flags().contains(PageFlags::LRU), "freed on a list");
        page.set_state(PageState::Free);
        page.set_refcount(0);
        self.free.lock().unwrap().push(pfn);
    }
    fn split_page(&self, _: Pfn) {}
    fn memmap(&self) -> Memmap<'_> {
        self.memmap
    }
    fn ram(&self) -> DirectMap<'_> {
        self.ram
    }
}

impl Nodes for Frames {
    fn nr_nodes(&self) -> u8 {
        self.nodes
    }
    fn node_of(&self, pfn: Pfn) -> NodeId {
        NodeId((pfn.as_u32() % u32::from(self.nodes)) as u8)
    }
    fn pressure(&self, node: NodeId) -> Pressure {
        let free = self.free.lock().unwrap();
        let here = free
            .iter()
            .filter(|pfn| Nodes::node_of(self, **pfn) == node);
        Pressure {
            free: here.count() as u64,
            ..self.marks
        }
    }
}

/// How a page is.
#[derive(Clone, Copy, Default, Debug)]
pub struct Facts {
    pub young: bool,
    pub exec: bool,
    pub locked: bool,
    pub dirty: bool,
    /// Busy for ever.
    pub pinned: bool,
    pub io_error: bool,
    /// Its write takes until it is looked at again.
    pub slow_write: bool,
    pub writing: bool,
}

/// A host whose pages are as `facts` says.
pub struct Host<'a> {
    pub reclaim: &'a Reclaim<'a>,
    pub facts: RefCell<Vec<Facts>>,
    pub swap: Cell<u64>,
    /// Calls of any kind: the watchdog's clock.
    pub calls: Cell<u64>,
    pub freed: RefCell<Vec<(Pfn, u32)>>,
}

impl<'a> Host<'a> {
    pub fn new(reclaim: &'a Reclaim<'a>, nr: u32) -> Self {
        Self {
            reclaim,
            facts: RefCell::new(vec![Facts::default(); nr as usize]),
            swap: Cell::new(u64::MAX),
            calls: Cell::new(0),
            freed: RefCell::new(Vec::new()),
        }
    }
    pub fn set(&self, pfn: Pfn, f: impl FnOnce(&mut Facts)) {
        f(&mut self.facts.borrow_mut()[pfn.index()]);
    }
    fn tick(&self) {
        self.calls.set(self.calls.get() + 1);
    }
}

impl ReclaimHost for Host<'_> {
    fn page_referenced(&self, pfn: Pfn) -> Referenced {
        self.tick();
        let page = self.reclaim.memmap().page(pfn);
        assert!(
            page.refcount() > 0,
            "{pfn:?} is looked at without a reference"
        );
        assert!(!page.flags().contains(PageFlags::LRU));
        let facts = &mut self.facts.borrow_mut()[pfn.index()];
        Referenced {
            young: u32::from(std::mem::take(&mut facts.young)),
            exec: facts.exec,
            locked: facts.locked,
        }
    }
    fn reclaim_page(&self, pfn: Pfn, may: MayDo) -> Outcome {
        self.tick();
        let page = self.reclaim.memmap().page(pfn);
        let facts = &mut self.facts.borrow_mut()[pfn.index()];
        if facts.locked {
            return Outcome::Unevictable;
        }
        if facts.pinned || std::mem::take(&mut facts.writing) {
            return Outcome::Busy;
        }
        if page.state() == PageState::Anon {
            if !may.swap {
                return Outcome::Busy;
            }
            if self.swap.get() == 0 {
                return Outcome::NoSwap;
            }
        }
        if facts.dirty {
            if !may.write {
                return Outcome::Busy;
            }
            if facts.io_error {
                return Outcome::IoError;
            }
            facts.dirty = false;
            facts.writing = facts.slow_write;
            page.clear_flags(PageFlags::DIRTY);
            if facts.slow_write {
                return Outcome::WriteStarted;
            }
        }
        if !page.freeze(2) {
            return Outcome::Busy;
        }
        let shadow = self.reclaim.shadow_for(pfn);
        self.freed.borrow_mut().push((pfn, shadow));
        self.reclaim.free_pages(pfn);
        Outcome::Freed
    }
    fn launder_page(&self, pfn: Pfn) -> Outcome {
        self.tick();
        let facts = &mut self.facts.borrow_mut()[pfn.index()];
        if facts.pinned {
            return Outcome::Busy;
        }
        if facts.io_error {
            return Outcome::IoError;
        }
        facts.dirty = false;
        self.reclaim
            .memmap()
            .page(pfn)
            .clear_flags(PageFlags::DIRTY);
        Outcome::Written
    }
    fn free_swap(&self) -> u64 {
        self.swap.get()
    }
    fn age_spaces(&self, young: &mut dyn FnMut(Pfn)) {
        self.tick();
        let mut found = Vec::new();
        for (at, facts) in self.facts.borrow_mut().iter_mut().enumerate() {
            if std::mem::take(&mut facts.young) {
                found.push(Pfn::new(at as u32));
            }
        }
        found.into_iter().for_each(young);
    }
    fn shrink_caches(&self, _: u64) -> u64 {
        self.tick();
        0
    }
}

/// Pages on all lists, by the counters.
pub fn on_lists(vmstat: &VmStat) -> u64 {
    [
        VmItem::NrActiveAnon,
        VmItem::NrInactiveAnon,
        VmItem::NrActiveFile,
        VmItem::NrInactiveFile,
        VmItem::NrUnevictable,
    ]
    .iter()
    .map(|item| vmstat.item(*item))
    .sum()
}

/// A page of programs or of a file, on a list.
pub fn new_page(reclaim: &Reclaim<'_>, state: PageState, flags: PageFlags) -> Option<Pfn> {
    let pfn = reclaim
        .alloc_pages(AllocRequest::user_movable(Order::ZERO))
        .ok()?;
    let page = reclaim.memmap().page(pfn);
    page.set_state(state);
    page.set_flags(flags);
    reclaim.lru_add(pfn);
    Some(pfn)
}

/// A xorshift generator: the same numbers every time.
pub struct Rng(pub u64);

impl Rng {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}
