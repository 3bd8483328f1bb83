//! Page faults: `handle_mm_fault` and the rules of x86's `do_user_addr_fault`.

mod anon;
mod cow;
mod file;
mod stack;
mod swap;

pub(crate) use stack::STACK_GUARD_GAP;

use crate::MmError;
use crate::context::{MmContext, is_prot_none};
use crate::mm::{Area, Mm, MmInner, UserLeaf};
use vellum_machine::{Machine, TraceEvent, VmEvent};
use vellum_page_table::PteFlags;
use vellum_types::{Access, PAGE_SIZE, VirtAddr, VirtRange, VmFlags};

/// A fault, as the machine saw it.
#[derive(Clone, Copy, Debug)]
pub struct FaultInfo {
    /// Where.
    pub addr: VirtAddr,
    /// By doing what.
    pub access: Access,
    /// The stack pointer, if the machine knows it. Linux no longer looks at it for stack growth
    /// (since 4.20 any access in reach of the limit grows the stack), and neither do we.
    pub sp: Option<VirtAddr>,
}

/// `si_code` of a SIGSEGV.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegvCode {
    /// Nothing is mapped there.
    MapErr = 1,
    /// The area does not allow it.
    AccErr = 2,
}

/// How a fault ended. A signal is an answer, not an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultOutcome {
    /// Served from memory.
    Minor,
    /// Served after I/O.
    Major,
    /// SIGSEGV.
    Segv(SegvCode),
    /// SIGBUS with BUS_ADRERR: past the end of the file, or its page could not be read.
    Bus,
    /// There is no frame. The machine frees memory, by killing somebody, and tries again.
    Oom,
}

impl FaultOutcome {
    /// True if the access may be repeated.
    pub const fn is_served(self) -> bool {
        matches!(self, Self::Minor | Self::Major)
    }
}

/// What a fault needs to know of its area.
struct Found {
    flags: VmFlags,
    range: VirtRange,
    index: u64,
    anonymous: bool,
}

impl Found {
    fn new(area: &Area<'_>, addr: VirtAddr) -> Self {
        Self {
            flags: area.flags,
            range: area.range(),
            index: index_in(area, addr),
            anonymous: area.backing.is_anonymous(),
        }
    }
}

/// A fault inside an area that allows it, on its way to a frame. Linux's `vm_fault`.
pub(crate) struct Fault<'m> {
    /// Start of the page.
    pub(crate) page: VirtAddr,
    pub(crate) access: Access,
    pub(crate) flags: VmFlags,
    pub(crate) range: VirtRange,
    /// The page's offset in the area's object, pages.
    pub(crate) index: u64,
    /// The area shows no file.
    pub(crate) anonymous: bool,
    pub(crate) leaf: UserLeaf<'m>,
}

impl Fault<'_> {
    pub(crate) fn is_write(&self) -> bool {
        self.access == Access::Write
    }

    /// The pages around this one that share its block of `pages` (a power of two), its area and
    /// its leaf table.
    pub(crate) fn window(&self, pages: u64) -> VirtRange {
        let table = UserLeaf::ENTRIES as u64 * PAGE_SIZE;
        let start = self.page.align_down(pages.max(1) * PAGE_SIZE);
        let end = start
            .checked_add(pages.max(1) * PAGE_SIZE)
            .unwrap_or(self.range.end());
        let floor = self.page.align_down(table).max(self.range.start());
        let ceiling = (self.page.align_down(table) + table).min(self.range.end());
        VirtRange::new(start.max(floor), end.min(ceiling))
            .unwrap_or_else(|| unreachable!("the page itself is inside"))
    }

    /// The index of another page of the same area.
    pub(crate) fn index_of(&self, page: VirtAddr) -> u64 {
        (self.index + page.page_number()).wrapping_sub(self.page.page_number())
    }
}

impl<'m, M: Machine> MmContext<'m, M> {
    /// Serves a fault. On success the entry is right and the machine has been told of it and of
    /// those filled beside it.
    pub fn fault(&self, mm: &Mm<'m>, info: FaultInfo) -> FaultOutcome {
        self.trace.emit(TraceEvent::PageFaultUser {
            space: mm.space(),
            address: info.addr,
            access: info.access,
        });
        let mut read = false;
        let served = self.retry(|| {
            let served = self.fault_locked(mm, &mut mm.lock(), info.addr, info.access);
            read |= matches!(served, Err(MmError::Swapped(_)));
            served
        });
        match served {
            Ok(FaultOutcome::Minor) if read => {
                self.vmstat.count(VmEvent::PgMajFault);
                FaultOutcome::Major
            }
            Ok(outcome) => outcome,
            Err(MmError::Io(_)) => FaultOutcome::Bus,
            Err(_) => FaultOutcome::Oom,
        }
    }

    /// An access that the area does not allow. x86 reads a page in before it finds that nothing may
    /// be executed there, and a program may see that fail: past the end of a file it is SIGBUS.
    #[cold]
    fn refuse(
        &self,
        mm: &Mm<'m>,
        inner: &mut MmInner<'m>,
        addr: VirtAddr,
        access: Access,
        flags: VmFlags,
    ) -> Result<FaultOutcome, MmError> {
        let readable = flags.allows(Access::Read) && !flags.contains(VmFlags::PFNMAP);
        if access == Access::Exec && readable {
            let outcome = self.fault_locked(mm, inner, addr, Access::Read)?;
            if !outcome.is_served() {
                return Ok(outcome);
            }
        }
        Ok(FaultOutcome::Segv(SegvCode::AccErr))
    }

