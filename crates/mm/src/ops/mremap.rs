//! mremap(2). Linux: `mm/mremap.c`.

use super::page_align;
use super::populate::populate_access;
use crate::MmError;
use crate::context::MmContext;
use crate::fault::STACK_GUARD_GAP;
use crate::mm::{Area, Mm, MmInner};
use vellum_machine::Machine;
use vellum_page_table::Pte;
use vellum_types::{Access, PAGE_SHIFT, PAGE_SIZE, VirtAddr, VirtRange, VmFlags};
use vellum_vma::GapRequest;

const MAYMOVE: u32 = 1;
const FIXED: u32 = 2;
const DONTUNMAP: u32 = 4;

/// The arguments of a call, lengths in whole pages, and how far it has come.
struct Remap {
    at: VirtAddr,
    /// What of the old mapping is left to be moved.
    old_len: u64,
    new_len: u64,
    flags: u32,
    new_addr: u64,
    /// The target is unmapped.
    cleared: bool,
    /// The pages are at their new place; the old one is still to be unmapped.
    moved: Option<Moved>,
}

/// Where a mapping is now, and what must be faulted in there because it is locked.
#[derive(Clone, Copy)]
struct Moved {
    to: VirtAddr,
    touch: Option<VirtRange>,
    access: Access,
}

