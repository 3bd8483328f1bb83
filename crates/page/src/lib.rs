//! `struct Page`, the memmap, and the trait by which frames are had.
//!
//! Layer 2. Each frame of RAM has a 32-byte [`Page`]; all of them together are the [`Memmap`], an
//! array inside the machine's own RAM. What a frame is used for is its [`PageState`]; what the words
//! of its `Page` mean depends on that, and each user (`page-alloc`, `slab`, `page-cache`, `mm`, and
//! `reclaim` for the links of pages that it may take) keeps to its own row:
//!
//! ```text
//!   state     owner            index              next/prev        refcount   mapcount
//!   Free      migrate type     –                  free list        0          0
//!   PerCpu    migrate type     –                  CPU's list       0          0
//!   Slab      slab's own       slab's own         slab's list      1          slab's own
//!   PageTable space id         –                  –                1          0
//!   Anon      anon_vma id      index in anon_vma  list of reclaim  handles    entries mapping it
//!   File      mapping id       page no. in file   list of reclaim  handles    entries mapping it
//! ```
//! Whether a page is on a list of reclaim, and on which, is in its [`PageFlags`]; so is whether a slot of
//! swap has it.
//!
//! Holes cost nothing: descriptors come in *runs*, arrays for stretches of memory, and a frame outside
//! the largest run is found through a [`RunTable`] with a byte for each section of 128 MiB. Runs may be
//! added and taken out while the machine runs. On a machine whose memory is one run the table is never
//! looked at.
//!
//! # Invariants
//! * A block whose refcount is zero is Free, PerCpu or Reserved, or was frozen by whoever is about to
//!   free it; any other has an owner.
//! * Links are frame numbers; [`Pfn::NONE`](vellum_types::Pfn::NONE) ends a list.
//!
//! # Locks
//! All fields are atomics, so that no access is unsafe; who may change which is said by the owner of
//! the state. Relaxed unless stated: the owner's lock orders them.
//!
//! # Failure
//! [`PageSource::alloc_pages`] only tries. Reclaim is a wrapper around it.
//!
//! # What this does not do
//! It gives out no frame and knows nobody who does. Linux: `include/linux/mm_types.h`, `mm/sparse.c`.
#![no_std]
#![warn(missing_docs)]

mod memmap;
mod page;
mod place;
mod runs;
mod source;

pub use memmap::Memmap;
pub use page::{Page, PageFlags, PageState};
pub use place::{place, place_slice};
pub use runs::{PAGEBLOCK_ORDER, Pageblock, Run, RunError, RunTable};
pub use source::{AllocRequest, OwnedPages, PageSource};
