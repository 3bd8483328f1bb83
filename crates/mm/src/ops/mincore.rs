//! mincore(2). Linux: `mm/mincore.c`.

use super::page_align;
use crate::MmError;
use crate::context::{MmContext, has_frame};
use crate::mm::{Area, Mm, UserLeaf};
use vellum_machine::Machine;
use vellum_page_table::Pte;
use vellum_types::{PAGE_SIZE, VirtAddr, VirtRange};

impl<'m, M: Machine> MmContext<'m, M> {
    /// Writes one byte for each page of `[addr, addr + len)` to the program's memory at `vec`: 1
    /// if it is resident.
    ///
    /// # Errors
    /// As mincore(2): Inval, Fault for a bad vector, NoMem for a hole.
    pub fn mincore(&self, mm: &Mm<'m>, addr: u64, len: u64, vec: u64) -> Result<(), MmError> {
        if !addr.is_multiple_of(PAGE_SIZE) {
            return Err(MmError::Inval);
        }
        let layout = mm.layout();
        if addr
            .checked_add(len)
            .is_none_or(|end| end > layout.task_size)
        {
            return Err(MmError::NoMem);
        }
        let pages = page_align(len) / PAGE_SIZE;
        let mut buffer = [0u8; 256];
        let mut done = 0;
        while done < pages {
            let count = (pages - done).min(buffer.len() as u64);
            let start = VirtAddr::new(addr + done * PAGE_SIZE);
            let range = VirtRange::from_len(start, count * PAGE_SIZE).ok_or(MmError::NoMem)?;
            let out = &mut buffer[..count as usize];
            self.residency(mm, range, out)?;
            let to = VirtAddr::new(vec.checked_add(done).ok_or(MmError::Fault)?);
            self.copy_to_user(mm, to, out).map_err(|_| MmError::Fault)?;
            done += count;
        }
        Ok(())
    }

    fn residency(&self, mm: &Mm<'m>, range: VirtRange, out: &mut [u8]) -> Result<(), MmError> {
        let inner = mm.lock();
        let mut at = range.start();
        let mut out = out;
        while at < range.end() {
            let area = inner.areas.find_containing(at).ok_or(MmError::NoMem)?;
            let leaf = inner.table.leaf(at);
            // As far as this area and this table go.
            let table_end = at.align_down(UserLeaf::SPAN) + UserLeaf::SPAN;
            let end = range.end().min(area.end()).min(table_end);
            let part = VirtRange::new(at, end).ok_or(MmError::NoMem)?;
            let (here, rest) = out.split_at_mut(part.nr_pages() as usize);
            let Some(leaf) = leaf else {
                for (va, slot) in part.pages().zip(here) {
                    *slot = u8::from(self.is_cached(area, va, Pte::NONE));
                }
                (at, out) = (end, rest);
                continue;
            };
            for (n, (pte, slot)) in leaf.run(at, part.nr_pages()).zip(here).enumerate() {
                let va = at + n as u64 * PAGE_SIZE;
                *slot = u8::from(has_frame(pte) || self.is_cached(area, va, pte));
            }
            (at, out) = (end, rest);
        }
        Ok(())
    }

    /// True if the page of an entry without a frame is in memory all the same.
    #[inline(never)]
    fn is_cached(&self, area: &Area<'m>, va: VirtAddr, pte: Pte) -> bool {
        if let Some(entry) = pte.swap_entry() {
            let cached = self.swap.lookup(entry);
            if let Some(pfn) = cached {
                self.swap.put_page(pfn);
            }
            return cached.is_some();
        }
        let index = crate::fault::index_in(area, va);
        let cached = area
            .backing
            .mapping()
            .and_then(|mapping| mapping.find_get(index));
        if let Some(pfn) = cached {
            self.put_page(pfn);
        }
        cached.is_some()
    }
}
