//! What is done with an allocator. Each returns the time of its steady part, in nanoseconds, and
//! leaves nothing allocated but where it says so.

use crate::ours::Threads;
use core::alloc::{GlobalAlloc, Layout};
use core::hint::black_box;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Barrier;
use std::time::Instant;

/// The size where one size is asked for.
pub const FIXED: Layout = Layout::new::<[u64; 8]>();
/// How many objects a batch has.
pub const BATCH: u64 = 1000;
/// Live objects of the random-lifetime pattern.
pub const LIVE: usize = 10_000;

/// A way to use memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pattern {
    /// One object is allocated and freed again.
    Pair,
    /// [`BATCH`] objects are allocated, then freed, the last one first.
    Batch,
    /// A random one of [`LIVE`] objects is replaced by one of another size: 8 B to 8 KiB, each
    /// doubling as likely as any other.
    Random,
    /// One thread allocates, another one frees.
    Handover,
    /// As `Random` with objects up to 256 B, so that so many of them may live.
    Among(usize),
}

impl Pattern {
    /// How it is called on the command line.
    pub fn name(self) -> String {
        match self {
            Self::Pair => "pair".into(),
            Self::Batch => "batch".into(),
            Self::Random => "random".into(),
            Self::Handover => "handover".into(),
            Self::Among(live) => format!("among-{live}"),
        }
    }

    /// By [`Pattern::name`].
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "pair" => Self::Pair,
            "batch" => Self::Batch,
            "random" => Self::Random,
            "handover" => Self::Handover,
            _ => Self::Among(name.strip_prefix("among-")?.parse().ok()?),
        })
    }

    /// True if it can be had with objects of one size.
    pub fn is_fixed(self) -> bool {
        matches!(self, Self::Pair | Self::Batch | Self::Handover)
    }

    /// Does it `n` times on each of `threads` threads.
    ///
    /// # Panics
    /// If memory runs out.
    pub fn run<A: GlobalAlloc + Sync>(self, heap: &A, n: u64, threads: u16) -> f64 {
        match self {
            Self::Pair => each_thread(threads, || pair(heap, n)),
            Self::Batch => each_thread(threads, || batch(heap, n)),
            Self::Random => each_thread(threads, || {
                let mut live = Live::new(heap, LIVE, Sizes::up_to(8192));
                timed(|| live.steps(n))
            }),
            Self::Among(objects) => each_thread(threads, || {
                let mut live = Live::new(heap, objects, Sizes::up_to(256));
                let time = timed(|| live.steps(n));
                // The end of a million takes some allocators hours.
                core::mem::forget(live);
                time
            }),
            Self::Handover => handover(heap, n),
        }
    }
}

/// Runs `work` on that many threads at once; the longest time.
fn each_thread(threads: u16, work: impl Fn() -> f64 + Sync) -> f64 {
    if threads == 1 {
        return work();
    }
    let barrier = Barrier::new(usize::from(threads));
    std::thread::scope(|scope| {
        let spawn = |cpu| {
            let (work, barrier) = (&work, &barrier);
            scope.spawn(move || {
                Threads::be(cpu);
                barrier.wait();
                work()
            })
        };
        let running: Vec<_> = (0..threads).map(spawn).collect();
        let times = running.into_iter().map(|t| t.join().expect("no panic"));
        times.fold(0.0, f64::max)
    })
}

fn timed(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as f64
}

/// Memory of `layout`, with a word written to it.
#[inline(always)]
fn take<A: GlobalAlloc>(heap: &A, layout: Layout) -> *mut u8 {
    // SAFETY: no layout here is of size zero.
    let memory = unsafe { heap.alloc(layout) };
    assert!(!memory.is_null(), "out of memory");
    // SAFETY: it is 8 bytes long at least, aligned to 8, and ours.
    unsafe { memory.cast::<u64>().write(layout.size() as u64) };
    memory
}

#[inline(always)]
fn give<A: GlobalAlloc>(heap: &A, memory: *mut u8, layout: Layout) {
    // SAFETY: whoever calls has it from `take`, with this layout, and gives it up.
    unsafe { heap.dealloc(memory, layout) };
}

#[inline(never)]
fn pair<A: GlobalAlloc>(heap: &A, n: u64) -> f64 {
    // A few first, so that the allocator has memory at hand.
    let warm: Vec<_> = (0..16).map(|_| take(heap, FIXED)).collect();
    warm.into_iter()
        .for_each(|memory| give(heap, memory, FIXED));
    timed(|| {
        for _ in 0..n {
            let layout = black_box(FIXED);
            give(heap, black_box(take(heap, layout)), layout);
        }
    })
}

#[inline(never)]
fn batch<A: GlobalAlloc>(heap: &A, n: u64) -> f64 {
    let mut objects = Vec::with_capacity(BATCH as usize);
    let mut once = || {
        let layout = black_box(FIXED);
        objects.extend((0..BATCH).map(|_| take(heap, layout)));
        while let Some(memory) = objects.pop() {
            give(heap, memory, layout);
        }
    };
    once();
    timed(|| (0..n / BATCH).for_each(|_| once()))
}

/// Sizes of which each doubling is as likely as any other, worked out before the clock runs.
pub struct Sizes(Vec<u16>);

impl Sizes {
    const TABLE: usize = 1 << 13;

    /// From 8 B to `most`.
    pub fn up_to(most: u32) -> Self {
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        let doublings = (f64::from(most) / 8.0).log2();
        let size = |_| {
            let part = random.below(1 << 20) as f64 / f64::from(1 << 20);
            (8.0 * (part * doublings).exp2()) as u16
        };
        Self((0..Self::TABLE).map(size).collect())
    }

