//! Pages that are one word all over, kept without I/O. Linux's `zeromap`, for any word.

use crate::array::FrameArray;
use crate::packed::{fill, frame_word};
use crate::{SwapDevice, WriteError};
use core::sync::atomic::{AtomicU64, Ordering};
use vellum_machine::{DirectMap, LockRank, SpinLock};
use vellum_page::PageSource;
use vellum_types::{IoError, OutOfMemory, Pfn};

/// Remembers the word of pages that consist of it; the others go to the device behind.
pub struct SameFilled<'m> {
    behind: &'m dyn SwapDevice,
    words: SpinLock<Words<'m>>,
    /// Pages kept so far without I/O. Relaxed: it stands for itself.
    saved: AtomicU64,
}

struct Words<'m> {
    /// A bit for each slot: its page is `words` of it all over.
    same: FrameArray<'m, u32>,
    words: FrameArray<'m, u64>,
}

impl Words<'_> {
    fn get(&self, slot: u32) -> Option<u64> {
        let bit = self.same.get(slot / 32) >> (slot % 32) & 1;
        (bit != 0).then(|| self.words.get(slot))
    }
    fn set(&self, slot: u32, word: Option<u64>) {
        let bits = self.same.get(slot / 32) & !(1 << (slot % 32));
        self.same
            .set(slot / 32, bits | u32::from(word.is_some()) << (slot % 32));
        if let Some(word) = word {
            self.words.set(slot, word);
        }
    }
}

impl<'m> SameFilled<'m> {
    /// In front of `behind`. Takes 8 bytes and a bit for each slot.
    ///
    /// # Errors
    /// No memory for that.
    pub fn new(
        source: &'m dyn PageSource,
        behind: &'m dyn SwapDevice,
    ) -> Result<Self, OutOfMemory> {
        let slots = behind.nr_slots();
        let words = Words {
            same: FrameArray::new(source, slots.div_ceil(32))?,
            words: FrameArray::new(source, slots)?,
        };
        Ok(Self {
            behind,
            words: SpinLock::new(LockRank::Swap, words),
            saved: AtomicU64::new(0),
        })
    }

    /// Pages kept so far without I/O.
    pub fn saved(&self) -> u64 {
        self.saved.load(Ordering::Relaxed)
    }

    /// Writes a run of pages that are not the same all over.
    fn write_run(
        &self,
        slot: u32,
        before: usize,
        run: &[Pfn],
        ram: DirectMap<'_>,
    ) -> Result<(), WriteError> {
        if run.is_empty() {
            return Ok(());
        }
        self.behind
            .write(slot + before as u32, run, ram)
            .map_err(|failure| WriteError {
                done: before + failure.done,
                ..failure
            })
    }
}

impl SwapDevice for SameFilled<'_> {
    fn name(&self) -> &str {
        self.behind.name()
    }

    fn nr_slots(&self) -> u32 {
        self.behind.nr_slots()
    }

    fn read(&self, slot: u32, frame: Pfn, ram: DirectMap<'_>) -> Result<(), IoError> {
        let word = self.words.lock().get(slot);
        match word {
            Some(word) => {
                fill(ram, frame, word);
                Ok(())
            }
            None => self.behind.read(slot, frame, ram),
        }
    }

    fn write(&self, slot: u32, frames: &[Pfn], ram: DirectMap<'_>) -> Result<(), WriteError> {
        let mut run = 0;
        for (i, (frame, slot_i)) in frames.iter().zip(slot..).enumerate() {
            let word = frame_word(ram, *frame);
            self.words.lock().set(slot_i, word);
            if word.is_some() {
                self.write_run(slot, run, &frames[run..i], ram)?;
                self.saved.fetch_add(1, Ordering::Relaxed);
                run = i + 1;
            }
        }
        self.write_run(slot, run, &frames[run..], ram)
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
