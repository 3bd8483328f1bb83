//! Boot memory becomes Rust values. The one file of this crate with `unsafe` in it.

use vellum_machine::DirectMap;
use vellum_memblock::{AllocSpec, MemBlock};
use vellum_page::Memmap;
use vellum_types::{PAGE_SIZE, PfnRange, PhysRange};

/// Bytes of RAM that were taken from memblock and are used by nobody yet.
///
/// # Invariants
/// `range` is reserved in the `MemBlock` it came from, lies inside `ram`, starts on a page boundary,
/// and no other `Storage` covers any of it. Neither `Copy` nor `Clone`: using it consumes it.
pub(crate) struct Storage<'m> {
    ram: DirectMap<'m>,
    range: PhysRange,
}

impl<'m> Storage<'m> {
    /// Reserves `bytes`, page aligned, as high as possible. `None` if there is no room.
    pub(crate) fn take(ram: DirectMap<'m>, memblock: &mut MemBlock, bytes: u64) -> Option<Self> {
        let spec = AllocSpec::new(bytes.next_multiple_of(PAGE_SIZE), PAGE_SIZE).within(ram.span());
        // INVARIANT: memblock gives each byte once, inside the limits asked for.
        Some(Self {
            ram,
            range: memblock.alloc(spec)?,
        })
    }

    /// Lays out the descriptors of `span`.
    ///
    /// # Panics
    /// If the storage is too small for them.
    pub(crate) fn into_memmap(self, span: PfnRange) -> Memmap<'m> {
        assert!(
            Memmap::bytes_for(span.len()) <= self.range.len(),
            "storage too small"
        );
        // SAFETY: by the type's invariant the bytes are ours alone, by the assertion they are
        // enough; consuming `self` gives them up for 'm.
        unsafe { Memmap::init(self.ram, self.range.start(), span) }
    }

    /// `len` values, each made by `make`, for the caller alone.
    ///
    /// # Panics
    /// If the storage is too small for them, or a page boundary not aligned enough.
    pub(crate) fn into_slice<T: 'm>(
        self,
        len: usize,
        mut make: impl FnMut(usize) -> T,
    ) -> &'m mut [T] {
        let start = self.ram.ptr(self.range.start(), self.range.len());
        let start = start.cast::<T>();
        assert!(
            (size_of::<T>() * len) as u64 <= self.range.len(),
            "storage too small"
        );
        assert!(start.is_aligned(), "storage not aligned");
        for at in 0..len {
            // SAFETY: inside the storage, as the assertion above says.
            let place = unsafe { start.add(at) };
            // SAFETY: mapped and aligned as checked, and by the type's invariant used by nobody else.
            unsafe { place.write(make(at)) };
        }
        let mut values = core::ptr::NonNull::slice_from_raw_parts(start, len);
        // SAFETY: all initialised just now; consuming `self` gave the bytes up for 'm, so that this
        // is the only reference to them.
        unsafe { values.as_mut() }
    }

    /// Moves `value` there.
    ///
    /// # Panics
    /// If the storage is too small for it, or a page boundary not aligned enough.
    pub(crate) fn into_value<T: Sync + 'm>(self, value: T) -> &'m T {
        let place = self
            .ram
            .ptr(self.range.start(), self.range.len())
            .cast::<T>();
        assert!(
            size_of::<T>() as u64 <= self.range.len(),
            "storage too small"
        );
        assert!(place.is_aligned(), "storage not aligned");
        // SAFETY: mapped, large enough and aligned, as checked above, and by the type's invariant
        // used by nobody else.
        unsafe { place.write(value) };
        // SAFETY: initialised just now; consuming `self` gave the bytes up for 'm, so that nothing
        // but this shared reference and its copies reaches them.
        unsafe { place.as_ref() }
    }
}

/// Moves `value` into memory taken from `memblock`, for the few structures that are older than
/// every allocator. `None` if there is no room.
pub fn place_at_boot<'m, T: Sync + 'm>(
    ram: DirectMap<'m>,
    memblock: &mut MemBlock,
    value: T,
) -> Option<&'m T> {
    let bytes = (size_of::<T>() as u64).max(1);
    Some(Storage::take(ram, memblock, bytes)?.into_value(value))
}
