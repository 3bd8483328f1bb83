//! Pages between two lists.

use crate::host::Outcome;
use vellum_types::Pfn;

/// What came of a page of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// It had been used.
    Used,
    /// It had been used, by running code that lies in it.
    UsedAsCode,
    /// It had not been used.
    Idle,
    /// It had not been used; the host tried to write or free it.
    Tried(Outcome),
}

/// Pages that were taken off their lists with one reference each. Linux's `SWAP_CLUSTER_MAX` at most.
#[derive(Debug)]
pub(crate) struct Batch {
    pages: [Pfn; Self::ROOM],
    fates: [Fate; Self::ROOM],
    len: usize,
}

impl Batch {
    /// The most pages.
    pub(crate) const ROOM: usize = 32;

    /// Without pages.
    pub(crate) const fn new() -> Self {
        Self {
            pages: [Pfn::NONE; Self::ROOM],
            fates: [Fate::Idle; Self::ROOM],
            len: 0,
        }
    }
    /// How many pages.
    #[inline]
    pub(crate) const fn len(&self) -> usize {
        self.len
    }
    /// Adds a page.
    #[inline]
    pub(crate) fn push(&mut self, pfn: Pfn) {
        if let Some(slot) = self.pages.get_mut(self.len) {
            *slot = pfn;
            self.len += 1;
        }
    }
    /// Empties it, and keeps those pages for which `f` has a fate.
    #[inline]
    pub(crate) fn decide(&mut self, mut f: impl FnMut(Pfn) -> Option<Fate>) {
        let mut kept = 0;
        for at in 0..self.len {
            let pfn = self.pages[at];
            if let Some(fate) = f(pfn) {
                self.pages[kept] = pfn;
                self.fates[kept] = fate;
                kept += 1;
            }
        }
        self.len = kept;
    }
    /// The pages and what came of them.
    #[inline]
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = (Pfn, Fate)> + '_ {
        let len = core::mem::take(&mut self.len);
        self.pages[..len]
            .iter()
            .copied()
            .zip(self.fates[..len].iter().copied())
    }
}
