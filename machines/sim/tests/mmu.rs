//! The MMU and its TLB, on tables written by hand.

use vellum_machine::{Fill, Machine, TraceEvent, TraceSink};
use vellum_sim::{Failure, FlushMode, PageFault, Refill, SimConfig, SimMachine};
use vellum_types::{Access, CpuId, Order, Pfn, Prot, SpaceId, VirtAddr, VirtRange};

const P: u64 = 1;
const W: u64 = 2;
const U: u64 = 4;
const A: u64 = 32;
const D: u64 = 64;
const PS: u64 = 128;
const NX: u64 = 1 << 63;

const SPACE: SpaceId = SpaceId(3);
const VA: VirtAddr = VirtAddr::new(0x7f12_3456_7000);
const FRAME: Pfn = Pfn::new(100);
const OTHER: Pfn = Pfn::new(101);
const CPU0: CpuId = CpuId(0);
const CPU1: CpuId = CpuId(1);

/// Tables in frames 10 (root) to 13 (leaf table), one leaf at `VA`.
struct Tables(SimMachine);

impl Tables {
    fn new(config: SimConfig, leaf: u64) -> Self {
        let this = Self(SimMachine::new(config));
        for (table, shift) in [(10u64, 39), (11, 30), (12, 21)] {
            this.put(table, shift, ((table + 1) << 12) | P | W | U);
        }
        this.0.set_root(SPACE, Pfn::new(10));
        this.set_leaf(leaf);
        this
    }
    fn put(&self, table: u64, shift: u32, entry: u64) {
        self.0.direct_map().write_u64(slot(table, shift), entry);
    }
    fn get(&self, table: u64, shift: u32) -> u64 {
        self.0.direct_map().read_u64(slot(table, shift))
    }
    fn set_leaf(&self, entry: u64) {
        self.put(13, 12, entry);
    }
    fn leaf(&self) -> u64 {
        self.get(13, 12)
    }
    fn read(&self, cpu: CpuId) -> Result<u8, PageFault> {
        let mut byte = [0];
        self.0.cpu(cpu).read(SPACE, VA, &mut byte).map(|()| byte[0])
    }
    fn write(&self, cpu: CpuId, byte: u8) -> Result<(), PageFault> {
        self.0.cpu(cpu).write(SPACE, VA, &[byte])
    }
}

fn slot(table: u64, shift: u32) -> vellum_types::PhysAddr {
    Pfn::new(table as u32).addr() + ((VA.as_u64() >> shift) & 511) * 8
}

fn entry(frame: Pfn, bits: u64) -> u64 {
    frame.addr().as_u64() | bits
}

fn page() -> VirtRange {
    VirtRange::from_len(VA, 4096).unwrap()
}

fn two_cpus() -> SimConfig {
    SimConfig::with_ram(1 << 20).cpus(2)
}

#[test]
fn permissions_are_the_hardwares() {
    for (bits, read, write, exec) in [
        (0, false, false, false),
        (W | U, false, false, false),
        (P, false, false, false),
        (P | U, true, false, true),
        (P | U | NX, true, false, false),
        (P | U | W | NX, true, true, false),
        (P | U | W, true, true, true),
    ] {
        let t = Tables::new(two_cpus(), entry(FRAME, bits));
        assert_eq!(t.read(CPU0).is_ok(), read, "read {bits:#x}");
        assert_eq!(t.write(CPU0, 1).is_ok(), write, "write {bits:#x}");
        assert_eq!(
            t.0.cpu(CPU0).exec(SPACE, VA).is_ok(),
            exec,
            "exec {bits:#x}"
        );
        assert_eq!(t.0.failures(), []);
    }
}

#[test]
fn upper_levels_restrict() {
    let t = Tables::new(two_cpus(), entry(FRAME, P | W | U));
    t.put(11, 30, (12 << 12) | P | U);
    assert!(t.read(CPU0).is_ok());
    assert_eq!(
        t.write(CPU0, 1),
        Err(PageFault {
            addr: VA,
            access: Access::Write
        })
    );
    t.put(11, 30, (12 << 12) | P | U | W | NX);
    assert!(t.write(CPU0, 1).is_ok());
    assert!(t.0.cpu(CPU0).exec(SPACE, VA).is_err());
    t.put(12, 21, (13 << 12) | P | W);
    t.0.forget(CPU0);
    assert!(t.read(CPU0).is_err());
}

