//! The tables of one address space.

use crate::{Entries, Format, LeafTable, Leaves, Pte};
use core::marker::PhantomData;
use vellum_machine::{DirectMap, VmItem, VmStat};
use vellum_page::{AllocRequest, PageSource, PageState};
use vellum_types::{Order, OutOfMemory, Pfn, VirtAddr, VirtRange};

/// The page tables of one address space.
///
/// # Invariants
/// * `nr_tables` frames of state `PageTable` hang from the entries of `root` below `own_end`, the root
///   included; after `destroy`, none and `Pfn::NONE`.
/// * What hangs from higher entries belongs to the kernel's tables.
pub struct PageTable<'m, F: Format> {
    pub(crate) source: &'m dyn PageSource,
    pub(crate) vmstat: &'m VmStat,
    pub(crate) ram: DirectMap<'m>,
    pub(crate) root: Pfn,
    pub(crate) owner: u32,
    pub(crate) nr_tables: u64,
    /// One past the last address whose entries are this table's to change.
    pub(crate) own_end: VirtAddr,
    /// Where the kernel half begins; the end of all addresses if there is none.
    pub(crate) kernel_start: VirtAddr,
    format: PhantomData<F>,
}

impl<'m, F: Format> PageTable<'m, F> {
    /// An empty root table, for the space whose id is `owner`.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(
        source: &'m dyn PageSource,
        vmstat: &'m VmStat,
        owner: u32,
    ) -> Result<Self, OutOfMemory> {
        let ram = source.ram();
        let end = VirtAddr::new(1 << F::VA_BITS);
        let mut this = Self {
            source,
            vmstat,
            ram,
            root: Pfn::NONE,
            owner,
            nr_tables: 0,
            own_end: end,
            kernel_start: end,
            format: PhantomData,
        };
        this.root = this.alloc_table()?;
        Ok(this)
    }

    /// The frame of the top table, for CR3. `Pfn::NONE` after [`PageTable::destroy`].
    pub const fn root(&self) -> Pfn {
        self.root
    }
    /// How many frames the tables take.
    pub const fn nr_tables(&self) -> u64 {
        self.nr_tables
    }
    /// The owner word of the table frames.
    pub const fn owner(&self) -> u32 {
        self.owner
    }

    /// The entry that decides about `va`, and its level: 0 for 4 KiB, 1 for 2 (or 4) MiB, 2 for 1 GiB.
    /// `None` if there is none, or the format cannot translate `va`.
    pub fn walk(&self, va: VirtAddr) -> Option<(Pte, u8)> {
        let (table, level) = self.descend(va, 0)?;
        let pte = F::load(self.ram, table, F::index(va, level));
        (!pte.is_none()).then_some((pte, level))
    }

    /// The leaf table of `va`, if there is one. A huge entry is none.
    #[inline]
    pub fn leaf(&self, va: VirtAddr) -> Option<LeafTable<'m, F>> {
        match self.descend(va, 0)? {
            (table, 0) => Some(LeafTable::new(self.ram, table, va)),
            _ => None,
        }
    }

    /// The leaf table of `va`, made if there is none. A huge entry in the way is split, which
    /// changes no translation.
    ///
    /// # Errors
    /// Out of memory. Nothing is mapped or unmapped; tables may have been added above.
    ///
    /// # Panics
    /// If the format cannot translate `va`, or it lies in a kernel half that is another table's.
    pub fn leaf_or_alloc(&mut self, va: VirtAddr) -> Result<LeafTable<'m, F>, OutOfMemory> {
        let table = self.table_or_alloc(va, 0)?;
        Ok(LeafTable::new(self.ram, table, va))
    }

    /// The leaf tables that overlap `range`, each with the part of `range` it covers, in order.
    pub fn leaves(&self, range: VirtRange) -> Leaves<'m, F> {
        Leaves::new(self.entries(range))
    }

    /// The leaf tables and huge entries that overlap `range`, in order.
    pub fn entries(&self, range: VirtRange) -> Entries<'m, F> {
        Entries::new(self.ram, self.root, range)
    }

    /// The lowest table at or above `floor_level` whose entry decides about `va`, and its level:
    /// at `floor_level`, or higher if a huge entry ends the walk there.
    #[inline]
    pub(crate) fn descend(&self, va: VirtAddr, floor_level: u8) -> Option<(Pfn, u8)> {
        if !F::translates(va) || self.root == Pfn::NONE {
            return None;
        }
        let mut table = self.root;
        let mut level = F::LEVELS - 1;
        while level > floor_level {
            let pte = F::load(self.ram, table, F::index(va, level));
            if pte.is_none() {
                return None;
            }
            if pte.is_huge() {
                break;
            }
            table = pte.pfn();
            level -= 1;
        }
        Some((table, level))
    }

    /// The table at `level` whose entry decides about `va`, made if there is none.
    pub(crate) fn table_or_alloc(&mut self, va: VirtAddr, level: u8) -> Result<Pfn, OutOfMemory> {
        assert!(
            va < self.own_end,
            "{va:?} is outside the page-table format, or the kernel's"
        );
        assert!(self.root != Pfn::NONE, "use of a destroyed page table");
        let mut table = self.root;
        let mut at = F::LEVELS - 1;
        while at > level {
            let index = F::index(va, at);
            let mut pte = F::load(self.ram, table, index);
            if pte.is_none() {
                pte = Pte::new(self.alloc_table()?, F::link_flags(at));
                F::store(self.ram, table, index, pte);
            } else if pte.is_huge() {
                pte = self.split_entry(table, index, at, pte)?;
            }
            table = pte.pfn();
            at -= 1;
        }
        Ok(table)
    }

    /// A zeroed frame, counted, not linked yet.
    pub(crate) fn alloc_table(&mut self) -> Result<Pfn, OutOfMemory> {
        let request = AllocRequest {
            order: Order::ZERO,
            gfp: F::TABLE_GFP,
        };
        let frame = self.source.alloc_pages(request)?;
        let page = self.source.memmap().page(frame);
        page.set_owner(self.owner);
        page.set_state(PageState::PageTable);
        self.vmstat.add(VmItem::NrPageTablePages, 1);
        self.nr_tables += 1;
        Ok(frame)
    }

    /// A table left the tree: it is no longer counted here.
    pub(crate) fn forget_table(&mut self) {
        self.vmstat.sub(VmItem::NrPageTablePages, 1);
        self.nr_tables -= 1;
    }
}

impl<F: Format> Drop for PageTable<'_, F> {
    /// Gives back a root that never held an entry, so that a constructor may fail after making one.
    /// Any other table must have been destroyed: a walker may still hold what it read there.
    fn drop(&mut self) {
        if self.nr_tables == 1 {
            self.forget_table();
            self.source.free_pages(self.root);
        }
        debug_assert!(self.nr_tables == 0, "page tables dropped without destroy");
    }
}

impl<F: Format> core::fmt::Debug for PageTable<'_, F> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "PageTable({}, root {:?}, {} tables)",
            F::NAME,
            self.root,
            self.nr_tables
        )
    }
}
