//! What is known of one slot: 64 bits.

use core::fmt;
use vellum_types::Pfn;

const COUNT_SHIFT: u32 = 32;
const COUNT_MASK: u64 = (1 << 24) - 1;
const KIND_SHIFT: u32 = 56;
const KIND_MASK: u64 = 7;
const RETIRE: u64 = 1 << 59;
const AHEAD: u64 = 1 << 60;

/// What a slot is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Not in use. Payload: the next free slot of the same cluster.
    Free = 0,
    /// In use; no page of it is in memory.
    Empty = 1,
    /// In use, and the page is in memory. Payload: its frame.
    Cached = 2,
    /// As `Empty`. Payload: what reclaim wants to remember of the page.
    Shadow = 3,
    /// Damaged, or the header.
    Bad = 4,
    /// Not in use any more; the device is being told.
    Releasing = 5,
}

/// Payload in bits 0..32, references from table entries in 32..56, kind in 56..59, then two flags.
/// Linux has the same in `swap_map`, the swap cache's tree and `zeromap`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotWord(u64);

impl SlotWord {
    /// The most references of one slot.
    pub(crate) const MAX_COUNT: u32 = COUNT_MASK as u32;

    pub(crate) const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }
    pub(crate) const fn raw(self) -> u64 {
        self.0
    }
    const fn of(kind: Kind, payload: u32) -> Self {
        Self((kind as u64) << KIND_SHIFT | payload as u64)
    }

    /// Not in use; `next` follows in its cluster's chain.
    pub(crate) const fn free(next: u32) -> Self {
        Self::of(Kind::Free, next)
    }
    /// Never to be used.
    pub(crate) const BAD: Self = Self::of(Kind::Bad, 0);
    /// The device is being told that it is not in use.
    pub(crate) const fn releasing(self) -> Self {
        Self((Self::of(Kind::Releasing, 0)).0 | self.0 & RETIRE)
    }
    /// Given to a page that is in memory; no table entry yet.
    pub(crate) const fn new_cached(pfn: Pfn) -> Self {
        Self::of(Kind::Cached, pfn.as_u32())
    }

    #[inline]
    pub(crate) const fn kind(self) -> Kind {
        match self.0 >> KIND_SHIFT & KIND_MASK {
            0 => Kind::Free,
            1 => Kind::Empty,
            2 => Kind::Cached,
            3 => Kind::Shadow,
            5 => Kind::Releasing,
            _ => Kind::Bad,
        }
    }
    #[inline]
    pub(crate) const fn payload(self) -> u32 {
        self.0 as u32
    }
    /// References from table entries.
    #[inline]
    pub(crate) const fn count(self) -> u32 {
        (self.0 >> COUNT_SHIFT & COUNT_MASK) as u32
    }
    /// True if a page or a table entry belongs to the slot.
    #[inline]
    pub(crate) const fn in_use(self) -> bool {
        matches!(self.kind(), Kind::Empty | Kind::Cached | Kind::Shadow)
    }
    /// The frame of the page, if it is in memory.
    #[inline]
    pub(crate) const fn cached(self) -> Option<Pfn> {
        match self.kind() {
            Kind::Cached => Some(Pfn::new(self.payload())),
            _ => None,
        }
    }
    /// What reclaim left.
    #[inline]
    pub(crate) const fn shadow(self) -> Option<u32> {
        match self.kind() {
            Kind::Shadow => Some(self.payload()),
            _ => None,
        }
    }
    /// One more reference; `None` if there are too many.
    #[inline]
    pub(crate) const fn dup(self) -> Option<Self> {
        if self.count() == Self::MAX_COUNT {
            None
        } else {
            Some(Self(self.0 + (1 << COUNT_SHIFT)))
        }
    }
    /// One reference fewer; `None` if there is none.
    #[inline]
    pub(crate) const fn undup(self) -> Option<Self> {
        if self.count() == 0 {
            None
        } else {
            Some(Self(self.0 - (1 << COUNT_SHIFT)))
        }
    }
    const fn with(self, kind: Kind, payload: u32) -> Self {
        let keep = COUNT_MASK << COUNT_SHIFT | RETIRE;
        Self(Self::of(kind, payload).0 | self.0 & keep)
    }
    /// The page came into memory.
    #[inline]
    pub(crate) const fn with_page(self, pfn: Pfn) -> Self {
        self.with(Kind::Cached, pfn.as_u32())
    }
    /// The page left memory.
    #[inline]
    pub(crate) const fn without_page(self, shadow: Option<u32>) -> Self {
        match shadow {
            Some(shadow) => self.with(Kind::Shadow, shadow),
            None => self.with(Kind::Empty, 0),
        }
    }
    /// Writing it failed: it is bad as soon as it is not in use.
    pub(crate) const fn retired(self) -> Self {
        Self(self.0 | RETIRE)
    }
    pub(crate) const fn is_retired(self) -> bool {
        self.0 & RETIRE != 0
    }
    /// The page was read before anybody asked for it.
    pub(crate) const fn ahead(self) -> Self {
        Self(self.0 | AHEAD)
    }
    #[inline]
    pub(crate) const fn is_ahead(self) -> bool {
        self.0 & AHEAD != 0
    }
    /// Somebody asked for it.
    pub(crate) const fn wanted(self) -> Self {
        Self(self.0 & !AHEAD)
    }
}

impl fmt::Debug for SlotWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?}({:#x}) x{}",
            self.kind(),
            self.payload(),
            self.count()
        )?;
        if self.is_retired() {
            f.write_str(" retired")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_and_shadow_keep_the_count() {
        let word = SlotWord::new_cached(Pfn::new(0xffff_fffe));
        let word = word.dup().and_then(SlotWord::dup).unwrap();
        assert_eq!(
            (word.count(), word.cached()),
            (2, Some(Pfn::new(0xffff_fffe)))
        );
        let word = word.retired().without_page(Some(77));
        assert_eq!(
            (word.count(), word.shadow(), word.cached()),
            (2, Some(77), None)
        );
        let word = word.with_page(Pfn::ZERO).ahead();
        assert_eq!(
            (word.count(), word.shadow(), word.is_ahead()),
            (2, None, true)
        );
        let word = word.without_page(None);
        assert_eq!(
            (word.kind(), word.is_ahead(), word.is_retired()),
            (Kind::Empty, false, true)
        );
        let word = word.undup().and_then(SlotWord::undup).unwrap();
        assert_eq!(word.undup(), None);
    }

    #[test]
    fn the_count_ends_before_it_spills_over() {
        let full = SlotWord(SlotWord::new_cached(Pfn::ZERO).0 | COUNT_MASK << COUNT_SHIFT);
        assert_eq!(full.count(), SlotWord::MAX_COUNT);
        assert_eq!(full.dup(), None);
        assert_eq!(full.kind(), Kind::Cached);
    }
}
