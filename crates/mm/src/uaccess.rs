//! The memory of programs, as the core reads and writes it: through their page tables and the
//! direct map, faulting in what is missing. Linux: `copy_from_user` and `get_user_pages`.

use crate::MmError;
use crate::context::MmContext;
use crate::mm::{Mm, MmInner};
use vellum_machine::{Fill, Machine};
use vellum_page_table::{Pte, PteFlags};
use vellum_types::{Access, PAGE_SIZE, Pfn, PhysAddr, Prot, VirtAddr, VirtRange};

/// Entries told to the machine at once.
const BATCH: usize = 64;

impl<'m, M: Machine> MmContext<'m, M> {
    /// The entry of a page that allows `access`, after a fault if it must be; `None` if it is not allowed.
    fn user_entry(
        &self,
        mm: &Mm<'m>,
        inner: &mut MmInner<'m>,
        va: VirtAddr,
        access: Access,
    ) -> Result<Option<Pte>, MmError> {
        // A fault that was served leaves a fitting entry; more than one round means a bug here.
        for _ in 0..3 {
            if let Some(leaf) = inner.table.leaf(va) {
                let pte = leaf.get(va);
                let writable = PteFlags::WRITE | PteFlags::DIRTY;
                if pte.is_present() && (access != Access::Write || pte.flags().contains(writable)) {
                    return Ok(Some(pte));
                }
            }
            if !self.fault_locked(mm, inner, va, access)?.is_served() {
                return Ok(None);
            }
        }
        unreachable!("a served fault left no usable entry at {va:?}")
    }

    /// Calls `each` with the physical pieces of a program's range, faulted in; a piece never
    /// crosses a page. Returns the bytes covered, short at the first bad page. A piece is good as
    /// long as `each` runs, under the lock of the address space.
    ///
    /// # Errors
    /// NoMem if memory ended.
    pub fn user_segments(
        &self,
        mm: &Mm<'m>,
        start: VirtAddr,
        len: u64,
        access: Access,
        each: &mut dyn FnMut(PhysAddr, u64),
    ) -> Result<u64, MmError> {
        let mut done = 0;
        self.with_room(|| {
            let mut inner = mm.lock();
            while done < len {
                let Some(va) = start.checked_add(done) else {
                    break;
                };
                let piece = (PAGE_SIZE - va.page_offset()).min(len - done);
                match self.user_entry(mm, &mut inner, va, access)? {
                    Some(pte) => each(pte.pfn().addr() + va.page_offset(), piece),
                    None => break,
                }
                done += piece;
            }
            Ok(done)
        })
    }

    /// Makes a program's range accessible, page by page, and loads the machine's TLB with it: what
    /// must happen before somebody who cannot fault, such as the host's kernel, touches it.
    /// Returns the bytes that are good from the start.
    ///
    /// # Errors
    /// NoMem if memory ended.
    pub fn fault_in(
        &self,
        mm: &Mm<'m>,
        start: VirtAddr,
        len: u64,
        access: Access,
        _sp: Option<VirtAddr>,
    ) -> Result<u64, MmError> {
        let Some(range) = VirtRange::from_len(start, len) else {
            return Ok(0);
        };
        // Where the next attempt begins: what the machine was told of stays.
        let mut first = range.start().page_down();
        self.with_room(|| {
            let mut inner = mm.lock();
            let mut fills = [Fill {
                pfn: Pfn::ZERO,
                prot: Prot::NONE,
            }; BATCH];
            let mut count = 0;
            let mut at = first;
            let stop = loop {
                if count == BATCH || (count > 0 && at >= range.end()) {
                    self.machine
                        .update_mmu_cache_range(mm.space(), first, &fills[..count]);
                    (first, count) = (at, 0);
                }
                if at >= range.end() {
                    return Ok(len);
                }
                match self.user_entry(mm, &mut inner, at, access) {
                    Ok(Some(pte)) => fills[count] = self.fill(pte),
                    Ok(None) => break Ok(at.as_u64().saturating_sub(start.as_u64())),
                    Err(error) => break Err(error),
                }
                count += 1;
                at = at + PAGE_SIZE;
            };
            if count > 0 {
                self.machine
                    .update_mmu_cache_range(mm.space(), first, &fills[..count]);
            }
            first = at;
            stop
        })
    }

    /// Copies out of a program's memory.
    ///
    /// # Errors
    /// The bytes copied before the first bad page.
    pub fn copy_from_user(&self, mm: &Mm<'m>, from: VirtAddr, to: &mut [u8]) -> Result<(), usize> {
        let mut done = 0;
        let result =
            self.user_segments(mm, from, to.len() as u64, Access::Read, &mut |phys, len| {
                self.read_bytes(phys, &mut to[done..done + len as usize]);
                done += len as usize;
            });
        if result.is_ok() && done == to.len() {
            Ok(())
        } else {
            Err(done)
        }
    }

    /// Copies into a program's memory.
    ///
    /// # Errors
    /// The bytes copied before the first bad page.
    pub fn copy_to_user(&self, mm: &Mm<'m>, to: VirtAddr, from: &[u8]) -> Result<(), usize> {
        let mut done = 0;
        let result = self.user_segments(
            mm,
            to,
            from.len() as u64,
            Access::Write,
            &mut |phys, len| {
                self.write_bytes(phys, &from[done..done + len as usize]);
                done += len as usize;
            },
        );
        if result.is_ok() && done == from.len() {
            Ok(())
        } else {
            Err(done)
        }
    }
}
