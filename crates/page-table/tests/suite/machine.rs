//! A machine that only writes down what it is told.

use std::sync::Mutex;
use vellum_machine::{Cpus, DirectMap, Features, Fill, Machine, MemoryRegion};
use vellum_page::PageSource;
use vellum_types::{Order, SpaceId, VirtAddr, VirtRange};

/// What was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    Flush(VirtRange),
    FlushAll,
    Kernel(VirtRange),
    Wait,
}

pub(crate) struct Recorder<'a> {
    source: &'a dyn PageSource,
    pub(crate) events: Mutex<Vec<Event>>,
    /// Called at each wait: frames must not be free before it.
    pub(crate) at_wait: Box<dyn Fn() + 'a>,
}

impl<'a> Recorder<'a> {
    pub(crate) fn new(source: &'a dyn PageSource) -> Self {
        Self {
            source,
            events: Mutex::new(Vec::new()),
            at_wait: Box::new(|| ()),
        }
    }
    fn push(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }
    pub(crate) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.events.lock().unwrap())
    }
}

impl Machine for Recorder<'_> {
    fn memory_map(&self) -> &[MemoryRegion] {
        &[]
    }
    fn direct_map(&self) -> DirectMap<'_> {
        self.source.ram()
    }
    fn features(&self) -> Features {
        Features {
            nr_cpus: 1,
            hw_access_dirty: false,
            fault_around_pages: 16,
            anon_order_max: Order::ZERO,
        }
    }
    fn cpus(&self) -> Cpus<'_> {
        // SAFETY: each test has one thread.
        unsafe { Cpus::single() }
    }

    fn now_ns(&self) -> u64 {
        0
    }
    fn update_mmu_cache_range(&self, _: SpaceId, _: VirtAddr, _: &[Fill]) {}
    fn flush_tlb_range(&self, _: SpaceId, range: VirtRange) {
        self.push(Event::Flush(range));
    }
    fn flush_tlb_mm(&self, _: SpaceId) {
        self.push(Event::FlushAll);
    }
    fn flush_tlb_kernel_range(&self, range: VirtRange) {
        (self.at_wait)();
        self.push(Event::Kernel(range));
    }
    fn wrprotect_range(&self, _: SpaceId, _: VirtRange) {}
    fn flush_wait(&self, _: SpaceId) {
        (self.at_wait)();
        self.push(Event::Wait);
    }
}
