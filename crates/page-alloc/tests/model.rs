//! Random allocation against a naive bitmap of frames.

mod common;

use common::{GIB, MIB, Machine, Rng, alloc, frames, free_kib, zone_of};
use vellum_machine::{VmEvent, VmItem};
use vellum_page::{PageSource, PageState};
use vellum_page_alloc::PageAllocator;
use vellum_types::{GfpFlags, Order, Pfn, ZoneType};

/// Which frames somebody has.
struct Bitmap {
    taken: Vec<bool>,
    base: Pfn,
}

impl Bitmap {
    fn new(allocator: &PageAllocator<'_>) -> Self {
        let span = allocator.memmap().span();
        let free = |pfn| {
            let state = allocator.memmap().page(pfn).state();
            matches!(state, PageState::Free | PageState::Tail)
        };
        Self {
            taken: span.iter().map(|pfn| !free(pfn)).collect(),
            base: span.start(),
        }
    }

    fn mark(&mut self, pfn: Pfn, order: Order, taken: bool) {
        for pfn in frames(pfn, order).iter() {
            let cell = &mut self.taken[(pfn - self.base) as usize];
            assert_ne!(*cell, taken, "{pfn:?} given or freed twice");
            *cell = taken;
        }
    }

    /// Is there an aligned free block that `gfp` may use, watermarks aside?
    fn could_serve(&self, order: Order, gfp: GfpFlags) -> bool {
        let pages = order.pages() as usize;
        let skew = (order.pages() - self.base.as_u32() % order.pages()) % order.pages();
        self.taken[skew as usize..]
            .chunks_exact(pages)
            .enumerate()
            .any(|(at, block)| {
                let pfn = self.base + skew + (at * pages) as u32;
                zone_of(pfn) <= gfp.highest_zone() && block.iter().all(|taken| !taken)
            })
    }

    fn free(&self) -> u64 {
        self.taken.iter().filter(|taken| !**taken).count() as u64
    }
}

fn random_gfp(rng: &mut Rng) -> GfpFlags {
    let base = match rng.below(8) {
        0..=3 => GfpFlags::HIGHUSER_MOVABLE,
        4 => GfpFlags::KERNEL | GfpFlags::RECLAIMABLE,
        5 => GfpFlags::KERNEL | GfpFlags::DMA,
        6 => GfpFlags::KERNEL | GfpFlags::DMA32,
        _ => GfpFlags::KERNEL,
    };
    let extra = match rng.below(6) {
        0 => GfpFlags::HIGH,
        1 | 2 => GfpFlags::MEMALLOC,
        3 => GfpFlags::ZERO,
        _ => GfpFlags::empty(),
    };
    base | extra
}

fn random_order(rng: &mut Rng) -> u8 {
    let top = rng.below(11) + 1;
    rng.below(top).min(rng.below(11)) as u8
}

/// The word that the owner of a block writes into each page of it.
fn tag(pfn: Pfn, serial: u64) -> u64 {
    u64::from(pfn.as_u32()) << 32 | serial
}

