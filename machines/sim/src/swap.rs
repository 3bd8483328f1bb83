//! Swap devices: a disk whose failures are written in a script, and a compressor for tests.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard};
use vellum_machine::DirectMap;
use vellum_swap::{Compressor, Corrupt, SwapDevice, WriteError};
use vellum_types::{IoError, PAGE_SIZE, Pfn};

/// An area that is put into use at boot, in this order of priority.
#[derive(Clone, Debug)]
pub enum SimArea {
    /// A [`SimSwap`], which the machine owns: [`SimMachine::disk`](crate::SimMachine::disk).
    Disk {
        /// Slots, with slot 0, which is not used.
        slots: u32,
        /// A checksum for each slot finds those that were torn or flipped.
        check: bool,
    },
    /// Compressed memory.
    Zram {
        /// Room for so many bytes of pages.
        bytes: u64,
        /// In so many bytes of frames.
        limit: u64,
    },
}

/// Failures to come. All counts are of single pages.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SwapFaults {
    /// Slots that cannot be read.
    pub unreadable: BTreeSet<u32>,
    /// Slots that cannot be written.
    pub unwritable: BTreeSet<u32>,
    /// The read after so many others fails, once.
    pub fail_read_after: Option<u64>,
    /// The write after so many others fails, once.
    pub fail_write_after: Option<u64>,
    /// One write in so many fails.
    pub fail_every_write: Option<u64>,
    /// The write after so many others stores a page with one bit flipped, and says nothing.
    pub flip_after: Option<u64>,
    /// The write after so many others stores half of the page, and says nothing.
    pub tear_after: Option<u64>,
    /// Writes fail for want of room.
    pub full: bool,
}

#[derive(Debug, Default)]
struct Inner {
    slots: HashMap<u32, Vec<u8>>,
    faults: SwapFaults,
    damaged: Option<u32>,
    reads: u64,
    writes: u64,
}

/// A disk for swap: slots as bytes, and failures on demand.
#[derive(Debug)]
pub struct SimSwap {
    nr_slots: u32,
    inner: Mutex<Inner>,
}

impl SimSwap {
    /// A disk of so many slots, with slot 0.
    pub fn new(nr_slots: u32) -> Self {
        Self {
            nr_slots,
            inner: Mutex::default(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Sets what will fail.
    pub fn inject(&self, faults: SwapFaults) {
        self.inner().faults = faults;
    }

    /// What is still to fail.
    pub fn faults(&self) -> SwapFaults {
        self.inner().faults.clone()
    }

    /// Pages read and written so far, failures included.
    pub fn traffic(&self) -> (u64, u64) {
        let inner = self.inner();
        (inner.reads, inner.writes)
    }

    /// The slot that was written wrong last.
    pub fn damaged(&self) -> Option<u32> {
        self.inner().damaged
    }
}

/// Counts down to the one that is meant.
fn falls_due(left: &mut Option<u64>) -> bool {
    match left {
        None => false,
        Some(0) => {
            *left = None;
            true
        }
        Some(n) => {
            *n -= 1;
            false
        }
    }
}

impl Inner {
    fn write_page(&mut self, slot: u32, mut bytes: Vec<u8>) -> Result<(), IoError> {
        self.writes += 1;
        let faults = &mut self.faults;
        if faults.full {
            return Err(IoError::ENOSPC);
        }
        let every = faults.fail_every_write;
        let fails = every.is_some_and(|n| self.writes.is_multiple_of(n));
        if faults.unwritable.contains(&slot) || falls_due(&mut faults.fail_write_after) || fails {
            // What was there is lost, and what is there now is nothing.
            self.slots.remove(&slot);
            return Err(IoError::EIO);
        }
        if falls_due(&mut faults.flip_after) {
            bytes[1001] ^= 0x10;
            self.damaged = Some(slot);
        }
        if falls_due(&mut faults.tear_after) {
            bytes[PAGE_SIZE as usize / 2..].fill(0);
            self.damaged = Some(slot);
        }
        self.slots.insert(slot, bytes);
        Ok(())
    }
}

impl SwapDevice for SimSwap {
    fn name(&self) -> &str {
        "disk"
    }

    fn nr_slots(&self) -> u32 {
        self.nr_slots
    }

    fn read(&self, slot: u32, frame: Pfn, ram: DirectMap<'_>) -> Result<(), IoError> {
        let mut inner = self.inner();
        inner.reads += 1;
        if inner.faults.unreadable.contains(&slot) || falls_due(&mut inner.faults.fail_read_after) {
            // A failed transfer leaves anything in the frame.
            ram.write_bytes(frame.addr(), &[0xee; PAGE_SIZE as usize]);
            return Err(IoError::EIO);
        }
        let bytes = inner.slots.get(&slot).ok_or(IoError::EIO)?;
        ram.write_bytes(frame.addr(), bytes);
        Ok(())
    }

    fn write(&self, slot: u32, frames: &[Pfn], ram: DirectMap<'_>) -> Result<(), WriteError> {
        let mut inner = self.inner();
        for (done, (slot, frame)) in (slot..).zip(frames).enumerate() {
            let mut bytes = vec![0; PAGE_SIZE as usize];
            ram.read_bytes(frame.addr(), &mut bytes);
            inner
                .write_page(slot, bytes)
                .map_err(|error| WriteError { done, error })?;
        }
        Ok(())
    }
}

/// Keeps the bytes that are not zero, each with its place: quick for pages of few bytes, and no
/// smaller for others.
#[derive(Debug)]
pub struct SimCompressor;

const ENTRY: usize = 3;

impl Compressor for SimCompressor {
    fn name(&self) -> &str {
        "sparse"
    }

    fn compress(&self, page: &[u8], out: &mut [u8]) -> Option<usize> {
        let mut len = 0;
        for (at, byte) in page.iter().enumerate().filter(|(_, byte)| **byte != 0) {
            if len + ENTRY > page.len() / 2 {
                return None;
            }
            let place = u16::try_from(at).ok()?.to_le_bytes();
            out[len..len + ENTRY].copy_from_slice(&[place[0], place[1], *byte]);
            len += ENTRY;
        }
        Some(len)
    }

    fn decompress(&self, data: &[u8], page: &mut [u8]) -> Result<(), Corrupt> {
        page.fill(0);
        for entry in data.chunks(ENTRY) {
            let [low, high, byte] = *entry else {
                return Err(Corrupt);
            };
            let at = usize::from(u16::from_le_bytes([low, high]));
            *page.get_mut(at).ok_or(Corrupt)? = byte;
        }
        Ok(())
    }
}
