//! Frames for a replay: a real memmap over RAM that nobody looks into.

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};
use vellum_machine::DirectMap;
use vellum_page::{AllocRequest, Memmap, PageSource, PageState};
use vellum_reclaim::{Nodes, Pressure};
use vellum_types::{NodeId, Order, OutOfMemory, PAGE_SIZE, Pfn, PfnRange, PhysAddr, PhysRange};

/// Frames without content.
pub(crate) struct Frames {
    memory: NonNull<u8>,
    layout: Layout,
    free: Mutex<Vec<Pfn>>,
    span: PfnRange,
    memmap: Memmap<'static>,
    ram: DirectMap<'static>,
    high: u64,
}

// SAFETY: the memory is the memmap, whose fields are atomics.
unsafe impl Sync for Frames {}

impl Frames {
    /// `nr` frames, at least one. Kswapd keeps up to `high` of them free.
    pub(crate) fn new(nr: u32, high: u64) -> Self {
        let nr = nr.max(1);
        let bytes = Memmap::bytes_for(nr);
        let layout = Layout::array::<u8>(bytes as usize)
            .and_then(|layout| layout.align_to(PAGE_SIZE as usize))
            .unwrap_or(Layout::new::<u64>());
        // SAFETY: the layout is not empty, as there is at least one frame.
        let memory = unsafe { std::alloc::alloc_zeroed(layout) };
        let Some(memory) = NonNull::new(memory) else {
            std::alloc::handle_alloc_error(layout)
        };
        let (Some(bytes), Some(span)) = (
            PhysRange::from_len(PhysAddr::ZERO, bytes),
            PfnRange::from_len(Pfn::ZERO, nr),
        ) else {
            unreachable!("neither is empty")
        };
        // SAFETY: 1. mapped until drop, and the lifetime is not handed out beyond `self`; 2. page
        // aligned; 3. nobody else knows the bytes.
        let ram = unsafe { DirectMap::new(memory, bytes) };
        // SAFETY: all the bytes are for the memmap.
        let memmap = unsafe { Memmap::init(ram, PhysAddr::ZERO, span) };
        Self {
            memory,
            layout,
            free: Mutex::new(span.iter().rev().collect()),
            span,
            memmap,
            ram,
            high,
        }
    }

    /// How many frames.
    pub(crate) fn len(&self) -> usize {
        self.span.len() as usize
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Vec<Pfn>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; all borrows of `self` have ended.
        unsafe { std::alloc::dealloc(self.memory.as_ptr(), self.layout) };
    }
}

impl PageSource for Frames {
    fn alloc_pages(&self, request: AllocRequest) -> Result<Pfn, OutOfMemory> {
        if request.order != Order::ZERO {
            return Err(OutOfMemory);
        }
        let pfn = self.free().pop().ok_or(OutOfMemory)?;
        let page = self.memmap.page(pfn);
        page.set_state(PageState::Allocated);
        page.set_refcount(1);
        Ok(pfn)
    }
    fn free_pages(&self, pfn: Pfn) {
        self.memmap.page(pfn).set_state(PageState::Free);
        self.free().push(pfn);
    }
    /// Blocks are single pages already.
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
        1
    }
    fn node_of(&self, _: Pfn) -> NodeId {
        NodeId(0)
    }
    fn pressure(&self, _: NodeId) -> Pressure {
        Pressure {
            free: self.free().len() as u64,
            min: 0,
            low: 1,
            high: self.high,
        }
    }
}
