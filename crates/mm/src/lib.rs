//! Address spaces: page faults and the memory system calls.
//!
//! Layer 7. An [`Mm`] is what a program sees as its memory: a set of areas (`vma`), the page tables
//! that say which frame is where (`page-table`), and numbers. This crate is where all layers below
//! meet: a fault finds the area, gets a frame or a page of a file, and writes an entry; a system
//! call rearranges areas and takes entries out. Everything is a method of [`MmContext`], which holds
//! what the operations need.
//!
//! ```text
//!   fault(mm, addr, access)             mmap munmap mprotect mremap brk madvise msync mlock …
//!      │                                   │
//!      ▼                                   ▼
//!   areas: find ──▶ allowed? ──no──▶    areas: isolate ▸ change ▸ merge
//!      │                  SEGV             │
//!      ▼ entry is …                        ▼
//!    none, anonymous ▸ zero page | block of frames        entries: zap ▸ TlbGather ▸ flush ▸ free
//!    none, file      ▸ page cache, and what is cached around it
//!    read-only       ▸ reuse | copy | mark the file's page dirty
//!    fine            ▸ refill the machine's TLB
//! ```
//!
//! # Anonymous blocks
//! A write to empty anonymous memory fills an aligned block whose [`Order`](vellum_types::Order) is
//! chosen in the fault path: from the run of faults before it, the machine's `anon_order_max`, the
//! area's bounds, the empty entries, and whether the allocator has such a block to spare. Each page
//! of the block has its own life afterwards.
//!
//! # States of an entry
//! none → present (read-only, or writable and dirty) → none, or a slot of swap → present again. PROT_NONE
//! keeps the frame in an entry that is not present but marked. The shared zero page is marked SPECIAL and
//! not counted.
//!
//! # From pages to entries
//! Each area that shows a file stands among the file's mappers, and each that has private pages in
//! `anon_vma`s (`rmap`), so that reclaim can ask [`MmContext::page_referenced`], call
//! [`MmContext::try_to_unmap`] and move a page by [`MmContext::migrate`], at a cost in proportion to
//! those who map it. With it [`MmContext::compact`] makes large blocks, and [`MmContext::alloc_contig_range`] exact
//! ones. [`MmContext::swapoff`] goes the other way, from the tables to the pages.
//!
//! # Invariants
//! * Each present or PROT_NONE entry holds one reference and one map count of its frame.
//! * `rss` is the number of such entries by kind; [`MmContext::validate`] recounts.
//! * A machine without accessed/dirty bits is never told of write permission on a clean entry.
//! * From the page of every entry, reverse mapping leads back to it; [`MmContext::validate`] looks.
//! * A frame leaves an address space through a `TlbGather`, so never before the flush.
//!
//! # Locks
//! `mmap_lock` (rank Mmap) covers everything in an [`Mm`]; the table of address spaces is above it,
//! the page cache below. See `docs/LOCKING.md`.
//!
//! # Failure
//! Out of memory is [`MmError::NoMem`] or [`FaultOutcome::Oom`]; the checks come first, then what can
//! fail, then what cannot. For want of a frame an operation goes back to its outermost method, which
//! holds no lock, reclaims, and does it again. Signals are outcomes, not errors.
//!
//! # High memory
//! Where the direct map does not cover all of RAM, programs' private pages may lie above it: they are zeroed
//! and copied by [`LocalMappings`], slots of this CPU. Pages of files stay below, for stores reach them by
//! the direct map. All address spaces share the kernel half of [`KernelMappings`], a copy of its root entries.
//!
//! # What this does not do
//! It does not choose what is reclaimed: it answers what `reclaim` asks of its host. No huge user pages,
//! no overcommit accounting, no memory policies of programs.
//!
//! Linux: `mm/memory.c`, `mm/mmap.c`, `mm/rmap.c`, `mm/shmem.c`, `mm/migrate.c`, `mm/compaction.c` and
//! their neighbours.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod advice;
mod backing;
mod compact;
mod context;
mod error;
mod fault;
mod file_io;
mod file_map;
mod highmem;
mod host;
mod migrate;
mod mm;
mod ops;
mod reverse;
mod room;
mod shmem;
mod spaces;
mod swap_around;
mod swapoff;
mod uaccess;
mod unevictable;
mod validate;
mod walk;

pub use backing::{Object, VmBacking};
pub use context::{MmCaches, MmContext, MmParts};
pub use error::MmError;
pub use fault::{FaultInfo, FaultOutcome, SegvCode};
pub use host::Shrinker;
pub use mm::{Area, KernelMappings, Limits, LocalMappings, Mm, MmLayout, MmRef, MmStats, Rss};
pub use ops::{FileRef, MmapRequest};
pub use shmem::{ShmemStore, ShmemSwap};
pub use validate::AreaUsage;
pub use walk::Unmapped;
