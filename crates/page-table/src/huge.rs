//! Entries above level 0 that map memory.

use crate::{Format, PageTable, Pte, PteFlags, TlbGather};
use core::fmt;
use vellum_machine::Machine;
use vellum_types::{OutOfMemory, PAGE_SHIFT, Pfn, VirtAddr, VirtRange};

/// Why a huge entry was not made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapHugeError {
    /// No frame for a table above it.
    OutOfMemory,
    /// An entry or a table is already there.
    Occupied,
    /// The format has no huge entries at that level, or address or frame are not aligned to it.
    Unsupported,
}

impl fmt::Display for MapHugeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutOfMemory => "out of memory",
            Self::Occupied => "the address is already mapped or has a table",
            Self::Unsupported => "no huge entry is possible there",
        })
    }
}

impl core::error::Error for MapHugeError {}

impl<F: Format> PageTable<'_, F> {
    /// Maps all that one entry at `level` covers. The huge bit is added to `pte`.
    ///
    /// # Errors
    /// See [`MapHugeError`]; nothing is mapped then.
    pub fn map_huge(&mut self, va: VirtAddr, pte: Pte, level: u8) -> Result<(), MapHugeError> {
        let fits = level > 0
            && level <= F::MAX_HUGE_LEVEL
            && va < self.own_end
            && va.as_u64().is_multiple_of(F::span(level))
            && pte.pfn().addr().as_u64().is_multiple_of(F::span(level));
        if !fits {
            return Err(MapHugeError::Unsupported);
        }
        // Looked up first: table_or_alloc would split a larger huge entry in the way.
        if self.walk(va).is_some() {
            return Err(MapHugeError::Occupied);
        }
        let table = self
            .table_or_alloc(va, level)
            .map_err(|_| MapHugeError::OutOfMemory)?;
        let index = F::index(va, level);
        if !F::load(self.ram, table, index).is_none() {
            return Err(MapHugeError::Occupied);
        }
        F::store(self.ram, table, index, pte.with(PteFlags::HUGE));
        Ok(())
    }

    /// Clears the huge entry that covers `va`, if there is one, and returns it with its level. All it
    /// mapped is noted for flushing; what becomes of its frames is the caller's business, after
    /// `gather.flush()` or through [`TlbGather::remove`].
    pub fn unmap_huge<M: Machine>(
        &mut self,
        va: VirtAddr,
        gather: &mut TlbGather<'_, M>,
    ) -> Option<(Pte, u8)> {
        let (pte, level) = self.clear_huge(va)?;
        if let Some(range) = VirtRange::from_len(va.align_down(F::span(level)), F::span(level)) {
            gather.note_flush(range);
        }
        Some((pte, level))
    }

    /// Clears the huge entry that covers `va`, if there is one, and returns it with its level. The
    /// flush is the caller's duty.
    pub fn clear_huge(&mut self, va: VirtAddr) -> Option<(Pte, u8)> {
        let (table, level) = self.descend(va, 0)?;
        if level == 0 || va >= self.own_end {
            return None;
        }
        let index = F::index(va, level);
        let pte = F::load(self.ram, table, index);
        if pte.is_none() {
            return None;
        }
        F::store(self.ram, table, index, Pte::NONE);
        Some((pte, level))
    }

    /// Replaces the huge entry that covers `va`, if there is one, by a table of entries one level
    /// lower with the same frames and flags. False if there was none.
    ///
    /// No translation changes, so no flush is due. The reference that the huge entry held is the
    /// caller's to divide among the new entries.
    ///
    /// # Errors
    /// Out of memory; nothing changed.
    pub fn split_huge(&mut self, va: VirtAddr) -> Result<bool, OutOfMemory> {
        let Some((table, level)) = self.descend(va, 0) else {
            return Ok(false);
        };
        if level == 0 || va >= self.own_end {
            return Ok(false);
        }
        let index = F::index(va, level);
        let pte = F::load(self.ram, table, index);
        self.split_entry(table, index, level, pte)?;
        Ok(true)
    }

    /// Splits the huge entry `index` of `table`; returns the link that stands there now.
    pub(crate) fn split_entry(
        &mut self,
        table: Pfn,
        index: u64,
        level: u8,
        huge: Pte,
    ) -> Result<Pte, OutOfMemory> {
        let below = self.alloc_table()?;
        let frames_each = 1u32 << (F::shift(level - 1) - PAGE_SHIFT);
        let kept = if level > 1 {
            PteFlags::HUGE
        } else {
            PteFlags::empty()
        };
        let flags = huge.flags().difference(PteFlags::HUGE) | kept;
        for i in 0..F::entries(level - 1) {
            let frame = huge.pfn() + i as u32 * frames_each;
            F::store(self.ram, below, i, Pte::new(frame, flags));
        }
        let link = Pte::new(below, F::link_flags(level));
        F::store(self.ram, table, index, link);
        Ok(link)
    }
}
