//! The machine.

use crate::config::{FlushMode, Refill, SimConfig};
use crate::cpu::Cpu;
use crate::failure::Failure;
use crate::mmu::{Translation, WalkError, Walker, needed};
use crate::ram::Ram;
use crate::tlb::{Flush, Tlb, TlbEntry};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use vellum_machine::{DirectMap, Trace, TraceEvent};
use vellum_types::{Access, CpuId, Pfn, PhysAddr, PhysRange, Prot, SpaceId, VirtAddr};

/// An access that needs the core.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageFault {
    /// The first byte that could not be reached: CR2.
    pub addr: VirtAddr,
    /// What was tried.
    pub access: Access,
}

/// Numbers about what the MMU did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MmuStats {
    /// Accesses that the TLB served.
    pub hits: u64,
    /// Accesses that the walker served.
    pub walks: u64,
    /// Accesses that became faults.
    pub faults: u64,
    /// Flushes of ranges, of whole spaces, and write-protections.
    pub flushes: u64,
    /// Flushes that found an entry on some CPU.
    pub useful_flushes: u64,
    /// Hints loaded.
    pub fills: u64,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) tlbs: Vec<Tlb>,
    /// Of each CPU, what it used of the kernel half since the last flush there: page and frame.
    pub(crate) kernel_tlbs: Vec<HashMap<u64, Pfn>>,
    pub(crate) roots: HashMap<SpaceId, Pfn>,
    pub(crate) zero_page: Option<Pfn>,
    pub(crate) failures: Vec<Failure>,
    pub(crate) stats: MmuStats,
}

/// RAM, CPUs with TLBs, and a walker. See the crate's text.
#[derive(Debug)]
pub struct SimMachine {
    pub(crate) config: SimConfig,
    pub(crate) ram: Ram,
    state: Mutex<State>,
    current: AtomicU16,
    pub(crate) clock_ns: AtomicU64,
}

/// Failures kept; one broken promise usually causes many more.
const MAX_FAILURES: usize = 64;

impl SimMachine {
    /// Builds a machine.
    ///
    /// # Panics
    /// If the configuration has no usable memory, no CPU or no TLB entry, or contradicts itself.
    pub fn new(config: SimConfig) -> Self {
        assert!((1..=64).contains(&config.nr_cpus), "1 to 64 CPUs");
        assert!(
            config.refill != Refill::HintsOnly || !config.hw_access_dirty,
            "a machine without a walker cannot set accessed and dirty bits"
        );
        let start = config
            .regions
            .iter()
            .map(|r| r.range.start())
            .min()
            .expect("a memory map");
        let end = config
            .regions
            .iter()
            .map(|r| r.range.end())
            .max()
            .expect("a memory map");
        let end = end
            .page_up()
            .expect("RAM below the end of the address space");
        let span = PhysRange::new(start.page_down(), end).expect("some memory");
        let tlbs = vec![Tlb::new(config.tlb_entries); usize::from(config.nr_cpus)];
        Self {
            ram: Ram::new(span),
            state: Mutex::new(State {
                tlbs,
                kernel_tlbs: vec![HashMap::new(); usize::from(config.nr_cpus)],
                roots: HashMap::new(),
                zero_page: None,
                failures: Vec::new(),
                stats: MmuStats::default(),
            }),
            current: AtomicU16::new(0),
            clock_ns: AtomicU64::new(0),
            config,
        }
    }

    /// How it was built.
    pub fn config(&self) -> &SimConfig {
        &self.config
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere is already a failed test; the numbers are still worth reading.
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The events that this machine wants, to hand to the core: frees are checked against the TLBs.
    pub fn trace(&self) -> Trace<'_> {
        let free = TraceEvent::MmPageFree {
            pfn: Pfn::ZERO,
            order: Default::default(),
        };
        Trace::new(self, 1 << free.kind())
    }

    /// Loads CR3 for a space: where its tables start. To be called when the space is made.
    pub fn set_root(&self, space: SpaceId, root: Pfn) {
        self.state().roots.insert(space, root);
    }

    /// The space is about to be torn down for good; nothing runs in it any more.
    pub fn clear_root(&self, space: SpaceId) {
        self.state().roots.remove(&space);
    }

