//! A kernel's heap, and nothing else: the collections of `alloc` on frames of this workspace.
//!
//! Layer 5. An example for kernels that want memory for `Box`, `Vec` and `BTreeMap` and have their own
//! ideas about everything above. It links boot memory, the page allocator and the slab allocator:
//!
//! ```text
//!   firmware's map ─▶ MemBlock ─▶ PageAllocator ─▶ SlabAllocator ─▶ Kmalloc ─▶ HEAP
//!                     boot only   frames           objects          any size   #[global_allocator]
//! ```
//!
//! A kernel calls [`start`] once, as soon as its RAM is mapped. Before that every allocation fails,
//! which `alloc` reports by `handle_alloc_error`; afterwards the heap grows and shrinks by whole
//! slabs as it is used.
//!
//! # Failure
//! [`StartError`] says which part found no room. After it, running out of memory is what the
//! collections make of it; `try_reserve` and the fallible interface of the caches return it.
//!
//! # What this does not do
//! It has no second CPU: that takes a `CpuLocal` and `Cpus::new` in place of `Cpus::single`.
#![no_std]
#![warn(missing_docs)]

extern crate alloc;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use vellum_machine::{Cpus, DirectMap, Trace, VmStat};
use vellum_memblock::MemBlock;
use vellum_page_alloc::{PageAllocator, place_at_boot};
use vellum_slab::{KernelHeap, Kmalloc, SlabAllocator};
use vellum_types::NodeId;

/// The kernel's heap.
#[cfg_attr(not(test), global_allocator)]
pub static HEAP: KernelHeap = KernelHeap::new();

/// Which part found no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartError {
    /// Boot memory.
    Boot,
    /// The page allocator.
    Pages,
    /// The slab allocator.
    Slab,
}

/// Makes the heap of all of `ram`.
///
/// # Errors
/// See [`StartError`].
pub fn start(
    ram: DirectMap<'static>,
    cpus: Cpus<'static>,
) -> Result<&'static SlabAllocator<'static>, StartError> {
    let mut memblock = MemBlock::new();
    memblock
        .add(ram.span(), NodeId(0))
        .map_err(|_| StartError::Boot)?;
    let vmstat = place_at_boot(ram, &mut memblock, VmStat::new()).ok_or(StartError::Boot)?;
    let pages = PageAllocator::boot(ram, memblock, cpus, vmstat, Trace::OFF)
        .map_err(|_| StartError::Pages)?;
    let slab = SlabAllocator::boot(pages, vmstat, cpus).map_err(|_| StartError::Slab)?;
    HEAP.init(Kmalloc::boot(slab).map_err(|_| StartError::Slab)?);
    Ok(slab)
}

/// What a kernel might do with it: counts the words of a text.
pub fn count_words(text: &str) -> Vec<(String, usize)> {
    let mut counts = BTreeMap::new();
    for word in text.split_whitespace() {
        *counts.entry(String::from(word)).or_insert(0) += 1;
    }
    counts.into_iter().collect()
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use core::alloc::{GlobalAlloc, Layout};
    use core::cell::Cell;
    use core::ptr::NonNull;
    use core::sync::atomic::{AtomicUsize, Ordering};
    use std::alloc::System;
    use vellum_types::{PhysAddr, PhysRange};

    const RAM: usize = 16 << 20;

    std::thread_local! {
        static IN_KERNEL: Cell<bool> = const { Cell::new(false) };
    }
    static START: AtomicUsize = AtomicUsize::new(0);

    /// The kernel's heap for the code under test, the host's for the test around it.
    struct Both;

    // SAFETY: memory goes back to the allocator it came from, which its address tells.
    unsafe impl GlobalAlloc for Both {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            if IN_KERNEL.get() {
                // SAFETY: the caller's promise.
                return unsafe { HEAP.alloc(layout) };
            }
            // SAFETY: the caller's promise.
            unsafe { System.alloc(layout) }
        }
        unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
            if memory.addr().wrapping_sub(START.load(Ordering::Relaxed)) < RAM {
                // SAFETY: it lies in the kernel's memory, so came from there.
                return unsafe { HEAP.dealloc(memory, layout) };
            }
            // SAFETY: it does not, so came from the host.
            unsafe { System.dealloc(memory, layout) };
        }
    }

    #[global_allocator]
    static BOTH: Both = Both;

    #[test]
    fn collections_live_in_the_kernels_memory() {
        let layout = Layout::from_size_align(RAM, 4 << 20).unwrap();
        // SAFETY: not of size zero.
        let base = NonNull::new(unsafe { System.alloc_zeroed(layout) }).unwrap();
        let span = PhysRange::from_len(PhysAddr::new(4 << 20), RAM as u64).unwrap();
        // SAFETY: 1. never freed; 2. both are page aligned; 3. nobody else knows the memory.
        let ram = unsafe { DirectMap::new(base, span) };
        // SAFETY: only this thread is ever in the kernel.
        let slab = start(ram, unsafe { Cpus::single() }).unwrap();
        START.store(base.as_ptr().addr(), Ordering::Relaxed);

        // Not the sheaves, which stay with their caches.
        let live = || {
            let caches = slab
                .slabinfo()
                .filter(|info| info.name.starts_with("kmalloc"));
            caches.map(|info| info.active_objs).sum::<u64>()
        };
        let before = live();
        IN_KERNEL.set(true);
        let words = count_words("one fish two fish red fish blue fish");
        let mut long = Vec::new();
        long.extend(0..200_000u64);
        let during = live();
        IN_KERNEL.set(false);
        assert!(during > before);
        assert!(ram.phys_of(NonNull::from(&long[0]).cast()).is_some());
        assert_eq!(words.len(), 5);
        assert_eq!(words[1], (String::from("fish"), 4));
        assert_eq!(long.iter().sum::<u64>(), 199_999 * 100_000);
        drop((words, long));
        assert_eq!(live(), before);
        slab.validate().unwrap();
    }
}
