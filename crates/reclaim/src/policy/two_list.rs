//! Active and inactive lists. Linux: `mm/vmscan.c`, `mm/swap.c`, `mm/workingset.c`.
//!
//! ```text
//!            used twice, or came back and found an idle active page
//!          ┌─────────────────────────────────────────┐
//!          ▼                                         │
//!    ┌─ active ──── idle at the tail ───▶ inactive ──┴── idle at the tail ──▶ evicted, shadow stays
//!    └─▶ used: again
//! ```
//! A shadow's *refault distance* (evictions since then) says how much longer the inactive list would
//! have had to be. A page with a distance no larger than the working set might be hotter than some
//! active one.
//!
//! Differences from Linux, each against a known weakness (loops a little larger than memory evict
//! everything there):
//! * the active list has a second chance: only idle pages leave it, as long as some are found;
//! * a page that comes back becomes active at once only while there is room: until two thirds of its
//!   type are active. From then on it *challenges* the oldest active page, and takes its place if that
//!   is idle. In a loop all active pages are in use, and stay;
//! * the size of the inactive list follows the challenges: each one won lets it grow, as what is
//!   active is stale, and each one lost lets it shrink.

use super::{ReclaimPolicy, Scan, Step, count_refault, isolate, turn};
use crate::batch::{Batch, Fate};
use crate::host::Outcome;
use crate::lists::Lru;
use crate::marks::{ListId, PageType, note, set_note};
use crate::shadow::Shadow;
use vellum_machine::{VmEvent, VmItem};
use vellum_page::{Page, PageFlags};
use vellum_types::{NodeId, Pfn};

const INACTIVE: [ListId; 2] = [ListId::new(0), ListId::new(2)];
const ACTIVE: [ListId; 2] = [ListId::new(1), ListId::new(3)];

/// Note of a page that came back: it may take an active page's place.
const CHALLENGER: u8 = 1;

/// What is known of one type.
#[derive(Clone, Copy, Debug)]
struct Side {
    /// Wanted length of the inactive list, in 1/1024 of a page.
    cold: u64,
    /// Pages that came back and have not yet been weighed against an active page.
    challenges: u64,
    /// Idle active pages found for them.
    won: u64,
    /// What taking pages of this type has cost lately: refaults of active ones.
    cost: u64,
}

/// The policy with two lists for each type.
#[derive(Debug)]
pub(crate) struct TwoList {
    /// Evictions so far: the clock of shadows.
    clock: u32,
    sides: [Side; 2],
    /// How far anonymous pages are behind their share of the scan, in 1/1024.
    share: u64,
    turn: bool,
}

impl TwoList {
    pub(crate) const fn new() -> Self {
        const SIDE: Side = Side {
            cold: 0,
            challenges: 0,
            won: 0,
            cost: 0,
        };
        Self {
            clock: 0,
            sides: [SIDE; 2],
            share: 0,
            turn: false,
        }
    }

    fn pages(lru: &Lru<'_>, kind: PageType) -> u64 {
        lru.pages(INACTIVE[kind as usize]) + lru.pages(ACTIVE[kind as usize])
    }

    /// The inactive list's wanted length: a quarter of all pages of the type at least.
    fn cold_target(&mut self, lru: &Lru<'_>, kind: PageType) -> u64 {
        let total = Self::pages(lru, kind);
        let side = &mut self.sides[kind as usize];
        side.cold = side
            .cold
            .clamp((total << 10) / COLD_MIN, (total << 10) / COLD_MAX);
        (side.cold >> 10).max(1)
    }

    /// Which type's turn it is: in proportion to its pages, to swappiness, and inversely to what its
    /// reclaim has cost. Linux: `get_scan_count`.
    fn choose(&mut self, lru: &Lru<'_>, scan: &Scan) -> Option<PageType> {
        let anon = if scan.swap {
            Self::pages(lru, PageType::Anon)
        } else {
            0
        };
        let file = Self::pages(lru, PageType::File);
        if anon == 0 || file == 0 || scan.takes_turns() {
            return turn(&mut self.turn, anon > 0, file > 0);
        }
        let [a, f] = self.sides;
        let total = a.cost + f.cost;
        // Half of the pressure does not depend on cost, so that neither type is ever left alone.
        let weight = |own: u64, pages: u64, preference: u64| {
            pages * preference * (total + 1) / (total + own + 1)
        };
        let swappiness = u64::from(scan.swappiness.min(200));
        let anon = weight(a.cost, anon, swappiness);
        let file = weight(f.cost, file, 200 - swappiness);
        self.share += (anon << 10).checked_div(anon + file).unwrap_or(512);
        if self.share >= 1 << 10 {
            self.share -= 1 << 10;
            Some(PageType::Anon)
        } else {
            Some(PageType::File)
        }
    }

