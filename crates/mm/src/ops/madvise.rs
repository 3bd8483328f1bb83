//! madvise(2). Linux: `mm/madvise.c`.

use super::page_range;
use crate::MmError;
use crate::context::MmContext;
use crate::fault::{FaultOutcome, SegvCode};
use crate::mm::{Mm, MmInner};
use vellum_machine::Machine;
use vellum_types::{Access, PAGE_SIZE, VirtRange, VmFlags};

/// `MADV_*` of Linux.
mod advice {
    pub(super) const NORMAL: i32 = 0;
    pub(super) const RANDOM: i32 = 1;
    pub(super) const SEQUENTIAL: i32 = 2;
    pub(super) const WILLNEED: i32 = 3;
    pub(super) const DONTNEED: i32 = 4;
    pub(super) const FREE: i32 = 8;
    pub(super) const REMOVE: i32 = 9;
    pub(super) const DONTFORK: i32 = 10;
    pub(super) const DOFORK: i32 = 11;
    pub(super) const MERGEABLE: i32 = 12;
    pub(super) const UNMERGEABLE: i32 = 13;
    pub(super) const HUGEPAGE: i32 = 14;
    pub(super) const NOHUGEPAGE: i32 = 15;
    pub(super) const DONTDUMP: i32 = 16;
    pub(super) const DODUMP: i32 = 17;
    pub(super) const WIPEONFORK: i32 = 18;
    pub(super) const KEEPONFORK: i32 = 19;
    pub(super) const COLD: i32 = 20;
    pub(super) const PAGEOUT: i32 = 21;
    pub(super) const POPULATE_READ: i32 = 22;
    pub(super) const POPULATE_WRITE: i32 = 23;
    pub(super) const DONTNEED_LOCKED: i32 = 24;
}

impl<'m, M: Machine> MmContext<'m, M> {
    /// Takes advice about `[addr, addr + len)`.
    ///
    /// # Errors
    /// As madvise(2). A hole is NoMem, but what is mapped has been advised.
    pub fn madvise(&self, mm: &Mm<'m>, addr: u64, len: u64, advice: i32) -> Result<(), MmError> {
        if !is_known(advice) {
            return Err(MmError::Inval);
        }
        let Some(range) = page_range(addr, len, MmError::Inval)? else {
            return Ok(());
        };
        if matches!(advice, advice::POPULATE_READ | advice::POPULATE_WRITE) {
            return self.advise_populate(mm, range, advice);
        }
        if advice == advice::WILLNEED {
            self.swap_in_range(mm, range);
        }
        let result = self.retry(|| self.advise_range(mm, &mut mm.lock(), range, advice));
        if advice == advice::PAGEOUT && result.is_ok() {
            self.page_out(mm, range);
        }
        match result {
            // Linux says EAGAIN for "a kernel resource was temporarily unavailable".
            Err(MmError::NoFrames) => Err(MmError::Again),
            result => result,
        }
    }

    fn advise_range(
        &self,
        mm: &Mm<'m>,
        inner: &mut MmInner<'m>,
        range: VirtRange,
        advice: i32,
    ) -> Result<(), MmError> {
        let mut hole = false;
        let mut at = range.start();
        while at < range.end() {
            let Some(area) = inner
                .areas
                .find(at)
                .filter(|area| area.start() < range.end())
            else {
                hole = true;
                break;
            };
            hole |= area.start() > at;
            let part = area.range().intersect(&range).ok_or(MmError::NoMem)?;
            let flags = area.flags;
            self.advise_area(mm, inner, part, flags, advice)?;
            at = part.end();
        }
        if hole { Err(MmError::NoMem) } else { Ok(()) }
    }

    fn advise_populate(&self, mm: &Mm<'m>, range: VirtRange, advice: i32) -> Result<(), MmError> {
        let access = if advice == advice::POPULATE_WRITE {
            Access::Write
        } else {
            Access::Read
        };
        let mut at = range.start();
        self.with_room(|| {
            let mut inner = mm.lock();
            while at < range.end() {
                // Unlike an access, this does not grow a stack. Linux: `gup_vma_lookup`.
                if inner.areas.find_containing(at).is_none() {
                    return Err(MmError::NoMem);
                }
                match self.fault_locked(mm, &mut inner, at, access)? {
                    FaultOutcome::Minor | FaultOutcome::Major => {}
                    FaultOutcome::Segv(SegvCode::AccErr) => return Err(MmError::Inval),
                    FaultOutcome::Segv(_) | FaultOutcome::Oom => return Err(MmError::NoMem),
                    FaultOutcome::Bus => return Err(MmError::Fault),
                }
                at = at + PAGE_SIZE;
            }
            Ok(())
        })
    }

