//! Getting pages back: kswapd's work and direct reclaim. Linux: `mm/vmscan.c`.

use crate::batch::{Batch, Fate};
use crate::host::{MayDo, Outcome, ReclaimHost};
use crate::marks::{ListId, PageType};
use crate::policy::{self, Scan, Step};
use crate::reclaim::Reclaim;
use vellum_machine::VmEvent;
use vellum_page::{PageFlags, PageSource};
use vellum_types::{GfpFlags, NodeId, Order};

/// Where a reclaim starts: each step down looks at twice as many pages. Linux: `DEF_PRIORITY`.
const DEF_PRIORITY: u8 = 12;

/// How often the last round may look at a page.
const LAST_ROUNDS: u64 = 8;

/// What an allocation that failed asks reclaim for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReclaimRequest {
    /// The order of the failed allocation.
    pub order: Order,
    /// Its flags: without DIRECT_RECLAIM nothing is done, without IO nothing is written, without FS
    /// no file is.
    pub gfp: GfpFlags,
    /// Pages wanted. At least twice the block is taken.
    pub target: u64,
}

/// On whose behalf.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Kswapd,
    Direct,
}

/// One reclaim under way.
struct Control<'a> {
    host: &'a dyn ReclaimHost,
    who: Who,
    gfp: GfpFlags,
    target: u64,
    reclaimed: u64,
}

impl Control<'_> {
    fn done(&self) -> bool {
        self.reclaimed >= self.target
    }

    /// What the flags allow to do to a page of a kind: swap is I/O, a file is a file system's too.
    fn may(&self, kind: PageType) -> MayDo {
        let io = self.gfp.contains(GfpFlags::IO);
        MayDo {
            swap: io,
            write: io && (kind == PageType::Anon || self.gfp.contains(GfpFlags::FS)),
            unmap: true,
        }
    }
}

