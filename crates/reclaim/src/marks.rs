//! What reclaim writes into a page's flags.

use vellum_page::{Page, PageFlags, PageState};

/// Anonymous memory or file pages: the two kinds that are balanced against each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PageType {
    /// Backed by swap: anonymous and shared memory.
    Anon = 0,
    /// Backed by a file.
    File = 1,
}

impl PageType {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Anon, Self::File];

    /// The kind of a page. MADV_FREE makes an anonymous page droppable like a clean file page.
    #[inline]
    pub(crate) fn of(page: &Page) -> Self {
        let flags = page.flags();
        let anon = flags.contains(PageFlags::SWAPBACKED) || page.state() == PageState::Anon;
        if anon && !flags.contains(PageFlags::LAZYFREE) {
            Self::Anon
        } else {
            Self::File
        }
    }
}

/// A list of a node: eight for the policy, one for what cannot be reclaimed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ListId(u8);

const LIST_SHIFT: u32 = PageFlags::POLICY.bits().trailing_zeros();
const LIST_MASK: u32 = 7 << LIST_SHIFT;
const NOTE_SHIFT: u32 = LIST_SHIFT + 3;
const NOTE_MASK: u32 = 7 << NOTE_SHIFT;
const _: () = assert!(LIST_MASK | NOTE_MASK == PageFlags::POLICY.bits());

impl ListId {
    /// Lists of one node.
    pub(crate) const COUNT: usize = 9;
    /// Pages that reclaim must leave alone.
    pub(crate) const UNEVICTABLE: Self = Self(8);

    /// One of the policy's lists.
    ///
    /// # Panics
    /// If `raw` is 8 or more.
    pub(crate) const fn new(raw: u8) -> Self {
        assert!(raw < 8, "a policy has eight lists");
        Self(raw)
    }
    /// As an index.
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
    /// The list that a page with these flags is on, if LRU is set.
    #[inline]
    pub(crate) const fn of(flags: PageFlags) -> Self {
        if flags.contains(PageFlags::UNEVICTABLE) {
            Self::UNEVICTABLE
        } else {
            Self((flags.bits() >> LIST_SHIFT & 7) as u8)
        }
    }
    /// The flags that say so.
    #[inline]
    pub(crate) const fn flags(self) -> PageFlags {
        if self.0 == Self::UNEVICTABLE.0 {
            PageFlags::UNEVICTABLE
        } else {
            PageFlags::from_bits_retain((self.0 as u32) << LIST_SHIFT)
        }
    }
    /// All flags that a change of lists replaces.
    pub(crate) const FLAGS: PageFlags =
        PageFlags::from_bits_retain(LIST_MASK | PageFlags::UNEVICTABLE.bits());
}

/// The policy's three bits about a page: its age, its uses, whether it came back.
#[inline]
pub(crate) fn note(page: &Page) -> u8 {
    (page.flags().bits() >> NOTE_SHIFT & 7) as u8
}

/// Sets the three bits.
#[inline]
pub(crate) fn set_note(page: &Page, note: u8) {
    page.replace_flags(
        PageFlags::from_bits_retain(NOTE_MASK),
        PageFlags::from_bits_retain(u32::from(note.min(7)) << NOTE_SHIFT),
    );
}