    /// Chooses the CPU on which the core runs from now on: flushes reach it first.
    ///
    /// # Panics
    /// If there is no such CPU.
    pub fn run_on(&self, cpu: CpuId) {
        assert!(cpu.0 < self.config.nr_cpus, "no such CPU");
        self.current.store(cpu.0, Ordering::Relaxed);
    }

    /// The CPU on which the core runs.
    pub fn current_cpu(&self) -> CpuId {
        CpuId(self.current.load(Ordering::Relaxed))
    }

    /// A CPU, to access memory with.
    ///
    /// # Panics
    /// If there is no such CPU.
    pub fn cpu(&self, id: CpuId) -> Cpu<'_> {
        assert!(id.0 < self.config.nr_cpus, "no such CPU");
        Cpu::new(self, id)
    }

    /// Broken promises so far; the first is the interesting one.
    pub fn failures(&self) -> Vec<Failure> {
        self.state().failures.clone()
    }

    /// Notes a broken promise.
    pub fn report(&self, failure: Failure) {
        self.state().report(failure);
    }

    /// Numbers so far.
    pub fn stats(&self) -> MmuStats {
        self.state().stats
    }

    /// Flushes that were asked for and never waited for, over all CPUs.
    pub fn nr_pending_flushes(&self) -> usize {
        self.state().tlbs.iter().map(Tlb::nr_pending).sum()
    }

    /// Empties one CPU's TLB, as a machine may at any time.
    pub fn forget(&self, cpu: CpuId) {
        self.state().tlbs[usize::from(cpu.0)].forget_all();
    }

    /// What one CPU has cached for a page.
    pub fn cached(&self, cpu: CpuId, space: SpaceId, va: VirtAddr) -> Option<TlbEntry> {
        self.state().tlbs[usize::from(cpu.0)].lookup(space, va.page_number())
    }

    /// What the tables in RAM say about a page: frame and permissions.
    pub fn walk(&self, space: SpaceId, va: VirtAddr) -> Option<(Pfn, Prot)> {
        let root = *self.state().roots.get(&space)?;
        let walked = Walker {
            ram: self.ram.direct_map(),
            root,
        }
        .peek(va)
        .ok()?;
        Some((walked.pfn, walked.prot))
    }

    /// The shared zero page, once the core chose it.
    pub fn zero_page(&self) -> Option<Pfn> {
        self.state().zero_page
    }

    /// Checks every cached translation of every CPU against the tables, not only those that some
    /// access happens to hit.
    ///
    /// # Errors
    /// The first stale entry.
    pub fn check_tlbs(&self) -> Result<(), Failure> {
        let state = self.state();
        for (index, tlb) in state.tlbs.iter().enumerate() {
            for entry in tlb.entries() {
                state.check_hit(CpuId(index as u16), tlb, entry, self.ram.direct_map())?;
            }
        }
        Ok(())
    }

    pub(crate) fn flush(&self, flush: Flush) {
        let current = usize::from(self.current_cpu().0);
        let mut state = self.state();
        state.stats.flushes += 1;
        let useful = state
            .tlbs
            .iter()
            .any(|tlb| tlb.entries().any(|entry| flush.covers(entry)));
        state.stats.useful_flushes += u64::from(useful);
        for (cpu, tlb) in state.tlbs.iter_mut().enumerate() {
            if cpu == current || self.config.flush == FlushMode::Immediate {
                tlb.apply(flush);
            } else {
                tlb.defer(flush);
            }
        }
    }

    /// Where the current CPU goes for a kernel address that the tables lead to `walked`: what it
    /// remembers wins, and is a failure if it is another frame.
    pub(crate) fn translate_kernel(&self, va: VirtAddr, walked: PhysAddr) -> PhysAddr {
        let cpu = self.current_cpu();
        let now = Pfn::containing(walked).expect("an address of RAM");
        let mut state = self.state();
        let tlb = &mut state.kernel_tlbs[usize::from(cpu.0)];
        let cached = *tlb.entry(va.page_number()).or_insert(now);
        if cached != now {
            state.report(Failure::MissingFlush {
                cpu,
                space: SpaceId::KERNEL,
                page: va.page_down(),
                cached,
                cached_prot: Prot::READ | Prot::WRITE,
                walked: Some((now, Prot::READ | Prot::WRITE)),
            });
        }
        cached.addr() + va.page_offset()
    }

    /// Translates one access on one CPU, as the MMU does.
    pub(crate) fn translate(
        &self,
        cpu: CpuId,
        space: SpaceId,
        va: VirtAddr,
        access: Access,
    ) -> Result<PhysAddr, PageFault> {
        let ram = self.ram.direct_map();
        let mut state = self.state();
        let index = usize::from(cpu.0);
        if let Some(entry) = state.tlbs[index].lookup(space, va.page_number()) {
            if let Err(failure) = state.check_hit(cpu, &state.tlbs[index], &entry, ram) {
                state.report(failure);
            }
            if entry.prot.contains(needed(access)) && (access != Access::Write || entry.dirty) {
                state.stats.hits += 1;
                return Ok(entry.pfn.addr() + va.page_offset());
            }
            // Too narrow or not yet dirty: x86 drops the entry and walks again.
            state.tlbs[index].drop_page(space, va.page_number());
        }
        let fault = PageFault { addr: va, access };
        let filled = if self.config.refill == Refill::HintsOnly {
            None
        } else {
            state.fill_by_walk(self.config.hw_access_dirty, space, va, access, ram)
        };
        let Some(entry) = filled else {
            state.stats.faults += 1;
            return Err(fault);
        };
        state.stats.walks += 1;
        state.tlbs[index].fill(entry);
        Ok(entry.pfn.addr() + va.page_offset())
    }
}

