//! Allocators of page frames.

use crate::ours::{self, Flows};
use crate::patterns::Random;
use crate::region::Region;
use bitmap_allocator::{BitAlloc, BitAlloc1M};
use core::hint::black_box;
use std::time::Instant;
use vellum_machine::VmStat;
use vellum_page::{AllocRequest, PageSource};
use vellum_page_alloc::PageAllocator;
use vellum_types::{Order, Pfn};

/// Frames of the machine: 512 MiB.
pub const FRAMES: usize = 1 << 17;
/// Blocks of the random-lifetime pattern.
const LIVE: usize = 1000;

/// Who there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frames {
    /// The core's, each thread a CPU.
    PageAllocator,
    /// The core's on a machine of one CPU.
    OneCpu,
    /// buddy_system_allocator's frame allocator in a spin lock.
    Buddy,
    /// bitmap-allocator in a spin lock.
    Bitmap,
}

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// One frame, and back.
    Pair,
    /// A block of 8, and back.
    Order3,
    /// A block of 512, and back.
    Order9,
    /// 1000 frames, given back last first.
    Batch,
    /// A random one of 1000 blocks is replaced by one of another order, 0 to 5, small ones likelier.
    Random,
}

trait Source {
    fn take(&self, order: u8) -> usize;
    fn give(&self, frame: usize, order: u8);
}

impl Source for &PageAllocator<'_> {
    #[inline(always)]
    fn take(&self, order: u8) -> usize {
        let request = AllocRequest::kernel(Order::new(order).expect("an order"));
        self.alloc_pages(request).expect("memory").as_u32() as usize
    }
    #[inline(always)]
    fn give(&self, frame: usize, _: u8) {
        self.free_pages(Pfn::new(frame as u32));
    }
}

struct Buddy(spin::Mutex<buddy_system_allocator::FrameAllocator<33>>);

impl Source for Buddy {
    #[inline(always)]
    fn take(&self, order: u8) -> usize {
        self.0.lock().alloc(1 << order).expect("memory")
    }
    #[inline(always)]
    fn give(&self, frame: usize, order: u8) {
        self.0.lock().dealloc(frame, 1 << order);
    }
}

struct Bitmap(spin::Mutex<Box<BitAlloc1M>>);

impl Source for Bitmap {
    #[inline(always)]
    fn take(&self, order: u8) -> usize {
        let mut bits = self.0.lock();
        if order == 0 {
            return bits.alloc().expect("memory");
        }
        bits.alloc_contiguous(None, 1 << order, order.into())
            .expect("memory")
    }
    #[inline(always)]
    fn give(&self, frame: usize, order: u8) {
        let mut bits = self.0.lock();
        let freed = if order == 0 {
            bits.dealloc(frame)
        } else {
            bits.dealloc_contiguous(frame, 1 << order)
        };
        debug_assert!(freed);
    }
}

impl Use {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Pair,
        Self::Order3,
        Self::Order9,
        Self::Batch,
        Self::Random,
    ];

    /// How it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pair => "frame-pair",
            Self::Order3 => "frame-order3",
            Self::Order9 => "frame-order9",
            Self::Batch => "frame-batch",
            Self::Random => "frame-random",
        }
    }

    /// `n` times; nanoseconds of all.
    fn run(self, source: &impl Source, n: u64) -> f64 {
        match self {
            Self::Pair => pairs(source, n, 0),
            Self::Order3 => pairs(source, n, 3),
            Self::Order9 => pairs(source, n, 9),
            Self::Batch => batch(source, n),
            Self::Random => random(source, n),
        }
    }
}

impl Frames {
    /// All of them, the core's first.
    pub const ALL: [Self; 4] = [Self::PageAllocator, Self::OneCpu, Self::Buddy, Self::Bitmap];

    /// How it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::PageAllocator => "PageAllocator",
            Self::OneCpu => "PageAllocator, one CPU",
            Self::Buddy => "buddy_system_allocator",
            Self::Bitmap => "bitmap-allocator",
        }
    }

    /// Nanoseconds of one operation in a run of `n` with fresh memory.
    ///
    /// # Panics
    /// If memory runs out.
    pub fn once(self, what: Use, n: u64) -> f64 {
        let time = match self {
            Self::PageAllocator | Self::OneCpu => {
                let flows = if self == Self::OneCpu {
                    Flows::One
                } else {
                    Flows::Threads
                };
                let region = Region::new(FRAMES * 4096);
                let vmstat = VmStat::new();
                let pages = ours::pages(&region, &vmstat, flows).expect("enough memory");
                what.run(&pages, n)
            }
            Self::Buddy => {
                let mut frames = buddy_system_allocator::FrameAllocator::new();
                frames.add_frame(0, FRAMES);
                what.run(&Buddy(spin::Mutex::new(frames)), n)
            }
            Self::Bitmap => {
                let mut bits = Box::<BitAlloc1M>::default();
                bits.insert(0..FRAMES);
                what.run(&Bitmap(spin::Mutex::new(bits)), n)
            }
        };
        time / n as f64
    }
}

fn timed(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as f64
}

#[inline(never)]
fn pairs(source: &impl Source, n: u64, order: u8) -> f64 {
    let warm: Vec<_> = (0..8).map(|_| source.take(order)).collect();
    warm.into_iter().for_each(|frame| source.give(frame, order));
    timed(|| {
        for _ in 0..n {
            source.give(black_box(source.take(order)), order);
        }
    })
}

#[inline(never)]
fn batch(source: &impl Source, n: u64) -> f64 {
    let mut frames = Vec::with_capacity(1000);
    let mut once = || {
        frames.extend((0..1000).map(|_| source.take(0)));
        while let Some(frame) = frames.pop() {
            source.give(frame, 0);
        }
    };
    once();
    timed(|| (0..n / 1000).for_each(|_| once()))
}

#[inline(never)]
fn random(source: &impl Source, n: u64) -> f64 {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut order = || random.below(64).leading_zeros().saturating_sub(58).min(5) as u8;
    let orders: Vec<u8> = (0..4096).map(|_| order()).collect();
    let mut live: Vec<_> = (0..LIVE)
        .map(|at| (source.take(orders[at]), orders[at]))
        .collect();
    let time = timed(|| {
        for at in 0..n as usize {
            let slot = &mut live[random.below(LIVE as u64) as usize];
            source.give(slot.0, slot.1);
            let order = orders[at % orders.len()];
            *slot = (source.take(order), order);
        }
    });
    for (frame, order) in live {
        source.give(frame, order);
    }
    time
}
