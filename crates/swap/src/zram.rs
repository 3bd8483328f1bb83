//! A swap device in compressed memory. Linux: `drivers/block/zram`.

use crate::packed::{Packed, squeeze, unpack};
use crate::{Compressor, PackedStat, Streams, SwapDevice, WriteError};
use core::sync::atomic::{AtomicU32, Ordering};
use vellum_machine::{DirectMap, LockRank, SpinLock};
use vellum_page::PageSource;
use vellum_types::{IoError, OutOfMemory, PAGE_SIZE, Pfn};

/// Pages compressed into frames of the same RAM: a swap-out frees the difference.
pub struct Zram<'m> {
    compressor: &'m dyn Compressor,
    streams: &'m Streams<'m>,
    packed: SpinLock<Packed<'m>>,
    /// Frames in use, for a look without the lock. Relaxed: an estimate.
    frames: AtomicU32,
    limit: u32,
    slots: u32,
}

impl<'m> Zram<'m> {
    /// A device of `slots` slots that takes up to `limit` bytes of frames from `source`, besides 12
    /// bytes for each slot.
    ///
    /// # Errors
    /// No memory for these.
    pub fn new(
        source: &'m dyn PageSource,
        compressor: &'m dyn Compressor,
        streams: &'m Streams<'m>,
        slots: u32,
        limit: u64,
    ) -> Result<Self, OutOfMemory> {
        Ok(Self {
            compressor,
            streams,
            packed: SpinLock::new(LockRank::Swap, Packed::new(source, slots, limit)?),
            frames: AtomicU32::new(0),
            limit: u32::try_from(limit / PAGE_SIZE).unwrap_or(u32::MAX),
            slots,
        })
    }

    /// What it holds.
    pub fn stat(&self) -> PackedStat {
        self.packed.lock().stat()
    }

    /// Compares numbers with slots. Slow.
    ///
    /// # Errors
    /// What is wrong.
    pub fn validate(&self) -> Result<(), &'static str> {
        self.packed.lock().validate()
    }
}

impl SwapDevice for Zram<'_> {
    fn name(&self) -> &str {
        "zram"
    }

    fn nr_slots(&self) -> u32 {
        self.slots
    }

    fn read(&self, slot: u32, frame: Pfn, ram: DirectMap<'_>) -> Result<(), IoError> {
        let read = self.streams.with(|stream| {
            let content = self.packed.lock().copy_out(slot, frame, &mut stream.data);
            unpack(self.compressor, content, stream, frame, ram)
        });
        match read {
            Some(Ok(true)) => Ok(()),
            Some(Err(error)) => Err(error),
            // Nobody wrote it; or the compressor called us.
            Some(Ok(false)) | None => Err(IoError::EIO),
        }
    }

    fn write(&self, slot: u32, frames: &[Pfn], ram: DirectMap<'_>) -> Result<(), WriteError> {
        for (done, (frame, slot)) in frames.iter().zip(slot..).enumerate() {
            let kept = self.streams.with(|stream| {
                let squeezed = squeeze(self.compressor, stream, *frame, ram);
                let mut packed = self.packed.lock();
                packed.remove(slot);
                let result = packed.insert(slot, squeezed);
                self.frames.store(packed.frames(), Ordering::Relaxed);
                result.is_ok()
            });
            if kept != Some(true) {
                let error = IoError::ENOSPC;
                return Err(WriteError { done, error });
            }
        }
        Ok(())
    }

    fn discard(&self, slot: u32) {
        let mut packed = self.packed.lock();
        packed.remove(slot);
        self.frames.store(packed.frames(), Ordering::Relaxed);
    }

    fn wants_discard(&self) -> bool {
        true
    }

    fn has_room(&self) -> bool {
        // The largest zspage has four frames.
        self.frames.load(Ordering::Relaxed).saturating_add(4) <= self.limit
    }
}

impl Drop for Zram<'_> {
    fn drop(&mut self) {
        self.packed.get_mut().clear();
    }
}
