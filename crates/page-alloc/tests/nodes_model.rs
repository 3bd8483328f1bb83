//! Four nodes with holes under random operations: against a map of frames, with failures, by threads.

mod common;

use common::{MIB, Machine, Rng, free_kib, order};
use std::cell::Cell;
use std::sync::mpsc;
use vellum_machine::{CpuLocal, Cpus};
use vellum_page::{AllocRequest, PageSource};
use vellum_page_alloc::{BootParts, PageAllocator};
use vellum_types::{CpuId, GfpFlags, NodeId, PAGE_SIZE, Pfn};

const NODES: u8 = 4;
const CPUS: u16 = 8;
/// Odd ends, holes inside nodes and between them, a node in pieces.
const MEMORY: [(u64, u64, u8); 7] = [
    (0, 40 * MIB, 0),
    (48 * MIB, 61 * MIB + 5 * PAGE_SIZE, 0),
    (64 * MIB, 120 * MIB, 1),
    (128 * MIB, 130 * MIB, 2),
    (137 * MIB, 190 * MIB, 2),
    (200 * MIB, 230 * MIB, 3),
    (231 * MIB + 7 * PAGE_SIZE, 256 * MIB, 3),
];

thread_local! {
    static CPU: Cell<u16> = const { Cell::new(0) };
}

/// CPUs in turn over the nodes.
struct Around;

// SAFETY: each thread of a test names CPUs that no other names.
unsafe impl CpuLocal for Around {
    fn pin(&self) -> CpuId {
        CpuId(CPU.get())
    }
    fn unpin(&self, _: CpuId) {}
    fn node_of(&self, cpu: CpuId) -> NodeId {
        NodeId((cpu.0 % u16::from(NODES)) as u8)
    }
}

fn boot(machine: &Machine) -> &PageAllocator<'_> {
    CPU.set(0);
    let parts = machine.parts(machine.memblock_of(&MEMORY));
    machine.boot_from(BootParts {
        cpus: Cpus::new(CPUS, &Around),
        ..parts
    })
}

fn node_by_address(pfn: Pfn) -> Option<u8> {
    let at = pfn.addr().as_u64();
    let region = MEMORY
        .iter()
        .find(|(start, end, _)| (*start..*end).contains(&at));
    region.map(|(.., node)| *node)
}

/// What is allocated, and whose each frame is.
struct Model {
    blocks: Vec<(Pfn, u8)>,
    used: Vec<bool>,
    pages: u64,
}

impl Model {
    fn new() -> Self {
        Self {
            blocks: Vec::new(),
            used: vec![false; (256 * MIB / PAGE_SIZE) as usize],
            pages: 0,
        }
    }

    fn mark(&mut self, pfn: Pfn, raw: u8, on: bool) {
        for at in 0..order(raw).pages() {
            let frame = pfn + at;
            let slot = &mut self.used[frame.as_u32() as usize];
            assert_ne!(*slot, on, "{frame:?} changes hands twice");
            *slot = on;
        }
        let pages = u64::from(order(raw).pages());
        self.pages = if on {
            self.pages + pages
        } else {
            self.pages - pages
        };
    }

    /// One random operation on a random CPU.
    fn step(&mut self, allocator: &PageAllocator<'_>, rng: &mut Rng) {
        CPU.set(rng.below(u64::from(CPUS)) as u16);
        let full = self.pages > 30_000;
        if !self.blocks.is_empty() && rng.below(if full { 4 } else { 2 }) != 0 {
            let at = rng.below(self.blocks.len() as u64) as usize;
            let (pfn, raw) = self.blocks.swap_remove(at);
            self.mark(pfn, raw, false);
            allocator.free_pages(pfn);
            return;
        }
        let raw = match rng.below(8) {
            0..5 => 0,
            5 | 6 => rng.below(4) as u8,
            _ => rng.below(11) as u8,
        };
        let mut gfp = [
            GfpFlags::KERNEL,
            GfpFlags::HIGHUSER_MOVABLE,
            GfpFlags::ATOMIC,
        ][rng.below(3) as usize];
        let strict = rng.below(4) == 0;
        if strict {
            gfp |= GfpFlags::THISNODE;
        }
        let request = AllocRequest::new(order(raw), gfp);
        let named = rng.below(3) == 0;
        let node = if named {
            NodeId(rng.below(u64::from(NODES)) as u8)
        } else {
            Around.node_of(Around.pin())
        };
        let got = if named {
            allocator.alloc_pages_node(request, node)
        } else {
            allocator.alloc_pages(request)
        };
        let Ok(pfn) = got else { return };
        assert!(order(raw).is_aligned(pfn));
        let last = pfn + (order(raw).pages() - 1);
        let home = allocator.node_of(pfn);
        assert_eq!(node_by_address(pfn), Some(home.0), "{pfn:?}");
        assert_eq!(node_by_address(last), Some(home.0), "{last:?}");
        assert!(
            !strict || home == node,
            "{pfn:?} is of {home:?}, not {node:?}"
        );
        self.mark(pfn, raw, true);
        self.blocks.push((pfn, raw));
    }

