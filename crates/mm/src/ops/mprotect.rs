//! mprotect(2). Linux: `mm/mprotect.c`.

use super::page_align;
use crate::MmError;
use crate::context::{MmContext, from_prot_none, has_frame, is_prot_none, to_prot_none};
use crate::mm::{Mm, MmInner};
use vellum_machine::Machine;
use vellum_page_table::{Pte, PteFlags};
use vellum_types::{Access, PAGE_SIZE, Prot, VirtAddr, VirtRange, VmFlags};

const PROT_GROWSDOWN: u32 = 0x0100_0000;
const PROT_GROWSUP: u32 = 0x0200_0000;
const PROT_SEM: u32 = 8;

impl<'m, M: Machine> MmContext<'m, M> {
    /// Changes the protection of `[addr, addr + len)`.
    ///
    /// # Errors
    /// As mprotect(2). What lies before the first hole or refusal has changed.
    pub fn mprotect(&self, mm: &Mm<'m>, addr: u64, len: u64, prot: u32) -> Result<(), MmError> {
        let grows = prot & (PROT_GROWSDOWN | PROT_GROWSUP);
        if grows == PROT_GROWSDOWN | PROT_GROWSUP || !addr.is_multiple_of(PAGE_SIZE) {
            return Err(MmError::Inval);
        }
        if len == 0 {
            return Ok(());
        }
        let len = page_align(len);
        let mut range = VirtRange::from_len(VirtAddr::new(addr), len).ok_or(MmError::NoMem)?;
        let prot = prot & !grows;
        if prot & !(Prot::all().bits() | PROT_SEM) != 0 {
            return Err(MmError::Inval);
        }
        let wanted = VmFlags::from_prot(Prot::from_bits_truncate(prot));
        let mut touch = false;
        let result = self.with_room(|| {
            let mut inner = mm.lock();
            range = Self::grown_range(&inner, range, grows)?;
            self.protect_range(mm, &mut inner, range, wanted, &mut touch)
        });
        if touch {
            self.populate_locked(mm, range);
        }
        result
    }

    /// What PROT_GROWSDOWN and PROT_GROWSUP make of a range; its first page is mapped.
    fn grown_range(
        inner: &MmInner<'m>,
        range: VirtRange,
        grows: u32,
    ) -> Result<VirtRange, MmError> {
        let first = inner.areas.find(range.start()).ok_or(MmError::NoMem)?;
        if grows == PROT_GROWSDOWN {
            if first.start() >= range.end() {
                return Err(MmError::NoMem);
            }
            if !first.flags.contains(VmFlags::GROWSDOWN) {
                return Err(MmError::Inval);
            }
            return VirtRange::new(first.start(), range.end()).ok_or(MmError::Inval);
        }
        if first.start() > range.start() {
            return Err(MmError::NoMem);
        }
        if grows == PROT_GROWSUP {
            return Err(MmError::Inval);
        }
        Ok(range)
    }

    /// Locked private memory that becomes writable is copied now, not at the first write, as far as
    /// memory goes.
    fn populate_locked(&self, mm: &Mm<'m>, range: VirtRange) {
        let kind = VmFlags::WRITE | VmFlags::SHARED | VmFlags::LOCKED | VmFlags::LOCKONFAULT;
        let mut at = range.start();
        while at < range.end()
            && let Some((part, flags)) = self.area_part(mm, at, range)
        {
            if flags & kind == VmFlags::LOCKED | VmFlags::WRITE {
                let _ = self.populate(mm, part, Access::Write);
            }
            at = part.end();
        }
    }

    fn protect_range(
        &self,
        mm: &Mm<'m>,
        inner: &mut MmInner<'m>,
        range: VirtRange,
        wanted: VmFlags,
        touch: &mut bool,
    ) -> Result<(), MmError> {
        let mut at = range.start();
        while at < range.end() {
            let area = inner.areas.find_containing(at).ok_or(MmError::NoMem)?;
            let part = area.range().intersect(&range).ok_or(MmError::NoMem)?;
            let old = area.flags;
            let may = VmFlags::from_bits_retain((old.bits() & VmFlags::MAY.bits()) >> 4);
            if wanted.bits() & !may.bits() & VmFlags::PERMISSIONS.bits() != 0 {
                return Err(MmError::Access);
            }
            let untouched = area.backing.is_anonymous() && area.backing.anon.is_none();
            let new = (old - VmFlags::PERMISSIONS) | wanted;
            if new != old {
                self.protect_area(mm, inner, part, old, accounted(old, new, untouched))?;
                inner.areas.merge_around(part);
                *touch |= old.contains(VmFlags::LOCKED) && new.contains(VmFlags::WRITE);
            }
            at = part.end();
        }
        Ok(())
    }

