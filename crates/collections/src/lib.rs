//! Radix tree and interval tree for a system that has no heap.
//!
//! Layer 2. Two containers that Linux's memory management is built on: the xarray (a radix tree
//! with marks), which maps page offsets to pages, and the augmented red-black tree of intervals,
//! which finds everyone who maps a part of a file. The first is in the page cache and wherever things
//! have numbers (`rmap`, `mm`), the second in `rmap`. The owner brings the memory: every insertion
//! names an [`ObjectCache`] from which nodes come, and a node that becomes unused goes back to it at once.
//!
//! ```text
//!   RadixTree: index 0x1042 = slot 1, slot 1, slot 2        IntervalTree: sorted by first
//!
//!            root (shift 12, marks D-)                              [4..9]   max last 30
//!            [ ][*][ ] ... 64 slots                                /      \
//!                |                                          [0..30] 30     [7..8] 20
//!              (shift 6, D-)                                                     \
//!              [ ][*][ ] ...                                                    [9..20] 20
//!                  |
//!                (shift 0, D-)          a mark on a slot of a node says that
//!                [ ][ ][V][ ] ...       some value below that slot is marked
//! ```
//!
//! # Radix tree
//! [`RadixTree`] maps `u64` to `V`. It has as many levels as its largest index ever needed since it
//! was last smaller: a level is added when an index lies beyond the root, and removed when only slot
//! zero of the root is left. One value at index zero needs no node at all. Two [`Mark`]s per value
//! are summed up in every node above it, so that the next marked value is found without a scan.
//!
//! # Interval tree
//! [`IntervalTree`] holds closed intervals `first..=last` with a value each; equal intervals may
//! occur many times. It is an AVL tree by `(first, last)`, each node knowing the largest `last`
//! below it, which lets a search skip what ends too early.
//!
//! # Invariants
//! * A radix node other than a missing root holds at least one entry; its `present` word says which
//!   slots are in use, and a mark bit is set exactly if the entry below has that mark.
//! * The root of a radix tree has an entry in a slot other than zero.
//! * Sibling subtrees of an interval tree differ in height by at most one, so that its height stays
//!   below 64 for any number of nodes that a 64-bit machine can hold.
//!
//! `validate` of each tree checks all of these.
//!
//! # Locks
//! None. A tree is a value; `&mut` is the proof of exclusion, and the owner chooses the lock.
//!
//! # Failure
//! Only insertion allocates. It takes all nodes that it needs before it changes anything that can be
//! seen; out of memory hands the value back. [`IntervalTree::insert_node`] takes a node that the
//! caller reserved and cannot fail. Removal never allocates. Nothing panics on any index.
//!
//! # What it does not do
//! No multi-index entries, no reserved or internal entries, no lock-free readers. Removing one of
//! `n` equal intervals takes up to `n` steps, since nodes are found by interval and value, not by
//! address.
//!
//! Linux: `lib/xarray.c`, `lib/interval_tree.c`, `include/linux/interval_tree_generic.h`.
//!
//! [`ObjectCache`]: vellum_object::ObjectCache
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod interval_node;
mod interval_tree;
mod radix_iter;
mod radix_node;
mod radix_tree;

pub use interval_node::IntervalNode;
pub use interval_tree::{IntervalTree, Overlapping};
pub use radix_iter::Range;
pub use radix_node::{Mark, RadixNode};
pub use radix_tree::RadixTree;
