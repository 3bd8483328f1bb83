//! Active, inactive_dirty and inactive_clean, with ages. Linux 2.4: `mm/vmscan.c`, `mm/swap.c`.
//!
//! `refill_inactive` goes round the active list: a page that was used gets older by addition and one
//! that was not gets younger by halving; at age 0 it becomes inactive. `page_launder` writes dirty
//! inactive pages; `reclaim_page` frees clean ones. Inactive pages that are used go back.
//!
//! Differences: ages end at 7 instead of 64, so that they fit into the page's flags; inactive pages
//! may still be in page tables, as the host takes them out.

use super::{ReclaimPolicy, Scan, Step, count_refault, isolate, turn};
use crate::batch::{Batch, Fate};
use crate::host::Outcome;
use crate::lists::Lru;
use crate::marks::{ListId, PageType, note, set_note};
use crate::shadow::Shadow;
use vellum_machine::{VmEvent, VmItem};
use vellum_page::{Page, PageFlags};
use vellum_types::{NodeId, Pfn};

/// Active, per type.
const ACTIVE: [ListId; 2] = [ListId::new(0), ListId::new(1)];
/// Perhaps dirty, per type.
const INACTIVE_DIRTY: [ListId; 2] = [ListId::new(2), ListId::new(3)];
/// Clean, per type.
const INACTIVE_CLEAN: [ListId; 2] = [ListId::new(4), ListId::new(5)];

/// Linux's `PAGE_AGE_START`, `PAGE_AGE_ADV`, `PAGE_AGE_MAX`.
const AGE_START: u8 = 2;
const AGE_ADVANCE: u8 = 3;
const AGE_MAX: u8 = 7;

/// Below this priority an active page's age counts for nothing.
const FORCE_PRIORITY: u8 = 6;

/// The policy of Linux 2.4.
#[derive(Debug)]
pub(crate) struct Linux24 {
    evictions: u32,
    /// Which type's turn it is.
    turn: bool,
}

impl Linux24 {
    pub(crate) const fn new() -> Self {
        Self {
            evictions: 0,
            turn: false,
        }
    }

    fn activate(lru: &mut Lru<'_>, pfn: Pfn) {
        let page = lru.page(pfn);
        set_note(page, note(page).max(AGE_START));
        page.set_flags(PageFlags::ACTIVE);
        lru.vmstat.count(VmEvent::PgActivate);
        lru.add(pfn, ACTIVE[PageType::of(page) as usize]);
    }

    fn inactive(lru: &mut Lru<'_>, pfn: Pfn, clean: bool) {
        let page = lru.page(pfn);
        let lists = if clean {
            INACTIVE_CLEAN
        } else {
            INACTIVE_DIRTY
        };
        lru.add(pfn, lists[PageType::of(page) as usize]);
    }

    /// The type to look at: alternately, as far as there are pages and somewhere to put them.
    fn choose(&mut self, lru: &Lru<'_>, swap: bool) -> Option<PageType> {
        let some = |kind: PageType| {
            [ACTIVE, INACTIVE_DIRTY, INACTIVE_CLEAN]
                .iter()
                .any(|lists| lru.pages(lists[kind as usize]) > 0)
        };
        turn(
            &mut self.turn,
            swap && some(PageType::Anon),
            some(PageType::File),
        )
    }
}

impl ReclaimPolicy for Linux24 {
    fn items(&self) -> [VmItem; 8] {
        use VmItem::{NrActiveAnon, NrActiveFile, NrInactiveAnon, NrInactiveFile};
        [
            NrActiveAnon,
            NrActiveFile,
            NrInactiveAnon,
            NrInactiveFile,
            NrInactiveAnon,
            NrInactiveFile,
            NrInactiveAnon,
            NrInactiveFile,
        ]
    }

    fn add(&mut self, lru: &mut Lru<'_>, pfn: Pfn) {
        let page = lru.page(pfn);
        set_note(page, AGE_START);
        page.set_flags(PageFlags::ACTIVE);
        lru.add(pfn, ACTIVE[PageType::of(page) as usize]);
    }

    fn accessed(&mut self, lru: &mut Lru<'_>, pfn: Pfn) {
        let page = lru.page(pfn);
        page.set_flags(PageFlags::REFERENCED);
        if !page.flags().contains(PageFlags::ACTIVE) {
            lru.lift(pfn);
            Self::activate(lru, pfn);
        }
    }

    fn select(&mut self, lru: &mut Lru<'_>, scan: &Scan, batch: &mut Batch) -> Step {
        let Some(kind) = self.choose(lru, scan.swap) else {
            return Step::Nothing;
        };
        let at = kind as usize;
        let (active, dirty, clean) = (
            lru.pages(ACTIVE[at]),
            lru.pages(INACTIVE_DIRTY[at]),
            lru.pages(INACTIVE_CLEAN[at]),
        );
        // Linux's inactive_target, at most a quarter of memory.
        let target = ((active + dirty + clean) / 4).max(1);
        if active > 0 && (dirty + clean < target || scan.last()) {
            isolate(lru, ACTIVE[at], batch, Batch::ROOM);
            if scan.priority < FORCE_PRIORITY {
                Step::Force
            } else {
                Step::Examine
            }
        } else if clean > 0 {
            isolate(lru, INACTIVE_CLEAN[at], batch, scan.batch);
            Step::Evict
        } else {
            isolate(lru, INACTIVE_DIRTY[at], batch, Batch::ROOM);
            Step::Launder
        }
    }

    fn put_back(&mut self, lru: &mut Lru<'_>, pfn: Pfn, step: Step, fate: Fate) {
        let page = lru.page(pfn);
        match (step, fate) {
            (Step::Examine, Fate::Used | Fate::UsedAsCode) => {
                set_note(page, (note(page) + AGE_ADVANCE).min(AGE_MAX));
                lru.add(pfn, ACTIVE[PageType::of(page) as usize]);
            }
            (Step::Examine | Step::Force, _) => {
                let age = if step == Step::Force {
                    0
                } else {
                    note(page) / 2
                };
                set_note(page, age);
                if age > 0 {
                    lru.add(pfn, ACTIVE[PageType::of(page) as usize]);
                } else {
                    page.clear_flags(PageFlags::ACTIVE);
                    lru.vmstat.count(VmEvent::PgDeactivate);
                    Self::inactive(lru, pfn, false);
                }
            }
            (_, Fate::Used | Fate::UsedAsCode | Fate::Tried(Outcome::Activated)) => {
                Self::activate(lru, pfn);
            }
            (_, Fate::Idle | Fate::Tried(Outcome::Written)) => Self::inactive(lru, pfn, true),
            (_, Fate::Tried(_)) => Self::inactive(lru, pfn, false),
        }
    }

    fn shadow(&mut self, _: &Lru<'_>, _: &Page, node: NodeId) -> Shadow {
        self.evictions = self.evictions.wrapping_add(1);
        Shadow::new(node, false, self.evictions)
    }

    /// Linux 2.4 remembered nothing; only the count is made.
    fn refault(&mut self, lru: &Lru<'_>, page: &Page, _: Shadow) {
        count_refault(lru, page, false, false);
    }
}
