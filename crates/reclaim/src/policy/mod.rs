//! Policies: which page goes next.
//!
//! A policy never calls anybody. The mechanism (`shrink`) drives it in three beats: `select` under the
//! node's lock isolates a batch and says what to do with it; without the lock the host is asked about
//! each page; `put_back` under the lock tells the policy what came of it.

mod linux24;
mod lru;
mod mglru;
mod two_list;

pub(crate) use linux24::Linux24;
pub(crate) use lru::PlainLru;
pub(crate) use mglru::Mglru;
pub(crate) use two_list::TwoList;

use crate::batch::{Batch, Fate};
use crate::host::Referenced;
use crate::lists::Lru;
use crate::marks::{ListId, PageType};
use crate::shadow::Shadow;
use core::str::FromStr;
use vellum_machine::{VmEvent, VmItem};
use vellum_page::{Page, PageFlags};
use vellum_types::{NodeId, Pfn};

/// Which policy; chosen at boot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum PolicyKind {
    /// Active and inactive lists with refault distances, as Linux since 2.6, refined.
    TwoList,
    /// Active, inactive_dirty and inactive_clean with page ages, as Linux 2.4.
    Linux24,
    /// Generations aged by walks of the page tables, as Linux since 6.1.
    Mglru,
    /// One list with a second chance, for comparison.
    Lru,
}

impl PolicyKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::TwoList, Self::Linux24, Self::Mglru, Self::Lru];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TwoList => "two-list",
            Self::Linux24 => "linux24",
            Self::Mglru => "mglru",
            Self::Lru => "lru",
        }
    }
}

impl core::fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.name())
    }
}

/// No policy has that name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownPolicy;

impl core::fmt::Display for UnknownPolicy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the policies are two-list, linux24, mglru and lru")
    }
}

impl core::error::Error for UnknownPolicy {}

impl FromStr for PolicyKind {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, UnknownPolicy> {
        let named = |kind: &Self| kind.name() == name;
        Self::ALL.into_iter().find(named).ok_or(UnknownPolicy)
    }
}

/// What a round of reclaim may do and how hard it tries. Linux: `struct scan_control`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scan {
    /// 12 at first; 0 looks at everything.
    pub(crate) priority: u8,
    /// Anonymous pages may be taken: there is swap, and the request allows it.
    pub(crate) swap: bool,
    /// 0..=200, as `vm.swappiness`.
    pub(crate) swappiness: u8,
    /// How many pages to take off an eviction list at once.
    pub(crate) batch: usize,
}

impl Scan {
    /// So little was found that the types take turns, whatever their refaults say.
    const fn takes_turns(&self) -> bool {
        self.priority <= 2
    }
    /// The last round: every page must be tried.
    const fn last(&self) -> bool {
        self.priority == 0
    }
    /// Pages in use must make room, too.
    const fn forced(&self) -> bool {
        self.priority < 2
    }
}

/// Two types that take turns, as far as each has pages.
fn turn(turn: &mut bool, anon: bool, file: bool) -> Option<PageType> {
    *turn = !*turn;
    match (anon, file) {
        (false, false) => None,
        (true, true) if *turn => Some(PageType::File),
        (true, _) => Some(PageType::Anon),
        (false, true) => Some(PageType::File),
    }
}

/// What to do with a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Nothing is left to look at.
    Nothing,
    /// No pages: the host must walk all tables first.
    AgeSpaces,
    /// Ask whether each was used.
    Examine,
    /// The same, on behalf of pages that came back and claim to be hotter than these.
    Challenge,
    /// The same, but they are needed whatever the answer is.
    Force,
    /// Ask whether each was used; write those that were not.
    Launder,
    /// Ask whether each was used; free those that were not.
    Evict,
}

/// Decides which page goes next. One value per node, under the node's lock.
pub(crate) trait ReclaimPolicy {
    /// How the pages of each list are counted at boot.
    fn items(&self) -> [VmItem; 8];

