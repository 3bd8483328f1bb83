//! Generations. Linux: `CONFIG_LRU_GEN`, `Documentation/mm/multigen_lru.rst`.
//!
//! ```text
//!   min_seq                      max_seq
//!     │ oldest │        │        │ youngest │        aging: walk all tables, move what was used to
//!     └─evict──┘        └────────┴──add─────┘        max_seq, then begin max_seq + 1
//! ```
//! A generation number modulo four is a list, one for each type. A page used through read() and
//! write() climbs in *tiers* (log2 of its uses) without moving; a controller compares how often each
//! tier comes back after eviction with how often tier 0 does, and spares the tiers that come back more.

use super::{ReclaimPolicy, Scan, Step, count_refault, isolate, turn};
use crate::batch::{Batch, Fate};
use crate::host::Outcome;
use crate::lists::Lru;
use crate::marks::{ListId, PageType, note, set_note};
use crate::shadow::Shadow;
use vellum_machine::{VmEvent, VmItem};
use vellum_page::{Page, PageFlags};
use vellum_types::{NodeId, Pfn};

/// Generations that may exist at once, and those that must.
const MAX_NR_GENS: u32 = 4;
const MIN_NR_GENS: u32 = 2;
const NR_TIERS: usize = 4;

/// How one tier of one type fares.
#[derive(Clone, Copy, Default, Debug)]
struct Tier {
    evicted: u64,
    refaulted: u64,
    spared: u64,
    /// Moving averages of the above over earlier generations.
    avg_total: u64,
    avg_refaulted: u64,
}

impl Tier {
    /// Refaults and pages looked at, of now and before, weighted with `gain`.
    fn rate(tiers: &[Self], gain: u64) -> (u64, u64) {
        let refaulted: u64 = tiers.iter().map(|t| t.avg_refaulted + t.refaulted).sum();
        let total: u64 = tiers
            .iter()
            .map(|t| t.avg_total + t.evicted + t.spared)
            .sum();
        (refaulted.saturating_mul(gain), total)
    }

    /// Is the first rate certainly no higher than the second? Linux: `positive_ctrl_err`.
    fn no_higher(set: (u64, u64), other: (u64, u64)) -> bool {
        const MIN_BATCH: u64 = 64;
        other.1 < MIN_BATCH
            || other.0.saturating_mul(set.1.max(1)) <= (set.0 + MIN_BATCH).saturating_mul(other.1)
    }

    /// One generation has ended.
    fn carry_over(&mut self) {
        self.avg_refaulted = (self.avg_refaulted + self.refaulted) / 2;
        self.avg_total = (self.avg_total + self.evicted + self.spared) / 2;
        (self.evicted, self.refaulted, self.spared) = (0, 0, 0);
    }
}

/// The multi-generational policy.
#[derive(Debug)]
pub(crate) struct Mglru {
    max_seq: u32,
    min_seq: [u32; 2],
    tiers: [[Tier; NR_TIERS]; 2],
    turn: bool,
}

const fn list(seq: u32, kind: PageType) -> ListId {
    ListId::new(((seq % MAX_NR_GENS) * 2 + kind as u32) as u8)
}

/// Uses 0, 1, 2 to 3, 4 to 7.
const fn tier_of(uses: u8) -> usize {
    (u8::BITS - uses.leading_zeros()) as usize
}

impl Mglru {
    pub(crate) const fn new() -> Self {
        const NEW: Tier = Tier {
            evicted: 0,
            refaulted: 0,
            spared: 0,
            avg_total: 0,
            avg_refaulted: 0,
        };
        Self {
            // Linux begins with MIN_NR_GENS + 1 generations, so that 0 is never a number.
            max_seq: 3,
            min_seq: [2, 2],
            tiers: [[NEW; NR_TIERS]; 2],
            turn: false,
        }
    }

    const fn gens(&self, kind: PageType) -> u32 {
        self.max_seq - self.min_seq[kind as usize] + 1
    }

    fn name(&self, seq: u32, kind: PageType) -> VmItem {
        match (self.max_seq - seq < MIN_NR_GENS, kind) {
            (true, PageType::Anon) => VmItem::NrActiveAnon,
            (true, PageType::File) => VmItem::NrActiveFile,
            (false, PageType::Anon) => VmItem::NrInactiveAnon,
            (false, PageType::File) => VmItem::NrInactiveFile,
        }
    }

    /// Leaves empty generations behind, as far as enough remain.
    fn advance_min(&mut self, lru: &Lru<'_>, kind: PageType) {
        let at = kind as usize;
        while self.gens(kind) > MIN_NR_GENS && lru.pages(list(self.min_seq[at], kind)) == 0 {
            self.min_seq[at] += 1;
            self.tiers[at].iter_mut().for_each(Tier::carry_over);
        }
    }

    fn pages(&self, lru: &Lru<'_>, kind: PageType) -> u64 {
        (self.min_seq[kind as usize]..=self.max_seq)
            .map(|seq| lru.pages(list(seq, kind)))
            .sum()
    }

    /// The type that comes back less, weighed by swappiness.
    fn choose(&mut self, lru: &Lru<'_>, scan: &Scan) -> Option<PageType> {
        let anon = scan.swap && self.pages(lru, PageType::Anon) > 0;
        let file = self.pages(lru, PageType::File) > 0;
        if !(anon && file) || scan.takes_turns() {
            return turn(&mut self.turn, anon, file);
        }
        let gain = |kind| match kind {
            PageType::Anon => 200 - u64::from(scan.swappiness.min(200)),
            PageType::File => u64::from(scan.swappiness.min(200)),
        };
        let rate = |kind| Tier::rate(&self.tiers[kind as usize], gain(kind).max(1));
        let (anon, file) = (rate(PageType::Anon), rate(PageType::File));
        let older = self.min_seq[0] < self.min_seq[1];
        // a.0 / a.1 < f.0 / f.1, without divisions; nothing known counts as nothing lost.
        let anon_loss = u128::from(anon.0) * u128::from(file.1.max(1));
        let file_loss = u128::from(file.0) * u128::from(anon.1.max(1));
        if anon_loss < file_loss || older && anon_loss == file_loss {
            Some(PageType::Anon)
        } else {
            Some(PageType::File)
        }
    }

