//! Values that live in frames until the end of the machine.

use crate::{AllocRequest, OwnedPages, PageSource};
use core::ptr::NonNull;
use vellum_types::{Order, OutOfMemory, PAGE_SIZE};

/// Moves `value` into frames of `source`, for good: it is never dropped, and its frames are never
/// given back. For the few structures of a system that everybody refers to.
///
/// # Errors
/// No frames, or none so large; `value` is dropped.
pub fn place<'m, T: Sync + 'm>(source: &'m dyn PageSource, value: T) -> Result<&'m T, OutOfMemory> {
    let mut value = Some(value);
    let slice = place_slice(source, 1, |_| value.take())?;
    slice[0].as_ref().ok_or(OutOfMemory)
}

/// As [`place`], `len` values that `make` makes from their index, for the caller alone.
///
/// # Errors
/// No frames, or none so large.
#[expect(
    clippy::mut_from_ref,
    reason = "the frames are fresh: the source gives each to one caller"
)]
pub fn place_slice<'m, T: 'm>(
    source: &'m dyn PageSource,
    len: usize,
    mut make: impl FnMut(usize) -> T,
) -> Result<&'m mut [T], OutOfMemory> {
    const { assert!(align_of::<T>() as u64 <= PAGE_SIZE) };
    let bytes = size_of::<T>().checked_mul(len).ok_or(OutOfMemory)?;
    let order = Order::for_bytes(bytes.max(1) as u64).ok_or(OutOfMemory)?;
    let frames = OwnedPages::alloc(source, AllocRequest::kernel(order))?;
    let start: NonNull<T> = source.ram().ptr(frames.pfn().addr(), order.bytes()).cast();
    for at in 0..len {
        // SAFETY: inside the block, which has room for `len` values.
        let slot = unsafe { start.add(at) };
        // SAFETY: mapped by `ptr`, aligned as a page is, and the block is ours alone.
        unsafe { slot.write(make(at)) };
    }
    // From here on nobody gives the frames back.
    let _ = frames.into_pfn();
    let mut values = NonNull::slice_from_raw_parts(start, len);
    // SAFETY: all initialised just now, mapped for 'm, and reached through this reference only.
    Ok(unsafe { values.as_mut() })
}
