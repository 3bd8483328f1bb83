//! A swap device of the tests' own.

use std::collections::HashMap;
use std::sync::Mutex;
use vellum_machine::DirectMap;
use vellum_sim::SimHost;
use vellum_swap::{SwapDevice, SwapOn, WriteError};
use vellum_types::{IoError, PAGE_SIZE, Pfn};

/// Slots as bytes.
#[derive(Default)]
pub(crate) struct Slots {
    bytes: Mutex<HashMap<u32, Vec<u8>>>,
    /// Cannot be read.
    pub(crate) broken: Mutex<Option<u32>>,
}

impl SwapDevice for Slots {
    fn name(&self) -> &str {
        "slots"
    }
    fn nr_slots(&self) -> u32 {
        8192
    }
    fn read(&self, slot: u32, frame: Pfn, ram: DirectMap<'_>) -> Result<(), IoError> {
        if *self.broken.lock().unwrap() == Some(slot) {
            return Err(IoError::EIO);
        }
        ram.write_bytes(frame.addr(), &self.bytes.lock().unwrap()[&slot]);
        Ok(())
    }
    fn write(&self, slot: u32, frames: &[Pfn], ram: DirectMap<'_>) -> Result<(), WriteError> {
        for (slot, frame) in (slot..).zip(frames) {
            let mut bytes = vec![0; PAGE_SIZE as usize];
            ram.read_bytes(frame.addr(), &mut bytes);
            self.bytes.lock().unwrap().insert(slot, bytes);
        }
        Ok(())
    }
}

/// Swaps to a new device.
pub(crate) fn swapon(host: &SimHost<'_>, priority: i16) -> (u8, &'static Slots) {
    // The device outlives the host.
    let device: &'static Slots = Box::leak(Box::default());
    let how = SwapOn {
        priority: Some(priority),
        bad: &[],
    };
    let area = host.system().swap().swapon(device, how).expect("swapon");
    (area, device)
}
