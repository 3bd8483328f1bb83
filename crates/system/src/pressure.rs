//! How short memory is, for reclaim.

use vellum_mm::Shrinker;
use vellum_page::PageSource as _;
use vellum_page_alloc::PageAllocator;
use vellum_reclaim::{Nodes, Pressure};
use vellum_slab::SlabAllocator;
use vellum_types::{NodeId, Pfn};

/// The marks of the zones, node by node.
pub(crate) struct NodeMarks<'m> {
    pages: &'m PageAllocator<'m>,
    nr_nodes: u8,
}

impl<'m> NodeMarks<'m> {
    pub(crate) fn new(pages: &'m PageAllocator<'m>) -> Self {
        let last = pages.zones().map(|zone| zone.node.0).max();
        Self {
            pages,
            nr_nodes: last.unwrap_or(0) + 1,
        }
    }
}

impl Nodes for NodeMarks<'_> {
    fn nr_nodes(&self) -> u8 {
        self.nr_nodes
    }

    fn node_of(&self, pfn: Pfn) -> NodeId {
        self.pages.node_of(pfn)
    }

    /// Pages count as free only if programs may have them: what a low zone holds back from them does not
    /// help. Linux asks the same of each zone in `pgdat_balanced`.
    fn pressure(&self, node: NodeId) -> Pressure {
        let zones = || self.pages.zones().filter(|zone| zone.node == node);
        let highest = zones().map(|zone| zone.zone_type.index()).max();
        let mut sum = Pressure::default();
        for zone in zones() {
            let kept = highest.map_or(0, |highest| zone.lowmem_reserve[highest]);
            sum.free += zone.free.saturating_sub(kept);
            sum.min += zone.min;
            sum.low += zone.low;
            sum.high += zone.high;
        }
        sum
    }
}

/// Empty slabs and the free pages that CPUs keep for themselves.
pub(crate) struct Shrinkers<'m> {
    pub(crate) pages: &'m PageAllocator<'m>,
    pub(crate) slab: &'m SlabAllocator<'m>,
}

impl Shrinker for Shrinkers<'_> {
    fn shrink(&self, _: u64) -> u64 {
        let before = self.pages.nr_free_pages();
        self.slab.shrink();
        self.pages.drain_all();
        self.pages.nr_free_pages().saturating_sub(before)
    }
}
