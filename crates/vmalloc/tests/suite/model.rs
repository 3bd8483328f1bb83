//! Random operations against a list of areas.

use crate::machine::{Random, TestMachine, layout};
use std::collections::BTreeMap;
use vellum_page::PageSource;
use vellum_page_table::{Format, X86_64FiveLevel, X86_64FourLevel, X86Pae, X86TwoLevel};
use vellum_types::{GfpFlags, PAGE_SIZE, Pfn, VirtAddr};
use vellum_vmalloc::{Vmalloc, VmallocError, VmallocRequest};

struct Area {
    pages: u64,
    tag: u64,
    /// The caller's frames, if it is a vmap.
    frames: Vec<Pfn>,
}

struct Model<F: Format> {
    machine: &'static TestMachine,
    vmalloc: Vmalloc<'static, TestMachine, F>,
    areas: BTreeMap<u64, Area>,
    random: Random,
    tag: u64,
}

impl<F: Format> Model<F> {
    fn add(&mut self, start: VirtAddr, area: Area) {
        let at = start.as_u64();
        assert!(start.is_page_aligned());
        let (window, size) = (self.vmalloc.layout().vmalloc, (area.pages + 1) * PAGE_SIZE);
        assert!(window.start() <= start && start + size <= window.end());
        // With the guard page, it touches nobody's pages.
        if let Some((below, other)) = self.areas.range(..at).next_back() {
            assert!(below + (other.pages + 1) * PAGE_SIZE <= at, "overlap below");
        }
        if let Some((above, _)) = self.areas.range(at..).next() {
            assert!(at + size <= *above, "overlap above");
        }
        for page in 0..area.pages {
            let va = start + page * PAGE_SIZE;
            self.vmalloc
                .write(va, &(area.tag + page).to_le_bytes())
                .unwrap();
        }
        self.areas.insert(at, area);
    }

    fn check(&self, start: u64, area: &Area) {
        for page in 0..area.pages {
            let va = VirtAddr::new(start + page * PAGE_SIZE);
            let mut word = [0; 8];
            self.vmalloc.read(va, &mut word).unwrap();
            assert_eq!(u64::from_le_bytes(word), area.tag + page, "{va:?}");
            let frame = self.vmalloc.vmalloc_to_page(va);
            assert!(frame.is_some());
            if let Some(own) = area.frames.get(page as usize) {
                assert_eq!(frame, Some(*own));
            }
        }
        let guard = VirtAddr::new(start + area.pages * PAGE_SIZE);
        assert_eq!(self.vmalloc.vmalloc_to_page(guard), None);
        assert_eq!(self.vmalloc.write(guard, &[1]), Err(VmallocError::NotFound));
    }

    fn alloc(&mut self) {
        let pages = match self.random.below(20) {
            0 => 300 + self.random.below(900),
            1..4 => 1 + self.random.below(64),
            _ => 1 + self.random.below(4),
        };
        let align = PAGE_SIZE << [0, 0, 0, 1, 4, 9][self.random.below(6) as usize];
        let (zero, huge) = (self.random.below(4) == 0, self.random.below(2) == 0);
        let mut gfp = GfpFlags::KERNEL | GfpFlags::HIGHMEM;
        if zero {
            gfp |= GfpFlags::ZERO;
        }
        // Sizes are rounded up to pages.
        let size = pages * PAGE_SIZE - self.random.below(PAGE_SIZE);
        let request = VmallocRequest {
            size,
            align,
            gfp,
            huge,
        };
        let lazy = self.vmalloc.purges();
        match self.vmalloc.vmalloc_with(request) {
            Ok(at) => {
                assert!(at.as_u64().is_multiple_of(align));
                if zero {
                    let mut bytes = [1; 16];
                    let middle = at + self.random.below(pages * PAGE_SIZE - 16);
                    self.vmalloc.read(middle, &mut bytes).unwrap();
                    assert_eq!(bytes, [0; 16]);
                }
                self.tag += 1 << 20;
                let tag = self.tag;
                let frames = Vec::new();
                self.add(at, Area { pages, tag, frames });
            }
            Err(error) => {
                assert_ne!(error, VmallocError::Invalid);
                // Nothing failed before all that waited was free.
                assert!(self.vmalloc.lazy_bytes() == 0 || self.vmalloc.purges() > lazy);
            }
        }
    }

