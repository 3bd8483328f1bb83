//! A debug mode: finds slots that do not hold what was written to them.

use crate::array::FrameArray;
use crate::{SwapDevice, WriteError};
use core::sync::atomic::{AtomicU32, Ordering};
use vellum_machine::DirectMap;
use vellum_page::PageSource;
use vellum_types::{IoError, OutOfMemory, PAGE_SIZE, Pfn};

/// Remembers a checksum of each page that goes to the device behind, and compares it when the page
/// comes back: a slot that was torn or flipped is an [`IoError::EBADMSG`], which the error of the
/// swap-in names.
///
/// Put it directly in front of the device that is not trusted. Uses 4 KiB of stack.
pub struct Checked<'m> {
    behind: &'m dyn SwapDevice,
    /// 0 for slots that were never written.
    sums: FrameArray<'m, u32>,
    /// The slot of the latest mismatch; 0 for none. Relaxed: a report.
    damaged: AtomicU32,
}

impl<'m> Checked<'m> {
    /// In front of `behind`. Takes 4 bytes for each slot.
    ///
    /// # Errors
    /// No memory for that.
    pub fn new(
        source: &'m dyn PageSource,
        behind: &'m dyn SwapDevice,
    ) -> Result<Self, OutOfMemory> {
        Ok(Self {
            behind,
            sums: FrameArray::new(source, behind.nr_slots())?,
            damaged: AtomicU32::new(0),
        })
    }

    /// The slot of the latest mismatch.
    pub fn damaged(&self) -> Option<u32> {
        match self.damaged.load(Ordering::Relaxed) {
            0 => None,
            slot => Some(slot),
        }
    }
}

/// A checksum of a frame, never 0.
fn sum(frame: Pfn, ram: DirectMap<'_>) -> u32 {
    let mut page = [0; PAGE_SIZE as usize];
    ram.read_bytes(frame.addr(), &mut page);
    let mut hash = 0x9e37_79b9_7f4a_7c15_u64;
    for chunk in page.as_chunks::<8>().0 {
        // Multiplying by an odd number, xor and rotation lose nothing: different words give different
        // states.
        hash = (hash ^ u64::from_le_bytes(*chunk))
            .wrapping_mul(0xff51_afd7_ed55_8ccd)
            .rotate_left(29);
    }
    ((hash ^ hash >> 32) as u32).max(1)
}

impl SwapDevice for Checked<'_> {
    fn name(&self) -> &str {
        self.behind.name()
    }

    fn nr_slots(&self) -> u32 {
        self.behind.nr_slots()
    }

    fn read(&self, slot: u32, frame: Pfn, ram: DirectMap<'_>) -> Result<(), IoError> {
        self.behind.read(slot, frame, ram)?;
        if sum(frame, ram) == self.sums.get(slot) {
            return Ok(());
        }
        self.damaged.store(slot, Ordering::Relaxed);
        Err(IoError::EBADMSG)
    }

    fn write(&self, slot: u32, frames: &[Pfn], ram: DirectMap<'_>) -> Result<(), WriteError> {
        for (frame, slot) in frames.iter().zip(slot..) {
            self.sums.set(slot, sum(*frame, ram));
        }
        self.behind.write(slot, frames, ram)
    }

    fn discard(&self, slot: u32) {
        self.behind.discard(slot);
    }

    fn wants_discard(&self) -> bool {
        self.behind.wants_discard()
    }

    fn has_room(&self) -> bool {
        self.behind.has_room()
    }
}
