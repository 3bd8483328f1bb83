//! Where a file's pages are mapped, and taking them from there.
//!
//! The walk visits those who map the pages in question, whatever else is mapped in the system.

use crate::MmError;
use crate::backing::is_shmem;
use crate::context::{MmContext, has_frame};
use crate::mm::{Area, MmInner, UserLeaf};
use vellum_machine::Machine;
use vellum_object::KArc;
use vellum_page_cache::{ErrSeq, MappingRef, Wanted};
use vellum_page_table::PteFlags;
use vellum_rmap::Mapped;
use vellum_types::{PAGE_SHIFT, PAGE_SIZE, Pfn, SpaceId, VirtAddr, VirtRange, VmFlags};

/// The addresses at which `area` shows the pages `first..=last` of `mapping`.
fn shown<'m>(
    area: &Area<'m>,
    mapping: &MappingRef<'m>,
    first: u64,
    last: u64,
) -> Option<VirtRange> {
    if !area
        .backing
        .mapping()
        .is_some_and(|m| KArc::ptr_eq(m, mapping))
    {
        return None;
    }
    let pgoff = area.pgoff();
    let end = pgoff + area.range().nr_pages();
    let from = first.max(pgoff);
    let to = last.saturating_add(1).min(end);
    if from >= to {
        return None;
    }
    let at = |index: u64| VirtAddr::from_page_number(area.start().page_number() + (index - pgoff));
    VirtRange::new(at(from), at(to))
}

/// Takes bits from an entry, and loses none that a walker sets meanwhile.
pub(crate) fn clear_bits(leaf: &UserLeaf<'_>, va: VirtAddr, bits: PteFlags) {
    let mut old = leaf.get(va);
    while let Err(now) = leaf.compare_exchange(va, old, old.without(bits)) {
        old = now;
    }
}

