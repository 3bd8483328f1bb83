//! mremap(2). Linux: `mm/mremap.c`.

use super::page_align;
use crate::MmError;
use crate::context::{MmContext, has_frame};
use crate::fault::STACK_GUARD_GAP;
use crate::mm::{Area, Mm, MmInner};
use vellum_machine::Machine;
use vellum_page_table::Pte;
use vellum_types::{PAGE_SHIFT, PAGE_SIZE, VirtAddr, VirtRange, VmFlags};
use vellum_vma::GapRequest;

const MAYMOVE: u32 = 1;
const FIXED: u32 = 2;
const DONTUNMAP: u32 = 4;

impl<'m, M: Machine> MmContext<'m, M> {
    /// Grows, shrinks or moves a mapping; returns its address.
    ///
    /// # Errors
    /// As mremap(2), in Linux's order of checks.
    pub fn mremap(
        &self,
        mm: &Mm<'m>,
        old: u64,
        old_len: u64,
        new_len: u64,
        flags: u32,
        new_addr: u64,
    ) -> Result<u64, MmError> {
        if flags & !(MAYMOVE | FIXED | DONTUNMAP) != 0
            || (flags & FIXED != 0 && flags & MAYMOVE == 0)
            || (flags & DONTUNMAP != 0
                && (flags & MAYMOVE == 0 || page_align(old_len) != page_align(new_len)))
            || !old.is_multiple_of(PAGE_SIZE)
        {
            return Err(MmError::Inval);
        }
        let (old_len, new_len) = (page_align(old_len), page_align(new_len));
        if new_len == 0 {
            return Err(MmError::Inval);
        }
        let mut inner = mm.lock();
        let inner = &mut *inner;
        let at = VirtAddr::new(old);
        if flags & (FIXED | DONTUNMAP) != 0 {
            check_target(inner.layout.task_size, at, old_len, new_addr, new_len)?;
        }
        if inner.areas.find_containing(at).is_none() {
            return Err(MmError::Fault);
        }
        if flags & (FIXED | DONTUNMAP) != 0 {
            return self.remap_to(mm, inner, at, old_len, new_len, flags, new_addr);
        }
        if old_len >= new_len {
            if old_len > new_len {
                let tail = VirtRange::new(at + new_len, at + old_len).ok_or(MmError::Inval)?;
                self.unmap_range(mm, inner, tail)?;
            }
            return Ok(old);
        }
        self.check_area(inner, at, old_len, new_len)?;
        if self.grow_in_place(mm, inner, at, old_len, new_len)? {
            return Ok(old);
        }
        if flags & MAYMOVE == 0 {
            return Err(MmError::NoMem);
        }
        let target = self.free_range(inner, new_len)?;
        self.move_area(mm, inner, at, old_len, new_len, target, false)?;
        Ok(target.as_u64())
    }

    /// MREMAP_FIXED and MREMAP_DONTUNMAP.
    #[expect(clippy::too_many_arguments, reason = "the arguments of mremap(2)")]
    fn remap_to(
        &self,
        mm: &Mm<'m>,
        inner: &mut MmInner<'m>,
        at: VirtAddr,
        old_len: u64,
        new_len: u64,
        flags: u32,
        new_addr: u64,
    ) -> Result<u64, MmError> {
        let fixed = flags & FIXED != 0;
        if fixed {
            if new_addr < inner.layout.mmap_min {
                return Err(MmError::Perm);
            }
            if let Some(range) = VirtRange::from_len(VirtAddr::new(new_addr), new_len) {
                self.unmap_range(mm, inner, range)?;
            }
        }
        let mut old_len = old_len;
        if old_len > new_len {
            let tail = VirtRange::new(at + new_len, at + old_len).ok_or(MmError::Inval)?;
            self.unmap_range(mm, inner, tail)?;
            old_len = new_len;
        }
        self.check_area(inner, at, old_len, new_len)?;
        let keep = flags & DONTUNMAP != 0;
        let target = if fixed {
            VirtAddr::new(new_addr)
        } else {
            self.free_range(inner, new_len)?
        };
        self.move_area(mm, inner, at, old_len, new_len, target, keep)?;
        Ok(target.as_u64())
    }

