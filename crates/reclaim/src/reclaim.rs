//! The facade: a source of frames that knows which frames can be had back.

use crate::lists::{Lists, Lru};
use crate::marks::ListId;
use crate::policy::{Policy, PolicyKind};
use crate::shadow::Shadow;
use core::sync::atomic::{AtomicU8, Ordering};
use vellum_machine::{DirectMap, LockRank, SpinLock, VmEvent, VmStat};
use vellum_page::{AllocRequest, Memmap, PageFlags, PageSource};
use vellum_types::{GfpFlags, NodeId, OutOfMemory, Pfn};

/// A node's free pages and the marks that reclaim keeps them between, all in pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pressure {
    /// Free now.
    pub free: u64,
    /// Below this, allocations reclaim for themselves.
    pub min: u64,
    /// Below this, kswapd begins.
    pub low: u64,
    /// Here it may stop.
    pub high: u64,
}

/// Which nodes there are and how much is free on each. Told by the page allocator's owner.
pub trait Nodes: Sync {
    /// How many nodes; they are numbered from 0.
    fn nr_nodes(&self) -> u8;
    /// The node of a frame.
    fn node_of(&self, pfn: Pfn) -> NodeId;
    /// How a node stands.
    fn pressure(&self, node: NodeId) -> Pressure;
}

/// The lists and the policy's state of one node. Linux: the `lruvec` of `pg_data_t`.
///
/// The caller places one per node in the machine's RAM.
#[derive(Debug)]
pub struct LruNode {
    pub(crate) lists: Lists,
    pub(crate) policy: Policy,
}

impl LruNode {
    /// Empty lists under the given policy, in their lock.
    pub fn new(kind: PolicyKind) -> SpinLock<Self> {
        let mut policy = Policy::new(kind);
        let lists = Lists::new(policy.get().items());
        SpinLock::new(LockRank::Lru, Self { lists, policy })
    }
}

/// The lists of pages, their policy, and the source of frames under them.
pub struct Reclaim<'m> {
    inner: &'m dyn PageSource,
    memmap: Memmap<'m>,
    pub(crate) nodes: &'m dyn Nodes,
    pub(crate) lru: &'m [SpinLock<LruNode>],
    pub(crate) vmstat: &'m VmStat,
    policy: PolicyKind,
    swappiness: AtomicU8,
}

impl<'m> Reclaim<'m> {
    /// Linux's default of `vm.swappiness`.
    pub const SWAPPINESS: u8 = 60;

    /// Wraps `inner`. `lru` has an element for each node, all of one policy.
    ///
    /// # Panics
    /// If `lru` has fewer elements than there are nodes, or there are none or more than eight.
    pub fn new(
        inner: &'m dyn PageSource,
        nodes: &'m dyn Nodes,
        lru: &'m [SpinLock<LruNode>],
        vmstat: &'m VmStat,
    ) -> Self {
        let nr = usize::from(nodes.nr_nodes());
        assert!(
            (1..=8).contains(&nr) && nr <= lru.len(),
            "lists for 1 to 8 nodes"
        );
        Self {
            inner,
            memmap: inner.memmap(),
            nodes,
            lru: &lru[..nr],
            vmstat,
            policy: lru[0].lock().policy.kind(),
            swappiness: AtomicU8::new(Self::SWAPPINESS),
        }
    }

    /// The policy.
    pub fn policy(&self) -> PolicyKind {
        self.policy
    }

    /// `vm.swappiness`: 0 spares anonymous pages, 200 spares file pages.
    pub fn swappiness(&self) -> u8 {
        // Relaxed: a tuning knob that orders nothing.
        self.swappiness.load(Ordering::Relaxed)
    }

    /// Sets `vm.swappiness`; more than 200 counts as 200.
    pub fn set_swappiness(&self, swappiness: u8) {
        self.swappiness
            .store(swappiness.min(200), Ordering::Relaxed);
    }

    /// The node of a frame; most machines have only one.
    #[inline]
    pub(crate) fn home(&self, pfn: Pfn) -> NodeId {
        if self.lru.len() == 1 {
            NodeId(0)
        } else {
            self.nodes.node_of(pfn)
        }
    }

    /// Calls `f` with a node's lists and policy, under its lock.
    #[inline]
    pub(crate) fn with_node<R>(
        &self,
        node: NodeId,
        f: impl FnOnce(&mut Policy, &mut Lru<'_>) -> R,
    ) -> R {
        let mut guard = self.lru[usize::from(node.0)].lock();
        let LruNode { lists, policy } = &mut *guard;
        let mut lru = Lru {
            lists,
            memmap: self.memmap,
            vmstat: self.vmstat,
        };
        f(policy, &mut lru)
    }

    /// Takes a page off its list, if it is on one. True if it was.
    fn take_off(&self, pfn: Pfn) -> bool {
        let page = self.memmap.page(pfn);
        self.with_node(self.home(pfn), |_, lru| {
            let on = page.flags().contains(PageFlags::LRU);
            if on {
                lru.del(pfn);
            }
            on
        })
    }

    /// What the host is to keep in the place of a page that it takes away, at the moment when nothing
    /// can stop it any more. Moves the policy's clock. Linux: `workingset_eviction`.
    pub fn shadow_for(&self, pfn: Pfn) -> u32 {
        let page = self.memmap.page(pfn);
        let node = self.home(pfn);
        self.with_node(node, |policy, lru| policy.get().shadow(lru, page, node))
            .as_u32()
    }

    /// A page was brought back to a place where `shadow` was kept. Call it when the page has its state
    /// and class, before [`PageSource::lru_add`]. A word that is not a shadow is ignored. Linux:
    /// `workingset_refault`.
    pub fn refault(&self, pfn: Pfn, shadow: u32) {
        let Some(shadow) = Shadow::from_u32(shadow) else {
            return;
        };
        if usize::from(shadow.node().0) >= self.lru.len() {
            return;
        }
        let page = self.memmap.page(pfn);
        // The clock that the shadow was made by is its old node's.
        self.with_node(shadow.node(), |policy, lru| {
            policy.get().refault(lru, page, shadow);
        });
    }

    /// Checks all lists against the memmap.
    ///
    /// # Errors
    /// What is wrong, and with which page.
    pub fn validate(&self) -> Result<(), (&'static str, Pfn)> {
        let mut listed = 0;
        for node in 0..self.lru.len() {
            listed += self.with_node(NodeId(node as u8), |_, lru| lru.validate())?;
        }
        let memmap = self.memmap;
        let on = |pfn: &Pfn| memmap.page(*pfn).flags().contains(PageFlags::LRU);
        let frames = memmap.runs().flat_map(|run| run.iter());
        let marked = frames.filter(on).count() as u64;
        if marked == listed {
            Ok(())
        } else {
            Err(("a page has the flag but is on no list", Pfn::NONE))
        }
    }
}

impl core::fmt::Debug for Reclaim<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Reclaim({}, {} nodes)", self.policy(), self.lru.len())
    }
}

