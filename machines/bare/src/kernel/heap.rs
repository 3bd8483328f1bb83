//! The kernel's own heap: object caches and pages of the core, and a little memory for the time
//! before the core is up.

use crate::machine::try_system;
use crate::paging;
use crate::sync::{Lock, Once};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};
use vellum_object::ObjectSource;
use vellum_page::{AllocRequest, PageSource};
use vellum_slab::{CacheFlags, KmemCache};
use vellum_types::{Order, Pfn};

/// Memory of the boot, never given back.
const EARLY_BYTES: usize = 256 * 1024;
/// Sizes of objects; larger ones are whole pages.
const CLASSES: [(usize, &str); 9] = [
    (16, "kmalloc-16"),
    (32, "kmalloc-32"),
    (64, "kmalloc-64"),
    (128, "kmalloc-128"),
    (256, "kmalloc-256"),
    (512, "kmalloc-512"),
    (1024, "kmalloc-1k"),
    (2048, "kmalloc-2k"),
    (4096, "kmalloc-4k"),
];

struct Heap;

#[repr(C, align(4096))]
struct Early([u8; EARLY_BYTES]);

static mut EARLY: Early = Early([0; EARLY_BYTES]);
static EARLY_USED: AtomicUsize = AtomicUsize::new(0);
static CACHES: Once<[&'static KmemCache<'static>; CLASSES.len()]> = Once::new();

#[global_allocator]
static HEAP: Heap = Heap;

/// Makes the caches; from here on the heap is the core's.
pub(crate) fn set_up() -> Result<(), vellum_types::OutOfMemory> {
    let slab = crate::machine::system().slab();
    let mut caches = [None; CLASSES.len()];
    for (slot, (size, name)) in caches.iter_mut().zip(CLASSES) {
        let layout =
            Layout::from_size_align(size, size.min(4096)).map_err(|_| vellum_types::OutOfMemory)?;
        *slot = Some(slab.create_cache(name, layout, CacheFlags::empty())?);
    }
    if caches.iter().all(Option::is_some) {
        CACHES.set(caches.map(|cache| cache.unwrap_or_else(|| unreachable!("checked above"))));
    }
    refill_reserve();
    Ok(())
}

/// Frames that are given back when nothing else is left, so that the kernel can still kill somebody
/// and clean up after it.
struct Reserve {
    frames: [Pfn; RESERVE],
    len: usize,
}

const RESERVE: usize = 64;
/// Frames given back at a time.
const PORTION: usize = 16;

static RESERVED: Lock<Reserve> = Lock::new(Reserve {
    frames: [Pfn::NONE; RESERVE],
    len: 0,
});

/// Takes what the reserve lacks, if there is enough again.
pub(crate) fn refill_reserve() {
    let pages = crate::machine::system().pages();
    let mut reserve = RESERVED.lock();
    while reserve.len < RESERVE {
        let Ok(frame) = pages.alloc_pages(AllocRequest::kernel(Order::ZERO)) else {
            return;
        };
        let at = reserve.len;
        reserve.frames[at] = frame;
        reserve.len += 1;
    }
}

/// Tries again with some of the reserve given back, for as long as there is any.
#[cold]
fn with_reserve<T>(mut take: impl FnMut() -> Option<T>) -> Option<T> {
    let pages = try_system()?.pages();
    loop {
        let mut reserve = RESERVED.lock();
        let end = reserve.len;
        let start = end.saturating_sub(PORTION);
        reserve.len = start;
        let portion = reserve.frames;
        drop(reserve);
        if start == end {
            return None;
        }
        portion[start..end]
            .iter()
            .for_each(|frame| pages.free_pages(*frame));
        if let Some(value) = take() {
            return Some(value);
        }
    }
}

/// The class of a layout, or `None` for whole pages.
#[inline]
fn class(layout: Layout) -> Option<usize> {
    let size = layout.size().max(layout.align()).max(16);
    (size <= 4096).then(|| (size.next_power_of_two().trailing_zeros() - 4) as usize)
}

fn is_early(memory: *mut u8) -> bool {
    let start = (&raw const EARLY) as usize;
    (start..start + EARLY_BYTES).contains(&(memory as usize))
}

fn early(layout: Layout) -> *mut u8 {
    let start = (&raw const EARLY) as usize;
    let mut used = EARLY_USED.load(Ordering::Relaxed);
    loop {
        let at = (start + used).next_multiple_of(layout.align()) - start;
        if at + layout.size() > EARLY_BYTES {
            return core::ptr::null_mut();
        }
        match EARLY_USED.compare_exchange(
            used,
            at + layout.size(),
            Ordering::Relaxed,
            Ordering::Relaxed,
        ) {
            Ok(_) => return (start + at) as *mut u8,
            Err(now) => used = now,
        }
    }
}

// SAFETY: caches and pages hand out exclusive memory of at least the size and alignment asked for:
// classes are powers of two, naturally aligned, and blocks of pages are aligned to their size.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(caches) = CACHES.try_get() else {
            return early(layout);
        };
        if let Some(class) = class(layout) {
            let object = caches[class].alloc_object();
            let object = object.or_else(|| with_reserve(|| caches[class].alloc_object()));
            return object.map_or(core::ptr::null_mut(), NonNull::as_ptr);
        }
        let (Some(system), Some(order)) = (try_system(), Order::for_bytes(layout.size() as u64))
        else {
            return core::ptr::null_mut();
        };
        let take = || system.pages().alloc_pages(AllocRequest::kernel(order)).ok();
        match take().or_else(|| with_reserve(take)) {
            Some(frame) => paging::ram()
                .ptr(frame.addr(), layout.size() as u64)
                .as_ptr(),
            None => core::ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        let (Some(caches), Some(object)) = (CACHES.try_get(), NonNull::new(memory)) else {
            return;
        };
        if is_early(memory) {
            return;
        }
        if let Some(class) = class(layout) {
            // SAFETY: it came from the cache of the same layout, by GlobalAlloc's contract.
            unsafe { caches[class].free_object(object) };
            return;
        }
        let frame = paging::ram().phys_of(object).and_then(Pfn::containing);
        if let (Some(system), Some(frame)) = (try_system(), frame) {
            system.pages().free_pages(frame);
        }
    }
}
