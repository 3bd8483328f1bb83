//! What reclaim asks of those who know what a page holds.

use vellum_types::Pfn;

/// How a page was used since somebody last asked. Linux: `folio_referenced`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Referenced {
    /// Page-table entries whose accessed bit was set; it is clear now.
    pub young: u32,
    /// One of them is in an executable area.
    pub exec: bool,
    /// One of them is in an area that mlock(2) holds in memory.
    pub locked: bool,
}

/// What may be done to get a page back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MayDo {
    /// Put anonymous memory into swap.
    pub swap: bool,
    /// Write a dirty page to its file or slot.
    pub write: bool,
    /// Take it out of page tables.
    pub unmap: bool,
}

impl MayDo {
    /// Everything.
    pub const ALL: Self = Self {
        swap: true,
        write: true,
        unmap: true,
    };
}

/// What became of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Its frame is free; the policy's reference was consumed.
    Freed,
    /// It is on its way to its file or slot.
    WriteStarted,
    /// It was written and is clean now, and still here.
    Written,
    /// It was used meanwhile.
    Activated,
    /// Somebody holds or locks it, or what it needs is not allowed now.
    Busy,
    /// It must stay: mlocked.
    Unevictable,
    /// It is anonymous, and swap is full or absent.
    NoSwap,
    /// Its write failed; it stays.
    IoError,
}

/// Those who know what a page holds: `mm`, the page cache, swap, the reverse mapping.
///
/// No lock of the core is held when reclaim calls. The host may lock one address space at a time, and
/// may use the [`PageSource`](vellum_page::PageSource) facade, but must not reclaim again.
pub trait ReclaimHost {
    /// Entries that map the page and were used since the last call; clears their accessed bits. Costs
    /// in proportion to the mappings of the page.
    fn page_referenced(&self, pfn: Pfn) -> Referenced;

    /// Tries to free a page that the policy isolated and holds one reference to: take it out of all
    /// page tables, write it if it is dirty and `may` allows, free it. On [`Outcome::Freed`] the
    /// reference is consumed; on any other the policy still has it and puts the page back.
    fn reclaim_page(&self, pfn: Pfn, may: MayDo) -> Outcome;

    /// Writes a dirty page without unmapping or freeing it, perhaps with its neighbours.
    fn launder_page(&self, pfn: Pfn) -> Outcome;

    /// Free swap slots. 0: anonymous pages cannot be reclaimed.
    fn free_swap(&self) -> u64;

    /// Walks the tables of all address spaces, clears accessed bits and reports each young page.
    fn age_spaces(&self, young: &mut dyn FnMut(Pfn));

    /// Asks other caches for `target` pages: slab shrinkers, per-CPU sets. Returns pages freed.
    fn shrink_caches(&self, target: u64) -> u64;
}
