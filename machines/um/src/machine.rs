//! `UmMachine`: RAM in a memory file, and host address spaces as TLBs.

use crate::host::{ptrace, wait};
use crate::ids::ById;
use crate::ram::Ram;
use crate::space::{HostOp, RESIDENT_STACK, Service, Space};
use crate::stub::mailbox::{BATCH, HostCall, Mailbox, SLOTS, Slot};
use crate::stub::{self, Paths};
use crate::tlb::{Run, Target};
use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Range;
use std::time::Instant;
use vellum_machine::{Cpus, DirectMap, Features, Fill, Machine, MemoryKind, MemoryRegion};
use vellum_types::{
    NodeId, Order, PAGE_SHIFT, PAGE_SIZE, Pfn, PfnRange, PhysRange, Prot, SpaceId, VirtAddr,
    VirtRange,
};

/// Pages around a file fault that are mapped with it.
const FAULT_AROUND_PAGES: u32 = 64;
/// log2 of the most pages that an anonymous fault fills; the core begins two below.
const ANON_ORDER: u8 = 6;
/// How long to wait for a service before looking whether it still lives.
const SERVICE_PATIENCE_MS: u32 = 50;

/// Batches after which a queue that does not end is given up.
const MAX_ROUNDS: u32 = 10_000;

/// Counts of what the machine did.
#[derive(Default, Debug)]
pub(crate) struct Stats {
    /// Batches that service processes ran.
    pub batches: Cell<u64>,
    /// Host calls in them.
    pub calls: Cell<u64>,
    /// Host calls that failed.
    pub failures: Cell<u64>,
}

/// The machine. One thread uses it.
#[derive(Debug)]
pub(crate) struct UmMachine {
    ram: Ram,
    mailbox: Mailbox,
    stub: stub::Image,
    regions: Vec<MemoryRegion>,
    zero_page: Cell<Option<Pfn>>,
    capacity: usize,
    boot: Instant,
    spaces: RefCell<ById<u32, Space>>,
    free_slots: RefCell<Vec<Slot>>,
    epoch: Cell<u32>,
    fault: Cell<Option<(SpaceId, u64)>>,
    /// What it did.
    pub stats: Stats,
}

fn page_range(range: VirtRange) -> Range<u64> {
    range.start().page_number()..range.end().as_u64().div_ceil(PAGE_SIZE)
}

/// Cuts RAM into `nodes` parts of whole blocks of the largest order; fewer if it is too small for that.
fn split(ram: PhysRange, nodes: u8) -> Vec<MemoryRegion> {
    let nodes = u64::from(nodes.max(1));
    let block = Order::MAX.bytes();
    let share = (ram.len() / nodes / block * block).max(block);
    let mut regions = Vec::new();
    let mut start = ram.start();
    for node in 0..nodes {
        let end = if node + 1 == nodes {
            ram.end()
        } else {
            (start + share).min(ram.end())
        };
        if let Some(range) = PhysRange::new(start, end) {
            regions.push(MemoryRegion {
                range,
                node: NodeId(node as u8),
                kind: MemoryKind::Usable,
            });
        }
        start = end;
    }
    regions
}

impl UmMachine {
    /// A machine with `ram_bytes` of RAM (rounded down to pages) on `nodes` nodes, whose spaces hold at most
    /// `capacity` runs of pages.
    pub(crate) fn new(ram_bytes: u64, nodes: u8, capacity: usize) -> io::Result<Self> {
        let ram = Ram::new(ram_bytes & !(PAGE_SIZE - 1))?;
        let mailbox = Mailbox::new()?;
        let paths = Paths {
            mailbox: stub::proc_path(mailbox.fd()),
            ram: stub::proc_path(ram.fd()),
        };
        let stub = stub::Image::new(&paths)?;
        let regions = split(ram.span(), nodes);
        Ok(Self {
            ram,
            mailbox,
            stub,
            regions,
            zero_page: Cell::new(None),
            capacity: capacity.max(16),
            boot: Instant::now(),
            spaces: RefCell::default(),
            free_slots: RefCell::new((0..SLOTS).rev().map(Slot::new).collect()),
            epoch: Cell::new(1),
            fault: Cell::new(None),
            stats: Stats::default(),
        })
    }

    /// Nanoseconds since the machine was made.
    pub(crate) fn boot_ns(&self) -> u64 {
        self.boot.elapsed().as_nanos() as u64
    }

    /// The code that runs inside guests.
    pub(crate) fn stub(&self) -> &stub::Image {
        &self.stub
    }

    /// The memory shared with guests.
    pub(crate) fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    pub(crate) fn take_slot(&self) -> Option<Slot> {
        self.free_slots.borrow_mut().pop()
    }

    pub(crate) fn free_slot(&self, slot: Slot) {
        self.free_slots.borrow_mut().push(slot);
    }

    /// A new stop is being handled: what it installs will not be evicted before the next one.
    pub(crate) fn begin_operation(&self) {
        self.epoch.set(self.epoch.get().wrapping_add(1));
        self.fault.set(None);
    }

