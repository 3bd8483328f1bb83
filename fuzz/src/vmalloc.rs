//! Kernel mappings beside a list of areas.

use crate::input::Input;
use crate::machine::Host;
use std::collections::BTreeMap;
use vellum_object::{HeapSource, ObjectCache};
use vellum_page::{AllocRequest, PageSource};
use vellum_page_alloc::PageAllocator;
use vellum_page_table::{Format, X86_64FourLevel, X86Pae};
use vellum_types::{GfpFlags, Order, PAGE_SIZE, Pfn, VirtAddr};
use vellum_vmalloc::{KernelLayout, Vmalloc, VmallocError, VmallocRequest, VmapNode};

struct Area {
    pages: u64,
    tag: u64,
    /// The caller's frames, if it is a vmap.
    frames: Vec<Pfn>,
}

struct Model<'m, F: Format> {
    pages: &'m PageAllocator<'m>,
    heap: &'m HeapSource,
    vmalloc: Vmalloc<'m, Host, F>,
    areas: BTreeMap<u64, Area>,
    serial: u64,
}

/// Allocates, maps, frees, writes and purges; frames and nodes cannot be had at times.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    if input.one_in(2) {
        history::<X86Pae>(input);
    } else {
        history::<X86_64FourLevel>(input);
    }
}

fn history<F: Format>(mut input: Input<'_>) {
    let host = Host::new(16 << 20, 19 << 20);
    let heap = HeapSource::new(ObjectCache::<VmapNode<'_>>::BOX_LAYOUT);
    let pages = host.boot();
    let free = pages.nr_free_pages();
    let layout = if F::VA_BITS == 32 {
        KernelLayout::x86_32::<F>(64 << 20, 1)
    } else {
        KernelLayout::x86_64::<F>(4 << 20, 1)
    };
    let nodes = ObjectCache::new(&heap);
    let vmalloc = Vmalloc::boot(&host, pages, &host.vmstat, layout, nodes).expect("memory");
    vmalloc.set_lazy_max_pages(64);
    let mut model = Model::<F> {
        pages,
        heap: &heap,
        vmalloc,
        areas: BTreeMap::new(),
        serial: 0,
    };
    while !input.is_empty() {
        model.step(&mut input);
    }
    model.check();
    pages.fail_after(None);
    heap.fail_after(i64::MAX);
    while let Some(at) = model.areas.keys().next().copied() {
        model.free(at);
    }
    assert_eq!(model.vmalloc.shutdown(), Ok(()));
    drop(model);
    assert_eq!((pages.nr_free_pages(), heap.live()), (free, 0));
}

impl<F: Format> Model<'_, F> {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(9) {
            0..=3 => self.alloc(input),
            4 => self.map(input),
            5 | 6 => {
                let at = input.below(self.areas.len().max(1) as u64) as usize;
                if let Some(at) = self.areas.keys().nth(at).copied() {
                    self.free(at);
                }
            }
            7 => {
                if input.one_in(2) {
                    self.vmalloc.purge();
                }
                self.check();
            }
            _ => {
                let (frames, nodes) = (input.below(16), input.below(16));
                self.pages.fail_after((frames < 8).then_some(frames));
                self.heap
                    .fail_after(if nodes < 4 { nodes as i64 } else { i64::MAX });
            }
        }
    }

    fn alloc(&mut self, input: &mut Input<'_>) {
        let pages = match input.below(8) {
            0 => 1 + input.below(800),
            1 | 2 => 1 + input.below(64),
            _ => 1 + input.below(4),
        };
        let bits = input.byte();
        let mut gfp = GfpFlags::KERNEL;
        let zero = bits & 1 == 1;
        if zero {
            gfp |= GfpFlags::ZERO;
        }
        let request = VmallocRequest {
            size: pages * PAGE_SIZE - input.below(PAGE_SIZE),
            align: PAGE_SIZE << (bits >> 2 & 7),
            huge: bits & 2 == 2,
            gfp,
        };
        let align = request.align;
        let Ok(at) = self.vmalloc.vmalloc_with(request) else {
            return;
        };
        assert_eq!(at.as_u64() % align, 0);
        if zero {
            let mut word = [1; 8];
            let last = at + (pages * PAGE_SIZE - 8);
            self.vmalloc.read(last, &mut word).expect("mapped");
            assert_eq!(word, [0; 8]);
        }
        self.add(at, pages, Vec::new());
    }

    fn map(&mut self, input: &mut Input<'_>) {
        let order = Order::ZERO;
        let gfp = GfpFlags::KERNEL;
        let mut frames = Vec::new();
        for _ in 0..=input.below(8) {
            match self.pages.alloc_pages(AllocRequest { order, gfp }) {
                Ok(pfn) => frames.push(pfn),
                Err(_) => break,
            }
        }
        let mapped = (!frames.is_empty()).then(|| self.vmalloc.vmap(&frames));
        match mapped {
            Some(Ok(at)) => self.add(at, frames.len() as u64, frames),
            _ => frames.iter().for_each(|pfn| self.pages.free_pages(*pfn)),
        }
    }

    fn add(&mut self, start: VirtAddr, pages: u64, frames: Vec<Pfn>) {
        let (at, size) = (start.as_u64(), (pages + 1) * PAGE_SIZE);
        let window = self.vmalloc.layout().vmalloc;
        assert!(start.is_page_aligned());
        assert!(window.start() <= start && start + size <= window.end());
        if let Some((below, other)) = self.areas.range(..at).next_back() {
            assert!(
                below + (other.pages + 1) * PAGE_SIZE <= at,
                "overlaps below"
            );
        }
        if let Some((above, _)) = self.areas.range(at..).next() {
            assert!(at + size <= *above, "overlaps above");
        }
        self.serial += 1 << 20;
        let tag = self.serial;
        for page in 0..pages {
            let word = (tag + page).to_le_bytes();
            let va = start + page * PAGE_SIZE;
            self.vmalloc.write(va, &word).expect("mapped");
        }
        let area = Area { pages, tag, frames };
        self.areas.insert(at, area);
    }

    fn free(&mut self, at: u64) {
        let Some(area) = self.areas.remove(&at) else {
            return;
        };
        self.check_area(at, &area);
        let va = VirtAddr::new(at);
        if area.frames.is_empty() {
            assert_eq!(self.vmalloc.vfree(va), Ok(()));
            assert!(self.vmalloc.vfree(va).is_err(), "freed twice");
            return;
        }
        assert_eq!(self.vmalloc.vunmap(va), Ok(()));
        // The frames are the caller's, but no sooner than their translations are gone.
        self.vmalloc.purge();
        area.frames
            .iter()
            .for_each(|pfn| self.pages.free_pages(*pfn));
    }

    fn check_area(&self, start: u64, area: &Area) {
        for page in 0..area.pages {
            let va = VirtAddr::new(start + page * PAGE_SIZE);
            let mut word = [0; 8];
            self.vmalloc.read(va, &mut word).expect("mapped");
            assert_eq!(u64::from_le_bytes(word), area.tag + page, "{va:?}");
            if let Some(own) = area.frames.get(page as usize) {
                assert_eq!(self.vmalloc.vmalloc_to_page(va), Some(*own));
            }
        }
        let guard = VirtAddr::new(start + area.pages * PAGE_SIZE);
        assert_eq!(self.vmalloc.write(guard, &[1]), Err(VmallocError::NotFound));
    }

    fn check(&self) {
        assert_eq!(self.vmalloc.validate(), Ok(()));
        assert_eq!(self.vmalloc.stats().areas, self.areas.len());
        for (start, area) in &self.areas {
            self.check_area(*start, area);
        }
    }
}