    fn advise_area(
        &self,
        mm: &Mm<'m>,
        inner: &mut MmInner<'m>,
        part: VirtRange,
        flags: VmFlags,
        advice: i32,
    ) -> Result<(), MmError> {
        match advice {
            advice::DONTNEED | advice::DONTNEED_LOCKED => {
                let locked = advice == advice::DONTNEED && flags.contains(VmFlags::LOCKED);
                if locked || flags.contains(VmFlags::PFNMAP) {
                    return Err(MmError::Inval);
                }
                let mut gather = self.gather(mm.space());
                self.zap(inner, part, &mut gather);
                Ok(())
            }
            advice::FREE => self.advise_free(mm, inner, part, flags),
            advice::WILLNEED => self.advise_willneed(inner, part),
            advice::REMOVE => self.advise_remove(inner, part, flags),
            advice::COLD | advice::PAGEOUT => {
                let stays = flags.intersects(VmFlags::LOCKED | VmFlags::PFNMAP);
                if stays {
                    return Err(MmError::Inval);
                }
                self.cool_range(mm, inner, part);
                Ok(())
            }
            advice::WIPEONFORK if has_file(inner, part) => Err(MmError::Inval),
            _ => {
                let new = advised_flags(flags, advice)?;
                if new != flags {
                    inner.areas.isolate(part)?;
                    if let Some(area) = inner.areas.find_mut(part.start()) {
                        area.flags = new;
                    }
                    inner.areas.merge_around(part);
                }
                Ok(())
            }
        }
    }

    /// MADV_FREE lets the kernel drop the pages at any moment from now on.
    fn advise_free(
        &self,
        mm: &Mm<'m>,
        inner: &mut MmInner<'m>,
        part: VirtRange,
        flags: VmFlags,
    ) -> Result<(), MmError> {
        let anonymous = inner
            .areas
            .find_containing(part.start())
            .is_some_and(|a| a.backing.is_anonymous());
        if !anonymous || flags.intersects(VmFlags::LOCKED | VmFlags::PFNMAP) {
            return Err(MmError::Inval);
        }
        self.give_up_range(mm, inner, part);
        Ok(())
    }

    fn advise_willneed(&self, inner: &MmInner<'m>, part: VirtRange) -> Result<(), MmError> {
        let Some(area) = inner.areas.find_containing(part.start()) else {
            return Ok(());
        };
        let Some(mapping) = area.backing.mapping() else {
            return Ok(());
        };
        let first = crate::fault::index_in(area, part.start());
        let last = first + part.nr_pages() - 1;
        // Only advice: the fault that comes will say what is wrong.
        let _ = mapping.will_need(&self.cache, first, last);
        Ok(())
    }

    /// MADV_REMOVE punches a hole; only shared memory, whose only store is the cache, can do it
    /// without the machine's help.
    fn advise_remove(
        &self,
        inner: &MmInner<'m>,
        part: VirtRange,
        flags: VmFlags,
    ) -> Result<(), MmError> {
        if flags.intersects(VmFlags::LOCKED | VmFlags::PFNMAP) {
            return Err(MmError::Inval);
        }
        let Some(area) = inner.areas.find_containing(part.start()) else {
            return Ok(());
        };
        if area.backing.mapping().is_none() {
            return Err(MmError::Inval);
        }
        if !flags.contains(VmFlags::SHARED) || !flags.contains(VmFlags::WRITE) {
            return Err(MmError::Access);
        }
        Err(MmError::NotSupported)
    }
}

/// Does a file, or shared memory, lie behind the area of `part`?
fn has_file(inner: &MmInner<'_>, part: VirtRange) -> bool {
    let area = inner.areas.find_containing(part.start());
    area.is_some_and(|area| !area.backing.is_anonymous())
}

fn is_known(advice: i32) -> bool {
    matches!(advice, advice::NORMAL..=advice::DONTNEED | advice::FREE..=advice::DONTNEED_LOCKED)
}

/// `madvise_vma_behavior` for the advice that only changes flags.
fn advised_flags(flags: VmFlags, advice: i32) -> Result<VmFlags, MmError> {
    let reads = VmFlags::RAND_READ | VmFlags::SEQ_READ;
    let huge = VmFlags::HUGEPAGE | VmFlags::NOHUGEPAGE;
    Ok(match advice {
        advice::NORMAL => flags - reads,
        advice::SEQUENTIAL => (flags - reads) | VmFlags::SEQ_READ,
        advice::RANDOM => (flags - reads) | VmFlags::RAND_READ,
        advice::DONTFORK => flags | VmFlags::DONTCOPY,
        advice::DOFORK if flags.contains(VmFlags::PFNMAP) => return Err(MmError::Inval),
        advice::DOFORK => flags - VmFlags::DONTCOPY,
        advice::WIPEONFORK if flags.contains(VmFlags::SHARED) => return Err(MmError::Inval),
        advice::WIPEONFORK => flags | VmFlags::WIPEONFORK,
        advice::KEEPONFORK => flags - VmFlags::WIPEONFORK,
        advice::DONTDUMP => flags | VmFlags::DONTDUMP,
        advice::DODUMP if flags.contains(VmFlags::PFNMAP) => return Err(MmError::Inval),
        advice::DODUMP => flags - VmFlags::DONTDUMP,
        advice::MERGEABLE => flags | VmFlags::MERGEABLE,
        advice::UNMERGEABLE => flags - VmFlags::MERGEABLE,
        advice::HUGEPAGE => (flags - huge) | VmFlags::HUGEPAGE,
        advice::NOHUGEPAGE => (flags - huge) | VmFlags::NOHUGEPAGE,
        _ => return Err(MmError::Inval),
    })
}
