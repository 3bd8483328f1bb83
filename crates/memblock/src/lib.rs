//! Boot memory: what RAM there is, what of it is taken, and the first allocator.
//!
//! Layer 2. Before the page allocator exists somebody must read the firmware's memory map, keep the
//! kernel's hands off what is in use, and lend memory for the first tables. That is [`MemBlock`]: a
//! plain value of two sorted lists of regions.
//!
//! # Concepts
//! ```text
//!   memory     ├────── node 0 ──────┤├────── node 1 ──────┤      ├─ node 1 ─┤
//!   reserved       ├──┤      ├────────────┤
//!   free       ├───┤  ├──────┤            ├──────────────┤      ├──────────┤
//!                                                             ▲ top-down takes from here,
//!              ▲ bottom-up from here                            at the upper end of a free range
//! ```
//! * *Memory* is what the firmware calls usable. Regions may be [added](MemBlock::add) in any order,
//!   may overlap, touch and have odd sizes. Where two overlap, the one added first keeps its node.
//! * *Reserved* is what must not be handed out. It need not lie inside memory.
//!   [Trimming](MemBlock::trim), [capping](MemBlock::cap) and [limiting](MemBlock::limit) take memory
//!   away; [`MemBlock::set_node`] names the node of what is there.
//! * *Free* is memory that is not reserved, in bytes: a free range may be smaller than a page.
//! * [`MemBlock::alloc`] finds free bytes and reserves them, as an [`AllocSpec`] asks: from which end,
//!   at which multiple, within which limits, and on one node only, or there before elsewhere.
//! * [`MemBlock::hand_over`] ends the boot phase: it consumes the value, so that allocating afterwards does
//!   not compile, and yields each whole free frame exactly once. A frame of which one byte is reserved or missing stays out.
//!
//! # Invariants
//! Each list is sorted, its regions are not empty, do not overlap, and two that touch differ in node.
//!
//! # Locks
//! None: one CPU runs at boot, and the value has one owner.
//!
//! # Failure
//! A list holds [`MemBlock::CAPACITY`] regions. An operation that would need more returns
//! [`MemBlockError::Full`] and changes nothing.
//!
//! # What this does not do
//! It touches no byte of RAM and knows no page tables. It has no flags for hotplug or mirroring.
//!
//! Linux: `mm/memblock.c`. Differences: capacity is fixed (Linux doubles its arrays), reserved
//! regions have no node, and hand-over is a move of ownership.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod alloc;
mod hand_over;
mod memblock;
mod regions;

pub use alloc::{AllocSpec, Direction};
pub use hand_over::HandOver;
pub use memblock::{MemBlock, MemBlockError};
pub use regions::Region;