    fn free_all(&mut self, allocator: &PageAllocator<'_>) {
        for (pfn, raw) in core::mem::take(&mut self.blocks) {
            self.mark(pfn, raw, false);
            allocator.free_pages(pfn);
        }
    }
}

fn drain_every_cpu(allocator: &PageAllocator<'_>) {
    for cpu in 0..CPUS {
        CPU.set(cpu);
        allocator.drain_local();
    }
}

#[test]
fn random_operations_on_four_nodes_with_holes() {
    let machine = Machine::new(0, 256 * MIB);
    let allocator = boot(&machine);
    let (at_boot, managed) = (free_kib(allocator), allocator.managed_pages());
    let mut rng = Rng(0x9e37_79b9_7f4a_7c15);
    let mut model = Model::new();
    for step in 0..200_000 {
        model.step(allocator, &mut rng);
        if step % 20_000 == 0 {
            assert_eq!(allocator.nr_free_pages() + model.pages, managed);
            allocator.validate().unwrap();
        }
    }
    model.free_all(allocator);
    drain_every_cpu(allocator);
    allocator.validate().unwrap();
    assert_eq!(allocator.nr_free_pages(), managed);
    assert_eq!(free_kib(allocator), at_boot, "whole blocks again");
}

#[test]
fn each_failure_on_four_nodes_leaves_nothing_behind() {
    let machine = Machine::new(0, 256 * MIB);
    let allocator = boot(&machine);
    let managed = allocator.managed_pages();
    let mut model = Model::new();
    for n in 0..300 {
        // The same operations each time, of which one more succeeds.
        let mut rng = Rng(0x2545_f491_4f6c_dd1d);
        allocator.fail_after(Some(n));
        for _ in 0..400 {
            model.step(allocator, &mut rng);
        }
        assert_eq!(allocator.nr_free_pages() + model.pages, managed);
        allocator.fail_after(None);
        model.free_all(allocator);
    }
    drain_every_cpu(allocator);
    allocator.validate().unwrap();
    assert_eq!(allocator.nr_free_pages(), managed);
}

/// Each thread frees what its neighbour on another node allocated.
#[test]
fn threads_on_several_nodes_pass_pages_around() {
    const ROUNDS: usize = 20_000;
    let machine = Machine::new(0, 256 * MIB);
    let allocator = boot(&machine);
    let (at_boot, managed) = (free_kib(allocator), allocator.managed_pages());
    let (senders, mut receivers): (Vec<_>, Vec<_>) =
        (0..4).map(|_| mpsc::sync_channel::<Pfn>(64)).unzip();
    let left: Vec<_> = std::thread::scope(|scope| {
        let work = |(cpu, receiver): (usize, mpsc::Receiver<Pfn>)| {
            let next = senders[(cpu + 1) % 4].clone();
            scope.spawn(move || {
                CPU.set(cpu as u16);
                let mut rng = Rng(cpu as u64 + 1);
                for _ in 0..ROUNDS {
                    let raw = rng.below(4) as u8;
                    let request = AllocRequest::new(order(raw), GfpFlags::KERNEL);
                    let pfn = allocator.alloc_pages(request).expect("there is enough");
                    if next.try_send(pfn).is_err() {
                        allocator.free_pages(pfn);
                    }
                    receiver
                        .try_iter()
                        .for_each(|pfn| allocator.free_pages(pfn));
                }
                receiver
            })
        };
        let threads: Vec<_> = receivers.drain(..).enumerate().map(work).collect();
        let ended = threads.into_iter().map(|thread| thread.join().unwrap());
        ended.collect()
    });
    CPU.set(0);
    let rest = left.iter().flat_map(mpsc::Receiver::try_iter);
    rest.for_each(|pfn| allocator.free_pages(pfn));
    drain_every_cpu(allocator);
    allocator.validate().unwrap();
    assert_eq!(allocator.nr_free_pages(), managed);
    assert_eq!(free_kib(allocator), at_boot, "whole blocks again");
}