    /// Where `len` bytes could go, if they may go anywhere.
    fn free_range(&self, inner: &MmInner<'m>, len: u64) -> Result<VirtAddr, MmError> {
        let gap = GapRequest {
            len,
            low: VirtAddr::new(inner.layout.mmap_min),
            high: VirtAddr::new(inner.layout.mmap_base),
            align: PAGE_SIZE,
            top_down: true,
            guard_gap: STACK_GUARD_GAP,
        };
        inner.areas.unmapped_area(gap).ok_or(MmError::NoMem)
    }

    /// `vma_to_resize`.
    fn check_area(
        &self,
        inner: &MmInner<'m>,
        at: VirtAddr,
        old_len: u64,
        new_len: u64,
    ) -> Result<(), MmError> {
        let area = inner.areas.find_containing(at).ok_or(MmError::Fault)?;
        if old_len == 0 && !area.flags.intersects(VmFlags::SHARED | VmFlags::MAYSHARE) {
            return Err(MmError::Inval);
        }
        if old_len > area.end() - at {
            return Err(MmError::Fault);
        }
        if new_len == old_len {
            return Ok(());
        }
        if area.flags.intersects(VmFlags::DONTEXPAND | VmFlags::PFNMAP) {
            return Err(MmError::Fault);
        }
        let grown = new_len.saturating_sub(old_len);
        if area.flags.contains(VmFlags::LOCKED)
            && (inner.locked_vm << PAGE_SHIFT).saturating_add(grown) > inner.limits.memlock
        {
            return Err(MmError::Again);
        }
        if !inner.may_expand(area.flags, grown >> PAGE_SHIFT, 0) {
            return Err(MmError::NoMem);
        }
        Ok(())
    }

    /// Grows without moving, if `[at, at + old_len)` ends its area and the gap behind is free.
    fn grow_in_place(
        &self,
        mm: &Mm<'m>,
        inner: &mut MmInner<'m>,
        at: VirtAddr,
        old_len: u64,
        new_len: u64,
    ) -> Result<bool, MmError> {
        let area = inner.areas.find_containing(at).ok_or(MmError::Fault)?;
        if area.end() - at != old_len {
            return Ok(false);
        }
        let (start, flags) = (area.start(), area.flags);
        let Some(added) = VirtRange::from_len(at + old_len, new_len - old_len) else {
            return Ok(false);
        };
        if added.end().as_u64() > inner.layout.task_size
            || inner.areas.overlapping(added).next().is_some()
        {
            return Ok(false);
        }
        let grown = VirtRange::new(start, added.end()).ok_or(MmError::NoMem)?;
        inner.areas.set_range(start, grown)?;
        inner.areas.merge_around(grown);
        inner.note_total();
        if flags.contains(VmFlags::LOCKED) {
            inner.locked_vm += added.nr_pages();
            let _ = self.populate(mm, inner, added, super::mmap::populate_access(flags));
        }
        Ok(true)
    }