impl State {
    pub(crate) fn report(&mut self, failure: Failure) {
        if self.failures.len() < MAX_FAILURES {
            self.failures.push(failure);
        }
    }

    /// A hit is right if the tables still allow at least what the entry does.
    fn check_hit(
        &self,
        cpu: CpuId,
        tlb: &Tlb,
        entry: &TlbEntry,
        ram: DirectMap<'_>,
    ) -> Result<(), Failure> {
        let page = VirtAddr::from_page_number(entry.page);
        let walked = self.peek(entry.space, page, ram).ok();
        let space = entry.space;
        match walked {
            Some(now) if now.pfn == entry.pfn && now.prot.contains(entry.prot) => Ok(()),
            _ if tlb.has_pending(entry) => Err(Failure::FlushNotAwaited {
                cpu,
                space,
                page,
                cached: entry.pfn,
            }),
            _ => Err(Failure::MissingFlush {
                cpu,
                space,
                page,
                cached: entry.pfn,
                cached_prot: entry.prot,
                walked: walked.map(|now| (now.pfn, now.prot)),
            }),
        }
    }

    pub(crate) fn peek(
        &self,
        space: SpaceId,
        va: VirtAddr,
        ram: DirectMap<'_>,
    ) -> Result<Translation, WalkError> {
        let root = *self.roots.get(&space).ok_or(WalkError::NotPresent)?;
        Walker { ram, root }.peek(va)
    }

    /// Walks for an access. `None` is a fault.
    fn fill_by_walk(
        &mut self,
        hw_access_dirty: bool,
        space: SpaceId,
        va: VirtAddr,
        access: Access,
        ram: DirectMap<'_>,
    ) -> Option<TlbEntry> {
        let walker = Walker {
            ram,
            root: *self.roots.get(&space)?,
        };
        // Hardware sets the accessed bit only for accesses that it lets through.
        let allowed = walker
            .peek(va)
            .is_ok_and(|t| t.prot.contains(needed(access)));
        let leaf = match walker.walk(va, hw_access_dirty && allowed) {
            Ok(leaf) => leaf,
            Err(WalkError::NotPresent) => return None,
            Err(WalkError::BadTable(entry)) => {
                self.report(Failure::BadTable {
                    space,
                    page: va.page_down(),
                    entry,
                });
                return None;
            }
        };
        if !leaf.prot.contains(needed(access)) {
            return None;
        }
        let mut dirty = leaf.dirty;
        if access == Access::Write && !dirty {
            if hw_access_dirty {
                if !walker.set_dirty(&leaf) {
                    return None;
                }
            } else {
                let page = va.page_down();
                self.report(Failure::CleanWritable {
                    space,
                    page,
                    entry: leaf.entry,
                });
            }
            dirty = true;
        }
        Some(TlbEntry {
            space,
            page: va.page_number(),
            pfn: leaf.pfn,
            prot: leaf.prot,
            dirty,
        })
    }
}
