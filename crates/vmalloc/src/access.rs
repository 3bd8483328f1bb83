//! The bytes of an area.

use crate::Vmalloc;
use crate::area::{VmallocError, range_of};
use vellum_machine::Machine;
use vellum_page_table::Format;
use vellum_types::{PAGE_SIZE, Pfn, VirtAddr};

impl<M: Machine, F: Format> Vmalloc<'_, M, F> {
    /// The frame behind a kernel address of an area, by the page tables alone. `None` outside of
    /// areas in use and in guard pages.
    pub fn vmalloc_to_page(&self, addr: VirtAddr) -> Option<Pfn> {
        let va = F::strip(addr)?;
        let state = self.lock();
        state.arena.busy.find(va.as_u64())?;
        state.tables.frame(va)
    }

    /// Loads bytes at kernel addresses of an area, on any machine: see
    /// [`Machine::read_kernel`].
    ///
    /// # Errors
    /// NotFound if some of them are not of one area in use; what was loaded before stays.
    pub fn read(&self, addr: VirtAddr, out: &mut [u8]) -> Result<(), VmallocError> {
        let mut done = 0;
        self.for_each_part(addr, out.len(), |va, pfn, len| {
            let part = &mut out[done..done + len];
            self.machine
                .read_kernel(va, pfn.addr() + va.page_offset(), part);
            done += len;
        })
    }

    /// Stores bytes at kernel addresses of an area.
    ///
    /// # Errors
    /// NotFound if some of them are not of one area in use; what was stored before stays.
    pub fn write(&self, addr: VirtAddr, bytes: &[u8]) -> Result<(), VmallocError> {
        let mut done = 0;
        self.for_each_part(addr, bytes.len(), |va, pfn, len| {
            let part = &bytes[done..done + len];
            self.machine
                .write_kernel(va, pfn.addr() + va.page_offset(), part);
            done += len;
        })
    }

    /// Calls `f` with the address and frame of each page of the area that begins at `addr`. `f` is
    /// called without the lock.
    ///
    /// # Errors
    /// NotFound if no area in use begins there.
    pub fn for_each_page(
        &self,
        addr: VirtAddr,
        mut f: impl FnMut(VirtAddr, Pfn),
    ) -> Result<(), VmallocError> {
        let start = F::strip(addr).ok_or(VmallocError::NotFound)?.as_u64();
        let pages = {
            let state = self.lock();
            let node = state.arena.busy.find(start);
            let node = node.filter(|node| node.start == start);
            node.ok_or(VmallocError::NotFound)?.area.pages
        };
        for page in 0..u64::from(pages) {
            let va = addr + page * PAGE_SIZE;
            f(va, self.vmalloc_to_page(va).ok_or(VmallocError::NotFound)?);
        }
        Ok(())
    }

    /// Calls `f` for the part in each page: its address, the frame, how many bytes.
    fn for_each_part(
        &self,
        addr: VirtAddr,
        len: usize,
        mut f: impl FnMut(VirtAddr, Pfn, usize),
    ) -> Result<(), VmallocError> {
        let (mut at, end) = range_of(addr, len).ok_or(VmallocError::NotFound)?;
        while at < end {
            let va = VirtAddr::new(at);
            let pfn = self.vmalloc_to_page(va).ok_or(VmallocError::NotFound)?;
            let part = (PAGE_SIZE - va.page_offset()).min(end - at);
            f(va, pfn, part as usize);
            at += part;
        }
        Ok(())
    }
}
