//! Where the bytes of slots go.

use vellum_machine::DirectMap;
use vellum_types::{IoError, Pfn};

/// A write that did not come to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriteError {
    /// How many of the frames, from the first, are safe. The next one failed; of the others nothing
    /// is known.
    pub done: usize,
    /// Why. [`IoError::ENOSPC`] says that the slot is good but the device has no room now.
    pub error: IoError,
}

impl WriteError {
    /// The first frame failed.
    pub const fn first(error: IoError) -> Self {
        Self { done: 0, error }
    }
}

/// Something that keeps pages: a file, a block device, compressed memory, or one of these behind
/// another one. Linux's `struct swap_info_struct` from below.
///
/// `read` and `write` are called with no spin lock held, so each may take its time; `discard` may run
/// under locks of address spaces, `has_room` under the lock of the area too, and only looks. None may
/// call back into the swap layer. Of two calls for the same slot one is over
/// before the other begins; calls for different slots may overlap.
pub trait SwapDevice: Sync {
    /// For reports: a path, or a kind.
    fn name(&self) -> &str;

    /// Slots, with slot 0, which is never read or written: a header may be there.
    fn nr_slots(&self) -> u32;

    /// Fills `frame` with what was last written to `slot`.
    ///
    /// # Errors
    /// It cannot be had; the frame may hold anything.
    fn read(&self, slot: u32, frame: Pfn, ram: DirectMap<'_>) -> Result<(), IoError>;

    /// Writes `frames` to consecutive slots from `slot`. On return the frames may be reused.
    ///
    /// # Errors
    /// Not all of them are safe.
    fn write(&self, slot: u32, frames: &[Pfn], ram: DirectMap<'_>) -> Result<(), WriteError>;

    /// What `slot` holds is not needed any more. Called only if [`SwapDevice::wants_discard`].
    fn discard(&self, slot: u32) {
        let _ = slot;
    }

    /// True if the device frees something when a slot is discarded.
    fn wants_discard(&self) -> bool {
        false
    }

    /// False if a write would probably fail for lack of room: no slots are taken from the device until
    /// it is true again.
    fn has_room(&self) -> bool {
        true
    }
}