    fn activate(lru: &mut Lru<'_>, pfn: Pfn) {
        let page = lru.page(pfn);
        page.replace_flags(PageFlags::REFERENCED, PageFlags::ACTIVE);
        set_note(page, 0);
        lru.vmstat.count(VmEvent::PgActivate);
        lru.add(pfn, ACTIVE[PageType::of(page) as usize]);
    }

    fn deactivate(lru: &mut Lru<'_>, pfn: Pfn) {
        let page = lru.page(pfn);
        page.replace_flags(
            PageFlags::ACTIVE | PageFlags::REFERENCED,
            PageFlags::WORKINGSET,
        );
        set_note(page, 0);
        lru.vmstat.count(VmEvent::PgDeactivate);
        lru.add(pfn, INACTIVE[PageType::of(page) as usize]);
    }

    /// Isolates from the inactive list; challengers that have won are activated on the way.
    fn select_inactive(
        &mut self,
        lru: &mut Lru<'_>,
        kind: PageType,
        scan: &Scan,
        batch: &mut Batch,
    ) {
        let (at, list) = (kind as usize, INACTIVE[kind as usize]);
        if self.sides[at].won == 0 {
            isolate(lru, list, batch, scan.batch);
            return;
        }
        for _ in 0..lru.pages(list).min(scan.batch as u64) {
            if self.sides[at].won > 0 {
                let pfn = lru.tail(list);
                if note(lru.page(pfn)) == CHALLENGER {
                    self.sides[at].won -= 1;
                    lru.lift(pfn);
                    Self::activate(lru, pfn);
                    continue;
                }
            }
            isolate(lru, list, batch, 1);
        }
    }

    /// Taking pages of a type has cost something. Old costs count half. Linux: `lru_note_cost`.
    fn note_cost(&mut self, lru: &Lru<'_>, at: usize) {
        self.sides[at].cost += 1;
        let all = Self::pages(lru, PageType::Anon) + Self::pages(lru, PageType::File);
        if self.sides[0].cost + self.sides[1].cost > all / 4 {
            self.sides.iter_mut().for_each(|side| side.cost /= 2);
        }
    }
}

impl ReclaimPolicy for TwoList {
    fn items(&self) -> [VmItem; 8] {
        use VmItem::{NrActiveAnon, NrActiveFile, NrInactiveAnon, NrInactiveFile};
        let lists = [NrInactiveAnon, NrActiveAnon, NrInactiveFile, NrActiveFile];
        core::array::from_fn(|at| lists[at % 4])
    }

    fn add(&mut self, lru: &mut Lru<'_>, pfn: Pfn) {
        let page = lru.page(pfn);
        if page.flags().contains(PageFlags::ACTIVE) {
            lru.add(pfn, ACTIVE[PageType::of(page) as usize]);
        } else {
            lru.add(pfn, INACTIVE[PageType::of(page) as usize]);
        }
    }

    fn accessed(&mut self, lru: &mut Lru<'_>, pfn: Pfn) {
        let page = lru.page(pfn);
        let flags = page.flags();
        if !flags.contains(PageFlags::REFERENCED) {
            page.set_flags(PageFlags::REFERENCED);
        } else if !flags.contains(PageFlags::ACTIVE) {
            lru.lift(pfn);
            Self::activate(lru, pfn);
        }
    }

