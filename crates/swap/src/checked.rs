//! A debug mode: finds slots that do not hold what was written to them.

use crate::array::FrameArray;
use crate::packed::checksum;
use crate::{SwapDevice, WriteError};
use core::sync::atomic::{AtomicU32, Ordering};
use vellum_machine::DirectMap;
use vellum_page::PageSource;
use vellum_types::{IoError, OutOfMemory, Pfn};

/// Remembers a checksum of each page that goes to the device behind, and compares it when the page
/// comes back: a slot that was torn or flipped is an [`IoError::EBADMSG`], which the error of the
/// swap-in names.
///
/// Put it directly in front of the device that is not trusted.
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

impl SwapDevice for Checked<'_> {
    fn name(&self) -> &str {
        self.behind.name()
    }

    fn nr_slots(&self) -> u32 {
        self.behind.nr_slots()
    }

    fn read(&self, slot: u32, frame: Pfn, ram: DirectMap<'_>) -> Result<(), IoError> {
        self.behind.read(slot, frame, ram)?;
        if checksum(ram, frame) == self.sums.get(slot) {
            return Ok(());
        }
        self.damaged.store(slot, Ordering::Relaxed);
        Err(IoError::EBADMSG)
    }

    fn write(&self, slot: u32, frames: &[Pfn], ram: DirectMap<'_>) -> Result<(), WriteError> {
        for (frame, slot) in frames.iter().zip(slot..) {
            self.sums.set(slot, checksum(ram, *frame));
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