    /// One attempt to serve a fault.
    ///
    /// # Errors
    /// NoFrames or Swapped: what must be done, with no lock held, before another attempt.
    pub(crate) fn fault_locked(
        &self,
        mm: &Mm<'m>,
        inner: &mut MmInner<'m>,
        addr: VirtAddr,
        access: Access,
    ) -> Result<FaultOutcome, MmError> {
        let outcome = self.try_fault(mm, inner, addr, access)?;
        // Here, so that an attempt that is made again counts once.
        self.vmstat.count(VmEvent::PgFault);
        Ok(outcome)
    }

    fn try_fault(
        &self,
        mm: &Mm<'m>,
        inner: &mut MmInner<'m>,
        addr: VirtAddr,
        access: Access,
    ) -> Result<FaultOutcome, MmError> {
        let found = match self.area_for(mm, inner, addr) {
            Ok(found) => found,
            Err(outcome) => return outcome,
        };
        let Found {
            flags,
            range,
            index,
            anonymous,
        } = found;
        if !flags.allows(access) || flags.contains(VmFlags::PFNMAP) {
            return self.refuse(mm, inner, addr, access, flags);
        }
        let leaf = inner.table.leaf_or_alloc(addr)?;
        let fault = Fault {
            page: addr.page_down(),
            access,
            flags,
            range,
            index,
            anonymous,
            leaf,
        };
        match self.handle(mm, inner, &fault) {
            Ok(outcome) => {
                if outcome == FaultOutcome::Major {
                    self.vmstat.count(VmEvent::PgMajFault);
                }
                if flags.contains(VmFlags::LOCKED) {
                    self.mlock_entry(fault.leaf.get(fault.page));
                }
                Ok(outcome)
            }
            Err(error @ (MmError::NoFrames | MmError::Swapped(_))) => Err(error),
            Err(_) => Ok(FaultOutcome::Bus),
        }
    }

    /// The area that holds `addr`, after a stack was grown down to it if the rules allow.
    fn area_for(
        &self,
        mm: &Mm<'m>,
        inner: &mut MmInner<'m>,
        addr: VirtAddr,
    ) -> Result<Found, Result<FaultOutcome, MmError>> {
        const MAP_ERR: Result<FaultOutcome, MmError> = Ok(FaultOutcome::Segv(SegvCode::MapErr));
        let start = match inner.areas.find(addr) {
            Some(area) if area.start() <= addr => return Ok(Found::new(area, addr)),
            Some(area) if area.flags.contains(VmFlags::GROWSDOWN) => area.start(),
            _ => return Err(MAP_ERR),
        };
        self.expand_stack(mm, inner, start, addr)
            .map_err(|error| match error {
                MmError::NoFrames => Err(error),
                _ => MAP_ERR,
            })?;
        let area = inner.areas.find_containing(addr).ok_or(MAP_ERR)?;
        Ok(Found::new(area, addr))
    }

    fn handle(
        &self,
        mm: &Mm<'m>,
        inner: &mut MmInner<'m>,
        fault: &Fault<'m>,
    ) -> Result<FaultOutcome, MmError> {
        let pte = fault.leaf.get(fault.page);
        if pte.is_none() {
            if fault.anonymous {
                return self.do_anonymous(mm, inner, fault);
            }
            let area = inner.areas.find_containing(fault.page);
            let Some(mapping) = area.and_then(|area| area.backing.mapping()).cloned() else {
                unreachable!("the area was found under the same lock")
            };
            return if !fault.is_write() {
                self.do_read_fault(mm, inner, fault, &mapping)
            } else if fault.flags.contains(VmFlags::SHARED) {
                self.do_shared_fault(mm, inner, fault, &mapping)
            } else {
                self.do_cow_fault(mm, inner, fault, &mapping)
            };
        }
        if let Some(entry) = pte.swap_entry() {
            return self.do_swap_page(mm, inner, fault, entry);
        }
        if is_prot_none(pte) {
            // mprotect rewrites every entry of the areas it opens, so none is left behind.
            return Ok(FaultOutcome::Segv(SegvCode::AccErr));
        }
        if fault.is_write() && !pte.flags().contains(PteFlags::WRITE) {
            return self.do_wp_page(mm, inner, fault, pte);
        }
        self.vmstat.count(VmEvent::SpuriousFault);
        let mut bits = PteFlags::ACCESSED;
        if fault.is_write() {
            bits |= PteFlags::DIRTY;
        }
        fault.leaf.set(fault.page, pte.with(bits));
        self.refill(mm, fault);
        Ok(FaultOutcome::Minor)
    }

    /// Loads the machine's TLB again for a page and what is present around it.
    fn refill(&self, mm: &Mm<'m>, fault: &Fault<'m>) {
        let pages = u64::from(self.machine.features().fault_around_pages);
        let window = fault.window(pages);
        self.update_mmu(&fault.leaf, mm.space(), window.start(), window.nr_pages());
    }
}

/// The page offset of `addr` in the area's object.
pub(crate) fn index_in(area: &Area<'_>, addr: VirtAddr) -> u64 {
    area.pgoff() + (addr.page_number() - area.start().page_number())
}
