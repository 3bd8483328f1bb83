//! mlock(2) and its family. Linux: `mm/mlock.c`.

use super::page_align;
use crate::MmError;
use crate::context::MmContext;
use crate::mm::{Mm, MmInner};
use vellum_machine::Machine;
use vellum_types::{PAGE_SHIFT, PAGE_SIZE, VirtAddr, VirtRange, VmFlags};

const MLOCK_ONFAULT: u32 = 1;
const MCL_CURRENT: u32 = 1;
const MCL_FUTURE: u32 = 2;
const MCL_ONFAULT: u32 = 4;
const LOCK_BITS: VmFlags = VmFlags::LOCKED.union(VmFlags::LOCKONFAULT);

impl<'m, M: Machine> MmContext<'m, M> {
    /// Locks `[addr, addr + len)` and faults it in.
    ///
    /// # Errors
    /// As mlock(2).
    pub fn mlock(&self, mm: &Mm<'m>, addr: u64, len: u64) -> Result<(), MmError> {
        self.do_mlock(mm, addr, len, VmFlags::LOCKED)
    }

    /// Locks `[addr, addr + len)`, with MLOCK_ONFAULT as pages come in.
    ///
    /// # Errors
    /// As mlock2(2).
    pub fn mlock2(&self, mm: &Mm<'m>, addr: u64, len: u64, flags: u32) -> Result<(), MmError> {
        if flags & !MLOCK_ONFAULT != 0 {
            return Err(MmError::Inval);
        }
        self.do_mlock(
            mm,
            addr,
            len,
            if flags == 0 {
                VmFlags::LOCKED
            } else {
                LOCK_BITS
            },
        )
    }

    fn do_mlock(&self, mm: &Mm<'m>, addr: u64, len: u64, bits: VmFlags) -> Result<(), MmError> {
        let done = self.with_room(|| self.lock_pages(&mut mm.lock(), addr, len, bits))?;
        match done {
            Some(range) if !bits.contains(VmFlags::LOCKONFAULT) => self.populate_areas(mm, range),
            _ => Ok(()),
        }
    }

    /// Checks and marks the areas of a range; returns it unless it is empty.
    fn lock_pages(
        &self,
        inner: &mut MmInner<'m>,
        addr: u64,
        len: u64,
        bits: VmFlags,
    ) -> Result<Option<VirtRange>, MmError> {
        if inner.limits.memlock == 0 {
            return Err(MmError::Perm);
        }
        let Some(range) = lock_range(addr, len)? else {
            return Ok(None);
        };
        let already: u64 = inner
            .areas
            .overlapping(range)
            .filter(|area| area.flags.contains(VmFlags::LOCKED))
            .filter_map(|area| area.range().intersect(&range))
            .map(|part| part.nr_pages())
            .sum();
        let locked = inner.locked_vm + range.nr_pages() - already;
        if locked > inner.limits.memlock >> PAGE_SHIFT {
            return Err(MmError::NoMem);
        }
        self.change_lock(inner, range, bits)?;
        Ok(Some(range))
    }

    /// `apply_vma_lock_flags`: in order, up to the first hole.
    fn change_lock(
        &self,
        inner: &mut MmInner<'m>,
        range: VirtRange,
        bits: VmFlags,
    ) -> Result<(), MmError> {
        let mut at = range.start();
        let mut result = Ok(());
        while at < range.end() {
            let Some(area) = inner.areas.find_containing(at) else {
                result = Err(MmError::NoMem);
                break;
            };
            let Some(part) = area.range().intersect(&range) else {
                break;
            };
            let (old, new) = (area.flags, (area.flags - LOCK_BITS) | bits);
            at = part.end();
            if old == new || old.contains(VmFlags::PFNMAP) {
                continue;
            }
            if let Err(oom) = inner.areas.isolate(part) {
                result = Err(oom.into());
                break;
            }
            if let Some(area) = inner.areas.find_mut(part.start()) {
                area.flags = new;
            }
            // Only what changed: fork leaves neighbours that could merge and do not.
            inner.areas.merge_around(part);
            let pages = part.nr_pages();
            match (old.contains(VmFlags::LOCKED), new.contains(VmFlags::LOCKED)) {
                (false, true) => {
                    inner.locked_vm += pages;
                    self.mlock_range(inner, part, true);
                }
                (true, false) => {
                    inner.locked_vm = inner.locked_vm.saturating_sub(pages);
                    self.mlock_range(inner, part, false);
                }
                _ => {}
            }
        }
        result
    }

