//! Addresses that are known before anything is mapped there.

use crate::Vmalloc;
use crate::layout::FIX_SLOTS;
use crate::window::KernelWindow;
use vellum_machine::{LockRank, Machine, SpinLock};
use vellum_page_table::{Format, Pte, PteFlags};
use vellum_types::{OutOfMemory, PAGE_SIZE, Pfn, VirtAddr, VirtRange};

/// [`FIX_SLOTS`] pages at the top of the fixmap: slot 0 is the last page, the others lie below it.
/// For devices and tables that code names by constants. Linux: `__set_fixmap`.
pub struct Fixmap<'m, M: Machine, F: Format> {
    machine: &'m M,
    window: SpinLock<KernelWindow<'m, F>>,
    pages: u64,
}

impl<'m, M: Machine, F: Format> Fixmap<'m, M, F> {
    /// The slots of `vmalloc`'s layout; its table is there from now on.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(vmalloc: &Vmalloc<'m, M, F>) -> Result<Self, OutOfMemory> {
        let range = vmalloc.layout().fixmap;
        Ok(Self {
            machine: vmalloc.machine,
            window: SpinLock::new(LockRank::Vmalloc, vmalloc.window(range)?),
            pages: range.nr_pages(),
        })
    }

    /// The address of `slot`, mapped or not. Linux's `fix_to_virt`.
    ///
    /// # Panics
    /// If there is no such slot.
    pub fn addr(&self, slot: u16) -> VirtAddr {
        self.window.lock().addr(self.index(slot))
    }

    /// Maps `pfn`, which may be of a device, at `slot`, and returns the address. What was there
    /// before is gone from all CPUs.
    ///
    /// # Panics
    /// If there is no such slot, or `flags` lack PRESENT.
    pub fn set(&self, slot: u16, pfn: Pfn, flags: PteFlags) -> VirtAddr {
        assert!(flags.contains(PteFlags::PRESENT), "an entry that maps");
        self.replace(slot, Pte::new(pfn, flags))
    }

    /// Unmaps `slot`.
    ///
    /// # Panics
    /// If there is no such slot.
    pub fn clear(&self, slot: u16) {
        self.replace(slot, Pte::NONE);
    }

    /// The frame that is mapped at `slot`.
    ///
    /// # Panics
    /// If there is no such slot.
    pub fn get(&self, slot: u16) -> Option<Pfn> {
        let pte = self.window.lock().get(self.index(slot));
        pte.is_present().then(|| pte.pfn())
    }

    fn replace(&self, slot: u16, pte: Pte) -> VirtAddr {
        let index = self.index(slot);
        let window = self.window.lock();
        let old = window.get(index);
        window.set(index, pte);
        let addr = window.addr(index);
        if old.is_present()
            && let Some(range) = VirtRange::from_len(addr, PAGE_SIZE)
        {
            self.machine.flush_tlb_kernel_range(range);
        }
        addr
    }

    fn index(&self, slot: u16) -> u64 {
        assert!(slot < FIX_SLOTS, "no such slot of the fixmap");
        self.pages - 1 - u64::from(slot)
    }
}
