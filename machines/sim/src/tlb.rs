//! One CPU's translation lookaside buffer.

use vellum_types::{Pfn, Prot, SpaceId, VirtAddr, VirtRange};

/// One cached translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TlbEntry {
    /// Tag: the address space.
    pub space: SpaceId,
    /// Tag: the page number.
    pub page: u64,
    /// The frame.
    pub pfn: Pfn,
    /// What may be done without a walk.
    pub prot: Prot,
    /// The dirty bit was set when the entry was filled: stores need no walk.
    pub dirty: bool,
}

/// Something to be dropped or narrowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flush {
    /// Entries of a range.
    Range(SpaceId, VirtRange),
    /// All entries of an address space.
    Space(SpaceId),
    /// Write permission of a range.
    WriteProtect(SpaceId, VirtRange),
}

impl Flush {
    /// The address space.
    pub(crate) const fn space(&self) -> SpaceId {
        match self {
            Self::Range(space, _) | Self::Space(space) | Self::WriteProtect(space, _) => *space,
        }
    }

    /// Does it concern this entry?
    pub(crate) fn covers(&self, entry: &TlbEntry) -> bool {
        let address = VirtAddr::from_page_number(entry.page);
        self.space() == entry.space
            && match self {
                Self::Range(_, range) | Self::WriteProtect(_, range) => range.contains(address),
                Self::Space(_) => true,
            }
    }
}

/// A direct-mapped cache of translations. Small on purpose: evictions and conflicts are part of
/// what is tested. Entries leave only by eviction or flush, never because a table changed.
#[derive(Clone, Debug)]
pub(crate) struct Tlb {
    slots: Vec<Option<TlbEntry>>,
    /// Flushes that were asked for and have not arrived.
    pending: Vec<Flush>,
}

impl Tlb {
    pub(crate) fn new(entries: usize) -> Self {
        assert!(entries > 0, "a TLB needs an entry");
        Self {
            slots: vec![None; entries],
            pending: Vec::new(),
        }
    }

    fn slot(&self, space: SpaceId, page: u64) -> usize {
        // Consecutive pages of one space never collide within the size of the TLB.
        ((page.wrapping_add(u64::from(space.0).wrapping_mul(7))) % self.slots.len() as u64) as usize
    }

    /// The entry for a page, if it is cached.
    pub(crate) fn lookup(&self, space: SpaceId, page: u64) -> Option<TlbEntry> {
        self.slots[self.slot(space, page)].filter(|e| e.space == space && e.page == page)
    }

    /// Caches a translation in place of whatever is in its slot.
    pub(crate) fn fill(&mut self, entry: TlbEntry) {
        let slot = self.slot(entry.space, entry.page);
        self.slots[slot] = Some(entry);
    }

    /// Drops the entry of one page, as `INVLPG` does.
    pub(crate) fn drop_page(&mut self, space: SpaceId, page: u64) {
        let slot = self.slot(space, page);
        if self.slots[slot].is_some_and(|e| e.space == space && e.page == page) {
            self.slots[slot] = None;
        }
    }

    /// Drops everything: a machine may forget at any time.
    pub(crate) fn forget_all(&mut self) {
        self.slots.fill(None);
    }

    /// Carries a flush out.
    pub(crate) fn apply(&mut self, flush: Flush) {
        for slot in &mut self.slots {
            if let Some(entry) = slot
                && flush.covers(entry)
            {
                match flush {
                    Flush::WriteProtect(..) => entry.prot.remove(Prot::WRITE),
                    _ => *slot = None,
                }
            }
        }
    }

    /// Remembers a flush until [`Tlb::settle`].
    pub(crate) fn defer(&mut self, flush: Flush) {
        self.pending.push(flush);
    }

    /// Carries out the pending flushes of a space.
    pub(crate) fn settle(&mut self, space: SpaceId) {
        let (due, later): (Vec<_>, Vec<_>) =
            self.pending.drain(..).partition(|f| f.space() == space);
        self.pending = later;
        for flush in due {
            self.apply(flush);
        }
    }

    /// Is a flush of this entry on its way?
    pub(crate) fn has_pending(&self, entry: &TlbEntry) -> bool {
        self.pending.iter().any(|flush| flush.covers(entry))
    }

    /// How many flushes have not arrived.
    pub(crate) fn nr_pending(&self) -> usize {
        self.pending.len()
    }

    /// All cached translations.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &TlbEntry> {
        self.slots.iter().flatten()
    }
}