    fn protect_area(
        &self,
        mm: &Mm<'m>,
        inner: &mut MmInner<'m>,
        part: VirtRange,
        old: VmFlags,
        new: VmFlags,
    ) -> Result<(), MmError> {
        let area = inner
            .areas
            .find_containing(part.start())
            .ok_or(MmError::NoMem)?;
        let splits =
            usize::from(area.start() < part.start()) + usize::from(area.end() > part.end());
        if inner.areas.len() + splits > self.max_map_count {
            return Err(MmError::NoMem);
        }
        if MmInner::is_data(new)
            && !MmInner::is_data(old)
            && !inner.may_expand(new, part.nr_pages(), part.nr_pages())
        {
            return Err(MmError::NoMem);
        }
        inner.areas.isolate(part)?;
        if let Some(area) = inner.areas.find_mut(part.start()) {
            area.flags = new;
        }
        if !new.contains(VmFlags::PFNMAP) {
            self.change_entries(mm, inner, part, old, new);
        }
        Ok(())
    }

    /// Rewrites the entries of a range for new permissions, and tells the machine no more than it
    /// must know: a translation that is narrower than the table does no harm.
    fn change_entries(
        &self,
        mm: &Mm<'m>,
        inner: &MmInner<'m>,
        part: VirtRange,
        old: VmFlags,
        new: VmFlags,
    ) {
        let mut changed = false;
        for (leaf, clip) in inner.table.leaves(part) {
            for va in clip.pages() {
                let pte = leaf.get(va);
                if has_frame(pte) {
                    leaf.set(va, self.protected(pte, new));
                    changed = true;
                }
            }
        }
        let lost = (old - new) & VmFlags::PERMISSIONS;
        if !changed || lost.is_empty() {
            return;
        }
        // What can still be read and has not lost EXEC is at most too writable: READ alone is not
        // lost as long as anything is left, as on x86. Anything else a machine must forget.
        if lost.contains(VmFlags::EXEC) || !new.intersects(VmFlags::PERMISSIONS) {
            self.machine.flush_tlb_range(mm.space(), part);
            self.machine.flush_wait(mm.space());
        } else if lost.contains(VmFlags::WRITE) {
            self.machine.wrprotect_range(mm.space(), part);
            self.machine.flush_wait(mm.space());
        }
    }

    /// `change_pte_range` for one entry. Write permission comes back at once only where a fault
    /// would find nothing to do: a private page with a sole owner.
    fn protected(&self, pte: Pte, new: VmFlags) -> Pte {
        let mut pte = if is_prot_none(pte) {
            from_prot_none(pte)
        } else {
            pte
        };
        pte = if new.contains(VmFlags::EXEC) {
            pte.without(PteFlags::NX)
        } else {
            pte.with(PteFlags::NX)
        };
        if !new.contains(VmFlags::WRITE) {
            pte = pte.without(PteFlags::WRITE);
        } else if !new.contains(VmFlags::SHARED) && self.is_sole_owner(pte) {
            pte = pte.with(PteFlags::WRITE | PteFlags::DIRTY);
        }
        if new.intersects(VmFlags::PERMISSIONS) {
            pte
        } else {
            to_prot_none(pte)
        }
    }
}

/// Private memory is charged when it becomes writable, and let go when it stops being so before
/// anybody wrote. The flag decides which areas merge. Linux: `mprotect_fixup`.
fn accounted(old: VmFlags, new: VmFlags, untouched: bool) -> VmFlags {
    let exempt = VmFlags::WRITE | VmFlags::SHARED | VmFlags::NORESERVE;
    if new.contains(VmFlags::WRITE) {
        if old.intersects(exempt) {
            new
        } else {
            new | VmFlags::ACCOUNT
        }
    } else if untouched {
        new - VmFlags::ACCOUNT
    } else {
        new
    }
}
