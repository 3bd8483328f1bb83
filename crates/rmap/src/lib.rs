//! Reverse mapping: from a page to the table entries that may map it.
//!
//! Layer 4. Reclaim finds a page on a list and must clear every entry that shows it; write-back must make
//! every entry of a file's page read-only; truncation must take pages out of every address space. All
//! of them know an *object* (a file's mapping, or an [`AnonVma`]) and a page's index in it, and ask this
//! crate where to look.
//!
//! ```text
//!   page ── owner, index ──▶ object ── MapTree ──▶ intervals that hold the index
//!                                                    │  first..=last ▸ Mapper { space, bias }
//!                                                    ▼
//!                              table address = (index + bias) pages, in that space
//! ```
//!
//! # Concepts
//! * [`Mapper`]: an address space and a bias. All areas of a space that show an object at one bias, whether
//!   they were split, merged, grown or protected apart, have one registration.
//! * [`MapTree`]: the mappers of one object, in an interval tree. A visit costs in proportion to the
//!   mappers of the index (and logarithmically in all others), whatever else the system maps.
//! * [`Registration`]: one interval in a tree. An area holds a counted handle to it; when the last area
//!   that had it is gone, so is the interval.
//! * [`AnonVma`]: the object of private pages. Each area that has such pages has its own, and stands in
//!   those of its ancestors by fork too, for the pages that it still shares with them: an [`AnonLink`]
//!   for each, in a chain. A page that was made after the fork is therefore looked for in the process that
//!   made it and its descendants, and nowhere else.
//! * [`AnonTable`]: all of them by number, which is what the owner word of a page holds.
//!
//! ```text
//!   parent's area ──▶ [A]            A: parent, child, grandchild
//!   child's area  ──▶ [B]──▶[A]      B: child, grandchild
//!   grandchild's  ──▶ [C]──▶[B]──▶[A]
//! ```
//!
//! # Invariants
//! * An interval may be larger than what is mapped, never smaller: whoever puts a page of an object into
//!   a table has seen to it that a registration of that space and bias covers the index. So a visitor
//!   looks into the table, and believes only an entry that holds the page's frame.
//! * An `AnonVma` whose tree became empty is dead and in no table; nobody can register there again, as
//!   registrations are copied from registrations.
//!
//! # Locks
//! Each tree, and the table, has a lock of rank Rmap, held for moments and never while a visitor runs: a
//! visitor may take the lock of an address space, and the tree may change below it. Who is registered
//! through the whole visit is visited; who comes or goes meanwhile, perhaps.
//!
//! # Failure
//! Making a registration takes an object and a node; out of memory leaves the tree as it was. Widening and
//! removing never fail and allocate nothing.
//!
//! # What this does not do
//! It knows no page tables and no areas. It does not count mappings of a page, which is the page's map
//! count. Linux: `mm/rmap.c`, `mm/interval_tree.c`.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod anon;
mod chain;
mod map_tree;
mod registration;

pub use anon::{AnonTable, AnonVma, AnonVmaRef};
pub use chain::{AnonLink, AnonLinkRef, RmapCaches};
pub use map_tree::{MapTree, Mapped, Mapper};
pub use registration::Registration;
