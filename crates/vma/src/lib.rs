//! The set of virtual memory areas of an address space.
//!
//! Layer 3. An address space is a list of areas, each a run of pages of one object with one set of
//! flags. This crate keeps them in order and answers: which area is at this address, where is room
//! for a new one, and what becomes of the areas when a range in the middle changes. It knows neither
//! page tables nor files nor locks; what an area maps is the type parameter `B: Backing` of `mm`.
//!
//! ```text
//!   VmaSet ── root ──▶ Inner   start  0x1000  0x90000  ...    per child: where its areas begin
//!                              end    0x8e000 0xa1000         and end, and the largest gap
//!                              gap    0x3000  0x1000          between two of them
//!                              child    │        │
//!                                       ▼        ▼
//!                               Leaf  start 0x1000 0x5000 ...      bounds, repeated here so that
//!                                     end   0x2000 0x6000          a search stays in the leaf
//!                                     area    │      │
//!                                             ▼      ▼
//!                                            Vma    Vma            from the cache of areas
//! ```
//!
//! # The tree
//! A B+-tree: all areas are in leaves of the same depth, and nodes keep between a quarter and all of
//! their slots in use. A search reads a few lines of memory per level; 20 000 areas make three or
//! four levels. The way to the last area found is remembered as slot numbers and tried first.
//!
//! # Splitting and merging
//! Two neighbours can be one area if they touch, have equal flags, [`Backing::can_merge`] agrees and,
//! for a linear backing, the page offset of the upper continues that of the lower. A change of part
//! of an area is [`VmaSet::isolate`], then the change, then [`VmaSet::merge_around`].
//!
//! # Gaps
//! [`VmaSet::unmapped_area`] finds the lowest or highest room in one descent, since each inner node
//! knows the largest gap inside each child; a gap between two children follows from their bounds.
//! Below an area that grows down a guard gap stays free. The flag is looked at only where a gap is
//! about to be taken, so changing it needs no update of the tree.
//!
//! # Invariants
//! * Areas are page aligned, not empty, disjoint, in order; all leaves are at the same depth.
//! * The bounds in a leaf are those of the areas, the summary in an inner node that of the child.
//! * Every node but the root is at least a quarter full; the root has two children or is a leaf.
//!
//! [`VmaSet::validate`] checks these.
//!
//! # Locks
//! None: the owner holds its `mmap_lock` for reading to have `&VmaSet`, for writing to have `&mut`.
//! The memory of the last hit is one relaxed atomic word, and a hint that is checked at each use.
//!
//! # Failure
//! Check, reserve, commit: an operation first looks whether it may, then takes the area and every
//! node that it can need, and only then changes the set. After an error the set is as it was.
//! Removing, merging, and moving bounds allocate nothing and cannot fail for want of memory.
//!
//! # What it does not do
//! No lock-free readers, no limit on the number of areas, no accounting beyond the total of pages:
//! these are `mm`'s. No policy of where to search: `mm` gives the bounds and the direction.
//!
//! Linux: `mm/vma.c`, `mm/mmap.c`, `lib/maple_tree.c`; the last hit is that of `mm/vmacache.c`.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod area;
mod edit;
mod entries;
mod gap;
mod inner;
mod iter;
mod last_hit;
mod leaf;
mod node;
mod path;
mod reserve;
mod set;

pub use area::{Backing, Vma, VmaError};
pub use gap::GapRequest;
pub use inner::Inner;
pub use iter::Areas;
pub use last_hit::CacheStats;
pub use leaf::Leaf;
pub use reserve::VmaCaches;
pub use set::VmaSet;