    /// `move_vma`: a new area at `target` that takes over the pages of the old one, which is then
    /// unmapped, or with `keep` left empty.
    #[expect(clippy::too_many_arguments, reason = "what moves, whence, whither")]
    fn move_area(
        &self,
        mm: &Mm<'m>,
        inner: &mut MmInner<'m>,
        at: VirtAddr,
        old_len: u64,
        new_len: u64,
        target: VirtAddr,
        keep: bool,
    ) -> Result<(), MmError> {
        if inner.areas.len() + 3 > self.max_map_count {
            return Err(MmError::NoMem);
        }
        let area = inner.areas.find_containing(at).ok_or(MmError::Fault)?;
        let flags = area.flags;
        let backing = area.backing.clone();
        // Memory that was never touched is as if mapped at its new place from the start.
        let pgoff = if backing.is_anonymous() && backing.anon_vma.is_none() {
            target.page_number()
        } else {
            crate::fault::index_in(area, at)
        };
        let new_range = VirtRange::from_len(target, new_len).ok_or(MmError::NoMem)?;
        // Preallocate: every table that the move needs, so that it cannot stop half-way.
        let old_range = VirtRange::from_len(at, old_len);
        if let Some(old_range) = old_range {
            self.prepare_tables(inner, old_range, target)?;
            inner.areas.isolate(old_range)?;
        }
        let new_flags = if keep {
            flags - (VmFlags::LOCKED | VmFlags::LOCKONFAULT)
        } else {
            flags
        };
        let moved = inner
            .areas
            .insert_merged(Area::new(new_range, flags, pgoff, backing));
        if let Err(error) = moved {
            if let Some(old_range) = old_range {
                inner.areas.merge_around(old_range);
            }
            return Err(error.into());
        }
        inner.note_total();
        if flags.contains(VmFlags::LOCKED) {
            inner.locked_vm += new_range.nr_pages();
        }
        let Some(old_range) = old_range else {
            return Ok(());
        };
        self.move_entries(mm, inner, old_range, target);
        if keep {
            if let Some(area) = inner.areas.find_mut(old_range.start())
                && area.flags.contains(VmFlags::LOCKED)
            {
                area.flags = new_flags;
                inner.locked_vm = inner.locked_vm.saturating_sub(old_range.nr_pages());
            }
            inner.areas.merge_around(old_range);
        } else {
            self.unmap_range(mm, inner, old_range)?;
        }
        if flags.contains(VmFlags::LOCKED)
            && let Some(added) = VirtRange::new(target + old_len, target + new_len)
        {
            let _ = self.populate(mm, inner, added, super::mmap::populate_access(flags));
        }
        Ok(())
    }

    fn prepare_tables(
        &self,
        inner: &mut MmInner<'m>,
        old: VirtRange,
        target: VirtAddr,
    ) -> Result<(), MmError> {
        let mut at = old.start();
        while at < old.end() {
            // One look per destination table is enough; a page at a time keeps the arithmetic plain.
            if inner
                .table
                .leaf(at)
                .is_some_and(|leaf| has_frame(leaf.get(at)))
            {
                inner.table.leaf_or_alloc(target + (at - old.start()))?;
            }
            at = at + PAGE_SIZE;
        }
        Ok(())
    }

    /// `move_page_tables`: entries change places, frames do not; the old translations are flushed
    /// before anybody can use the new ones.
    fn move_entries(&self, mm: &Mm<'m>, inner: &mut MmInner<'m>, old: VirtRange, target: VirtAddr) {
        let table = &inner.table;
        let mut any = false;
        for (leaf, part) in table.leaves(old) {
            for va in part.pages() {
                let pte = leaf.get(va);
                if !has_frame(pte) {
                    continue;
                }
                let to = target + (va - old.start());
                if let Some(slot) = table.leaf(to) {
                    leaf.set(va, Pte::NONE);
                    slot.set(to, pte);
                    any = true;
                }
            }
        }
        if any {
            self.machine.flush_tlb_range(mm.space(), old);
            self.machine.flush_wait(mm.space());
        }
    }
}

/// What `check_mremap_params` asks of a target, before anybody looks at the areas; of
/// MREMAP_DONTUNMAP without MREMAP_FIXED too, whose target means nothing.
fn check_target(
    task_size: u64,
    at: VirtAddr,
    old_len: u64,
    new_addr: u64,
    new_len: u64,
) -> Result<(), MmError> {
    let silly = !new_addr.is_multiple_of(PAGE_SIZE)
        || new_len > task_size
        || new_addr > task_size - new_len;
    let overlap = at.as_u64().saturating_add(old_len) > new_addr
        && new_addr.saturating_add(new_len) > at.as_u64();
    if silly || overlap {
        Err(MmError::Inval)
    } else {
        Ok(())
    }
}
