//! brk(2). Linux: `mm/mmap.c`.

use super::page_align;
use crate::MmError;
use crate::backing::{Object, VmBacking};
use crate::context::MmContext;
use crate::mm::{Area, Mm, MmInner};
use vellum_machine::Machine;
use vellum_types::{Access, PAGE_SHIFT, PAGE_SIZE, VirtAddr, VirtRange, VmFlags};

impl<'m, M: Machine> MmContext<'m, M> {
    /// Moves the break; returns where it is afterwards. A refusal leaves it where it was, which is
    /// how the raw system call reports one.
    pub fn brk(&self, mm: &Mm<'m>, addr: u64) -> u64 {
        match self.with_room(|| self.set_brk(mm, &mut mm.lock(), addr)) {
            Ok(locked) => {
                if let Some(added) = locked {
                    // As Linux: brk succeeds although memory may end here.
                    let _ = self.populate(mm, added, Access::Write);
                }
                addr
            }
            Err(_) => mm.lock().brk,
        }
    }

    /// Returns what must be faulted in.
    fn set_brk(
        &self,
        mm: &Mm<'m>,
        inner: &mut MmInner<'m>,
        addr: u64,
    ) -> Result<Option<VirtRange>, MmError> {
        if addr < inner.layout.start_brk || addr > inner.layout.task_size - PAGE_SIZE {
            return Err(MmError::NoMem);
        }
        if inner.limits.data != u64::MAX {
            let data = inner.layout.end_data - inner.layout.start_data;
            if (addr - inner.layout.start_brk).saturating_add(data) > inner.limits.data {
                return Err(MmError::NoMem);
            }
        }
        let (old, new) = (page_align(inner.brk), page_align(addr));
        let mut locked = None;
        if let Some(freed) = VirtRange::new(VirtAddr::new(new), VirtAddr::new(old)) {
            self.unmap_range(mm, inner, freed)?;
        } else if let Some(added) = VirtRange::new(VirtAddr::new(old), VirtAddr::new(new)) {
            locked = self.grow_brk(inner, added)?.then_some(added);
        }
        inner.brk = addr;
        Ok(locked)
    }

    /// True if the heap is locked in memory.
    fn grow_brk(&self, inner: &mut MmInner<'m>, added: VirtRange) -> Result<bool, MmError> {
        // A page must stay free between the heap and the next area.
        let guarded =
            VirtRange::new(added.start(), added.end() + PAGE_SIZE).ok_or(MmError::NoMem)?;
        if inner.areas.overlapping(guarded).next().is_some() {
            return Err(MmError::NoMem);
        }
        let flags =
            VmFlags::READ | VmFlags::WRITE | VmFlags::MAY | VmFlags::ACCOUNT | inner.def_flags;
        if !inner.may_expand(flags, added.nr_pages(), 0) || inner.areas.len() > self.max_map_count {
            return Err(MmError::NoMem);
        }
        let locked = flags.contains(VmFlags::LOCKED);
        if locked && ((inner.locked_vm + added.nr_pages()) << PAGE_SHIFT) > inner.limits.memlock {
            return Err(MmError::Again);
        }
        let backing = VmBacking::new(Object::Anonymous);
        inner.areas.insert_merged(Area::new(
            added,
            flags,
            added.start().page_number(),
            backing,
        ))?;
        inner.note_total();
        if locked {
            inner.locked_vm += added.nr_pages();
        }
        Ok(locked)
    }
}
