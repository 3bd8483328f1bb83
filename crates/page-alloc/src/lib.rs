//! Zones, watermarks and the buddy system: who gives out page frames.
//!
//! Layer 3. [`PageAllocator`] is the machine's plain [`PageSource`](vellum_page::PageSource): it
//! tries, and says no when it must. Waiting, reclaim and killing are wrappers in other crates. It
//! uses no other allocator: its descriptors, its pageblock table and itself lie in memory that
//! memblock lends at [`PageAllocator::boot`].
//!
//! # Concepts
//! ```text
//!   Node 0 ─┬─ Zone DMA     < 16 MiB ┐
//!           ├─ Zone DMA32   <  4 GiB ├─ each: a lock, watermarks, and for every order and mobility
//!           └─ Zone Normal   above   ┘  a list of free blocks, linked by frame number in the memmap
//!   Node 1 ─── Zone Normal …            borders and ZONE_HIGHMEM, ZONE_MOVABLE: see ZoneProfile
//!
//!   order-0 request, only a block of order 3 free:      its four pages afterwards
//!     ├─┬─┬─┬─┬─┬─┬─┬─┤   split: low part is taken,     ├─┼─┬───┬───────┤
//!     0 1 2 3 4 5 6 7     upper halves are listed        A 1  2     4       next one gets frame 1
//! ```
//! * A *block* is 2^order frames, aligned to its size. Its *buddy* is the other half of the block
//!   one order up: `pfn ^ 2^order`. Freeing merges buddies as far as they are free.
//! * *Consecutive allocations are neighbours* where possible: lists begin with the lowest block, and
//!   a split leaves the rest at the head. A machine that maps runs of frames gains by it.
//! * *Mobility* ([`MigrateType`](vellum_types::MigrateType)) keeps what can move apart from what
//!   cannot, in *pageblocks* of 2 MiB. A request whose own lists are empty claims a foreign
//!   pageblock, or takes single pages from it.
//! * A request names the *highest zone* it can use. It tries that one, then the lower ones of the node
//!   that it starts from, then those of other nodes, near before far: the node's *zonelist*. Each zone
//!   holds back `lowmem_reserve` pages from requests that could have been served above.
//! * There are one to eight *nodes*. A request starts from the node of its CPU, or from the one it names;
//!   `__GFP_THISNODE` keeps it there. A CPU keeps blocks of its own node only: others go back to their
//!   zone at once. Memory may come ([`PageAllocator::add_memory`]) and go
//!   ([`PageAllocator::remove_memory`]) in whole blocks of the largest order.
//! * *Watermarks*: a first pass leaves `low` in every zone, a second goes down to `min`.
//!   `__GFP_HIGH` may use half of what is below, `GFP_ATOMIC` five eighths, `__GFP_MEMALLOC` all.
//!
//! * Each CPU keeps *lists* of free blocks, of single pages and a few other orders, for each zone and
//!   mobility. Allocating from them and freeing to them takes no lock and no atomic read-modify-write.
//!   They are filled above the low marks only, and drained on demand, in need, and of a stopped CPU.
//! * *Isolated* pageblocks give nothing away until somebody took an exact range out of them.
//!
//! # States
//! ```text
//!              ┌──── refill, drain ────┐
//!              ▼                       ▼
//!   Reserved ─▶ Free ──▶ Allocated ◀── PerCpu
//!     boot      ▲           │ owner: Slab, PageTable, Anon, File …
//!               └───────────┴── free_pages ──▶ PerCpu
//! ```
//! The first frame of a block carries state and order; the others are Tail. So freeing needs no size.
//! Tails stay as they are while their block is allocated, freed, kept and allocated again: whatever its
//! order, only its first frame is touched. A free block keeps its kind in the owner word. An owner that
//! changes the state of a block of more than one frame must keep the order (`set_state_order`).
//!
//! # Invariants
//! * Every managed frame is in exactly one block: free, kept or allocated; no block crosses a zone
//!   boundary.
//! * Two buddies of the same order are never both Free, unless one is isolated or reserved.
//! * A free block is on the list of its pageblock's kind.
//! * Free pages of a zone = sum over its lists; the counter `nr_free_pages` = sum over zones.
//! * What a CPU's list counts is on it, with that list's tag.
//!
//! [`PageAllocator::validate`] checks all of it.
//!
//! # Locks
//! One spin lock per zone, rank `Zone`, the innermost of all. It guards the lists, the watermarks,
//! the words of Free pages and the pageblock table. Descriptors of an allocated block are its owner's.
//! No two zones are locked at once. A CPU's lists are its own: it is pinned while it changes them, and
//! may take a zone's lock meanwhile.
//!
//! # Failure
//! `alloc_pages` returns `OutOfMemory`, after it has drained the lists; `__GFP_NORETRY` keeps it from
//! that for a block. It never waits: `__GFP_NOFAIL` is kept by the wrapper that reclaims and asks again.
//! Freeing what is not allocated panics: the lists could not be trusted afterwards. So does, with
//! [`PageAllocator::set_poison`], the allocation that finds that somebody wrote to a free page.
//! [`PageAllocator::fail_after`] makes allocations fail on demand.
//!
//! # Statistics
//! The counter `nr_free_pages`, `pgalloc_*` and `pgfree` are counted here and nowhere else, the latter
//! two when [`PageAllocator::fold_counters`] is called; events `mm_page_alloc` and `mm_page_free`.
//! [`ZoneInfo`] is what `/proc/zoneinfo` and `buddyinfo` show.
//!
//! # What this does not do
//! No reclaim, no compaction: it says what is in the way ([`IsolatedRange::busy`]) and that kswapd is
//! wanted on a node ([`PageAllocator::kswapd_wanted`]). No balancing between nodes.
//!
//! Linux: `mm/page_alloc.c`, `mm/page_isolation.c`, `include/linux/mmzone.h`. Differences: watermarks
//! are checked under the lock, and no CPU's list is filled from the reserves; blocks for another
//! mobility are taken from the end of a list, so as not to break runs; pages freed in ascending order
//! stay so on a CPU's list.
#![no_std]
#![deny(unsafe_code)]
#![warn(missing_docs)]

#[cfg(test)]
extern crate std;

mod allocator;
mod boot;
mod buddy;
mod bulk;
mod contig;
mod drain;
mod fallback;
mod frames;
mod free_area;
mod highatomic;
mod hooks;
mod hotplug;
mod inject;
mod kswapd;
mod layout;
mod node;
mod pace;
mod page_list;
mod pcp;
#[expect(unsafe_code, reason = "boot memory becomes values in one audited file")]
mod place;
mod poison;
mod profile;
mod request;
mod source;
#[expect(unsafe_code, reason = "a stopped CPU is reached by its word alone")]
mod stopped;
mod take;
mod validate;
mod watermark;
mod zone;
mod zonelist;

/// What `request` is built on.
mod sync {
    pub(crate) use core::sync::atomic::{AtomicBool, Ordering};
}

pub use allocator::PageAllocator;
pub use boot::{BootError, BootParts};
pub use contig::{ContigError, IsolatedRange};
pub use frames::PAGEBLOCK_ORDER;
pub use hotplug::{HotplugError, Online};
pub use node::{MAX_NODES, NodeInfo};
pub use place::place_at_boot;
pub use poison::PAGE_POISON;
pub use profile::{MovableShare, ZoneProfile};
pub use watermark::Watermarks;
pub use zone::ZoneInfo;
