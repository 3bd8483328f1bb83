//! One CPU: accesses as a program makes them.

use crate::machine::{PageFault, SimMachine};
use vellum_types::{Access, CpuId, PAGE_SIZE, SpaceId, VirtAddr};

/// One CPU: memory as a program sees it.
#[derive(Clone, Copy, Debug)]
pub struct Cpu<'a> {
    machine: &'a SimMachine,
    id: CpuId,
}

impl<'a> Cpu<'a> {
    pub(crate) const fn new(machine: &'a SimMachine, id: CpuId) -> Self {
        Self { machine, id }
    }

    /// Which one.
    pub const fn id(&self) -> CpuId {
        self.id
    }

    /// Loads bytes of one page.
    ///
    /// # Errors
    /// The fault that the core has to serve before a retry.
    ///
    /// # Panics
    /// If the bytes cross a page boundary.
    pub fn read(&self, space: SpaceId, va: VirtAddr, out: &mut [u8]) -> Result<(), PageFault> {
        within_page(va, out.len());
        let at = self.machine.translate(self.id, space, va, Access::Read)?;
        self.machine.ram.direct_map().read_bytes(at, out);
        Ok(())
    }

    /// Stores bytes to one page.
    ///
    /// # Errors
    /// The fault that the core has to serve before a retry.
    ///
    /// # Panics
    /// If the bytes cross a page boundary.
    pub fn write(&self, space: SpaceId, va: VirtAddr, bytes: &[u8]) -> Result<(), PageFault> {
        within_page(va, bytes.len());
        let at = self.machine.translate(self.id, space, va, Access::Write)?;
        self.machine.ram.direct_map().write_bytes(at, bytes);
        Ok(())
    }

    /// Fetches an instruction.
    ///
    /// # Errors
    /// The fault that the core has to serve before a retry.
    pub fn exec(&self, space: SpaceId, va: VirtAddr) -> Result<(), PageFault> {
        self.machine
            .translate(self.id, space, va, Access::Exec)
            .map(|_| ())
    }
}

fn within_page(va: VirtAddr, len: usize) {
    assert!(
        va.page_offset() + len as u64 <= PAGE_SIZE,
        "an access crosses a page boundary"
    );
}