    /// Puts a page that is on no list on one. New, refaulted and rescued pages come here.
    fn add(&mut self, lru: &mut Lru<'_>, pfn: Pfn);

    /// A page on a list was used by read(), write() or get_user_pages.
    fn accessed(&mut self, lru: &mut Lru<'_>, pfn: Pfn);

    /// The walk of all tables found a page on a list used.
    fn young(&mut self, lru: &mut Lru<'_>, pfn: Pfn) {
        let _ = (lru, pfn);
    }

    /// The walk of all tables has ended.
    fn aged(&mut self, lru: &mut Lru<'_>) {
        let _ = lru;
    }

    /// Isolates pages into the empty `batch`.
    fn select(&mut self, lru: &mut Lru<'_>, scan: &Scan, batch: &mut Batch) -> Step;

    /// Puts a page of a batch on a list again.
    fn put_back(&mut self, lru: &mut Lru<'_>, pfn: Pfn, step: Step, fate: Fate);

    /// The host is taking the page away: what to remember.
    fn shadow(&mut self, lru: &Lru<'_>, page: &Page, node: NodeId) -> Shadow;

    /// A page came back that left as `shadow`; it is not on a list yet. Counts it.
    fn refault(&mut self, lru: &Lru<'_>, page: &Page, shadow: Shadow);
}

/// The policies, side by side in one value, so that no heap is needed to choose at boot.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one per node, and there is no heap to box it in"
)]
pub(crate) enum Policy {
    TwoList(TwoList),
    Linux24(Linux24),
    Mglru(Mglru),
    Lru(PlainLru),
}

impl Policy {
    pub(crate) fn new(kind: PolicyKind) -> Self {
        match kind {
            PolicyKind::TwoList => Self::TwoList(TwoList::new()),
            PolicyKind::Linux24 => Self::Linux24(Linux24::new()),
            PolicyKind::Mglru => Self::Mglru(Mglru::new()),
            PolicyKind::Lru => Self::Lru(PlainLru::new()),
        }
    }

    #[inline]
    pub(crate) fn get(&mut self) -> &mut dyn ReclaimPolicy {
        match self {
            Self::TwoList(policy) => policy,
            Self::Linux24(policy) => policy,
            Self::Mglru(policy) => policy,
            Self::Lru(policy) => policy,
        }
    }

    pub(crate) fn kind(&self) -> PolicyKind {
        match self {
            Self::TwoList(_) => PolicyKind::TwoList,
            Self::Linux24(_) => PolicyKind::Linux24,
            Self::Mglru(_) => PolicyKind::Mglru,
            Self::Lru(_) => PolicyKind::Lru,
        }
    }
}

/// Is a page of a batch in use, so that it is not to be written or freed? No lock is held here.
#[inline]
pub(crate) fn in_use(kind: PolicyKind, page: &Page, referenced: Referenced) -> bool {
    let young = referenced.young > 0;
    match kind {
        PolicyKind::Mglru => young,
        // On the inactive list the mark is the policy's own: used once already.
        PolicyKind::TwoList if !page.flags().contains(PageFlags::ACTIVE) => young,
        _ => {
            let marked = page.flags().contains(PageFlags::REFERENCED);
            if marked {
                page.clear_flags(PageFlags::REFERENCED);
            }
            young || marked
        }
    }
}

/// Counts a refault with Linux's names.
fn count_refault(lru: &Lru<'_>, page: &Page, activate: bool, restore: bool) {
    use VmEvent as E;
    let (refault, activated, restored) = match PageType::of(page) {
        PageType::Anon => (
            E::WorkingsetRefaultAnon,
            E::WorkingsetActivateAnon,
            E::WorkingsetRestoreAnon,
        ),
        PageType::File => (
            E::WorkingsetRefaultFile,
            E::WorkingsetActivateFile,
            E::WorkingsetRestoreFile,
        ),
    };
    lru.vmstat.count(refault);
    if activate {
        lru.vmstat.count(activated);
    }
    if restore {
        lru.vmstat.count(restored);
    }
}

/// Isolates up to `most` of the oldest pages of `list`.
#[inline]
fn isolate(lru: &mut Lru<'_>, list: ListId, batch: &mut Batch, most: usize) {
    let most = most.min(Batch::ROOM) as u64;
    lru.isolate_tail(list, most, |pfn| batch.push(pfn));
}
