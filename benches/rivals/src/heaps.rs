//! Allocators of objects.

use crate::ours::{Flows, Kernel, OneSize};
use crate::region::{ALIGN, Region};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{NonNull, null_mut};
use slabmalloc::{AllocationError, Allocator, LargeObjectPage, ObjectPage, ZoneAllocator};
use vellum_machine::VmStat;

/// Who there is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Heap {
    /// The core's size classes.
    Kmalloc,
    /// The same behind `GlobalAlloc`.
    KernelHeap,
    /// A cache for just the size that is asked for.
    KmemCache,
    /// [`Heap::KmemCache`] on a machine of one CPU.
    KmemCacheOneCpu,
    /// mimalloc, without its security mode.
    Mimalloc,
    /// malloc of the host.
    System,
    /// slabmalloc in a spin lock.
    Slabmalloc,
    /// buddy_system_allocator's heap, in its own spin lock.
    Buddy,
    /// talc in a spin lock.
    Talc,
    /// rlsf in a spin lock.
    Rlsf,
    /// linked_list_allocator in its own spin lock.
    LinkedList,
}

/// Something done with whichever allocator.
pub trait Visit {
    /// What comes of it.
    type Out;
    /// Does it. The kernel is there if the allocator is the core's.
    fn visit<A: GlobalAlloc + Sync>(self, heap: &A, kernel: Option<&Kernel<'_>>) -> Self::Out;
}

impl Heap {
    /// All of them, the core's first.
    pub const ALL: [Self; 11] = [
        Self::Kmalloc,
        Self::KernelHeap,
        Self::KmemCache,
        Self::KmemCacheOneCpu,
        Self::Mimalloc,
        Self::System,
        Self::Slabmalloc,
        Self::Buddy,
        Self::Talc,
        Self::Rlsf,
        Self::LinkedList,
    ];

    /// How it is called in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kmalloc => "kmalloc",
            Self::KernelHeap => "KernelHeap",
            Self::KmemCache => "KmemCache",
            Self::KmemCacheOneCpu => "KmemCache, one CPU",
            Self::Mimalloc => "mimalloc",
            Self::System => "glibc malloc",
            Self::Slabmalloc => "slabmalloc",
            Self::Buddy => "buddy_system_allocator",
            Self::Talc => "talc",
            Self::Rlsf => "rlsf",
            Self::LinkedList => "linked_list_allocator",
        }
    }

    /// By [`Heap::name`].
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|heap| heap.name() == name)
    }

    /// True for those of the core.
    pub fn is_ours(self) -> bool {
        matches!(
            self,
            Self::Kmalloc | Self::KernelHeap | Self::KmemCache | Self::KmemCacheOneCpu
        )
    }

    /// True for those that serve one size only.
    pub fn is_fixed(self) -> bool {
        matches!(self, Self::KmemCache | Self::KmemCacheOneCpu)
    }

    /// True for those that one thread at a time may use.
    pub fn is_single(self) -> bool {
        self == Self::KmemCacheOneCpu
    }

    /// True for those whose memory is what they were given, and no more.
    pub fn is_bounded(self) -> bool {
        !matches!(self, Self::Mimalloc | Self::System)
    }

    /// Makes one with `bytes` of memory, for objects of `fixed` if it must know, and lends it to `v`;
    /// `None` if the memory is too little to start.
    pub fn with<V: Visit>(self, bytes: usize, fixed: Layout, v: V) -> Option<V::Out> {
        if self == Self::Mimalloc {
            return Some(v.visit(&mimalloc::MiMalloc, None));
        }
        if self == Self::System {
            return Some(v.visit(&std::alloc::System, None));
        }
        let region = Region::new(bytes);
        let (start, end) = (region.start(), bytes);
        match self {
            Self::Kmalloc | Self::KernelHeap | Self::KmemCache | Self::KmemCacheOneCpu => {
                self.with_ours(&region, fixed, v)
            }
            Self::Slabmalloc => Some(v.visit(&Slabs::new(&region), None)),
            Self::Buddy => {
                let heap = buddy_system_allocator::LockedHeap::<33>::empty();
                // SAFETY: the region is the heap's alone, and outlives it.
                unsafe { heap.lock().init(start.as_ptr().addr(), end) };
                Some(v.visit(&heap, None))
            }
            Self::Talc => {
                let heap = talc::TalcLock::<spin::Mutex<()>, _>::new(talc::source::Manual);
                // SAFETY: the region is the heap's alone, and outlives it.
                unsafe { heap.lock().claim(start.as_ptr(), end) }?;
                Some(v.visit(&heap, None))
            }
            Self::Rlsf => Some(v.visit(&Tlsf::new(&region)?, None)),
            _ => {
                let heap = linked_list_allocator::LockedHeap::empty();
                // SAFETY: the region is the heap's alone, and outlives it.
                unsafe { heap.lock().init(start.as_ptr(), end) };
                Some(v.visit(&heap, None))
            }
        }
    }

    fn with_ours<V: Visit>(self, region: &Region, fixed: Layout, v: V) -> Option<V::Out> {
        let flows = if self.is_single() {
            Flows::One
        } else {
            Flows::Threads
        };
        let vmstat = VmStat::new();
        // SAFETY: a kernel heap wants memory that is there for ever, because it is meant for a static.
        // This one is gone before region and counters are.
        let region: &'static Region = unsafe { &*core::ptr::from_ref(region) };
        // SAFETY: as above.
        let vmstat: &'static VmStat = unsafe { &*core::ptr::from_ref(&vmstat) };
        let kernel = Kernel::boot(region, vmstat, flows)?;
        Some(match self {
            Self::Kmalloc => v.visit(&Sizes(&kernel), Some(&kernel)),
            Self::KernelHeap => v.visit(&kernel.heap(), Some(&kernel)),
            _ => v.visit(&OneSize::new(&kernel, fixed)?, Some(&kernel)),
        })
    }
}

