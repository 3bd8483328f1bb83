//! The page allocator beside a bitmap of frames.

use crate::input::Input;
use crate::machine::Host;
use vellum_page::{AllocRequest, PageSource, PageState};
use vellum_page_alloc::PageAllocator;
use vellum_types::{GfpFlags, Order, Pfn, PfnRange};

const MIB: u64 = 1 << 20;

struct Model<'m> {
    pages: &'m PageAllocator<'m>,
    taken: Vec<bool>,
    base: Pfn,
    live: Vec<(Pfn, Order)>,
}

/// Blocks of all orders and mobilities, alone and in bulk, on 2 MiB at the edge of ZONE_DMA.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let host = Host::new(15 * MIB, 17 * MIB);
    let pages = host.boot();
    let blocks = |pages: &PageAllocator<'_>| -> Vec<_> {
        pages.zones().map(|zone| zone.free_area).collect()
    };
    let at_boot = blocks(pages);
    let span = pages.memmap().span();
    let is_free = |pfn| {
        let state = pages.memmap().page(pfn).state();
        matches!(state, PageState::Free | PageState::Tail)
    };
    let mut model = Model {
        pages,
        taken: span.iter().map(|pfn| !is_free(pfn)).collect(),
        base: span.start(),
        live: Vec::new(),
    };
    let mut steps = 0;
    while !input.is_empty() {
        model.step(&mut input);
        steps += 1;
        if steps % 32 == 0 {
            model.check();
        }
    }
    model.check();
    pages.fail_after(None);
    while let Some((pfn, order)) = model.live.pop() {
        model.mark(pfn, order, false);
        pages.free_pages(pfn);
    }
    pages.drain_local();
    pages.validate().expect("valid");
    assert!(blocks(pages) == at_boot, "full free gives maximal blocks");
}

impl Model<'_> {
    fn mark(&mut self, pfn: Pfn, order: Order, taken: bool) {
        let range = PfnRange::from_len(pfn, order.pages()).expect("not empty");
        for pfn in range.iter() {
            let cell = &mut self.taken[(pfn - self.base) as usize];
            assert_ne!(*cell, taken, "{pfn:?} given or freed twice");
            *cell = taken;
        }
    }

    fn check(&self) {
        self.pages.validate().expect("valid");
        let free = self.taken.iter().filter(|taken| !**taken).count() as u64;
        assert_eq!(self.pages.nr_free_pages(), free);
    }

    fn gfp(input: &mut Input<'_>) -> GfpFlags {
        let bits = input.byte();
        let mut gfp = match bits % 5 {
            0 => GfpFlags::HIGHUSER_MOVABLE,
            1 => GfpFlags::KERNEL | GfpFlags::RECLAIMABLE,
            2 => GfpFlags::KERNEL | GfpFlags::DMA,
            3 => GfpFlags::ATOMIC,
            _ => GfpFlags::KERNEL,
        };
        if bits & 0x80 != 0 {
            gfp |= GfpFlags::MEMALLOC;
        }
        if bits & 0x40 != 0 {
            gfp |= GfpFlags::ZERO;
        }
        gfp
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(12) {
            0..=5 => {
                let gfp = Self::gfp(input);
                let raw = input.below(Order::MAX.as_u8() as u64 + 1) as u8;
                let order = Order::new(raw).expect("an order");
                if let Ok(pfn) = self.pages.alloc_pages(AllocRequest { order, gfp }) {
                    assert!(order.is_aligned(pfn));
                    self.mark(pfn, order, true);
                    self.live.push((pfn, order));
                }
            }
            6 => {
                let gfp = Self::gfp(input);
                let mut out = vec![Pfn::NONE; 1 + input.below(100) as usize];
                let got = self.pages.alloc_pages_bulk(gfp, &mut out);
                for pfn in &out[..got] {
                    self.mark(*pfn, Order::ZERO, true);
                    self.live.push((*pfn, Order::ZERO));
                }
            }
            7..=9 if !self.live.is_empty() => {
                let at = input.below(self.live.len() as u64) as usize;
                let (pfn, order) = self.live.swap_remove(at);
                self.mark(pfn, order, false);
                self.pages.free_pages(pfn);
            }
            10 if !self.live.is_empty() => {
                let at = input.below(self.live.len() as u64) as usize;
                let (pfn, order) = self.live.swap_remove(at);
                self.pages.split_page(pfn);
                let all = (0..order.pages()).map(|at| (pfn + at, Order::ZERO));
                self.live.extend(all);
            }
            11 => match input.below(4) {
                0 => self.pages.drain_local(),
                1 => self.pages.fail_after(Some(input.below(8))),
                2 => self.pages.set_min_free_kbytes(input.below(2048)),
                _ => {
                    let from = self.live.len().saturating_sub(input.byte().into());
                    let gone: Vec<_> = self.live.drain(from..).collect();
                    for (pfn, order) in &gone {
                        self.mark(*pfn, *order, false);
                    }
                    let blocks: Vec<_> = gone.into_iter().map(|(pfn, _)| pfn).collect();
                    self.pages.free_pages_bulk(&blocks);
                }
            },
            _ => self.pages.fail_after(None),
        }
    }
}