    /// The host faulted at `addr`: whatever the record says, the page must be installed again.
    pub(crate) fn note_fault(&self, space: SpaceId, addr: VirtAddr) {
        self.fault.set(Some((space, addr.page_number())));
    }

    /// What the guest may do at `addr` without a fault.
    pub(crate) fn installed(&self, space: SpaceId, addr: VirtAddr) -> Option<Prot> {
        let spaces = self.spaces.borrow();
        spaces
            .get(&space.0)?
            .record
            .get(addr.page_number())
            .map(|(_, prot)| prot)
    }

    pub(crate) fn with<R>(&self, space: SpaceId, f: impl FnOnce(&mut Space) -> R) -> R {
        f(self.spaces.borrow_mut().entry(space.0).or_default())
    }

    /// The host space exists now and is as empty as the machine's record, but for `special`.
    pub(crate) fn attach(&self, space: SpaceId, service: Service, special: Vec<Range<u64>>) {
        self.with(space, |s| {
            s.service = Some(service);
            s.starting = true;
            s.special = special;
            s.early_flushes.clear();
        });
    }

    /// The host space `child` exists now: a copy of `parent`.
    pub(crate) fn attach_fork(&self, parent: SpaceId, child: SpaceId, service: Service) {
        let mut spaces = self.spaces.borrow_mut();
        let mut copy = spaces.remove(&child.0).unwrap_or_default();
        copy.service = Some(service);
        copy.starting = true;
        if let Some(parent) = spaces.get(&parent.0) {
            parent.fork_into(&mut copy);
        }
        spaces.insert(child.0, copy);
    }

    /// The space that process `pid` works for.
    pub(crate) fn served_by(&self, pid: i32) -> Option<SpaceId> {
        let spaces = self.spaces.borrow();
        let mine = |s: &Space| s.service.is_some_and(|service| service.pid == pid);
        spaces
            .iter()
            .find(|(_, s)| mine(s))
            .map(|(id, _)| SpaceId(*id))
    }

    /// Forgets a space that no task uses; tells who worked there.
    pub(crate) fn detach(&self, space: SpaceId) -> Option<Service> {
        let service = self.spaces.borrow_mut().remove(&space.0)?.service?;
        Some(service)
    }

    /// Bytes of RAM.
    pub(crate) fn ram_bytes(&self) -> u64 {
        self.ram.span().len()
    }

    /// Task `tid` may touch `range` from inside the host kernel.
    pub(crate) fn pin(&self, space: SpaceId, tid: i32, range: VirtRange) {
        self.with(space, |s| s.pins.push((tid, range)));
    }

    /// Task `tid` touches nothing any more.
    pub(crate) fn unpin(&self, space: SpaceId, tid: i32) {
        self.with(space, |s| s.pins.retain(|(by, _)| *by != tid));
    }

    /// A task of the space is about to run: brings the host's mappings up to date first.
    pub(crate) fn resume(&self, space: SpaceId) -> io::Result<()> {
        self.settle(space)?;
        self.with(space, |s| s.running += 1);
        Ok(())
    }

    /// A task of the space has stopped.
    pub(crate) fn stopped(&self, space: SpaceId) {
        self.with(space, |s| s.running = s.running.saturating_sub(1));
    }

    /// Has the service do all that is queued, and waits for it.
    pub(crate) fn settle(&self, space: SpaceId) -> io::Result<()> {
        for _ in 0..MAX_ROUNDS {
            let (service, starting, ops) = {
                let mut spaces = self.spaces.borrow_mut();
                let Some(s) = spaces.get_mut(&space.0) else {
                    return Ok(());
                };
                let Some(service) = s.service else {
                    return Ok(());
                };
                let n = s.queue.len().min(BATCH);
                let ops: Vec<HostOp> = s.queue.drain(..n).collect();
                (service, std::mem::take(&mut s.starting), ops)
            };
            if starting {
                self.wait_for(service)?;
                if self.mailbox.ram_fd(service.slot) != 0 {
                    return Err(io::Error::other(
                        "a guest process cannot open the machine's RAM",
                    ));
                }
            }
            if ops.is_empty() {
                return Ok(());
            }
            let calls: Vec<HostCall> = ops.iter().map(HostOp::call).collect();
            self.mailbox.write(service.slot, &calls);
            self.mailbox.post(service.slot);
            self.wait_for(service)?;
            self.stats.batches.set(self.stats.batches.get() + 1);
            self.stats
                .calls
                .set(self.stats.calls.get() + ops.len() as u64);
            for (i, op) in ops.iter().enumerate() {
                let result = self.mailbox.result(service.slot, i);
                if (-4095..0).contains(&result) {
                    self.failed(space, op, -result as i32);
                }
            }
        }
        Err(io::Error::other("the host refuses to unmap memory"))
    }

