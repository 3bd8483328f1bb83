//! The page cache: the pages of files, reading them ahead, and writing them back.
//!
//! Layer 5. A file's pages are had here and nowhere else: by a fault on a mapping, by read(2) and
//! write(2), by the loader of programs. `mm` and `system` are its users; the files themselves are
//! behind the trait [`BackingStore`], which the machine implements.
//!
//! ```text
//!   PageCache ── tables: FileId, owner word ─▶ Mapping
//!                                   │  size, readahead state, write errors, time it became dirty
//!                                   └─ FileTree: page index ─▶ page (mark Dirty), or in its place
//!                                                │             shadow ◀── remove_for_reclaim
//!                                                │             swap entry ◀── swap_out
//!     read_page ◀─ miss: window of contiguous frames ◀── BackingStore::read, or SwapSlots::lookup
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
//!   machine that pays for each discontinuity. Streams are found by where the last window ended, and
//!   by the cached pages before a miss, so that several readers of one file each have long windows.
//! * Where reclaim took a page, a **shadow** stays, 32 bits that go back to reclaim when the page is read
//!   again. Leaves of trees with nothing but shadows are counted, bounded, and freed on demand
//!   ([`PageCache::shrink_shadows`]).
//! * **Shared memory** is a file without a store ([`BackingStore::swap_backed`]). Its pages go to swap,
//!   and the slot's number takes their place ([`Mapping::swap_out`]). Who wants such a page gets
//!   [`CacheError::Swapped`], reads it into the swap cache where no lock is held, and asks again.
//! * **Dirty limits** ([`DirtyLimits`], [`PageCache::writeback_wanted`]): whoever ends an operation asks
//!   whether somebody should write now, and [`PageCache::flush_some`] writes, the file first that has
//!   been dirty longest, each from where its last turn ended.
//! * **Errors** of write-back are told to each opener of the file once ([`ErrSeq`]), and once to those who
//!   are no opener.
//!
//! # States of a page
//! ```text
//!              read_page, get_for_write          mark_dirty
//!    absent ────────────────────────────▶ clean ────────────▶ dirty
//!    shadow ◀── remove_for_reclaim ────────┤ ▲                  │ begin_write
//!      │                                   │ │                  ▼
//!      ├── truncate, punch, invalidate, ───┘ │                  │
//!      │   shrink, drop_all, truncation      ├────────────── write-back ──▶ dirty again, if the
//!      ▼      of shadows                     │                              write failed
//!    absent ◀── truncate, punch, drop_all ────────────────── dirty
//!
//!    shared memory:  dirty ── swap_out ──▶ entry ── next access, page in the swap cache ──▶ dirty
//! ```
//! A page of shared memory has the flag DIRTY and no mark: it counts as dirty for nobody but reclaim.
//! There is no state "being read": a frame enters the tree when its bytes are right, and of two
//! racing readers the later one frees what it read.
//!
//! # Invariants
//! * A page in a tree is File, UPTODATE, has the mapping's id as owner and its position as index.
//! * A page that left its tree has owner 0, whoever still holds it.
//! * A page in a file of a store is no page of the swap cache; one of shared memory only while it goes
//!   out, or until its write ends after it came back.
//! * A page is written by one at a time (WRITEBACK is set and cleared under the mapping's lock).
//! * A mapping with dirty pages has the mark Dirty in the table; one with the mark may be clean.
//! * PageFlags::DIRTY, the tree's mark and the counters agree. [`PageCache::validate`] checks all this.
//! * Bytes past the end of the file are zero when a page enters the tree and after the size changed.
//!
//! # Locks
//! The table is under a lock of rank Files, a mapping's tree, counters and readahead state under
//! one of rank Mapping, inside it. Slab, zone, LRU and swap locks are taken inside both. The page lock
//! (PageFlags::LOCKED) is taken before, by reclaim; the cache only looks at it. The store and the
//! callbacks `unmap`, `clean`, `out` and the like run with no lock held, for they take locks of
//! address spaces; [`Mapping::find_get_range`] is the one exception and says so.
//!
//! # Failure
//! Out of memory and I/O errors are values ([`CacheError`]). A shortage during readahead shrinks it
//! to the single page that is needed. The pages of a write that failed stay dirty. Reclaim and
//! swap-out allocate nothing.
//!
//! # What it does not do
//! It never decides what to evict ([`PageCache::shrink`] does what it is told), starts no thread to
//! write, keeps no LRU lists, knows no page table, and has no asynchronous I/O: a transfer is over when
//! the store returns. A partial page in swap is not zeroed by truncation: bring it in before
//! ([`Mapping::for_each_swapped`]).
//!
//! Linux: `mm/filemap.c`, `mm/readahead.c`, `mm/truncate.c`, `mm/page-writeback.c`, `fs/fs-writeback.c`,
//! `mm/workingset.c`, `mm/shmem.c`, `lib/errseq.c`.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod cache;
mod dirty;
mod errseq;
mod fill;
mod io;
mod mapping;
mod migrate;
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
