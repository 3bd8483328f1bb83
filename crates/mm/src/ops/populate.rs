//! Faulting ranges in ahead of use. Linux: `mm_populate`, `populate_vma_page_range`.

use crate::MmError;
use crate::context::MmContext;
use crate::fault::FaultOutcome;
use crate::mm::Mm;
use vellum_machine::Machine;
use vellum_page_table::PteFlags;
use vellum_types::{Access, VirtAddr, VirtRange, VmFlags};

impl<'m, M: Machine> MmContext<'m, M> {
    /// Faults a range in, as far as it goes. The caller holds no lock; what is in stays in while
    /// memory is reclaimed for the rest.
    ///
    /// # Errors
    /// NoMem if a page is not mapped or memory ended; the pages before it stay.
    pub(crate) fn populate(
        &self,
        mm: &Mm<'m>,
        range: VirtRange,
        access: Access,
    ) -> Result<(), MmError> {
        let mut at = range.start();
        self.with_room(|| {
            let mut inner = mm.lock();
            while at < range.end() {
                let there = inner.table.leaf(at).is_some_and(|leaf| {
                    let pte = leaf.get(at);
                    let writable = pte.flags().contains(PteFlags::WRITE);
                    pte.is_present() && (access != Access::Write || writable)
                });
                if !there {
                    match self.fault_locked(mm, &mut inner, at, access)? {
                        FaultOutcome::Minor | FaultOutcome::Major => {}
                        FaultOutcome::Segv(_) | FaultOutcome::Bus | FaultOutcome::Oom => {
                            return Err(MmError::NoMem);
                        }
                    }
                }
                at = at + vellum_types::PAGE_SIZE;
            }
            Ok(())
        })
    }

    /// Faults in every page of a range, area by area.
    ///
    /// # Errors
    /// NoMem at the first hole, or where memory ends.
    pub(crate) fn populate_areas(&self, mm: &Mm<'m>, range: VirtRange) -> Result<(), MmError> {
        let mut at = range.start();
        while at < range.end() {
            let (part, flags) = self.area_part(mm, at, range).ok_or(MmError::NoMem)?;
            if !flags.contains(VmFlags::PFNMAP) {
                // Linux turns a page that cannot be had into ENOMEM here, PROT_NONE included.
                let access = if flags.allows(Access::Read) {
                    populate_access(flags)
                } else {
                    Access::Read
                };
                self.populate(mm, part, access)?;
            }
            at = part.end();
        }
        Ok(())
    }

    /// The part of `range` in the area that holds `at`, and the area's flags.
    pub(crate) fn area_part(
        &self,
        mm: &Mm<'m>,
        at: VirtAddr,
        range: VirtRange,
    ) -> Option<(VirtRange, VmFlags)> {
        let inner = mm.lock();
        let area = inner.areas.find_containing(at)?;
        Some((area.range().intersect(&range)?, area.flags))
    }
}

/// How populate touches: a private writable area is broken from its file at once.
pub(crate) fn populate_access(flags: VmFlags) -> Access {
    if flags.contains(VmFlags::WRITE) && !flags.contains(VmFlags::SHARED) {
        Access::Write
    } else {
        Access::Read
    }
}