    fn select(&mut self, lru: &mut Lru<'_>, scan: &Scan, batch: &mut Batch) -> Step {
        let Some(kind) = self.choose(lru, scan) else {
            return Step::Nothing;
        };
        let at = kind as usize;
        let active = lru.pages(ACTIVE[at]);
        let side = &mut self.sides[at];
        if active == 0 {
            side.won += core::mem::take(&mut side.challenges);
        } else if side.challenges > 0 {
            let most = side.challenges.min(Batch::ROOM as u64);
            side.challenges -= most;
            isolate(lru, ACTIVE[at], batch, most as usize);
            return Step::Challenge;
        }
        let short = lru.pages(INACTIVE[at]) < self.cold_target(lru, kind);
        if active > 0 && (short || scan.last()) {
            isolate(lru, ACTIVE[at], batch, Batch::ROOM);
            return if scan.forced() {
                Step::Force
            } else {
                Step::Examine
            };
        }
        self.select_inactive(lru, kind, scan, batch);
        Step::Evict
    }

    fn put_back(&mut self, lru: &mut Lru<'_>, pfn: Pfn, step: Step, fate: Fate) {
        let page = lru.page(pfn);
        let at = PageType::of(page) as usize;
        let used = matches!(fate, Fate::Used | Fate::UsedAsCode);
        match step {
            Step::Examine if used => lru.add(pfn, ACTIVE[at]),
            Step::Challenge if used => {
                let side = &mut self.sides[at];
                side.cold = side.cold.saturating_sub(COLD_LOST);
                lru.add(pfn, ACTIVE[at]);
            }
            // Code of programs stays; the rest must go, used or not.
            Step::Force if fate == Fate::UsedAsCode && at == 1 => lru.add(pfn, ACTIVE[at]),
            Step::Examine | Step::Force => Self::deactivate(lru, pfn),
            Step::Challenge => {
                self.sides[at].won += 1;
                self.sides[at].cold += COLD_WON;
                Self::deactivate(lru, pfn);
            }
            _ => match fate {
                Fate::UsedAsCode if at == 1 => Self::activate(lru, pfn),
                // The first use is the fault that brought it in; the second makes it active.
                Fate::Used | Fate::UsedAsCode => {
                    if page.flags().contains(PageFlags::REFERENCED) {
                        Self::activate(lru, pfn);
                    } else {
                        page.set_flags(PageFlags::REFERENCED);
                        lru.add(pfn, INACTIVE[at]);
                    }
                }
                Fate::Tried(Outcome::Activated) => Self::activate(lru, pfn),
                // It will be clean when its turn comes again: at once.
                Fate::Tried(Outcome::Written) => lru.add_tail(pfn, INACTIVE[at]),
                Fate::Idle | Fate::Tried(_) => lru.add(pfn, INACTIVE[at]),
            },
        }
    }

    fn shadow(&mut self, _: &Lru<'_>, page: &Page, node: NodeId) -> Shadow {
        self.clock = self.clock.wrapping_add(1).max(1);
        let workingset = page.flags().contains(PageFlags::WORKINGSET);
        Shadow::new(node, workingset, self.clock)
    }

    fn refault(&mut self, lru: &Lru<'_>, page: &Page, shadow: Shadow) {
        let kind = PageType::of(page);
        let at = kind as usize;
        let distance = u64::from(shadow.distance(self.clock));
        let workingset = lru.pages(ACTIVE[0]) + lru.pages(ACTIVE[1]) + lru.pages(INACTIVE[1 - at]);
        let challenge = distance <= workingset;
        if shadow.workingset() {
            page.set_flags(PageFlags::WORKINGSET);
        }
        let room = lru.pages(ACTIVE[at]) * ROOM.1 < Self::pages(lru, kind) * ROOM.0;
        if room {
            page.set_flags(PageFlags::ACTIVE);
        } else if challenge {
            self.sides[at].challenges += 1;
            set_note(page, CHALLENGER);
            self.note_cost(lru, at);
        }
        let active = room || challenge;
        count_refault(lru, page, active, active && shadow.workingset());
    }
}

/// The inactive list is at least 1/4 and at most all of its type.
const COLD_MIN: u64 = 4;
const COLD_MAX: u64 = 1;
/// Up to this share of its type, a page that comes back is active at once.
const ROOM: (u64, u64) = (2, 3);
/// How much a challenge that found an idle active page lets it grow, and one that did not, shrink.
const COLD_WON: u64 = 1 << 11;
const COLD_LOST: u64 = 1 << 10;
