//! Stacks that grow by being touched.

use crate::MmError;
use crate::context::MmContext;
use crate::mm::{Mm, MmInner};
use vellum_machine::{Machine, VmEvent};
use vellum_types::{PAGE_SIZE, VirtAddr, VirtRange};

/// Bytes that stay free below a stack, Linux's default `stack_guard_gap`.
pub(crate) const STACK_GUARD_GAP: u64 = 256 * PAGE_SIZE;

impl<'m, M: Machine> MmContext<'m, M> {
    /// Grows the area at `start` down to the page of `addr`. Linux: `expand_downwards`.
    ///
    /// # Errors
    /// NoMem past RLIMIT_STACK or RLIMIT_AS, or if another area would come too close; NoFrames.
    pub(crate) fn expand_stack(
        &self,
        mm: &Mm<'m>,
        inner: &mut MmInner<'m>,
        start: VirtAddr,
        addr: VirtAddr,
    ) -> Result<(), MmError> {
        let page = addr.page_down();
        let area = inner.areas.find_containing(start).ok_or(MmError::NoMem)?;
        let (end, flags) = (area.end(), area.flags);
        if page.as_u64() < inner.layout.mmap_min {
            return Err(MmError::Perm);
        }
        let grown = VirtRange::new(page, end).ok_or(MmError::NoMem)?;
        if grown.len() > inner.limits.stack {
            return Err(MmError::NoMem);
        }
        let pages = (start - page) / PAGE_SIZE;
        if !inner.may_expand(flags, pages, 0) {
            return Err(MmError::NoMem);
        }
        if let (Some(prev), _) = inner.areas.find_prev(start) {
            let accessible = prev.flags.intersects(vellum_types::VmFlags::PERMISSIONS);
            let stack = prev.flags.contains(vellum_types::VmFlags::GROWSDOWN);
            let near = prev.end().as_u64() + STACK_GUARD_GAP > page.as_u64();
            if prev.end() > page || (accessible && !stack && near) {
                return Err(MmError::NoMem);
            }
        }
        // As Linux, which needs it for its locks; it decides what merges after a fork.
        self.anon_vma_prepare(mm.space(), inner, start)?;
        inner.areas.set_range(start, grown)?;
        inner.note_total();
        self.vmstat.count(VmEvent::StackGrow);
        Ok(())
    }
}