/// kmalloc by itself: kfree is not told the size.
struct Sizes<'a>(&'a Kernel<'static>);

// SAFETY: memory of kmalloc is as large and aligned as asked for and nobody else's until freed.
unsafe impl GlobalAlloc for Sizes<'_> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let gfp = vellum_types::GfpFlags::KERNEL;
        self.0
            .kmalloc
            .alloc(layout.size(), gfp)
            .map_or(null_mut(), NonNull::as_ptr)
    }
    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, _: Layout) {
        let Some(memory) = NonNull::new(memory) else {
            return;
        };
        // SAFETY: it came from `alloc`.
        unsafe { self.0.kmalloc.free(memory) };
    }
}

type Pool = rlsf::Tlsf<'static, u32, u32, 28, 32>;

/// rlsf, locked.
struct Tlsf(spin::Mutex<Pool>);

impl Tlsf {
    fn new(region: &Region) -> Option<Self> {
        let mut pool = Pool::new();
        let block = NonNull::slice_from_raw_parts(region.start(), region.bytes());
        // SAFETY: the region is the pool's alone, and outlives it.
        unsafe { pool.insert_free_block_ptr(block) }?;
        Some(Self(spin::Mutex::new(pool)))
    }
}

// SAFETY: as rlsf promises.
unsafe impl GlobalAlloc for Tlsf {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0
            .lock()
            .allocate(layout)
            .map_or(null_mut(), NonNull::as_ptr)
    }
    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        let Some(memory) = NonNull::new(memory) else {
            return;
        };
        // SAFETY: it came from `alloc` with this layout.
        unsafe { self.0.lock().deallocate(memory, layout.align()) };
    }
}

/// slabmalloc, locked, with pages from a region: small ones from its start, large ones from its end.
struct Slabs(spin::Mutex<Inner>);

struct Inner {
    zone: ZoneAllocator<'static>,
    low: *mut u8,
    high: *mut u8,
}

// SAFETY: the pointers are to memory of its own.
unsafe impl Send for Inner {}

const SMALL_PAGE: usize = 4096;

impl Slabs {
    fn new(region: &Region) -> Self {
        let low = region.start().as_ptr();
        Self(spin::Mutex::new(Inner {
            zone: ZoneAllocator::new(),
            low,
            high: low.wrapping_add(region.bytes() / ALIGN * ALIGN),
        }))
    }
}

impl Inner {
    /// Gives the zone one more page.
    #[cold]
    fn refill(&mut self, layout: Layout) -> bool {
        let large = layout.size() > ZoneAllocator::MAX_BASE_ALLOC_SIZE;
        let need = if large { ALIGN } else { SMALL_PAGE };
        if (self.high.addr() - self.low.addr()) < need {
            return false;
        }
        let result = if large {
            self.high = self.high.wrapping_sub(ALIGN);
            // SAFETY: zeroed, aligned memory that nobody else has.
            let page = unsafe { &mut *self.high.cast::<LargeObjectPage<'static>>() };
            // SAFETY: as large as it says.
            unsafe { self.zone.refill_large(layout, page) }
        } else {
            // SAFETY: zeroed, aligned memory that nobody else has.
            let page = unsafe { &mut *self.low.cast::<ObjectPage<'static>>() };
            self.low = self.low.wrapping_add(SMALL_PAGE);
            // SAFETY: as large as it says.
            unsafe { self.zone.refill(layout, page) }
        };
        result.is_ok()
    }
}

// SAFETY: as slabmalloc promises.
unsafe impl GlobalAlloc for Slabs {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut inner = self.0.lock();
        loop {
            match inner.zone.allocate(layout) {
                Ok(memory) => return memory.as_ptr(),
                Err(AllocationError::OutOfMemory) if inner.refill(layout) => {}
                Err(_) => return null_mut(),
            }
        }
    }
    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        let Some(memory) = NonNull::new(memory) else {
            return;
        };
        let freed = self.0.lock().zone.deallocate(memory, layout);
        debug_assert!(freed.is_ok());
    }
}