#[test]
fn the_upper_half_is_not_the_users() {
    let t = Tables::new(two_cpus(), entry(FRAME, P | W | U));
    for va in [1u64 << 47, u64::MAX - 8, 0xffff_8000_0000_0000] {
        assert!(
            t.0.cpu(CPU0)
                .read(SPACE, VirtAddr::new(va), &mut [0])
                .is_err()
        );
    }
}

#[test]
fn accessed_and_dirty_by_hardware() {
    let t = Tables::new(two_cpus(), entry(FRAME, P | W | U));
    t.read(CPU0).unwrap();
    assert_eq!(t.leaf() & (A | D), A);
    assert_eq!(t.get(10, 39) & A, A);
    // The entry was cached clean: the store walks again to set the bit, on each CPU.
    t.write(CPU0, 7).unwrap();
    assert_eq!(t.leaf() & (A | D), A | D);
    assert_eq!(t.read(CPU1), Ok(7));
}

#[test]
fn a_refused_access_leaves_no_trace() {
    let t = Tables::new(two_cpus(), entry(FRAME, P | U));
    assert!(t.write(CPU0, 1).is_err());
    assert_eq!(t.leaf() & (A | D), 0);
    assert_eq!(t.get(10, 39) & A, 0);
}

#[test]
fn without_hardware_bits_a_clean_store_is_a_failure() {
    let t = Tables::new(two_cpus().access_dirty(false), entry(FRAME, P | U | W | D));
    t.write(CPU0, 1).unwrap();
    assert_eq!(t.0.failures(), []);
    assert_eq!(t.leaf() & A, 0);
    t.set_leaf(entry(FRAME, P | U | W));
    t.0.forget(CPU0);
    t.write(CPU0, 1).unwrap();
    assert!(matches!(
        t.0.failures()[..],
        [Failure::CleanWritable { .. }]
    ));
}

#[test]
fn huge_leaves() {
    let t = Tables::new(SimConfig::with_ram(8 << 20), 0);
    // A 2-MiB page at physical 4 MiB.
    t.put(12, 21, (4 << 20) | P | U | W | PS);
    let expected = (4 << 20) + (VA.as_u64() & 0x1f_ffff);
    assert_eq!(t.0.walk(SPACE, VA).unwrap().0.addr().as_u64(), expected);
    t.write(CPU0, 9).unwrap();
    assert_eq!(t.get(12, 21) & (A | D), A | D);
    let mut byte = [0];
    t.0.direct_map()
        .read_bytes(vellum_types::PhysAddr::new(expected), &mut byte);
    assert_eq!(byte, [9]);
}

#[test]
fn the_tlb_goes_stale_and_is_found_out() {
    let t = Tables::new(two_cpus(), entry(FRAME, P | U | W));
    t.write(CPU0, 1).unwrap();
    t.set_leaf(entry(OTHER, P | U | W));
    // Still the old frame: nobody flushed.
    assert_eq!(t.read(CPU0), Ok(1));
    assert!(matches!(
        t.0.failures()[..],
        [Failure::MissingFlush {
            cpu: CPU0,
            cached: FRAME,
            walked: Some((OTHER, _)),
            ..
        }]
    ));
    // The other CPU never had the old one.
    assert_eq!(t.read(CPU1), Ok(0));
    assert_eq!(t.0.failures().len(), 1);
}

#[test]
fn losing_a_permission_needs_a_flush_and_gaining_one_does_not() {
    let t = Tables::new(two_cpus(), entry(FRAME, P | U));
    t.read(CPU0).unwrap();
    t.set_leaf(entry(FRAME, P | U | W));
    assert_eq!(t.read(CPU0), Ok(0));
    t.write(CPU0, 1).unwrap();
    assert_eq!(t.0.failures(), []);
    t.set_leaf(entry(FRAME, P | U | D));
    assert_eq!(t.read(CPU0), Ok(1));
    assert_eq!(t.0.failures().len(), 1);
}

#[test]
fn deferred_flushes_arrive_at_the_wait() {
    let t = Tables::new(two_cpus(), entry(FRAME, P | U | W));
    t.write(CPU0, 1).unwrap();
    t.read(CPU1).unwrap();
    t.0.run_on(CPU0);
    t.set_leaf(0);
    t.0.flush_tlb_range(SPACE, page());
    assert_eq!(t.0.cached(CPU0, SPACE, VA), None);
    assert!(t.0.cached(CPU1, SPACE, VA).is_some());
    assert_eq!(t.0.nr_pending_flushes(), 1);
    assert!(matches!(
        t.0.check_tlbs(),
        Err(Failure::FlushNotAwaited { cpu: CPU1, .. })
    ));
    t.0.flush_wait(SpaceId(99));
    assert_eq!(t.0.nr_pending_flushes(), 1);
    t.0.flush_wait(SPACE);
    assert_eq!(t.0.nr_pending_flushes(), 0);
    assert_eq!(t.0.cached(CPU1, SPACE, VA), None);
    assert_eq!(t.0.check_tlbs(), Ok(()));
    assert!(t.read(CPU1).is_err());
}