fn run(start: u64, end: u64, ops: u64, validate_every: u64, fail_every: Option<u64>) {
    let machine = Machine::new(start, end);
    let allocator = machine.boot();
    let (ram, at_boot) = (machine.ram(), free_kib(allocator));
    let mut bitmap = Bitmap::new(allocator);
    let mut live: Vec<(Pfn, Order, u64)> = Vec::new();
    let mut rng = Rng(start ^ 0x2545_f491_4f6c_dd1d);
    let (mut refused, mut filling) = (0, true);
    for serial in 0..ops {
        if serial % 4096 == 0 {
            // Long phases of growth and of shrinking reach both a full and an empty machine.
            filling = rng.below(2) == 0;
        }
        if rng.below(16) < if filling { 10 } else { 5 } {
            let (gfp, raw) = (random_gfp(&mut rng), random_order(&mut rng));
            if let Some(n) = fail_every {
                allocator.fail_after((serial % n == 0).then_some(0));
            }
            let failing = fail_every.is_some_and(|n| serial % n == 0);
            match alloc(allocator, raw, gfp) {
                Ok(pfn) => {
                    assert!(!failing, "the switch was on");
                    let order = common::order(raw);
                    assert!(order.is_aligned(pfn) && zone_of(pfn) <= gfp.highest_zone());
                    bitmap.mark(pfn, order, true);
                    for pfn in frames(pfn, order).iter() {
                        let old = ram.read_u64(pfn.addr());
                        assert!(!gfp.contains(GfpFlags::ZERO) || old == 0);
                        ram.write_u64(pfn.addr(), tag(pfn, serial));
                    }
                    if raw == 0 && rng.below(2) == 0 {
                        allocator.memmap().page(pfn).set_state(PageState::Anon);
                    }
                    live.push((pfn, order, serial));
                }
                Err(_) => {
                    refused += 1;
                    let all = gfp.contains(GfpFlags::MEMALLOC);
                    assert!(failing || !all || !bitmap.could_serve(common::order(raw), gfp));
                }
            }
        } else if !live.is_empty() {
            let victim = rng.below(live.len() as u64) as usize;
            let (pfn, order, serial) = live.swap_remove(victim);
            for pfn in frames(pfn, order).iter() {
                assert_eq!(
                    ram.read_u64(pfn.addr()),
                    tag(pfn, serial),
                    "{pfn:?} was overwritten"
                );
            }
            bitmap.mark(pfn, order, false);
            if rng.below(16) == 0 {
                allocator.split_page(pfn);
                frames(pfn, order)
                    .iter()
                    .for_each(|pfn| allocator.free_pages(pfn));
            } else {
                allocator.free_pages(pfn);
            }
        }
        if serial % validate_every == 0 {
            allocator.validate().unwrap();
            assert_eq!(allocator.nr_free_pages(), bitmap.free());
        }
    }
    assert!(refused > 0, "the machine was never full");
    for (pfn, order, _) in live {
        bitmap.mark(pfn, order, false);
        allocator.free_pages(pfn);
    }
    let bitmap_free = bitmap.free();
    allocator.validate().unwrap();
    assert_eq!(allocator.nr_free_pages(), bitmap_free);
    allocator.drain_local();
    assert_eq!(allocator.nr_per_cpu_pages(), 0);
    allocator.validate().unwrap();
    assert_eq!(
        free_kib(allocator),
        at_boot,
        "fully freed memory merges to the largest blocks"
    );
    allocator.fold_counters();
    let stat = &machine.vmstat;
    assert_eq!(stat.item(VmItem::NrFreePages), allocator.nr_free_pages());
    let taken: u64 = [
        VmEvent::PgAllocDma,
        VmEvent::PgAllocDma32,
        VmEvent::PgAllocNormal,
    ]
    .map(|event| stat.events(event))
    .iter()
    .sum();
    assert_eq!(taken, stat.events(VmEvent::PgFree));
}

#[test]
fn random_operations_in_dma_and_dma32() {
    run(0, 48 * MIB, 300_000, 2_000, None);
}

#[test]
fn random_operations_in_dma32_and_normal() {
    run(4 * GIB - 12 * MIB, 4 * GIB + 20 * MIB, 300_000, 2_000, None);
}

#[test]
fn random_operations_on_an_odd_machine() {
    run(
        16 * MIB - 37 * 4096,
        27 * MIB + 5 * 4096,
        100_000,
        500,
        None,
    );
}

#[test]
fn every_step_is_valid() {
    run(14 * MIB, 18 * MIB, 4_000, 1, None);
}

#[test]
fn every_seventh_allocation_fails() {
    run(8 * MIB, 40 * MIB, 100_000, 1_000, Some(7));
}

#[test]
fn zones_lie_where_the_addresses_say() {
    assert_eq!(zone_of(Pfn::new(4095)), ZoneType::Dma);
    assert_eq!(zone_of(Pfn::new(4096)), ZoneType::Dma32);
    assert_eq!(zone_of(Pfn::new(1 << 20)), ZoneType::Normal);
}
