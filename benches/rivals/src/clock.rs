//! Times that a busy machine does not spoil.

use crate::heaps::{Heap, Visit};
use crate::ours::Kernel;
use crate::patterns::{FIXED, Pattern};
use core::alloc::GlobalAlloc;

/// Memory for each heap.
pub const HEAP_BYTES: usize = 512 << 20;

/// What is done, and how often.
#[derive(Clone, Copy)]
pub struct Job {
    /// The pattern.
    pub pattern: Pattern,
    /// How often, on each thread.
    pub n: u64,
    /// On how many threads.
    pub threads: u16,
}

impl Visit for Job {
    type Out = f64;
    fn visit<A: GlobalAlloc + Sync>(self, heap: &A, _: Option<&Kernel<'_>>) -> f64 {
        self.pattern.run(heap, self.n, self.threads) / self.n as f64
    }
}

/// Nanoseconds of one operation in one run with fresh memory.
///
/// # Panics
/// If memory runs out.
pub fn once(heap: Heap, job: Job) -> f64 {
    let bytes = match job.pattern {
        Pattern::Among(live) => HEAP_BYTES.max(live * 1024),
        _ => HEAP_BYTES,
    };
    heap.with(bytes, FIXED, job).expect("enough memory")
}

/// How often `pattern` is done to take a few milliseconds.
pub fn calibrated(pattern: Pattern, threads: u16, heap: Heap) -> u64 {
    const AIM: f64 = 3e6;
    let n = 2000;
    let job = Job {
        pattern,
        n,
        threads,
    };
    ((AIM / once(heap, job)) as u64).clamp(1000, 400_000) / 1000 * 1000
}
