//! Swap areas: slots, the swap cache, and the devices that hold pages while they are not in memory.
//!
//! Layer 5. `reclaim` sends anonymous and shared pages out through it, `mm` brings them back. It decides
//! nothing: which page goes is reclaim's affair, where its table entries are is `rmap`'s.
//!
//! ```text
//!   table entry ── SwapEntry: area, slot ─┐                      Swap
//!                                         ▼
//!   area 3   ┌──────┬──────┬──────┬──────┬──────┬─────   a 64-bit word for each slot:
//!            │ bad  │ free │count │count │count │ …      references, and one of
//!            │      │      │ page │shadow│ ─    │        page in memory / shadow / neither
//!            └──────┴──────┴──┬───┴──────┴──────┴─────
//!                             ▼                         SwapDevice: a file, a disk, or
//!   side table: frame ──▶ SwapEntry                       Zram                  compressed memory
//!                                                         Zswap ─▶ device       memory before a disk
//!                                                         SameFilled ─▶ device  no I/O for one word
//!                                                         Checked ─▶ device     checksums
//! ```
//!
//! # Concepts
//! * A slot's **count** is the number of table entries that refer to it. The page cache of swap, the
//!   **swap cache**, is the slot's word itself: while a page is in memory and has a slot, the word has
//!   its frame, the cache holds one reference to the page, and the page has PageFlags::SWAPCACHE.
//!   A slot is in use while it has a count or a page.
//! * A **shadow** is 32 bits that reclaim leaves in the word of a page that it evicts, and gets back at
//!   swap-in.
//! * Slots are given out cluster by cluster of 256, so that pages that go out together lie together.
//!   Areas of higher priority are filled first, equal ones cluster by cluster in turn.
//! * All memory is taken at [`Swap::new`] and [`Swap::swapon`]: a swap-out allocates nothing here. Only
//!   [`Zram`] and [`Zswap`] take frames while they run, from the reserve.
//!
//! # Life of a page
//! ```text
//!  out: lock page ─ add_to_swap ─ for each table entry: dup, entry := SwapEntry ─ write ─ remove_for_reclaim
//!        in memory    in cache, dirty                                         clean      slot alone
//!  in:  swapin ─ lock table ─ entry still there? entry_of too? is_sole? ─ entry := page, free(entry)
//!        in cache, clean              └─ no: put_page, begin again       └─ sole: try_to_free_swap
//! ```
//! A page that is not sole stays in the cache, clean, as long as other entries refer to its slot: they
//! find it there. Whoever wants to write to such a page copies it.
//!
//! # Every operation against every other, for one slot
//! All decide and act under the lock of the area, so the table says what the later one finds.
//! ```text
//!  then ▼  first ▶   dup            free             swapin           remove_for_reclaim  try_to_free_swap
//!  dup               adds up        caller has one   finds page       keeps shadow        impossible: count 0
//!  free              not the last   last frees slot  page stays: the  frees slot          impossible: count 0
//!                                                    reader has it
//!  swapin            finds page or  Gone if it was   same page; Busy  reads again         Gone
//!                    reads          the last         while it is read
//!  remove_for_       refused if     frees the slot   refused: reader  impossible: page    impossible: not in
//!   reclaim          dirty          too              has a reference  is frozen           the cache
//!  try_to_free_swap  refused        allowed at 0     refused: count   refused: no page    refused: no page
//!  put_page          only puts      frees both at 0  only puts        impossible          only puts
//!  replace_page      the slot has the new frame: whoever has the old one finds the same bytes in it
//!  write             page locked by its caller, who has a reference: it can neither be removed nor leave
//!  swapoff_end       Busy           Busy until 0     Busy             Busy                done when unused
//! ```
//! A device is told of a free slot (`discard`) without the lock: the slot is `Releasing` meanwhile,
//! neither free nor in use, and its area cannot be switched off.
//!
//! # Invariants
//! * The word of a cached slot, the side table, the page's flag and the cache's reference agree.
//! * A free slot is reached from its cluster, each cluster with free slots from one list.
//! * A slot whose write failed is never given out again. [`Swap::validate`] checks all this.
//!
//! # Locks
//! One of rank Swap for each area, one for their order, and one in each device, never two at a time.
//! Frames are freed and devices called without them. [`Swap::swapin`], [`Swap::readahead`] and
//! [`Swap::write`] do I/O: call them with no spin lock held. The page lock (PageFlags::LOCKED) is taken
//! before: by `swapin` for the frame that it reads into, by the callers of `add_to_swap` and `write`.
//!
//! # Failure
//! No slot is `None`, and the page stays as it was. A failed write leaves the page in memory, dirty, and
//! retires its slot; a device without room keeps the slot. A failed read is a value that names the slot
//! ([`SwapInError::Io`]); slot and count stay. A slot can have 16 million references, more are refused
//! ([`TooManyReferences`]). Swapoff is refused while anything is in use. A reference to a slot that
//! is not in use is a bug of the caller and panics.
//!
//! # What it does not do
//! It has no compressor, no file and no disk; machines bring them. It does no asynchronous I/O. It does
//! not compact compressed memory. Pages are of order 0.
//!
//! Linux: `mm/swapfile.c`, `mm/swap_state.c`, `mm/page_io.c`, `mm/zswap.c`, `mm/zsmalloc.c`,
//! `drivers/block/zram`.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod area;
mod array;
mod cache;
mod checked;
mod cluster;
mod device;
mod error;
pub mod header;
mod io;
mod migrate;
mod order;
mod packed;
mod readahead;
mod same_filled;
mod slots;
mod swap;
mod validate;
mod word;
mod zpool;
mod zram;
mod zswap;

pub use area::{AreaInfo, SwapOn, UsedSlot};
pub use checked::Checked;
pub use device::{SwapDevice, WriteError};
pub use error::{SwapError, SwapInError, TooManyReferences};
pub use io::SwappedIn;
pub use packed::{COMPRESS_BUFFER, Compressor, Corrupt, PackedStat, Stream, Streams};
pub use readahead::SwapReadahead;
pub use same_filled::SameFilled;
pub use swap::Swap;
pub use vellum_types::{IoError, SwapEntry};
pub use zram::Zram;
pub use zswap::Zswap;