impl PageSource for Reclaim<'_> {
    #[inline]
    fn alloc_pages(&self, request: AllocRequest) -> Result<Pfn, OutOfMemory> {
        self.inner.alloc_pages(request)
    }

    /// As the wrapped source, after taking the page off its list. A page that was given to
    /// [`PageSource::lru_add`] may be freed only by whoever dropped its last reference
    /// ([`Page::put`](vellum_page::Page::put) said so) or froze it: reclaim may hold one.
    #[inline]
    fn free_pages(&self, pfn: Pfn) {
        let page = self.memmap.try_page(pfn);
        // A page with no reference left can be put on no list, so that one look is enough.
        if page.is_some_and(|page| page.flags().contains(PageFlags::LRU)) {
            self.take_off(pfn);
        }
        self.inner.free_pages(pfn);
    }

    fn alloc_pages_bulk(&self, gfp: GfpFlags, out: &mut [Pfn]) -> usize {
        self.inner.alloc_pages_bulk(gfp, out)
    }

    fn free_pages_bulk(&self, blocks: &[Pfn]) {
        for pfn in blocks {
            let page = self.memmap.try_page(*pfn);
            if page.is_some_and(|page| page.flags().contains(PageFlags::LRU)) {
                self.take_off(*pfn);
            }
        }
        self.inner.free_pages_bulk(blocks);
    }

    fn node_of(&self, pfn: Pfn) -> NodeId {
        self.nodes.node_of(pfn)
    }

    fn split_page(&self, pfn: Pfn) {
        self.inner.split_page(pfn);
    }

    /// Puts a page on a list. One lock and no delay: an uncontended lock costs less than a per-CPU
    /// set of pages that every free would have to search. A page that is on a list stays where it is.
    fn lru_add(&self, pfn: Pfn) {
        let page = self.memmap.page(pfn);
        self.with_node(self.home(pfn), |policy, lru| {
            let flags = page.flags();
            if flags.contains(PageFlags::LRU) {
            } else if flags.contains(PageFlags::MLOCKED) {
                self.vmstat.count(VmEvent::UnevictablePgsCulled);
                lru.add(pfn, ListId::UNEVICTABLE);
            } else {
                policy.get().add(lru, pfn);
            }
        });
    }

    /// A page is locked in memory now, or no longer: it goes to the list where it belongs. Linux:
    /// `mlock_folio`, `check_move_unevictable_folios`.
    fn reconsider(&self, pfn: Pfn) {
        let page = self.memmap.page(pfn);
        self.with_node(self.home(pfn), |policy, lru| {
            let flags = page.flags();
            let locked = flags.contains(PageFlags::MLOCKED);
            if !flags.contains(PageFlags::LRU) || locked == flags.contains(PageFlags::UNEVICTABLE) {
                return;
            }
            lru.lift(pfn);
            page.clear_flags(PageFlags::UNEVICTABLE);
            if locked {
                self.vmstat.count(VmEvent::UnevictablePgsCulled);
                lru.add(pfn, ListId::UNEVICTABLE);
            } else {
                self.vmstat.count(VmEvent::UnevictablePgsRescued);
                policy.get().add(lru, pfn);
            }
        });
    }

    fn isolate_page(&self, pfn: Pfn) -> bool {
        let Some(page) = self.memmap.try_page(pfn) else {
            return false;
        };
        self.with_node(self.home(pfn), |_, lru| {
            // Whoever frees it takes it off first, under this lock.
            let got = page.flags().contains(PageFlags::LRU) && page.try_get();
            if got {
                lru.del(pfn);
            }
            got
        })
    }

    fn lru_refault(&self, pfn: Pfn, shadow: u32) {
        self.refault(pfn, shadow);
    }

    fn mark_accessed(&self, pfn: Pfn) {
        let page = self.memmap.page(pfn);
        self.with_node(self.home(pfn), |policy, lru| {
            let flags = page.flags();
            if flags.contains(PageFlags::LRU) && !flags.contains(PageFlags::UNEVICTABLE) {
                policy.get().accessed(lru, pfn);
            } else {
                page.set_flags(PageFlags::REFERENCED);
            }
        });
    }

    fn memmap(&self) -> Memmap<'_> {
        self.memmap
    }

    fn ram(&self) -> DirectMap<'_> {
        self.inner.ram()
    }
}
