//! The bytes of a program's pages, wherever they lie. Linux: `include/linux/highmem.h`.
//!
//! On a machine whose direct map covers all of RAM these are plain copies. Where it does not, frames
//! above it have an address on this CPU for as long as the copy takes.

use crate::context::MmContext;
use vellum_machine::Machine;
use vellum_types::{Pfn, PfnRange, PhysAddr};

impl<M: Machine> MmContext<'_, M> {
    /// Zeroes frames that are about to be given to a program: the machine does, if it reaches them.
    pub(crate) fn zero_pages(&self, frames: PfnRange) {
        match &self.local {
            None => self.machine.zero_pages(frames),
            Some(local) => frames
                .iter()
                .for_each(|pfn| match PfnRange::from_len(pfn, 1) {
                    Some(frame) if self.ram.covers(pfn) => self.machine.zero_pages(frame),
                    _ => local.zero_page(pfn),
                }),
        }
    }

    /// Copies one frame.
    pub(crate) fn copy_page(&self, to: Pfn, from: Pfn) {
        match &self.local {
            None => self.ram.copy_page(to, from),
            Some(local) => local.copy_page(to, from),
        }
    }

    /// Copies bytes that cross no page boundary.
    pub(crate) fn copy_bytes(&self, to: PhysAddr, from: PhysAddr, len: u64) {
        match &self.local {
            None => self.ram.copy_bytes(to, from, len),
            Some(local) => local.copy_bytes(to, from, len),
        }
    }

    /// Loads bytes.
    pub(crate) fn read_bytes(&self, phys: PhysAddr, out: &mut [u8]) {
        match &self.local {
            None => self.ram.read_bytes(phys, out),
            Some(local) => local.read_bytes(phys, out),
        }
    }

    /// Stores bytes.
    pub(crate) fn write_bytes(&self, phys: PhysAddr, bytes: &[u8]) {
        match &self.local {
            None => self.ram.write_bytes(phys, bytes),
            Some(local) => local.write_bytes(phys, bytes),
        }
    }
}