    fn map(&mut self) {
        let pages = 1 + self.random.below(8);
        if self.machine.used_pages() as u64 + pages + 64 > 4096 {
            return;
        }
        let frames = self.machine.frames(pages as usize);
        match self.vmalloc.vmap(&frames) {
            Ok(at) => {
                self.tag += 1 << 20;
                let tag = self.tag;
                self.add(at, Area { pages, tag, frames });
            }
            Err(_) => frames.iter().for_each(|pfn| self.machine.free_pages(*pfn)),
        }
    }

    fn free(&mut self) {
        let window = self.vmalloc.layout().vmalloc;
        let at = window.start().as_u64() + self.random.below(window.len());
        let found = self.areas.range(at..).next().or(self.areas.iter().next());
        let Some((start, _)) = found else { return };
        let start = *start;
        let area = self.areas.remove(&start).unwrap();
        self.check(start, &area);
        let (addr, wrong) = (VirtAddr::new(start), Err(VmallocError::NotFound));
        assert_eq!(self.vmalloc.vfree(addr + PAGE_SIZE / 2), wrong);
        if area.frames.is_empty() {
            assert_eq!(self.vmalloc.vunmap(addr), wrong);
            assert_eq!(self.vmalloc.vfree(addr), Ok(()));
            assert_eq!(self.vmalloc.vfree(addr), wrong, "double free");
        } else {
            assert_eq!(self.vmalloc.vfree(addr), wrong);
            assert_eq!(self.vmalloc.vunmap(addr), Ok(()));
            // At once: nobody reaches them any more.
            area.frames
                .iter()
                .for_each(|pfn| self.machine.free_pages(*pfn));
        }
        assert_eq!(self.vmalloc.read(addr, &mut [0]), wrong, "use after free");
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..45 => self.alloc(),
            45..52 => self.map(),
            52..99 => self.free(),
            _ => {
                self.vmalloc.purge();
            }
        }
    }
}

fn run<F: Format>(seed: u64, steps: u32) {
    let machine = TestMachine::new(4400, 1500, 1);
    let mut model = Model::<F> {
        machine,
        vmalloc: machine.boot(layout::<F>(24 << 20, 1)),
        areas: BTreeMap::new(),
        random: Random(seed),
        tag: 0,
    };
    let before = machine.used_pages();
    for step in 0..steps {
        model.step();
        if step % 512 == 0 {
            assert_eq!(model.vmalloc.validate(), Ok(()), "{} step {step}", F::NAME);
            for (start, area) in &model.areas {
                model.check(*start, area);
            }
        }
    }
    assert!(model.vmalloc.purges() > 0);
    while !model.areas.is_empty() {
        model.free();
    }
    model.vmalloc.purge();
    let stats = model.vmalloc.stats();
    assert_eq!((stats.used, stats.areas, stats.chunk), (0, 0, stats.total));
    assert_eq!(model.vmalloc.validate(), Ok(()));
    // What is left of it are tables, a few for such a window.
    assert!(machine.used_pages() - before < 32);
    assert_eq!(model.vmalloc.shutdown(), Ok(()));
    drop(model);
    assert_eq!((machine.used_pages(), machine.nodes.live()), (0, 0));
}

#[test]
fn random_operations_on_two_levels() {
    run::<X86TwoLevel>(0x1234_5678, 40_000);
}

#[test]
fn random_operations_on_pae() {
    run::<X86Pae>(0x2345_6789, 40_000);
}

#[test]
fn random_operations_on_four_levels() {
    run::<X86_64FourLevel>(0x3456_789a, 40_000);
}

#[test]
fn random_operations_on_five_levels() {
    run::<X86_64FiveLevel>(0x4567_89ab, 40_000);
}
