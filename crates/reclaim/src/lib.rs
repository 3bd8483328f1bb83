//! Reclaim: getting page frames back from those who can do without.
//!
//! Layer 6. [`Reclaim`] is the source of frames that everybody uses: it wraps the page allocator, and
//! keeps each frame that could be had back on a *list* of its node. When memory runs short it asks a
//! *policy* which page goes next and a *host* ([`ReclaimHost`]: `mm`, page cache and swap together)
//! to take it out of page tables, to write it and to free it.
//!
//! ```text
//!   alloc_pages ──▶ tries only ─── no ──▶ NoMem up to the caller that holds no lock
//!                                              │ try_to_free_pages, and again
//!   lru_add ──▶ ┌─────── a node's lists ──┐    ▼
//!               │ ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒ │──select──▶ batch ──▶ host: used? write, free
//!   refault ──▶ └──────────▲──────────────┘    (lock)    │            (no lock)
//!        ▲                 └────── put_back ─────────────┘ those that stay
//!        └── shadow kept where the page was
//! ```
//!
//! # Concepts
//! * *Lists*: eight per node for the policy, one for pages that must stay. A page's flags say which it
//!   is on, so that any page can be taken off in a few steps. Links are the page's own words.
//! * *Batch*: up to 32 pages, taken off their list with a reference each. Their last user may let go
//!   of them meanwhile; then the put-back frees them.
//! * *Policy* ([`PolicyKind`]): two lists, the three lists of Linux 2.4, generations, or plain LRU.
//!   It never calls anybody; it selects under the lock and is told what came of it.
//! * *Shadow* ([`Shadow`]): a word that remains where a reclaimed page was. When the page comes back,
//!   it says how long it was away.
//! * *Priority*: from 12 down to 0, each step looks at twice as much of a node, so that reclaim gets
//!   what it wants, or has looked at everything and says 0. It never waits and never loops for ever.
//!
//! # Invariants
//! * The flag LRU is set if and only if the page is on a list of its node; [`Reclaim::validate`].
//! * A page that is isolated holds a reference, so that nobody else can free its frame.
//! * Whoever frees a page that was given to `lru_add` dropped its last reference or froze it.
//!
//! # Locks
//! One per node, rank `Lru`: links, list flags, and the policy's state. The host is always called
//! without it, and callers of [`Reclaim::balance`] and [`Reclaim::try_to_free_pages`] hold no lock at
//! all, because the host may lock any address space.
//!
//! # Failure
//! Nothing here allocates. No progress is the answer 0.
//!
//! # Statistics
//! `pgscan_*`, `pgsteal_*`, `pgrefill`, `pgactivate`, `pgdeactivate`, `pgrotated`, `allocstall`,
//! `workingset_*`, `unevictable_pgs_*`; `nr_{active,inactive}_{anon,file}` and `nr_unevictable`.
//!
//! # What this does not do
//! It knows no page table, no swap slot and no file; it starts no thread. Linux: `mm/vmscan.c`,
//! `mm/swap.c`, `mm/workingset.c`, `include/linux/mm_inline.h`; 2.4's `mm/vmscan.c`.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod batch;
mod host;
mod lists;
mod marks;
mod oom;
mod policy;
mod reclaim;
mod shadow;
mod shrink;

pub use host::{MayDo, Outcome, ReclaimHost, Referenced};
pub use oom::{OOM_SCORE_ADJ_MIN, OomUsage, oom_badness};
pub use policy::{PolicyKind, UnknownPolicy};
pub use reclaim::{LruNode, Nodes, Pressure, Reclaim};
pub use shadow::Shadow;
pub use shrink::ReclaimRequest;