#[test]
fn immediate_flushes_arrive_at_once() {
    let t = Tables::new(
        two_cpus().flush(FlushMode::Immediate),
        entry(FRAME, P | U | W),
    );
    t.read(CPU1).unwrap();
    t.0.flush_tlb_mm(SpaceId(4));
    assert!(t.0.cached(CPU1, SPACE, VA).is_some());
    t.0.flush_tlb_mm(SPACE);
    assert_eq!(t.0.cached(CPU1, SPACE, VA), None);
}

#[test]
fn write_protection_narrows() {
    let t = Tables::new(two_cpus(), entry(FRAME, P | U | W));
    t.write(CPU1, 1).unwrap();
    t.set_leaf(entry(FRAME, P | U | D));
    t.0.wrprotect_range(SPACE, page());
    t.0.flush_wait(SPACE);
    assert_eq!(
        t.0.cached(CPU1, SPACE, VA).unwrap().prot,
        Prot::READ | Prot::EXEC
    );
    assert_eq!(t.read(CPU1), Ok(1));
    assert!(t.write(CPU1, 2).is_err());
    assert_eq!(t.0.failures(), []);
}

#[test]
fn a_frame_must_leave_every_tlb_before_it_is_freed() {
    let t = Tables::new(two_cpus(), entry(FRAME, P | U | W));
    t.read(CPU1).unwrap();
    t.0.event(&TraceEvent::MmPageFree {
        pfn: Pfn::new(96),
        order: Order::new(2).unwrap(),
    });
    assert_eq!(t.0.failures(), []);
    t.0.event(&TraceEvent::MmPageFree {
        pfn: Pfn::new(96),
        order: Order::new(3).unwrap(),
    });
    assert!(matches!(
        t.0.failures()[..],
        [Failure::FreedWhileCached {
            cpu: CPU1,
            pfn: FRAME,
            ..
        }]
    ));
}

#[test]
fn a_root_in_use_must_not_be_freed() {
    let t = Tables::new(two_cpus(), 0);
    t.0.event(&TraceEvent::MmPageFree {
        pfn: Pfn::new(10),
        order: Order::ZERO,
    });
    assert!(matches!(t.0.failures()[..], [Failure::FreedRoot { .. }]));
}

#[test]
fn hints_are_checked_and_loaded() {
    let config = two_cpus().access_dirty(false).refill(Refill::HintsOnly);
    let t = Tables::new(config, entry(FRAME, P | U | A));
    // Nothing walks: a present entry faults until the core hints.
    assert!(t.read(CPU0).is_err());
    let read_only = Prot::READ | Prot::EXEC;
    t.0.update_mmu_cache_range(
        SPACE,
        VA,
        &[Fill {
            pfn: FRAME,
            prot: read_only,
        }],
    );
    assert_eq!(t.read(CPU0), Ok(0));
    assert!(t.read(CPU1).is_err());
    assert_eq!(t.0.failures(), []);
    t.0.update_mmu_cache_range(
        SPACE,
        VA,
        &[Fill {
            pfn: FRAME,
            prot: read_only | Prot::WRITE,
        }],
    );
    assert!(matches!(t.0.failures()[..], [Failure::BadFill { .. }]));
}

#[test]
fn a_wild_table_is_reported_not_followed() {
    let t = Tables::new(two_cpus(), 0);
    t.put(11, 30, 0x000f_0000_0000_0000 | P | W | U);
    assert!(t.read(CPU0).is_err());
    assert!(matches!(t.0.failures()[..], [Failure::BadTable { .. }]));
}

#[test]
fn small_tlbs_evict() {
    let t = Tables::new(two_cpus().tlb(1), entry(FRAME, P | U | W));
    t.put(13, 12, entry(FRAME, P | U | W));
    t.read(CPU0).unwrap();
    assert!(t.0.cached(CPU0, SPACE, VA).is_some());
    // The neighbour's entry is absent: the fault must not evict.
    assert!(t.0.cpu(CPU0).read(SPACE, VA + 4096, &mut [0]).is_err());
    assert!(t.0.cached(CPU0, SPACE, VA).is_some());
}
