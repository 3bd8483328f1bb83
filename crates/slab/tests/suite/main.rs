//! The tests of the slab allocator: model, failures, corruption, handles.

mod corruption;
mod failure;
mod flags;
mod handles;
mod kmalloc;
mod model;
// The same host RAM as the page tables are tested on.
#[path = "../../../page-table/tests/suite/ram.rs"]
mod ram;
mod threads;

use ram::HostRam;
use std::cell::Cell;
use vellum_machine::{CpuLocal, Cpus, VmStat};
use vellum_slab::SlabAllocator;
use vellum_types::{CpuId, NodeId};

std::thread_local! {
    static CPU: Cell<u16> = const { Cell::new(0) };
}

/// Each thread of a test is a CPU; two CPUs a node.
struct Threads {
    nodes: bool,
}

// SAFETY: each thread that uses a system of several CPUs names one of its own first, and no two
// that live at the same time the same.
unsafe impl CpuLocal for Threads {
    fn pin(&self) -> CpuId {
        CpuId(CPU.get())
    }
    fn unpin(&self, _: CpuId) {}
    fn node_of(&self, cpu: CpuId) -> NodeId {
        NodeId(if self.nodes { (cpu.0 / 2) as u8 } else { 0 })
    }
}

/// This thread is `cpu` from now on.
fn be_cpu(cpu: u16) {
    CPU.set(cpu);
}

/// `nr` CPUs, which the threads name themselves; all on one node, or two on each.
fn cpus(nr: u16, nodes: bool) -> Cpus<'static> {
    Cpus::new(nr, Box::leak(Box::new(Threads { nodes })))
}

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
    // SAFETY: each test is one thread, but those that make CPUs of their own.
    let cpus = unsafe { Cpus::single() };
    (ram, stat, SlabAllocator::boot(ram, stat, cpus).unwrap())
}
