//! What memory costs beyond what was asked for.
//!
//! A history of random lifetimes is repeated with less and less memory, until it cannot be served. The
//! least memory that serves it, less the most that was asked for at any time, is what is lost: to
//! rounding within blocks, to holes between them, to descriptors, and to what is kept at hand. Those
//! whose memory cannot be bounded are judged by how much a process of their own grows.

use crate::heaps::{Heap, Visit};
use crate::ours::Kernel;
use crate::patterns::{FIXED, Live, Sizes};
use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicU64, Ordering};

/// Live objects.
pub const LIVE: usize = 10_000;
/// Objects replaced.
pub const STEPS: u64 = 200_000;

/// What came of a history.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// The most bytes that were asked for and not freed.
    pub requested: u64,
    /// The bytes that live at the end.
    pub live: u64,
    /// The bytes of those as the allocator counts them, where it says so.
    pub rounded: Option<u64>,
    /// Bytes of pages taken from the page allocator, where there is one.
    pub pages: Option<u64>,
    /// The growth of this process, of pages that were touched.
    pub resident: u64,
}

/// The history with `bytes` of memory; `None` if they are too few.
pub fn history(heap: Heap, bytes: usize, steps: u64) -> Option<Outcome> {
    heap.with(bytes, FIXED, History(steps)).flatten()
}

/// The least memory that serves the history, to one part in 200.
///
/// # Panics
/// If even a gigabyte does not.
pub fn least(heap: Heap, steps: u64) -> usize {
    let (mut low, mut high) = (1 << 20, 1 << 30);
    assert!(history(heap, high, steps).is_some(), "a gigabyte serves it");
    while high - low > high / 200 {
        let middle = ((low + high) / 2).next_multiple_of(4096);
        if history(heap, middle, steps).is_some() {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}

struct History(u64);

/// Counts what is asked for; refuses, rather than panics, when memory runs out.
struct Counted<'a, A> {
    inner: &'a A,
    live: AtomicU64,
    most: AtomicU64,
}

// SAFETY: passes everything on.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Counted<'_, A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is the same.
        let memory = unsafe { self.inner.alloc(layout) };
        if !memory.is_null() {
            // Relaxed: there is one thread.
            let size = layout.size() as u64;
            let live = self.live.fetch_add(size, Ordering::Relaxed) + size;
            self.most.fetch_max(live, Ordering::Relaxed);
        }
        memory
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        self.live.fetch_sub(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller's promise is the same.
        unsafe { self.inner.dealloc(memory, layout) };
    }
}

impl Visit for History {
    type Out = Option<Outcome>;
    fn visit<A: GlobalAlloc + Sync>(
        self,
        heap: &A,
        kernel: Option<&Kernel<'_>>,
    ) -> Option<Outcome> {
        let before = resident();
        let heap = Counted {
            inner: heap,
            live: AtomicU64::new(0),
            most: AtomicU64::new(0),
        };
        let mut live = Live::empty(&heap, LIVE, Sizes::up_to(8192));
        // The first steps fill the table: an empty place is taken without a free.
        for slot in 0..LIVE {
            if !live.fill(slot) {
                return None;
            }
        }
        for _ in 0..self.0 {
            if !live.step() {
                return None;
            }
        }
        let rounded = kernel.map(|kernel| {
            let sizes = live
                .pointers()
                .map(|at| kernel.kmalloc.usable_size(at) as u64);
            sizes.sum()
        });
        Some(Outcome {
            live: live.requested(),
            requested: heap.most.load(Ordering::Relaxed),
            rounded,
            pages: kernel.map(Kernel::taken),
            resident: resident().saturating_sub(before),
        })
    }
}

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|word| word.parse().ok());
    pages.unwrap_or(0_u64) * 4096
}
