//! The tests of the slab allocator: model, failures, corruption, handles.

mod corruption;
mod failure;
mod handles;
mod model;
// The same host RAM as the page tables are tested on.
#[path = "../../../page-table/tests/suite/ram.rs"]
mod ram;
mod threads;

use ram::HostRam;
use vellum_machine::VmStat;
use vellum_slab::SlabAllocator;

/// A system of `pages` frames whose parts live as long as the test process.
fn boot(
    pages: u32,
) -> (
    &'static HostRam,
    &'static VmStat,
    &'static SlabAllocator<'static>,
) {
    let ram = HostRam::new(pages);
    let stat: &'static VmStat = Box::leak(Box::new(VmStat::new()));
    (ram, stat, SlabAllocator::boot(ram, stat).unwrap())
}