impl Moved {
    fn nothing(to: VirtAddr) -> Self {
        Self {
            to,
            touch: None,
            access: Access::Read,
        }
    }
}

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
        let at = VirtAddr::new(old);
        let mut remap = Remap {
            at,
            old_len,
            new_len,
            flags,
            new_addr,
            cleared: false,
            moved: None,
        };
        let result = self.with_room(|| self.try_remap(mm, &mut mm.lock(), &mut remap));
        let moved = match (result, remap.moved) {
            // The old place could not be split for unmapping: Linux leaves it too.
            (Err(MmError::NoMem), Some(moved)) => moved,
            (result, _) => result?,
        };
        if let Some(added) = moved.touch {
            let _ = self.populate(mm, added, moved.access);
        }
        Ok(moved.to.as_u64())
    }

    /// One attempt; `remap` remembers what is done for good.
    fn try_remap(
        &self,
        mm: &Mm<'m>,
        inner: &mut MmInner<'m>,
        remap: &mut Remap,
    ) -> Result<Moved, MmError> {
        let (at, old_len, new_len) = (remap.at, remap.old_len, remap.new_len);
        if let Some(moved) = remap.moved {
            self.leave(mm, inner, at, old_len)?;
            return Ok(moved);
        }
        let elsewhere = remap.flags & (FIXED | DONTUNMAP) != 0;
        if elsewhere && !remap.cleared {
            let task_size = inner.layout.task_size;
            check_target(task_size, at, old_len, remap.new_addr, new_len)?;
        }
        if inner.areas.find_containing(at).is_none() {
            return Err(MmError::Fault);
        }
        if elsewhere {
            return self.remap_to(mm, inner, remap);
        }
        if old_len >= new_len {
            self.cut(mm, inner, remap)?;
            return Ok(Moved::nothing(at));
        }
        self.check_area(inner, at, old_len, new_len)?;
        if let Some(grown) = self.grow_in_place(inner, at, old_len, new_len)? {
            return Ok(grown);
        }
        if remap.flags & MAYMOVE == 0 {
            return Err(MmError::NoMem);
        }
        let target = self.free_range(inner, new_len)?;
        self.move_area(mm, inner, remap, target)
    }

    /// Unmaps what lies past the new length.
    fn cut(&self, mm: &Mm<'m>, inner: &mut MmInner<'m>, remap: &mut Remap) -> Result<(), MmError> {
        if remap.old_len > remap.new_len {
            let (from, to) = (remap.at + remap.new_len, remap.at + remap.old_len);
            let tail = VirtRange::new(from, to).ok_or(MmError::Inval)?;
            self.unmap_range(mm, inner, tail)?;
            remap.old_len = remap.new_len;
        }
        Ok(())
    }

    /// MREMAP_FIXED and MREMAP_DONTUNMAP.
    fn remap_to(
        &self,
        mm: &Mm<'m>,
        inner: &mut MmInner<'m>,
        remap: &mut Remap,
    ) -> Result<Moved, MmError> {
        let fixed = remap.flags & FIXED != 0;
        let new_addr = VirtAddr::new(remap.new_addr);
        if fixed && !remap.cleared {
            if remap.new_addr < inner.layout.mmap_min {
                return Err(MmError::Perm);
            }
            if let Some(range) = VirtRange::from_len(new_addr, remap.new_len) {
                self.unmap_range(mm, inner, range)?;
            }
            remap.cleared = true;
        }
        self.cut(mm, inner, remap)?;
        self.check_area(inner, remap.at, remap.old_len, remap.new_len)?;
        let target = if fixed {
            new_addr
        } else {
            self.free_range(inner, remap.new_len)?
        };
        self.move_area(mm, inner, remap, target)
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
        inner: &mut MmInner<'m>,
        at: VirtAddr,
        old_len: u64,
        new_len: u64,
    ) -> Result<Option<Moved>, MmError> {
        let area = inner.areas.find_containing(at).ok_or(MmError::Fault)?;
        if area.end() - at != old_len {
            return Ok(None);
        }
        let (start, flags) = (area.start(), area.flags);
        let Some(added) = VirtRange::from_len(at + old_len, new_len - old_len) else {
            return Ok(None);
        };
        if added.end().as_u64() > inner.layout.task_size
            || inner.areas.overlapping(added).next().is_some()
        {
            return Ok(None);
        }
        let grown = VirtRange::new(start, added.end()).ok_or(MmError::NoMem)?;
        inner.areas.set_range(start, grown)?;
        if let Some(area) = inner.areas.find_containing(start)
            && let Some(place) = &area.backing.shown
        {
            place.widen(area.pgoff(), area.page_index(added.end()) - 1);
        }
        inner.areas.merge_around(grown);
        inner.note_total();
        let locked = flags.contains(VmFlags::LOCKED);
        if locked {
            inner.locked_vm += added.nr_pages();
        }
        Ok(Some(Moved {
            to: at,
            touch: locked.then_some(added),
            access: populate_access(flags),
        }))
    }

    /// `move_vma`: a new area at `target` that takes over the pages of the old one, which is then
    /// unmapped, or with `keep` left empty.
    fn move_area(
        &self,
        mm: &Mm<'m>,
        inner: &mut MmInner<'m>,
        remap: &mut Remap,
        target: VirtAddr,
    ) -> Result<Moved, MmError> {
        let (at, old_len, new_len) = (remap.at, remap.old_len, remap.new_len);
        let keep = remap.flags & DONTUNMAP != 0;
        if inner.areas.len() + 3 > self.max_map_count {
            return Err(MmError::NoMem);
        }
        let area = inner.areas.find_containing(at).ok_or(MmError::Fault)?;
        let flags = area.flags;
        let backing = &area.backing;
        // Memory that was never touched is as if mapped at its new place from the start.
        let pgoff = if backing.is_anonymous() && backing.anon.is_none() {
            target.page_number()
        } else {
            crate::fault::index_in(area, at)
        };
        let new_range = VirtRange::from_len(target, new_len).ok_or(MmError::NoMem)?;
        let backing = self.moved_backing(mm.space(), backing, new_range, pgoff)?;
        // Preallocate: every table that the move needs, so that it cannot stop half-way.
        let old_range = VirtRange::from_len(at, old_len);
        if let Some(old_range) = old_range {
            self.prepare_tables(inner, old_range, target)?;
            inner.areas.isolate(old_range)?;
        }
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
        let added = VirtRange::new(target + old_len, target + new_len);
        let moved = Moved {
            to: target,
            touch: added.filter(|_| flags.contains(VmFlags::LOCKED)),
            access: populate_access(flags),
        };
        let Some(old_range) = old_range else {
            return Ok(moved);
        };
        self.move_entries(mm, inner, old_range, target);
        if keep {
            if let Some(area) = inner.areas.find_mut(old_range.start())
                && area.flags.contains(VmFlags::LOCKED)
            {
                area.flags = flags - (VmFlags::LOCKED | VmFlags::LOCKONFAULT);
                inner.locked_vm = inner.locked_vm.saturating_sub(old_range.nr_pages());
            }
            inner.areas.merge_around(old_range);
        } else {
            // From here on, another attempt has only this left to do.
            remap.moved = Some(moved);
            self.leave(mm, inner, at, old_len)?;
        }
        Ok(moved)
    }

    /// Unmaps what was moved away. It can fail where the new area joined the old one and both must be
    /// split again.
    fn leave(
        &self,
        mm: &Mm<'m>,
        inner: &mut MmInner<'m>,
        at: VirtAddr,
        old_len: u64,
    ) -> Result<(), MmError> {
        match VirtRange::from_len(at, old_len) {
            Some(old) => self.unmap_range(mm, inner, old),
            None => Ok(()),
        }
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
                .is_some_and(|leaf| !leaf.get(at).is_none())
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
                if pte.is_none() {
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
