//! What the core asks of the machine, and what it hears of frames that are freed.

use crate::config::Refill;
use crate::failure::Failure;
use crate::machine::SimMachine;
use crate::tlb::{Flush, TlbEntry};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use vellum_machine::{
    CpuLocal, Cpus, DirectMap, Features, Fill, Machine, MemoryRegion, TraceEvent, TraceSink,
};
use vellum_types::{CpuId, NodeId, PAGE_SIZE, Pfn, PhysAddr, Prot, SpaceId, VirtAddr, VirtRange};

impl Machine for SimMachine {
    fn memory_map(&self) -> &[MemoryRegion] {
        &self.config.regions
    }

    fn direct_map(&self) -> DirectMap<'_> {
        let all = self.ram.direct_map();
        all.below(self.config.low_end).unwrap_or(all)
    }

    fn features(&self) -> Features {
        Features {
            nr_cpus: self.config.nr_cpus,
            hw_access_dirty: self.config.hw_access_dirty,
            fault_around_pages: self.config.fault_around_pages,
            anon_order_max: self.config.anon_order_max,
        }
    }

    fn cpus(&self) -> Cpus<'_> {
        if self.config.nr_nodes > 1 {
            return Cpus::new(1, self);
        }
        // SAFETY: simulated CPUs take turns on the thread that owns the machine.
        unsafe { Cpus::single() }
    }

    fn node_distance(&self, from: NodeId, to: NodeId) -> u8 {
        (self.config.distance)(from, to)
    }

    fn now_ns(&self) -> u64 {
        // Time moves by being looked at: deterministic, and never still.
        self.clock_ns.fetch_add(1000, Ordering::Relaxed)
    }

    fn set_zero_page(&self, pfn: Pfn) {
        self.state().zero_page = Some(pfn);
    }

    fn update_mmu_cache_range(&self, space: SpaceId, start: VirtAddr, fills: &[Fill]) {
        let ram = self.ram.direct_map();
        let current = usize::from(self.current_cpu().0);
        let mut state = self.state();
        for (i, fill) in fills.iter().enumerate() {
            let page = start + i as u64 * PAGE_SIZE;
            // A space without a root is one that is still being made: nothing to compare with.
            let known = state.roots.contains_key(&space);
            let walked = state.peek(space, page, ram).ok();
            let good = walked.filter(|now| now.pfn == fill.pfn && now.prot.contains(fill.prot));
            if known && good.is_none() {
                let walked = walked.map(|now| (now.pfn, now.prot));
                state.report(Failure::BadFill {
                    space,
                    page,
                    pfn: fill.pfn,
                    prot: fill.prot,
                    walked,
                });
            }
            let Some(now) = good else { continue };
            if self.config.refill != Refill::Walker {
                state.stats.fills += 1;
                // Where the MMU does not set the bit, only dirty pages may be writable.
                let software = !self.config.hw_access_dirty;
                if software && fill.prot.contains(Prot::WRITE) && !now.dirty {
                    state.report(Failure::CleanWritable {
                        space,
                        page,
                        entry: now.entry,
                    });
                }
                let dirty = now.dirty || software;
                let page = page.page_number();
                state.tlbs[current].fill(TlbEntry {
                    space,
                    page,
                    pfn: fill.pfn,
                    prot: fill.prot,
                    dirty,
                });
            }
        }
    }

    fn flush_tlb_range(&self, space: SpaceId, range: VirtRange) {
        self.flush(Flush::Range(space, range));
    }

    fn flush_tlb_mm(&self, space: SpaceId) {
        self.flush(Flush::Space(space));
    }

    fn wrprotect_range(&self, space: SpaceId, range: VirtRange) {
        self.flush(Flush::WriteProtect(space, range));
    }

    fn flush_tlb_kernel_range(&self, range: VirtRange) {
        let mut state = self.state();
        state
            .kernel_tlbs
            .iter_mut()
            .for_each(|tlb| drop_range(tlb, range));
    }

    fn flush_tlb_kernel_local(&self, range: VirtRange) {
        let current = usize::from(self.current_cpu().0);
        drop_range(&mut self.state().kernel_tlbs[current], range);
    }

    fn read_kernel(&self, va: VirtAddr, phys: PhysAddr, out: &mut [u8]) {
        let at = self.translate_kernel(va, phys);
        self.ram.direct_map().read_bytes(at, out);
    }

    fn write_kernel(&self, va: VirtAddr, phys: PhysAddr, bytes: &[u8]) {
        let at = self.translate_kernel(va, phys);
        self.ram.direct_map().write_bytes(at, bytes);
    }

    fn flush_wait(&self, space: SpaceId) {
        for tlb in &mut self.state().tlbs {
            tlb.settle(space);
        }
    }
}

fn drop_range(tlb: &mut HashMap<u64, Pfn>, range: VirtRange) {
    tlb.retain(|page, _| !range.contains(VirtAddr::from_page_number(*page)));
}

// SAFETY: simulated CPUs take turns on the thread that owns the machine, so that to the core they are
// one, which moves from node to node between calls.
unsafe impl CpuLocal for SimMachine {
    fn pin(&self) -> CpuId {
        CpuId(0)
    }

    fn unpin(&self, _: CpuId) {}

    fn node_of(&self, _: CpuId) -> NodeId {
        NodeId((self.current_cpu().0 % u16::from(self.config.nr_nodes)) as u8)
    }
}

impl TraceSink for SimMachine {
    fn event(&self, event: &TraceEvent) {
        let TraceEvent::MmPageFree { pfn, order } = *event else {
            return;
        };
        let freed =
            |frame: Pfn| (pfn.as_u32()..pfn.as_u32() + order.pages()).contains(&frame.as_u32());
        let mut state = self.state();
        let mut found = Vec::new();
        for (index, tlb) in state.tlbs.iter().enumerate() {
            for entry in tlb.entries().filter(|entry| freed(entry.pfn)) {
                let page = VirtAddr::from_page_number(entry.page);
                let cpu = CpuId(index as u16);
                found.push(Failure::FreedWhileCached {
                    cpu,
                    space: entry.space,
                    page,
                    pfn: entry.pfn,
                });
            }
        }
        for (space, root) in &state.roots {
            if freed(*root) {
                found.push(Failure::FreedRoot {
                    space: *space,
                    pfn: *root,
                });
            }
        }
        for failure in found {
            state.report(failure);
        }
    }
}
