//! msync(2). Linux: `mm/msync.c`.

use super::page_range;
use crate::MmError;
use crate::context::MmContext;
use crate::mm::Mm;
use vellum_machine::Machine;
use vellum_types::{PAGE_SHIFT, VmFlags};

const ASYNC: u32 = 1;
const INVALIDATE: u32 = 2;
const SYNC: u32 = 4;

impl<'m, M: Machine> MmContext<'m, M> {
    /// Writes dirty pages of shared file mappings in `[addr, addr + len)` to their files.
    ///
    /// # Errors
    /// As msync(2): Inval, NoMem for a hole, Busy, Io.
    pub fn msync(&self, mm: &Mm<'m>, addr: u64, len: u64, flags: u32) -> Result<(), MmError> {
        if flags & !(ASYNC | INVALIDATE | SYNC) != 0 || flags & (ASYNC | SYNC) == ASYNC | SYNC {
            return Err(MmError::Inval);
        }
        let Some(range) = page_range(addr, len, MmError::NoMem)? else {
            return Ok(());
        };
        let mut hole = false;
        let mut at = range.start();
        while at < range.end() {
            // The lock is dropped for the I/O, so the area is looked up anew each time.
            let (part, work) = {
                let inner = mm.lock();
                let Some(area) = inner
                    .areas
                    .find(at)
                    .filter(|area| area.start() < range.end())
                else {
                    hole = true;
                    break;
                };
                hole |= area.start() > at;
                if flags & INVALIDATE != 0 && area.flags.contains(VmFlags::LOCKED) {
                    return Err(MmError::Busy);
                }
                let part = area.range().intersect(&range).ok_or(MmError::NoMem)?;
                let shared = area.flags.contains(VmFlags::SHARED) && flags & SYNC != 0;
                let first = crate::fault::index_in(area, part.start());
                (
                    part,
                    area.backing
                        .mapping()
                        .filter(|_| shared)
                        .cloned()
                        .map(|m| (m, first)),
                )
            };
            if let Some((mapping, first)) = work {
                self.writeback(&mapping, first << PAGE_SHIFT, part.len())?;
                self.cache.store().sync(mapping.file())?;
            }
            at = part.end();
        }
        if hole { Err(MmError::NoMem) } else { Ok(()) }
    }
}
