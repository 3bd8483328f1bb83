//! From a page to its entries: what reclaim and write-back do to each. Linux: `mm/rmap.c`.
//!
//! Each walk costs in proportion to those who may map the page. It locks one address space at a time and is
//! called with none locked. The caller holds a reference, so that the page stays what it is, and for
//! everything but `page_referenced` the page lock, so that one such walk runs at a time.

use crate::context::{MmContext, has_frame};
use crate::file_map::clear_bits;
use crate::mm::{Area, MmInner, UserLeaf};
use vellum_machine::Machine;
use vellum_page::{PageFlags, PageState};
use vellum_page_table::{Pte, PteFlags};
use vellum_reclaim::Referenced;
use vellum_rmap::{Mapped, Mapper};
use vellum_types::{PAGE_SIZE, Pfn, SpaceId, SwapEntry, VirtAddr, VirtRange, VmFlags};

/// What came of taking a page out of all tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unmapped {
    /// No entry is left, and no stale translation.
    Done,
    /// An area holds it in memory: mlock(2).
    Mlocked,
    /// Running I/O, a missing slot, or an entry that the walk did not find. Some entries may be gone.
    Held,
}

/// An entry that maps the page, with its space locked.
pub(crate) struct Found<'m> {
    pub(crate) space: SpaceId,
    pub(crate) va: VirtAddr,
    pub(crate) leaf: UserLeaf<'m>,
    pub(crate) pte: Pte,
}

impl<'m, M: Machine> MmContext<'m, M> {
    /// Calls `each` for every entry that holds `pfn`, until it returns false.
    pub(crate) fn for_each_entry(
        &self,
        pfn: Pfn,
        each: &mut dyn FnMut(&mut MmInner<'m>, &Found<'m>) -> bool,
    ) {
        let page = self.page(pfn);
        let index = page.index();
        let mut visit = |mapper: Mapper, _, _| {
            let va = mapper.addr(index);
            let Some(mm) = self.space(mapper.space) else {
                return true;
            };
            let mut inner = mm.lock();
            let Some(leaf) = inner.table.leaf(va) else {
                return true;
            };
            let pte = leaf.get(va);
            if !has_frame(pte) || pte.pfn() != pfn {
                return true;
            }
            let space = mapper.space;
            each(
                &mut inner,
                &Found {
                    space,
                    va,
                    leaf,
                    pte,
                },
            )
        };
        match page.state() {
            PageState::Anon => {
                if let Some(anon_vma) = self.anon_table.get(page.owner()) {
                    anon_vma.mappers().visit(index, index, &mut visit);
                }
            }
            PageState::File => {
                if let Some(mapping) = self.cache.find_by_id(page.owner()) {
                    mapping.mappers().visit(index, index, &mut visit);
                }
            }
            _ => {}
        }
    }

    fn area_of<'a>(inner: &'a MmInner<'m>, found: &Found<'m>) -> &'a Area<'m> {
        match inner.areas.find_containing(found.va) {
            Some(area) => area,
            None => unreachable!("an entry outside every area"),
        }
    }

    /// How the page was used since the last call: looks at the accessed bit of each entry and clears it. On
    /// a machine that sets none, the translation goes with it, so that the next use faults and sets the
    /// bit. Linux: `folio_referenced`.
    pub fn page_referenced(&self, pfn: Pfn) -> Referenced {
        let mut result = Referenced::default();
        if self.page(pfn).mapcount() == 0 {
            return result;
        }
        let by_hardware = self.machine.features().hw_access_dirty;
        self.for_each_entry(pfn, &mut |inner, found| {
            let flags = Self::area_of(inner, found).flags;
            result.locked |= flags.contains(VmFlags::LOCKED);
            if !found.pte.is_accessed() {
                return true;
            }
            result.young += 1;
            result.exec |= flags.contains(VmFlags::EXEC);
            // What I/O uses at this moment must keep its translation, and is young anyway.
            if by_hardware {
                clear_bits(&found.leaf, found.va, PteFlags::ACCESSED);
            } else if !self.machine.must_stay(found.space, found.va) {
                clear_bits(&found.leaf, found.va, PteFlags::ACCESSED);
                self.flush_page(found);
            }
            true
        });
        result
    }

    pub(crate) fn flush_page(&self, found: &Found<'m>) {
        if let Some(range) = VirtRange::from_len(found.va, PAGE_SIZE) {
            self.machine.flush_tlb_range(found.space, range);
            self.machine.flush_wait(found.space);
        }
    }

    /// Takes a page out of every table. A private page leaves `swap` behind in each entry, with a
    /// reference to the slot; without it, it stays. What the entries know of stores goes to the page, or
    /// to the file. Flushed everywhere on return. The caller holds the page lock and a reference. Linux:
    /// `try_to_unmap`.
    pub fn try_to_unmap(&self, pfn: Pfn, swap: Option<SwapEntry>) -> Unmapped {
        self.unmap_all(pfn, swap, VmFlags::LOCKED)
    }

    /// Takes a file's page out of every table, mlocked or not, for it stays in memory. True if it did.
    pub(crate) fn unmap_to_move(&self, pfn: Pfn) -> bool {
        self.unmap_all(pfn, None, VmFlags::empty()) == Unmapped::Done
    }

    /// `try_to_unmap`, but areas with one of the flags `spared` keep the page.
    fn unmap_all(&self, pfn: Pfn, swap: Option<SwapEntry>, spared: VmFlags) -> Unmapped {
        let page = self.page(pfn);
        let anonymous = page.state() == PageState::Anon;
        let mut stop = None;
        self.for_each_entry(pfn, &mut |inner, found| {
            let area = Self::area_of(inner, found);
            if area.flags.intersects(spared) {
                stop = Some(Unmapped::Mlocked);
            } else if self.machine.must_stay(found.space, found.va) {
                stop = Some(Unmapped::Held);
            }
            if stop.is_some() {
                return false;
            }
            let kind = self.rss_kind(area, pfn);
            let mapping = area.backing.mapping().filter(|_| !anonymous).cloned();
            let left = match (anonymous, swap) {
                (false, _) => Pte::NONE,
                (true, Some(entry)) if self.swap.dup(entry).is_ok() => Pte::swap(entry),
                (true, _) => {
                    stop = Some(Unmapped::Held);
                    return false;
                }
            };
            let mut gather = self.gather(found.space);
            let old = found.leaf.replace(found.va, left);
            inner.rss_sub(kind);
            inner.swap_entries += u64::from(anonymous);
            self.rmap_remove(pfn);
            gather.remove(found.va, pfn);
            // After the flush nobody writes any more, and the bit is final.
            gather.flush();
            if old.is_dirty() {
                match mapping {
                    Some(mapping) => {
                        mapping.mark_dirty(&self.cache, page.index());
                    }
                    None => {
                        page.set_flags(PageFlags::DIRTY);
                    }
                }
            }
            true
        });
        match stop {
            Some(stop) => stop,
            None if page.mapcount() == 0 => Unmapped::Done,
            None => Unmapped::Held,
        }
    }

    /// Makes every shared entry of a file's page read-only and clean. The caller holds the page lock and a
    /// reference. Linux: `folio_mkclean`.
    pub fn page_mkclean(&self, pfn: Pfn) {
        let page = self.page(pfn);
        if page.state() == PageState::File
            && let Some(mapping) = self.cache.find_by_id(page.owner())
        {
            self.mkclean(&mapping, page.index(), &[pfn]);
        }
    }
}
