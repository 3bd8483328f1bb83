//! The machine that the core runs on.

use crate::cpu::{self, Here};
use crate::{clock, paging, smp, x86};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use vellum_bare::acpi;
use vellum_machine::{Cpus, DirectMap, Features, Fill, Machine, MemoryRegion};
use vellum_system::System;
use vellum_types::{NodeId, Order, SpaceId, VirtAddr, VirtRange};

use crate::sync::Once;

/// Pages above which a flush drops everything; Linux's `tlb_single_page_flush_ceiling`.
const FLUSH_CEILING: u64 = 33;

/// What the firmware said, and choices of the command line.
pub(crate) struct BareMachine {
    pub(crate) regions: Vec<MemoryRegion>,
    pub(crate) distances: Vec<u8>,
    pub(crate) nr_cpus: u16,
    pub(crate) fault_around_pages: AtomicU32,
    pub(crate) anon_order_max: Order,
}

static MACHINE: Once<BareMachine> = Once::new();
static SYSTEM: Once<SharedSystem> = Once::new();

/// The system, which all CPUs use.
struct SharedSystem(System<'static, BareMachine>);

// SAFETY: the core is made for several CPUs: its state lies behind its own locks and atomics.
unsafe impl Sync for SharedSystem {}

/// Sets the machine up for good.
pub(crate) fn set_machine(machine: BareMachine) -> &'static BareMachine {
    MACHINE.set(machine)
}

/// Takes the booted system.
pub(crate) fn set_system(system: System<'static, BareMachine>) {
    SYSTEM.set(SharedSystem(system));
}

/// The memory management.
#[inline]
pub(crate) fn system() -> &'static System<'static, BareMachine> {
    &SYSTEM.get().0
}

/// The memory management, if it is up.
pub(crate) fn try_system() -> Option<&'static System<'static, BareMachine>> {
    SYSTEM.try_get().map(|system| &system.0)
}

impl BareMachine {
    /// `fault_around_bytes` of debugfs: down to a power of two, at least a page.
    pub(crate) fn set_fault_around(&self, bytes: u64) {
        let pages = (bytes / vellum_types::PAGE_SIZE).clamp(1, 512) as u32;
        let pages = 1 << pages.ilog2();
        self.fault_around_pages.store(pages, Ordering::Relaxed);
    }

    fn is_current(space: SpaceId) -> bool {
        cpu::this().space.load(Ordering::Relaxed) == space.0
    }

    fn flush_here(range: VirtRange) {
        if range.nr_pages() > FLUSH_CEILING {
            // SAFETY: the same table again.
            unsafe { x86::write_cr3(x86::read_cr3()) };
        } else {
            range.pages().for_each(|page| x86::invlpg(page.as_u64()));
        }
    }
}

impl Machine for BareMachine {
    fn memory_map(&self) -> &[MemoryRegion] {
        &self.regions
    }

    #[inline]
    fn direct_map(&self) -> DirectMap<'_> {
        paging::ram()
    }

    #[inline]
    fn features(&self) -> Features {
        Features {
            nr_cpus: self.nr_cpus,
            hw_access_dirty: true,
            fault_around_pages: self.fault_around_pages.load(Ordering::Relaxed),
            anon_order_max: self.anon_order_max,
        }
    }

    fn cpus(&self) -> Cpus<'_> {
        if self.nr_cpus == 1 {
            // SAFETY: one CPU, and a kernel that is never preempted.
            unsafe { Cpus::single() }
        } else {
            Cpus::new(self.nr_cpus, &Here)
        }
    }

    fn node_distance(&self, from: NodeId, to: NodeId) -> u8 {
        let known = acpi::slit_distance(&self.distances, from, to);
        known.unwrap_or(if from == to { 10 } else { 20 })
    }

    fn now_ns(&self) -> u64 {
        clock::now_ns()
    }

    /// The hardware walks the tables itself.
    #[inline]
    fn update_mmu_cache_range(&self, _: SpaceId, _: VirtAddr, _: &[Fill]) {}

    fn flush_tlb_range(&self, space: SpaceId, range: VirtRange) {
        if Self::is_current(space) {
            Self::flush_here(range);
        }
        smp::note_flush(space);
    }

    fn flush_tlb_mm(&self, space: SpaceId) {
        if Self::is_current(space) {
            // SAFETY: the same table again.
            unsafe { x86::write_cr3(x86::read_cr3()) };
        }
        smp::note_flush(space);
    }

    fn wrprotect_range(&self, space: SpaceId, range: VirtRange) {
        self.flush_tlb_range(space, range);
    }

    #[inline]
    fn flush_wait(&self, space: SpaceId) {
        smp::wait_for_flush(space);
    }
}
