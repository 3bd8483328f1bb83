//! swapoff(2): every page of a swap area comes back. Linux: `try_to_unuse`.

use crate::MmError;
use crate::context::{MmContext, to_prot_none};
use crate::fault::Fault;
use crate::mm::Mm;
use vellum_machine::Machine;
use vellum_page_cache::{MappingRef, Readahead};
use vellum_swap::{SwapDevice, SwapError};
use vellum_types::{Access, PAGE_SIZE, SwapEntry, VirtAddr, VirtRange};

impl<'m, M: Machine> MmContext<'m, M> {
    /// Takes a swap area out of use, and brings all that is in it back into memory before, or into
    /// other areas by way of memory. No lock is held.
    ///
    /// # Errors
    /// Inval: no such area, or it is being switched off. NoMem: there is no room for its pages; Io: one of
    /// them cannot be read. Busy: some are in use by who does not let go of them. In these cases the area stays in use, and
    /// nothing is lost.
    pub fn swapoff(&self, area: u8) -> Result<&'m dyn SwapDevice, MmError> {
        self.swap.swapoff_begin(area).map_err(from_swap)?;
        let emptied = self.try_to_unuse(area);
        let ended = emptied.and_then(|()| self.swap.swapoff_end(area).map_err(from_swap));
        if ended.is_err() {
            // It was ours to switch off, so it is there.
            let _ = self.swap.swapoff_cancel(area);
        }
        ended
    }

    fn try_to_unuse(&self, area: u8) -> Result<(), MmError> {
        let mut used = u64::MAX;
        loop {
            let mut result = Ok(());
            self.for_each_mm(&mut |mm| {
                result = self.unuse_mm(mm, area);
                result.is_ok()
            });
            result?;
            self.cache.for_each_mapping(&mut |mapping| {
                if result.is_ok() && mapping.swap_backed() {
                    result = self.unuse_mapping(mapping, area);
                }
            });
            result?;
            let left = self.unuse_cached(area);
            if left == 0 {
                return Ok(());
            }
            // A child that was not known yet, or a page that somebody is looking at: again, but not
            // for ever.
            if left >= used {
                return Err(MmError::Busy);
            }
            used = left;
        }
    }

    /// Maps every page that entries of an address space have in the area.
    fn unuse_mm(&self, mm: &Mm<'m>, area: u8) -> Result<(), MmError> {
        let mut at = VirtAddr::ZERO;
        self.with_room(|| {
            let mut inner = mm.lock();
            loop {
                if inner.swap_entries == 0 {
                    return Ok(());
                }
                let rest = VirtRange::new(at, inner.user_range().end());
                let Some(rest) = rest else { return Ok(()) };
                let found = inner.table.leaves(rest).find_map(|(leaf, part)| {
                    let ours = |va: &VirtAddr| {
                        let entry = leaf.get(*va).swap_entry();
                        entry.is_some_and(|entry| entry.area() == area)
                    };
                    part.pages().find(ours).map(|va| (leaf, va))
                });
                let Some((leaf, va)) = found else {
                    return Ok(());
                };
                at = va;
                let (Some(entry), Some(shown)) =
                    (leaf.get(va).swap_entry(), inner.areas.find_containing(va))
                else {
                    unreachable!("an entry that was just seen, under the same lock")
                };
                let fault = Fault {
                    page: va,
                    access: Access::Read,
                    flags: shown.flags,
                    range: shown.range(),
                    index: crate::fault::index_in(shown, va),
                    anonymous: shown.backing.is_anonymous(),
                    leaf,
                };
                self.do_swap_page(mm, &mut inner, &fault, entry)?;
                let pte = leaf.get(va);
                if !fault.flags.allows(Access::Read) {
                    leaf.set(va, to_prot_none(pte));
                    if let Some(page) = VirtRange::from_len(va, PAGE_SIZE) {
                        self.machine.flush_tlb_range(mm.space(), page);
                        self.machine.flush_wait(mm.space());
                    }
                }
                // In vain while others refer to the slot.
                self.swap.try_to_free_swap(pte.pfn());
            }
        })
    }

    /// Brings back what a file of shared memory has in the area.
    fn unuse_mapping(&self, mapping: &MappingRef<'m>, area: u8) -> Result<(), MmError> {
        let mut result = Ok(());
        mapping.for_each_swapped(0, u64::MAX, &mut |index, entry| {
            if result.is_ok() && entry.area() == area {
                result = self.with_room(|| {
                    let (pfn, _) = mapping.read_page(&self.cache, index, Readahead::Random)?;
                    self.put_page(pfn);
                    Ok(())
                });
            }
        });
        match result {
            // Truncated meanwhile: nothing to bring back.
            Err(MmError::Inval) => Ok(()),
            result => result,
        }
    }

    /// Takes the pages that are in memory for good out of the area's slots. Returns how many slots
    /// are still in use.
    fn unuse_cached(&self, area: u8) -> u64 {
        let (mut from, mut left) = (1, 0);
        while let Some(used) = self.swap.next_used(area, from) {
            from = used.entry.slot() + 1;
            left += u64::from(!self.free_slot(used.entry));
        }
        left
    }

    fn free_slot(&self, entry: SwapEntry) -> bool {
        let Some(pfn) = self.swap.lookup(entry) else {
            return false;
        };
        let freed = self.swap.try_to_free_swap(pfn);
        self.swap.put_page(pfn);
        freed
    }
}

fn from_swap(error: SwapError) -> MmError {
    match error {
        SwapError::OutOfMemory => MmError::NoMem,
        SwapError::Busy { .. } => MmError::Busy,
        _ => MmError::Inval,
    }
}
