//! A few pages of kernel addresses whose tables never go away.

use vellum_page_table::{Format, LeafTable, PageTable, Pte};
use vellum_types::{OutOfMemory, VirtAddr, VirtRange};

/// Leaf tables of one window: enough for the slots of 64 CPUs.
const LEAVES: usize = 4;

/// The entries of a window, reached without a walk. Addresses are without sign extension.
#[derive(Clone, Copy)]
pub(crate) struct KernelWindow<'m, F: Format> {
    leaves: [Option<LeafTable<'m, F>>; LEAVES],
    range: VirtRange,
}

impl<'m, F: Format> KernelWindow<'m, F> {
    pub(crate) fn new(table: &mut PageTable<'m, F>, range: VirtRange) -> Result<Self, OutOfMemory> {
        let mut leaves = [None; LEAVES];
        let mut at = range.start();
        for leaf in &mut leaves {
            if at >= range.end() {
                break;
            }
            let found = table.leaf_or_alloc(at)?;
            at = found.range().end();
            *leaf = Some(found);
        }
        assert!(at >= range.end(), "a window of more leaf tables");
        Ok(Self { leaves, range })
    }

    /// The address of page `index`, as a processor takes it.
    pub(crate) fn addr(&self, index: u64) -> VirtAddr {
        F::canonical(self.va(index))
    }

    fn va(&self, index: u64) -> VirtAddr {
        let va = VirtAddr::from_page_number(self.range.start().page_number() + index);
        assert!(self.range.contains(va), "outside of the window");
        va
    }

    fn leaf(&self, va: VirtAddr) -> &LeafTable<'m, F> {
        let mut leaves = self.leaves.iter().flatten();
        leaves
            .find(|leaf| leaf.covers(va))
            .expect("a window has all its tables")
    }

    /// Stores the entry of page `index`.
    pub(crate) fn set(&self, index: u64, pte: Pte) {
        let va = self.va(index);
        self.leaf(va).set(va, pte);
    }

    /// The entry of page `index`.
    pub(crate) fn get(&self, index: u64) -> Pte {
        let va = self.va(index);
        self.leaf(va).get(va)
    }
}
