//! The upper root entries, which are the same in all address spaces.

use crate::{Format, PageTable, Pte};
use vellum_machine::{VmEvent, VmStat};
use vellum_page::PageSource;
use vellum_types::{OutOfMemory, Pfn, VirtAddr, VirtRange};

impl<'m, F: Format> PageTable<'m, F> {
    /// The kernel's own tables: the half from `start` on is for others to share. Linux's
    /// `swapper_pg_dir`. `start` is without sign extension, as all addresses here.
    ///
    /// # Errors
    /// Out of memory.
    ///
    /// # Panics
    /// If `start` is not at a boundary between two root entries.
    pub fn new_kernel(
        source: &'m dyn PageSource,
        vmstat: &'m VmStat,
        owner: u32,
        start: VirtAddr,
    ) -> Result<Self, OutOfMemory> {
        assert!(
            F::translates(start) && start.as_u64().is_multiple_of(F::span(F::LEVELS - 1)),
            "the kernel half begins at a root entry"
        );
        let mut this = Self::new(source, vmstat, owner)?;
        this.kernel_start = start;
        Ok(this)
    }

    /// An empty root whose kernel half is that of `kernel`: its root entries are copied, and what
    /// is mapped below them later is seen here too. Costs a copy of half a root, at most 2 KiB.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new_sharing(
        source: &'m dyn PageSource,
        vmstat: &'m VmStat,
        owner: u32,
        kernel: &Self,
    ) -> Result<Self, OutOfMemory> {
        let mut this = Self::new(source, vmstat, owner)?;
        this.kernel_start = kernel.kernel_start;
        this.own_end = kernel.kernel_start;
        // Nobody walks the new root yet, and who changes the kernel's needs `&mut`: plain bytes will do.
        let shared = this.shared_entries();
        let at = shared.start * F::ENTRY_BYTES;
        let bytes = shared.end * F::ENTRY_BYTES - at;
        if bytes > 0 {
            let (to, from) = (this.root.addr() + at, kernel.root.addr() + at);
            this.ram.copy_bytes(to, from, bytes);
        }
        Ok(this)
    }

    /// Makes the table below each root entry that `range` overlaps, so that none appears later and
    /// whoever shares this half needs no [`PageTable::sync_kernel_entry`] there. Linux's
    /// `preallocate_vmalloc_pages`.
    ///
    /// # Errors
    /// Out of memory; tables made so far stay.
    ///
    /// # Panics
    /// If the format cannot translate the range.
    pub fn prealloc_root(&mut self, range: VirtRange) -> Result<(), OutOfMemory> {
        let top = F::LEVELS - 1;
        let mut va = range.start().align_down(F::span(top));
        while va < range.end() {
            self.table_or_alloc(va, top - 1)?;
            va = va + F::span(top);
        }
        Ok(())
    }

    /// A fault at `va` of the kernel half: copies the root entry if `kernel` has one by now and
    /// this table does not. True if so: the access may be tried again. False means that the fault
    /// has another cause. Linux's `vmalloc_fault`.
    pub fn sync_kernel_entry(&mut self, kernel: &Self, va: VirtAddr) -> bool {
        if !F::translates(va) || va < self.own_end || self.root == Pfn::NONE {
            return false;
        }
        let index = F::index(va, F::LEVELS - 1);
        let theirs = F::load(kernel.ram, kernel.root, index);
        let ours = F::load(self.ram, self.root, index);
        if theirs.is_none() || !ours.is_none() {
            return false;
        }
        F::store(self.ram, self.root, index, theirs);
        self.vmstat.count(VmEvent::VmallocFault);
        true
    }

    /// Checks that the shared entries are those of `kernel`, or none.
    ///
    /// # Errors
    /// Which is broken.
    pub fn validate_sharing(&self, kernel: &Self) -> Result<(), &'static str> {
        for index in self.shared_entries() {
            let ours = F::load(self.ram, self.root, index);
            let theirs = F::load(kernel.ram, kernel.root, index);
            if ours != Pte::NONE && ours != theirs {
                return Err("a shared root entry differs from the kernel's");
            }
        }
        Ok(())
    }

    /// How many entries of a table at `level` are this table's own.
    pub(crate) fn own_entries(&self, level: u8) -> u64 {
        if level == F::LEVELS - 1 {
            self.own_end.as_u64() / F::span(level)
        } else {
            F::entries(level)
        }
    }

    /// The root entries of somebody else's kernel half.
    fn shared_entries(&self) -> core::ops::Range<u64> {
        let top = F::LEVELS - 1;
        self.own_entries(top)..F::entries(top)
    }
}
