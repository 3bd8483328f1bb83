//! RAM as the core sees it.

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use vellum_types::{PAGE_SIZE, Pfn, PhysAddr, PhysRange};

/// The linear mapping of a machine's RAM: physical address plus a constant.
///
/// All access is by copying or by atomics, never through a Rust reference to bytes that a program,
/// another CPU or a device may change. Copies of the value are cheap and equal.
///
/// # Invariants
/// Bytes `base .. base + span.len()` are mapped, writable and stay so for `'m`.
#[derive(Clone, Copy)]
pub struct DirectMap<'m> {
    base: NonNull<u8>,
    span: PhysRange,
    ram: PhantomData<&'m ()>,
}

// SAFETY: every access goes through atomics or volatile-like copies of plain bytes, which any thread
// may do to memory that is mapped for 'm.
unsafe impl Send for DirectMap<'_> {}
// SAFETY: as for Send; there is no interior state.
unsafe impl Sync for DirectMap<'_> {}

impl<'m> DirectMap<'m> {
    /// Wraps a mapping of the physical bytes `span` at `base`.
    ///
    /// # Safety
    /// 1. `span.len()` bytes from `base` are mapped readable and writable for all of `'m`.
    /// 2. `base` has the alignment of `span.start()` within a page.
    /// 3. No Rust reference to any of these bytes exists but those made through this value.
    pub const unsafe fn new(base: NonNull<u8>, span: PhysRange) -> Self {
        Self {
            base,
            span,
            ram: PhantomData,
        }
    }

    /// The physical bytes that have an address.
    pub const fn span(&self) -> PhysRange {
        self.span
    }

    /// The part below `limit`, or `None` if that is empty: the direct map of a machine whose kernel
    /// half has no room for all of RAM. Frames above it have no address until they are kmapped.
    pub fn below(self, limit: PhysAddr) -> Option<Self> {
        let span = PhysRange::new(self.span.start(), self.span.end().min(limit))?;
        Some(Self { span, ..self })
    }

    /// True if all of frame `pfn` has an address. False is Linux's `PageHighMem`.
    #[inline]
    pub fn covers(&self, pfn: Pfn) -> bool {
        let start = pfn.addr();
        self.span.start() <= start && start.as_u64() + PAGE_SIZE <= self.span.end().as_u64()
    }

    /// The address of `len` bytes at `phys`, or `None` if they are not all inside the map.
    pub fn try_ptr(&self, phys: PhysAddr, len: u64) -> Option<NonNull<u8>> {
        let offset = phys.checked_sub(self.span.start().as_u64())?.as_u64();
        if offset.checked_add(len)? > self.span.len() {
            return None;
        }
        // SAFETY: the invariant makes base..base+len(span) one mapped object, and offset is inside.
        Some(unsafe { self.base.add(offset as usize) })
    }

    /// The address of `len` bytes at `phys`.
    ///
    /// # Panics
    /// If they are not all inside the map: the caller made up a physical address.
    #[inline]
    pub fn ptr(&self, phys: PhysAddr, len: u64) -> NonNull<u8> {
        match self.try_ptr(phys, len) {
            Some(ptr) => ptr,
            None => outside(phys, len),
        }
    }

    /// The physical address that is seen at `ptr`, or `None` outside the map. Linux's `__pa`.
    pub fn phys_of(&self, ptr: NonNull<u8>) -> Option<PhysAddr> {
        let offset = (ptr.as_ptr() as u64).checked_sub(self.base.as_ptr() as u64)?;
        (offset < self.span.len()).then(|| self.span.start() + offset)
    }