impl Reclaim<'_> {
    /// Kswapd's work: brings each node whose free pages are below its low mark up to its high mark,
    /// or as far as it can. Call it where no lock is held. Returns pages freed.
    pub fn balance(&self, host: &dyn ReclaimHost) -> u64 {
        let nodes = (0..self.nodes.nr_nodes()).map(NodeId);
        nodes.map(|node| self.balance_node(host, node)).sum()
    }

    fn balance_node(&self, host: &dyn ReclaimHost, node: NodeId) -> u64 {
        let start = self.nodes.pressure(node);
        if start.free >= start.low {
            return 0;
        }
        self.vmstat.count(VmEvent::KswapdRuns);
        let mut total = 0;
        let mut priority = DEF_PRIORITY;
        loop {
            let now = self.nodes.pressure(node);
            if now.free >= now.high {
                return total;
            }
            let mut control = Control {
                host,
                who: Who::Kswapd,
                gfp: GfpFlags::KERNEL,
                target: now.high - now.free,
                reclaimed: 0,
            };
            self.shrink_node(&mut control, node, priority);
            if !control.done() && priority < DEF_PRIORITY - 2 {
                control.reclaimed += host.shrink_caches(control.target - control.reclaimed);
            }
            total += control.reclaimed;
            // Linux keeps the priority while it gets what it wants, and sleeps when none is left.
            if !control.done() {
                priority -= 1;
            }
            if priority == 0 {
                if total == 0 {
                    self.vmstat.count(VmEvent::KswapdHopeless);
                }
                return total;
            }
        }
    }

    /// Direct reclaim: tries to free `request.target` pages, with bounded work. Call it where no lock
    /// is held, and repeat the allocation if the answer is not 0; 0 means that nothing can be had and
    /// that to repeat is in vain. Linux: `try_to_free_pages`.
    pub fn try_to_free_pages(&self, host: &dyn ReclaimHost, request: ReclaimRequest) -> u64 {
        if !request.gfp.contains(GfpFlags::DIRECT_RECLAIM) {
            return 0;
        }
        self.vmstat.count(VmEvent::AllocStall);
        let mut control = Control {
            host,
            who: Who::Direct,
            gfp: request.gfp,
            target: request.target.max(2 << request.order.as_u8()),
            reclaimed: 0,
        };
        for priority in (0..=DEF_PRIORITY).rev() {
            for node in (0..self.nodes.nr_nodes()).map(NodeId) {
                self.shrink_node(&mut control, node, priority);
            }
            if control.done() {
                break;
            }
            if priority < DEF_PRIORITY - 2 {
                let rest = control.target - control.reclaimed;
                control.reclaimed += host.shrink_caches(rest);
                if control.done() {
                    break;
                }
            }
        }
        control.reclaimed
    }

    /// Looks at 1 page in 2^priority of a node, a batch at least, until the target is met. The last
    /// round looks at each several times: a page may have to become inactive, be written, and wait for
    /// its write before it can go.
    fn shrink_node(&self, control: &mut Control<'_>, node: NodeId, priority: u8) {
        let mut scan = Scan {
            priority,
            batch: Batch::ROOM,
            swap: control.gfp.contains(GfpFlags::IO) && control.host.free_swap() > 0,
            swappiness: self.swappiness(),
        };
        let mut batch = Batch::new();
        let mut budget: Option<u64> = None;
        while !control.done() {
            // Not many more than are wanted, but not one by one.
            scan.batch = (control.target - control.reclaimed).clamp(4, Batch::ROOM as u64) as usize;
            let (step, evictable) = self.with_node(node, |policy, lru| {
                let step = policy.get().select(lru, &scan, &mut batch);
                let lists = (0..8).map(ListId::new);
                (step, lists.map(|list| lru.pages(list)).sum::<u64>())
            });
            let rounds = if priority == 0 { LAST_ROUNDS } else { 1 };
            let share = (evictable >> priority) * rounds;
            let left = budget.get_or_insert(share.max(Batch::ROOM as u64));
            match step {
                Step::Nothing => return,
                Step::AgeSpaces => {
                    self.age(control.host, node);
                    *left = left.saturating_sub(Batch::ROOM as u64 / 2);
                    if *left == 0 {
                        return;
                    }
                    continue;
                }
                _ => {}
            }
            let looked_at = batch.len() as u64;
            self.work_on(control, step, &mut batch);
            self.put_back(node, step, &mut batch);
            // A batch may come out empty, if the pages found were all being freed.
            *left = left.saturating_sub(looked_at.max(1));
            if *left == 0 {
                return;
            }
        }
    }

    /// Has all tables walked.
    fn age(&self, host: &dyn ReclaimHost, node: NodeId) {
        host.age_spaces(&mut |pfn| {
            let Some(page) = self.memmap().try_page(pfn) else {
                return;
            };
            let listed = |flags: PageFlags| {
                flags.contains(PageFlags::LRU) && !flags.contains(PageFlags::UNEVICTABLE)
            };
            if listed(page.flags()) {
                self.with_node(self.home(pfn), |policy, lru| {
                    if listed(page.flags()) {
                        policy.get().young(lru, pfn);
                    }
                });
            }
        });
        self.with_node(node, |policy, lru| policy.get().aged(lru));
    }

    /// Asks the host about each page. Those that remain have a fate.
    fn work_on(&self, control: &mut Control<'_>, step: Step, batch: &mut Batch) {
        let memmap = self.memmap();
        let (mut scanned, mut stolen) = ([0; 2], [0; 2]);
        batch.decide(|pfn| {
            let page = memmap.page(pfn);
            let kind = PageType::of(page);
            let pages = u64::from(page.order().pages());
            scanned[kind as usize] += pages;
            let referenced = control.host.page_referenced(pfn);
            if referenced.locked || page.flags().contains(PageFlags::MLOCKED) {
                return Some(Fate::Tried(Outcome::Unevictable));
            }
            if policy::in_use(self.policy(), page, referenced) {
                let code = referenced.exec && referenced.young > 0;
                return Some(if code { Fate::UsedAsCode } else { Fate::Used });
            }
            let outcome = match step {
                Step::Evict => {
                    let outcome = control.host.reclaim_page(pfn, control.may(kind));
                    if outcome == Outcome::Freed {
                        control.reclaimed += pages;
                        stolen[kind as usize] += pages;
                        return None;
                    }
                    outcome
                }
                Step::Launder
                    if page.flags().contains(PageFlags::DIRTY) && control.may(kind).write =>
                {
                    control.host.launder_page(pfn)
                }
                _ => return Some(Fate::Idle),
            };
            Some(Fate::Tried(outcome))
        });
        self.count(control.who, step, scanned, stolen);
    }

    fn count(&self, who: Who, step: Step, scanned: [u64; 2], stolen: [u64; 2]) {
        use VmEvent as E;
        let (scan, steal) = match who {
            Who::Kswapd => (E::PgScanKswapd, E::PgStealKswapd),
            Who::Direct => (E::PgScanDirect, E::PgStealDirect),
        };
        if !matches!(step, Step::Evict | Step::Launder) {
            self.vmstat.count_many(E::PgRefill, scanned[0] + scanned[1]);
            return;
        }
        self.vmstat.count_many(scan, scanned[0] + scanned[1]);
        self.vmstat.count_many(E::PgScanAnon, scanned[0]);
        self.vmstat.count_many(E::PgScanFile, scanned[1]);
        if stolen != [0; 2] {
            self.vmstat.count_many(steal, stolen[0] + stolen[1]);
            self.vmstat.count_many(E::PgStealAnon, stolen[0]);
            self.vmstat.count_many(E::PgStealFile, stolen[1]);
        }
    }

    /// Puts what remains of a batch on lists and drops its references. A page of which that was the
    /// last one is freed: everybody else let go of it meanwhile.
    fn put_back(&self, node: NodeId, step: Step, batch: &mut Batch) {
        if batch.len() == 0 {
            return;
        }
        let mut gone = Batch::new();
        self.with_node(node, |policy, lru| {
            for (pfn, fate) in batch.drain() {
                let page = lru.page(pfn);
                // Whoever brought it back to its file meanwhile has put it on a list.
                if page.flags().contains(PageFlags::LRU) {
                } else if fate == Fate::Tried(Outcome::Unevictable) {
                    self.vmstat.count(VmEvent::UnevictablePgsCulled);
                    lru.add(pfn, ListId::UNEVICTABLE);
                } else {
                    if fate == Fate::Tried(Outcome::WriteStarted) {
                        self.vmstat.count(VmEvent::PgRotated);
                    }
                    policy.get().put_back(lru, pfn, step, fate);
                }
                // On the list first: from here on others may free the page.
                if page.put() {
                    lru.del(pfn);
                    gone.push(pfn);
                }
            }
        });
        for (pfn, _) in gone.drain() {
            self.free_pages(pfn);
        }
    }
}
