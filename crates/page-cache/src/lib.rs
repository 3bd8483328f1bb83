//! The page cache: the pages of files, reading them ahead, and writing them back.
//!
//! Layer 5. A file's pages are had here and nowhere else: by a fault on a mapping, by read(2) and
//! write(2), by the loader of programs. `mm` and `system` are its users; the files themselves are
//! behind the trait [`BackingStore`], which the machine implements.
//!
//! ```text
//!   PageCache ── table: FileId ─▶ Mapping    its id is the owner word of its pages
//!                                   │  size, readahead state, write-back error
//!                                   └─ RadixTree: page index ─▶ Pfn   (mark Dirty)
//!                                                                │
//!     read_page ◀─ miss: window of contiguous frames ◀── BackingStore::read
//!     writeback ── clusters of dirty pages ────────────▶ BackingStore::write
//! ```
//!
//! # Concepts
//! * A [`Mapping`] is Linux's `address_space`: one for each file, shared by everybody who has the
//!   file open or mapped, held by counted handles ([`MappingRef`]). The table holds it too, so that
//!   its pages outlive the last user; [`PageCache::drop_mapping`] ends it.
//! * A cached page is one frame of state File. The cache holds one reference, each caller who was
//!   given the frame holds another ([`PageCache::put_page`] gives it back), and each table entry
//!   that maps it holds one, which is `mm`'s affair.
//! * A miss reads a **window** ([`Readahead`] tells how long) and takes one block of frames for it:
//!   neighbours in the file are neighbours in RAM, which is what makes mapping them cheap on a
//!   machine that pays for each discontinuity.
//!
//! # States of a page
//! ```text
//!              read_page, get_for_write          mark_dirty
//!    absent ────────────────────────────▶ clean ────────────▶ dirty
//!      ▲                                   │ ▲                  │ take_dirty
//!      ├── truncate, punch, invalidate, ───┘ │                  ▼
//!      │   shrink, drop_all                  ├────────────── write-back ──▶ dirty again, if the
//!      └── truncate, punch, drop_all ◀───────────────────── dirty          write failed
//! ```
//! There is no state "being read": a frame enters the tree when its bytes are right, and of two
//! racing readers the later one frees what it read.
//!
//! # Invariants
//! * A page in a tree is File, UPTODATE, has the mapping's id as owner and its position as index.
//! * A page that left its tree has owner 0, whoever still holds it.
//! * PageFlags::DIRTY, the tree's mark and the counters agree. [`PageCache::validate`] checks all this.
//! * Bytes past the end of the file are zero when a page enters the tree and after the size changed.
//!
//! # Locks
//! The table is under a lock of rank Files, a mapping's tree, counters and readahead state under
//! one of rank Mapping, inside it. Slab and zone locks are taken inside both. The store and the
//! callbacks `unmap`, `clean`, `out` and the like run with no lock held, for they take locks of
//! address spaces; [`Mapping::find_get_range`] is the one exception and says so.
//!
//! # Failure
//! Out of memory and I/O errors are values ([`CacheError`]). A shortage during readahead shrinks it
//! to the single page that is needed. A write-back error is remembered and reported once
//! ([`Mapping::check_error`]), its pages stay dirty.
//!
//! # What it does not do
//! It never decides when to write back or what to evict ([`PageCache::shrink`] does what it is
//! told), keeps no LRU lists, knows no page table, and has no asynchronous I/O, so that there is
//! no page lock: a transfer is over when the store returns.
//!
//! Linux: `mm/filemap.c`, `mm/readahead.c`, `mm/truncate.c`, `mm/page-writeback.c`.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod cache;
mod dirty;
mod errseq;
mod fill;
mod io;
mod mapping;
mod readahead;
mod reclaim;
mod shmem;
mod slots;
mod store;
mod truncate;
mod writeback;

pub use cache::PageCache;
pub use dirty::{DirtyLimits, Wanted};
pub use errseq::ErrSeq;
pub use mapping::{Mapping, MappingRef};
pub use readahead::Readahead;
pub use shmem::SwapSlots;
pub use slots::CacheSlot;
pub use store::{BackingStore, CacheError, IoError};