    #[inline]
    fn atomic_u64(&self, phys: PhysAddr) -> &'m AtomicU64 {
        assert!(phys.as_u64().is_multiple_of(8), "unaligned word");
        let word = self.ptr(phys, 8).cast::<AtomicU64>();
        // SAFETY: mapped for 'm by the invariant, aligned by the assertion (base is page aligned as
        // span.start() is), and an AtomicU64 may alias anything that is accessed atomically.
        unsafe { word.as_ref() }
    }

    #[inline]
    fn atomic_u32(&self, phys: PhysAddr) -> &'m AtomicU32 {
        assert!(phys.as_u64().is_multiple_of(4), "unaligned word");
        let word = self.ptr(phys, 4).cast::<AtomicU32>();
        // SAFETY: as in atomic_u64.
        unsafe { word.as_ref() }
    }

    /// The `count` words of 8 bytes from `phys`, for those who touch many in a row.
    ///
    /// # Panics
    /// If `phys` is unaligned or they are not all inside.
    #[inline]
    pub fn words_u64(&self, phys: PhysAddr, count: u32) -> &'m [AtomicU64] {
        assert!(phys.as_u64().is_multiple_of(8), "unaligned words");
        let start = self.ptr(phys, u64::from(count) * 8).cast::<AtomicU64>();
        let words = NonNull::slice_from_raw_parts(start, count as usize);
        // SAFETY: as in atomic_u64, for each of the words, all of which `ptr` checked.
        unsafe { words.as_ref() }
    }

    /// The `count` words of 4 bytes from `phys`.
    ///
    /// # Panics
    /// If `phys` is unaligned or they are not all inside.
    #[inline]
    pub fn words_u32(&self, phys: PhysAddr, count: u32) -> &'m [AtomicU32] {
        assert!(phys.as_u64().is_multiple_of(4), "unaligned words");
        let start = self.ptr(phys, u64::from(count) * 4).cast::<AtomicU32>();
        let words = NonNull::slice_from_raw_parts(start, count as usize);
        // SAFETY: as in atomic_u64, for each of the words, all of which `ptr` checked.
        unsafe { words.as_ref() }
    }

    /// Loads the 8-byte word at `phys`, as a hardware walker would.
    ///
    /// # Panics
    /// If `phys` is unaligned or outside.
    #[inline]
    pub fn read_u64(&self, phys: PhysAddr) -> u64 {
        // Acquire pairs with the Release of write_u64: a table is seen filled before it is linked.
        self.atomic_u64(phys).load(Ordering::Acquire)
    }

    /// Stores the 8-byte word at `phys`.
    ///
    /// # Panics
    /// If `phys` is unaligned or outside.
    #[inline]
    pub fn write_u64(&self, phys: PhysAddr, value: u64) {
        // Release pairs with the Acquire of read_u64.
        self.atomic_u64(phys).store(value, Ordering::Release);
    }

    /// Replaces the 8-byte word at `phys` if it is still `old`; else returns what it is.
    ///
    /// # Errors
    /// The present value, if it is not `old`.
    ///
    /// # Panics
    /// If `phys` is unaligned or outside.
    #[inline]
    pub fn compare_exchange_u64(&self, phys: PhysAddr, old: u64, new: u64) -> Result<u64, u64> {
        self.atomic_u64(phys)
            .compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire)
    }

    /// Loads the 4-byte word at `phys`.
    ///
    /// # Panics
    /// If `phys` is unaligned or outside.
    #[inline]
    pub fn read_u32(&self, phys: PhysAddr) -> u32 {
        self.atomic_u32(phys).load(Ordering::Acquire)
    }

    /// Stores the 4-byte word at `phys`.
    ///
    /// # Panics
    /// If `phys` is unaligned or outside.
    #[inline]
    pub fn write_u32(&self, phys: PhysAddr, value: u32) {
        self.atomic_u32(phys).store(value, Ordering::Release);
    }

    /// Replaces the 4-byte word at `phys` if it is still `old`; else returns what it is.
    ///
    /// # Errors
    /// The present value, if it is not `old`.
    ///
    /// # Panics
    /// If `phys` is unaligned or outside.
    #[inline]
    pub fn compare_exchange_u32(&self, phys: PhysAddr, old: u32, new: u32) -> Result<u32, u32> {
        self.atomic_u32(phys)
            .compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire)
    }

    /// Fills `pages` frames from `pfn` with `byte`.
    ///
    /// # Panics
    /// If they are outside.
    pub fn fill_pages(&self, pfn: Pfn, pages: u32, byte: u8) {
        let len = u64::from(pages) * PAGE_SIZE;
        let start = self.ptr(pfn.addr(), len);
        // SAFETY: `ptr` checked that len bytes are mapped; plain bytes have no invalid value.
        unsafe { start.write_bytes(byte, len as usize) };
    }

    /// Copies one frame.
    ///
    /// # Panics
    /// If either is outside.
    pub fn copy_page(&self, to: Pfn, from: Pfn) {
        let source = self.ptr(from.addr(), PAGE_SIZE);
        let target = self.ptr(to.addr(), PAGE_SIZE);
        // SAFETY: both are PAGE_SIZE mapped bytes; `copy` allows them to be the same frame.
        unsafe { source.copy_to(target, PAGE_SIZE as usize) };
    }

    /// Copies `len` bytes within RAM; the two ranges may overlap.
    ///
    /// # Panics
    /// If either is not all inside.
    pub fn copy_bytes(&self, to: PhysAddr, from: PhysAddr, len: u64) {
        let source = self.ptr(from, len);
        let target = self.ptr(to, len);
        // SAFETY: both are len mapped bytes; `copy` allows them to overlap.
        unsafe { source.copy_to(target, len as usize) };
    }

    /// Copies bytes out of RAM.
    ///
    /// # Panics
    /// If they are not all inside.
    pub fn read_bytes(&self, phys: PhysAddr, out: &mut [u8]) {
        let source = self.ptr(phys, out.len() as u64);
        let target = NonNull::from(&mut *out).cast::<u8>();
        // SAFETY: `ptr` checked out.len() mapped bytes, and `out` is a distinct, exclusive buffer.
        unsafe { source.copy_to_nonoverlapping(target, out.len()) };
    }

    /// Copies bytes into RAM.
    ///
    /// # Panics
    /// If they do not all fit inside.
    pub fn write_bytes(&self, phys: PhysAddr, bytes: &[u8]) {
        let target = self.ptr(phys, bytes.len() as u64);
        let source = NonNull::from(bytes).cast::<u8>();
        // SAFETY: `ptr` checked bytes.len() mapped bytes, and `bytes` is a distinct buffer.
        unsafe { target.copy_from_nonoverlapping(source, bytes.len()) };
    }
}

impl core::fmt::Debug for DirectMap<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "DirectMap({:?})", self.span)
    }
}

#[cold]
#[inline(never)]
fn outside(phys: PhysAddr, len: u64) -> ! {
    panic!("{len} bytes at {phys:?} are outside the direct map")
}