    /// The host refused a change: what it is about is dropped; when the host is out of areas, most of
    /// the others go too.
    fn failed(&self, space: SpaceId, op: &HostOp, errno: i32) {
        self.stats.failures.set(self.stats.failures.get() + 1);
        self.with(space, |s| {
            // To drop it altogether is always right, also after a failed mmap, which may have left
            // what was there before. That may split an area, which needs a new one: room is made
            // for that below, and then it is tried again.
            let pages = op.pages();
            s.record.remove(pages.start, pages.end);
            let (page, pages) = (pages.start, pages.end - pages.start);
            s.queue.push(HostOp::Unmap { page, pages });
            if errno == libc::ENOMEM {
                let quarter = s.record.len() / 4;
                s.evict(quarter, self.epoch.get());
            }
        });
    }

    fn wait_for(&self, service: Service) -> io::Result<()> {
        while !self.mailbox.wait(service.slot, SERVICE_PATIENCE_MS) {
            match wait::poll(service.pid) {
                Ok(None) => {}
                Ok(Some(wait::Status::Exited(_) | wait::Status::Killed(..))) | Err(_) => {
                    return Err(io::Error::other("a service process died"));
                }
                // Somebody tries to stop it: it only ever sleeps or works.
                Ok(Some(_)) => ptrace::cont(service.pid, 0)?,
            }
        }
        Ok(())
    }
}

impl Machine for UmMachine {
    fn memory_map(&self) -> &[MemoryRegion] {
        &self.regions
    }

    fn direct_map(&self) -> DirectMap<'_> {
        self.ram.direct_map()
    }

    fn features(&self) -> Features {
        Features {
            nr_cpus: 1,
            hw_access_dirty: false,
            fault_around_pages: FAULT_AROUND_PAGES,
            anon_order_max: Order::new(ANON_ORDER).unwrap_or(Order::ZERO),
        }
    }

    fn cpus(&self) -> Cpus<'_> {
        // SAFETY: one supervisor thread serves all tasks.
        unsafe { Cpus::single() }
    }

    fn now_ns(&self) -> u64 {
        self.boot_ns()
    }

    fn zero_pages(&self, frames: PfnRange) {
        self.ram.zero(frames);
    }

    fn set_zero_page(&self, pfn: Pfn) {
        self.zero_page.set(Some(pfn));
    }

    fn update_mmu_cache_range(&self, space: SpaceId, start: VirtAddr, fills: &[Fill]) {
        let epoch = self.epoch.get();
        let force = self
            .fault
            .get()
            .filter(|(s, _)| *s == space)
            .map(|(_, page)| page);
        let target = |fill: &Fill| {
            if Some(fill.pfn) == self.zero_page.get() {
                Target::Zero
            } else {
                Target::Frame(fill.pfn.as_u32())
            }
        };
        self.with(space, |s| {
            if s.service.is_none() {
                return;
            }
            let first = start.page_number();
            let last = first + fills.len() as u64;
            // When room is short, a fault brings in its own page alone.
            let (first, fills) = match force {
                Some(page)
                    if s.record.len() * 4 >= self.capacity * 3 && (first..last).contains(&page) =>
                {
                    let at = (page - first) as usize;
                    (page, &fills[at..=at])
                }
                _ => (first, fills),
            };
            let mut i = 0;
            while i < fills.len() {
                let mut run = Run {
                    pages: 1,
                    target: target(&fills[i]),
                    prot: fills[i].prot,
                    epoch,
                };
                let at = first + i as u64;
                i += 1;
                while i < fills.len()
                    && fills[i].prot == run.prot
                    && target(&fills[i]) == run.target.ahead(run.pages)
                {
                    run.pages += 1;
                    i += 1;
                }
                if !run.prot.is_empty() {
                    s.install(at, run, force);
                }
            }
            if s.record.len() > self.capacity {
                s.evict(self.capacity, epoch);
            }
        });
    }

    fn flush_tlb_range(&self, space: SpaceId, range: VirtRange) {
        self.with(space, |s| match s.service {
            Some(_) => s.flush(page_range(range)),
            None => s.early_flushes.push(page_range(range)),
        });
    }

    fn flush_tlb_mm(&self, space: SpaceId) {
        self.with(space, |s| {
            if s.service.is_some() {
                s.flush(0..u64::MAX >> PAGE_SHIFT);
            }
        });
    }

    fn wrprotect_range(&self, space: SpaceId, range: VirtRange) {
        self.with(space, |s| s.wrprotect(page_range(range)));
    }

    fn flush_wait(&self, space: SpaceId) {
        // Nobody can use a stale entry while all tasks stand still: it is enough to settle before
        // one of them runs again.
        if self.with(space, |s| s.running) > 0 {
            // An error means that the space is dying, and its tasks with it.
            let _ = self.settle(space);
        }
    }

    fn is_pinned(&self, space: SpaceId, page: VirtAddr) -> bool {
        self.with(space, |s| s.is_pinned(page.page_number()))
    }

    fn must_stay(&self, space: SpaceId, page: VirtAddr) -> bool {
        // The host may be reading a lock's description there.
        RESIDENT_STACK.contains(&page.as_u64()) || self.is_pinned(space, page)
    }
}
