//! Boot memory becomes Rust values. The one file of this crate with `unsafe` in it.

use vellum_machine::DirectMap;
use vellum_memblock::{AllocSpec, MemBlock};
use vellum_page::{RunError, RunTable};
use vellum_types::{NodeId, PAGE_SIZE, PfnRange, PhysRange};

/// Boundary of what shares a page with others.
pub(crate) const CACHE_LINE: u64 = 64;

/// Bytes of RAM that nobody else uses.
///
/// # Invariants
/// `range` was taken from memblock or from the owner of memory that is added, lies inside `ram`, starts
/// on a cache line's boundary, and no other `Storage` covers any of it. Neither `Copy` nor `Clone`: using it
/// consumes it.
pub(crate) struct Storage<'m> {
    ram: DirectMap<'m>,
    range: PhysRange,
}

impl<'m> Storage<'m> {
    /// Reserves `bytes`, page aligned, as high as possible. `None` if there is no room.
    pub(crate) fn take(ram: DirectMap<'m>, memblock: &mut MemBlock, bytes: u64) -> Option<Self> {
        Self::take_as(ram, memblock, bytes, ram.span(), |spec| spec)
    }

    /// As `take`, inside `limits` and near `node`.
    pub(crate) fn take_near(
        ram: DirectMap<'m>,
        memblock: &mut MemBlock,
        bytes: u64,
        node: NodeId,
        limits: PhysRange,
    ) -> Option<Self> {
        let limits = limits.intersect(&ram.span())?;
        Self::take_as(ram, memblock, bytes, limits, |spec| spec.near_node(node))
    }

    fn take_as(
        ram: DirectMap<'m>,
        memblock: &mut MemBlock,
        bytes: u64,
        limits: PhysRange,
        wish: impl FnOnce(AllocSpec) -> AllocSpec,
    ) -> Option<Self> {
        let spec = AllocSpec::new(bytes.next_multiple_of(PAGE_SIZE), PAGE_SIZE).within(limits);
        // INVARIANT: memblock gives each byte once, inside the limits asked for.
        Some(Self {
            ram,
            range: memblock.alloc(wish(spec))?,
        })
    }

    /// The first bytes of memory that is being added; `None` outside the direct map.
    ///
    /// # Safety
    /// Nobody uses any byte of `range`, and nobody will but through the result.
    pub(crate) unsafe fn adopt(ram: DirectMap<'m>, range: PhysRange) -> Option<Self> {
        let inside = ram.span().contains_range(&range);
        // INVARIANT: nobody else's, by this function's contract.
        inside.then_some(Self { ram, range })
    }

    /// Cuts off the first `bytes`, rounded up to cache lines. `None` if it has fewer.
    pub(crate) fn split(self, bytes: u64) -> Option<(Self, Self)> {
        let (start, end) = (self.range.start(), self.range.end());
        let middle = start.checked_add(bytes.next_multiple_of(CACHE_LINE))?;
        let part = |start, end| {
            Some(Self {
                ram: self.ram,
                range: PhysRange::new(start, end)?,
            })
        };
        Some((part(start, middle)?, part(middle, end)?))
    }

    /// Lays out the descriptors of `frames` and lists them in `table`.
    ///
    /// # Errors
    /// Those of [`RunTable::add`].
    ///
    /// # Panics
    /// If the storage is too small for them.
    pub(crate) fn into_run(self, table: &RunTable<'m>, frames: PfnRange) -> Result<(), RunError> {
        assert!(
            RunTable::bytes_for(frames) <= self.range.len(),
            "storage too small"
        );
        // SAFETY: by the type's invariant the bytes are ours alone, by the assertion they are
        // enough; consuming `self` gives them up. Only boot and the one who plugs memory call this.
        unsafe { table.add(self.ram, self.range.start(), frames) }
    }

    /// `len` values, each made by `make`, for the caller alone.
    ///
    /// # Panics
    /// If the storage is too small for them, or its start not aligned enough.
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
    /// If the storage is too small for it, or its start not aligned enough.
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