impl<'m, M: Machine> MmContext<'m, M> {
    /// Calls `each` for every piece of an address space that shows pages `first..=last`, with the lock of
    /// the space held.
    fn for_each_view(
        &self,
        mapping: &MappingRef<'m>,
        first: u64,
        last: u64,
        each: &mut dyn FnMut(SpaceId, &mut MmInner<'m>, VirtRange),
    ) {
        mapping
            .mappers()
            .visit(first, last, &mut |mapper, from, to| {
                let view = VirtRange::new(mapper.addr(from), mapper.addr(to) + PAGE_SIZE);
                // A space that is gone, or not yet there, has no entries.
                if let (Some(view), Some(mm)) = (view, self.space(mapper.space)) {
                    let inner = &mut *mm.lock();
                    let mut at = view.start();
                    while let Some(rest) = VirtRange::new(at, view.end())
                        && let Some(area) = inner.areas.overlapping(rest).next()
                    {
                        at = area.end();
                        if let Some(part) = shown(area, mapping, first, last) {
                            each(mapper.space, inner, part);
                        }
                    }
                }
                true
            });
    }

    /// Takes the pages `first..=last` of a file out of every address space, private copies of them
    /// too, as truncation asks. Linux: `unmap_mapping_range` with `even_cows`.
    pub(crate) fn unmap_mapping(&self, mapping: &MappingRef<'m>, first: u64, last: u64) {
        self.for_each_view(mapping, first, last, &mut |space, inner, view| {
            let mut gather = self.gather(space);
            self.zap(inner, view, &mut gather);
        });
    }

    /// Makes every shared entry of `frames`, pages `first` and following of a file, read-only and clean,
    /// so that the next write is seen. Linux: `folio_mkclean`.
    pub(crate) fn mkclean(&self, mapping: &MappingRef<'m>, first: u64, frames: &[Pfn]) {
        let last = first + frames.len() as u64 - 1;
        self.for_each_view(mapping, first, last, &mut |space, inner, view| {
            let Some(area) = inner.areas.find_containing(view.start()) else {
                return;
            };
            if !area.flags.contains(VmFlags::SHARED) {
                return;
            }
            let mut changed: Option<VirtRange> = None;
            for (leaf, part) in inner.table.leaves(view) {
                for va in part.pages() {
                    let pte = leaf.get(va);
                    let frame = frames.get((area.page_index(va) - first) as usize);
                    let same = has_frame(pte) && frame == Some(&pte.pfn());
                    if same && pte.flags().intersects(PteFlags::WRITE | PteFlags::DIRTY) {
                        // Running I/O may store there at any time, and cannot fault.
                        if self.machine.is_pinned(space, va) {
                            mapping.mark_dirty(&self.cache, area.page_index(va));
                            if let Some(range) = changed.take() {
                                self.machine.wrprotect_range(space, range);
                            }
                            continue;
                        }
                        clear_bits(&leaf, va, PteFlags::WRITE | PteFlags::DIRTY);
                        let start = changed.map_or(va, |range| range.start());
                        changed = VirtRange::new(start, va + PAGE_SIZE);
                    }
                }
            }
            if let Some(range) = changed {
                self.machine.wrprotect_range(space, range);
                self.machine.flush_wait(space);
            }
        });
    }

    /// Writes the dirty pages of `len` bytes from `offset` to the file's store.
    ///
    /// # Errors
    /// Io: this write's, or one that nobody was told of yet.
    pub fn writeback(
        &self,
        mapping: &MappingRef<'m>,
        offset: u64,
        len: u64,
    ) -> Result<(), MmError> {
        if is_shmem(mapping.file()) || mapping.nr_dirty() == 0 {
            return Ok(mapping.check_error()?);
        }
        let first = offset >> PAGE_SHIFT;
        let last = offset.saturating_add(len.max(1) - 1) >> PAGE_SHIFT;
        mapping.writeback(&self.cache, first, last, &mut |index, frames| {
            self.mkclean(mapping, index, frames);
        })?;
        Ok(())
    }

    /// [`MmContext::writeback`] for one who has the file open, and is told of each failed write once,
    /// whoever else was told of it. fsync(2) calls it before the store's `sync`.
    ///
    /// # Errors
    /// Io.
    pub fn fsync(
        &self,
        mapping: &MappingRef<'m>,
        offset: u64,
        len: u64,
        since: &mut ErrSeq,
    ) -> Result<(), MmError> {
        let first = offset >> PAGE_SHIFT;
        let last = offset.saturating_add(len.max(1) - 1) >> PAGE_SHIFT;
        mapping.writeback_since(&self.cache, first, last, since, &mut |index, frames| {
            self.mkclean(mapping, index, frames);
        })?;
        Ok(())
    }

    /// Writes dirty pages, oldest first, if there are more than the limits allow; returns how many. For
    /// the end of an operation that may have made pages dirty, where no lock is held: a machine that
    /// has a thread for `Background` passes `Now`, one that has none passes `Background`. A failed write
    /// is told to the file's openers. Linux: `balance_dirty_pages`.
    pub fn balance_dirty(&self, from: Wanted) -> u64 {
        let wanted = self.cache.writeback_wanted();
        if wanted == Wanted::No || wanted < from {
            return 0;
        }
        let target = self.cache.flush_target();
        self.cache
            .flush_some(target, &mut |mapping, index, frames| {
                self.mkclean(mapping, index, frames);
            })
    }

    /// Writes every dirty page of every file.
    ///
    /// # Errors
    /// The first error; the other files are written all the same.
    pub fn writeback_all(&self) -> Result<(), MmError> {
        let mut result = Ok(());
        self.cache.for_each_mapping(&mut |mapping| {
            if let Err(error) = self.writeback(mapping, 0, u64::MAX) {
                result = result.and(Err(error));
            }
        });
        result
    }

    /// The file now has `size` bytes: unmaps and drops what lies past it.
    pub fn truncate(&self, mapping: &MappingRef<'m>, size: u64) {
        mapping.truncate(&self.cache, size, &mut |first, last| {
            self.unmap_mapping(mapping, first, last)
        });
    }

    /// The file now has a hole there: whole pages are unmapped and dropped, partial ones zeroed. The
    /// caller wrote the range back before it made the hole ([`MmContext::writeback`]).
    pub fn punch(&self, mapping: &MappingRef<'m>, offset: u64, len: u64) {
        mapping.punch(&self.cache, offset, len, &mut |first, last| {
            self.unmap_mapping(mapping, first, last);
        });
    }

    /// The store changed behind our back: reads it again, in place where a page is mapped.
    ///
    /// # Errors
    /// Io for a page that is still mapped and could not be read; it keeps what it had.
    pub fn invalidate(&self, mapping: &MappingRef<'m>) -> Result<(), MmError> {
        mapping.invalidate(&self.cache, &mut |first, last| {
            self.unmap_mapping(mapping, first, last)
        })?;
        Ok(())
    }
}
