//! A kernel's global allocator.

use crate::Kmalloc;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicPtr, Ordering};
use vellum_types::GfpFlags;

/// [`Kmalloc`] behind `#[global_allocator]`.
///
/// A static of it can be made before there is any memory; until [`KernelHeap::init`] every request
/// fails. Alignments up to 4 MiB are served as far as the direct map itself is aligned.
///
/// ```
/// use vellum_slab::KernelHeap;
/// // In a kernel with `#[global_allocator]` before it.
/// static HEAP: KernelHeap = KernelHeap::new();
///
/// # use std::alloc::{GlobalAlloc, Layout};
/// let layout = Layout::new::<u64>();
/// // SAFETY: the layout is not of size zero.
/// let memory = unsafe { HEAP.alloc(layout) };
/// assert!(memory.is_null(), "before init there is no memory");
/// // fn start(slab: &'static SlabAllocator<'static>) -> Result<(), OutOfMemory> {
/// //     HEAP.init(Kmalloc::boot(slab)?);
/// //     Ok(())
/// // }
/// ```
#[derive(Debug)]
pub struct KernelHeap {
    /// Null before `init`.
    kmalloc: AtomicPtr<Kmalloc<'static>>,
}

impl KernelHeap {
    /// No memory yet.
    pub const fn new() -> Self {
        Self {
            kmalloc: AtomicPtr::new(null_mut()),
        }
    }

    /// Memory comes from `kmalloc` from now on. False if it has come from somewhere already, which
    /// stays so.
    pub fn init(&self, kmalloc: &'static Kmalloc<'static>) -> bool {
        let kmalloc = core::ptr::from_ref(kmalloc).cast_mut();
        // Release pairs with the Acquire in `kmalloc`.
        let set = self.kmalloc.compare_exchange(
            null_mut(),
            kmalloc,
            Ordering::Release,
            Ordering::Relaxed,
        );
        set.is_ok()
    }

    #[inline]
    fn kmalloc(&self) -> Option<&'static Kmalloc<'static>> {
        // SAFETY: null, or from a reference that lives for ever.
        unsafe { self.kmalloc.load(Ordering::Acquire).as_ref() }
    }

    #[inline]
    fn alloc_gfp(&self, layout: Layout, gfp: GfpFlags) -> *mut u8 {
        self.kmalloc()
            .and_then(|kmalloc| kmalloc.alloc_layout(layout, gfp))
            .map_or(null_mut(), NonNull::as_ptr)
    }
}

impl Default for KernelHeap {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: memory of kmalloc is of the layout that was asked for and nobody else's until it is freed;
// the allocator never changes once it is set. Nothing unwinds but reports of corrupt memory.
unsafe impl GlobalAlloc for KernelHeap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.alloc_gfp(layout, GfpFlags::KERNEL)
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.alloc_gfp(layout, GfpFlags::KERNEL.union(GfpFlags::ZERO))
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, _: Layout) {
        if let (Some(kmalloc), Some(memory)) = (self.kmalloc(), NonNull::new(memory)) {
            // SAFETY: it came from `alloc`, so from this allocator, and is given up.
            unsafe { kmalloc.free(memory) };
        }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let (Some(kmalloc), Some(old)) = (self.kmalloc(), NonNull::new(memory)) else {
            return null_mut();
        };
        if size <= kmalloc.usable_size(old) {
            return memory;
        }
        let Ok(wanted) = Layout::from_size_align(size, layout.align()) else {
            return null_mut();
        };
        let Some(new) = kmalloc.alloc_layout(wanted, GfpFlags::KERNEL) else {
            return null_mut();
        };
        // SAFETY: both are `layout.size()` bytes long at least, and they are different.
        unsafe { new.copy_from_nonoverlapping(old, layout.size()) };
        // SAFETY: the caller gives it up.
        unsafe { kmalloc.free(old) };
        new.as_ptr()
    }
}