    /// Unlocks `[addr, addr + len)`.
    ///
    /// # Errors
    /// As munlock(2).
    pub fn munlock(&self, mm: &Mm<'m>, addr: u64, len: u64) -> Result<(), MmError> {
        let Some(range) = lock_range(addr, len)? else {
            return Ok(());
        };
        self.with_room(|| self.change_lock(&mut mm.lock(), range, VmFlags::empty()))
    }

    /// Locks all that is mapped, all that will be, or both.
    ///
    /// # Errors
    /// As mlockall(2).
    pub fn mlockall(&self, mm: &Mm<'m>, flags: u32) -> Result<(), MmError> {
        if flags == 0
            || flags & !(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0
            || flags == MCL_ONFAULT
        {
            return Err(MmError::Inval);
        }
        self.with_room(|| self.lock_everything(&mut mm.lock(), flags))?;
        if flags & (MCL_CURRENT | MCL_ONFAULT) == MCL_CURRENT {
            self.populate_all(mm);
        }
        Ok(())
    }

    fn lock_everything(&self, inner: &mut MmInner<'m>, flags: u32) -> Result<(), MmError> {
        if inner.limits.memlock == 0 {
            return Err(MmError::Perm);
        }
        let over = inner.areas.total_pages() > inner.limits.memlock >> PAGE_SHIFT;
        if flags & MCL_CURRENT != 0 && over {
            return Err(MmError::NoMem);
        }
        let bits = if flags & MCL_ONFAULT != 0 {
            LOCK_BITS
        } else {
            VmFlags::LOCKED
        };
        inner.def_flags -= LOCK_BITS;
        if flags & MCL_FUTURE != 0 {
            inner.def_flags |= bits;
        }
        if flags & MCL_CURRENT != 0 {
            self.lock_all(inner, bits)?;
        }
        Ok(())
    }

    fn lock_all(&self, inner: &mut MmInner<'m>, bits: VmFlags) -> Result<(), MmError> {
        let mut at = VirtAddr::ZERO;
        while let Some(range) = inner.areas.find(at).map(|area| area.range()) {
            self.change_lock(inner, range, bits)?;
            at = range.end();
        }
        Ok(())
    }

    /// As mlockall does it: whatever cannot be had is passed over.
    fn populate_all(&self, mm: &Mm<'m>) {
        let next = |at| mm.lock().areas.find(at).map(|area| area.range());
        let mut at = VirtAddr::ZERO;
        while let Some(range) = next(at) {
            let _ = self.populate_areas(mm, range);
            at = range.end();
        }
    }

    /// Unlocks everything.
    ///
    /// # Errors
    /// NoMem if an area could not be split; never in practice, since whole areas change.
    pub fn munlockall(&self, mm: &Mm<'m>) -> Result<(), MmError> {
        self.with_room(|| {
            let mut inner = mm.lock();
            inner.def_flags -= LOCK_BITS;
            self.lock_all(&mut inner, VmFlags::empty())
        })
    }
}

/// mlock takes any start: it widens to pages.
fn lock_range(addr: u64, len: u64) -> Result<Option<VirtRange>, MmError> {
    let start = VirtAddr::new(addr).page_down();
    let widened = len.checked_add(addr % PAGE_SIZE).ok_or(MmError::Inval)?;
    let len = page_align(widened);
    if len == 0 && widened != 0 {
        return Err(MmError::Inval);
    }
    let end = start.checked_add(len).ok_or(MmError::Inval)?;
    Ok(VirtRange::new(start, end))
}
