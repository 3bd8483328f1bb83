//! The machine.
use vellum_types::{SpaceId, VirtRange, VirtAddr};
use vellum_machine::{Machine, MemoryRegion, DirectMap, Features, Fill};

pub struct UmMachine {}
impl UmMachine {
    pub fn pin(&self, _s: SpaceId, _tid: i32, _r: VirtRange) {}
}
impl Machine for UmMachine {
    fn memory_map(&self) -> &[MemoryRegion] { &[] }
    fn direct_map(&self) -> DirectMap<'_> { unimplemented!() }
    fn features(&self) -> Features { unimplemented!() }
    fn now_ns(&self) -> u64 { 0 }
    fn update_mmu_cache_range(&self, _: SpaceId, _: VirtAddr, _: &[Fill]) {}
    fn flush_tlb_range(&self, _: SpaceId, _: VirtRange) {}
    fn flush_tlb_mm(&self, _: SpaceId) {}
    fn wrprotect_range(&self, _: SpaceId, _: VirtRange) {}
    fn flush_wait(&self, _: SpaceId) {}
}