    #[inline(always)]
    fn layout(&self, at: usize) -> Layout {
        let size = usize::from(self.0[at % Self::TABLE]);
        // SAFETY: 8 is a power of two, and the size is small.
        unsafe { Layout::from_size_align_unchecked(size, 8) }
    }
}

/// A xorshift generator.
pub struct Random(pub u64);

impl Random {
    /// A number less than `n`.
    #[inline(always)]
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((u128::from(self.0) * u128::from(n)) >> 64) as u64
    }
}

/// Objects that live, and die at random.
pub struct Live<'a, A: GlobalAlloc> {
    heap: &'a A,
    objects: Vec<(*mut u8, u32)>,
    sizes: Sizes,
    random: Random,
    serial: usize,
}

impl<'a, A: GlobalAlloc> Live<'a, A> {
    /// `objects` of them.
    ///
    /// # Panics
    /// If memory runs out.
    pub fn new(heap: &'a A, objects: usize, sizes: Sizes) -> Self {
        let mut live = Self::empty(heap, objects, sizes);
        for slot in 0..objects {
            assert!(live.fill(slot), "out of memory");
        }
        live
    }

    /// Places for `objects` of them.
    pub fn empty(heap: &'a A, objects: usize, sizes: Sizes) -> Self {
        Self {
            heap,
            objects: vec![(core::ptr::null_mut(), 0); objects],
            sizes,
            random: Random(0x9e37_79b9_7f4a_7c15),
            serial: 0,
        }
    }

    /// Replaces `n` of them.
    ///
    /// # Panics
    /// If memory runs out.
    #[inline(never)]
    pub fn steps(&mut self, n: u64) {
        for _ in 0..n {
            assert!(self.step(), "out of memory");
        }
    }

    /// Replaces one of them; false if there is no memory, and one is gone.
    #[inline(always)]
    pub fn step(&mut self) -> bool {
        let victim = self.random.below(self.objects.len() as u64) as usize;
        let (old, size) = self.objects[victim];
        // SAFETY: 8 is a power of two, and the size is small.
        let layout = unsafe { Layout::from_size_align_unchecked(size as usize, 8) };
        if !old.is_null() {
            give(self.heap, old, layout);
        }
        self.fill(victim)
    }

    /// Puts a new object into an empty place; false if there is no memory.
    #[inline(always)]
    pub fn fill(&mut self, slot: usize) -> bool {
        let layout = self.sizes.layout(self.serial);
        self.serial += 1;
        // SAFETY: no layout here is of size zero.
        let memory = unsafe { self.heap.alloc(layout) };
        self.objects[slot] = (memory, layout.size() as u32);
        if memory.is_null() {
            return false;
        }
        // SAFETY: it is 8 bytes long at least, aligned to 8, and ours.
        unsafe { memory.cast::<u64>().write(self.serial as u64) };
        true
    }

    /// Bytes asked for and not freed.
    pub fn requested(&self) -> u64 {
        self.objects.iter().map(|(_, size)| u64::from(*size)).sum()
    }

    /// Where they are.
    pub fn pointers(&self) -> impl Iterator<Item = NonNull<u8>> {
        self.objects.iter().filter_map(|(at, _)| NonNull::new(*at))
    }
}

impl<A: GlobalAlloc> Drop for Live<'_, A> {
    fn drop(&mut self) {
        for (memory, size) in self.objects.drain(..) {
            // SAFETY: 8 is a power of two, and the size is small.
            let layout = unsafe { Layout::from_size_align_unchecked(size as usize, 8) };
            if !memory.is_null() {
                give(self.heap, memory, layout);
            }
        }
    }
}

/// Objects on their way from one thread to another.
struct Ring {
    slots: Vec<AtomicUsize>,
}

impl Ring {
    const LEN: usize = 512;

    fn new() -> Self {
        Self {
            slots: (0..Self::LEN).map(|_| AtomicUsize::new(0)).collect(),
        }
    }

    /// The slot for object number `at`, when it is `full` or not. Waits for that.
    #[inline(always)]
    fn slot(&self, at: u64, full: bool) -> (&AtomicUsize, usize) {
        let slot = &self.slots[at as usize % Self::LEN];
        let mut tries = 0_u32;
        loop {
            let value = slot.load(Ordering::Acquire);
            if (value != 0) == full {
                return (slot, value);
            }
            tries += 1;
            if tries.is_multiple_of(64) {
                std::thread::yield_now();
            } else {
                core::hint::spin_loop();
            }
        }
    }
}

#[inline(never)]
fn handover<A: GlobalAlloc + Sync>(heap: &A, n: u64) -> f64 {
    let ring = Ring::new();
    let barrier = Barrier::new(2);
    std::thread::scope(|scope| {
        let consumer = scope.spawn(|| {
            Threads::be(1);
            barrier.wait();
            timed(|| {
                for at in 0..n {
                    let (slot, value) = ring.slot(at, true);
                    slot.store(0, Ordering::Release);
                    give(heap, core::ptr::with_exposed_provenance_mut(value), FIXED);
                }
            })
        });
        barrier.wait();
        let producing = timed(|| {
            for at in 0..n {
                let memory = take(heap, black_box(FIXED));
                let (slot, _) = ring.slot(at, false);
                slot.store(memory.expose_provenance(), Ordering::Release);
            }
        });
        producing.max(consumer.join().expect("no panic"))
    })
}