    /// Tiers from this one up are spared.
    fn spared_from(&self, kind: PageType) -> usize {
        let tiers = &self.tiers[kind as usize];
        let base = Tier::rate(&tiers[..1], 1);
        let mut from = 1;
        while from < NR_TIERS && Tier::no_higher(base, Tier::rate(&tiers[from..=from], 1)) {
            from += 1;
        }
        from
    }
}

impl ReclaimPolicy for Mglru {
    fn items(&self) -> [VmItem; 8] {
        let mut items = [VmItem::NrInactiveAnon; 8];
        for seq in self.max_seq + 1 - MAX_NR_GENS..=self.max_seq {
            for kind in PageType::ALL {
                items[list(seq, kind).index()] = self.name(seq, kind);
            }
        }
        items
    }

    /// What is mapped or came back is youngest; what was only read from a file is oldest.
    fn add(&mut self, lru: &mut Lru<'_>, pfn: Pfn) {
        let page = lru.page(pfn);
        let kind = PageType::of(page);
        let flags = page.flags();
        let mapped = kind == PageType::Anon || page.mapcount() > 0;
        let seq = if mapped || flags.intersects(PageFlags::ACTIVE | PageFlags::WORKINGSET) {
            self.max_seq
        } else {
            self.min_seq[kind as usize]
        };
        lru.add(pfn, list(seq, kind));
    }

    fn accessed(&mut self, lru: &mut Lru<'_>, pfn: Pfn) {
        let page = lru.page(pfn);
        set_note(page, note(page) + 1);
    }

    fn young(&mut self, lru: &mut Lru<'_>, pfn: Pfn) {
        let kind = PageType::of(lru.page(pfn));
        lru.move_to(pfn, list(self.max_seq, kind));
    }

    /// Begins a new generation. Linux: `inc_max_seq`.
    fn aged(&mut self, lru: &mut Lru<'_>) {
        for kind in PageType::ALL {
            let at = kind as usize;
            self.advance_min(lru, kind);
            if self.gens(kind) == MAX_NR_GENS {
                // The window is full: the two oldest become one.
                let oldest = self.min_seq[at];
                lru.append_older(list(oldest, kind), list(oldest + 1, kind));
                self.min_seq[at] += 1;
                self.tiers[at].iter_mut().for_each(Tier::carry_over);
            }
        }
        self.max_seq += 1;
        for kind in PageType::ALL {
            for seq in self.max_seq + 1 - MAX_NR_GENS..=self.max_seq {
                lru.set_item(list(seq, kind), self.name(seq, kind));
            }
        }
    }

    fn select(&mut self, lru: &mut Lru<'_>, scan: &Scan, batch: &mut Batch) -> Step {
        let Some(kind) = self.choose(lru, scan) else {
            return Step::Nothing;
        };
        let at = kind as usize;
        self.advance_min(lru, kind);
        if self.gens(kind) <= MIN_NR_GENS {
            return Step::AgeSpaces;
        }
        let (oldest, from) = (self.min_seq[at], self.spared_from(kind));
        let source = list(oldest, kind);
        for _ in 0..lru.pages(source).min(2 * Batch::ROOM as u64) {
            let page = lru.page(lru.tail(source));
            let tier = tier_of(note(page));
            if tier >= from && !scan.last() {
                self.tiers[at][tier].spared += 1;
                lru.move_to(lru.tail(source), list(oldest + 1, kind));
                continue;
            }
            isolate(lru, source, batch, 1);
            if batch.len() >= scan.batch || lru.pages(source) == 0 {
                break;
            }
        }
        Step::Evict
    }

    fn put_back(&mut self, lru: &mut Lru<'_>, pfn: Pfn, _: Step, fate: Fate) {
        let kind = PageType::of(lru.page(pfn));
        let seq = match fate {
            Fate::Used | Fate::UsedAsCode | Fate::Tried(Outcome::Activated) => {
                lru.vmstat.count(VmEvent::PgActivate);
                self.max_seq
            }
            // It is clean soon: the next ones to go.
            Fate::Tried(Outcome::WriteStarted | Outcome::Written) => self.min_seq[kind as usize],
            Fate::Idle | Fate::Tried(_) => self.max_seq - 1,
        };
        lru.add(pfn, list(seq, kind));
    }

    fn shadow(&mut self, _: &Lru<'_>, page: &Page, node: NodeId) -> Shadow {
        let at = PageType::of(page) as usize;
        let uses = note(page);
        self.tiers[at][tier_of(uses)].evicted += 1;
        let workingset = page.flags().contains(PageFlags::WORKINGSET);
        Shadow::new(node, workingset, self.min_seq[at] << 3 | u32::from(uses))
    }

    fn refault(&mut self, lru: &Lru<'_>, page: &Page, shadow: Shadow) {
        let at = PageType::of(page) as usize;
        let uses = (shadow.clock() & 7) as u8;
        let gone = shadow.distance(self.min_seq[at] << 3 | u32::from(uses)) >> 3;
        let recent = gone < MAX_NR_GENS;
        if recent {
            self.tiers[at][tier_of(uses)].refaulted += 1;
            page.set_flags(PageFlags::WORKINGSET);
            set_note(page, uses);
        }
        count_refault(lru, page, recent, recent && shadow.workingset());
    }
}
