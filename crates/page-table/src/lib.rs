//! Page tables in the formats of real hardware, in frames of the machine's RAM.
//!
//! Layer 3. The core's page tables **are** the translation of an address space; what a machine keeps
//! besides is a TLB. They are bit for bit what an x86 processor would walk, so that a bare machine
//! can load [`PageTable::root`] into CR3, and a hosted one reads them like any other data.
//!
//! One walker serves all formats. A [`Format`] is constants: how many levels, how many index bits,
//! how wide an entry is, which levels may hold huge entries:
//!
//! ```text
//!   level        4          3          2          1          0      entry   huge entries
//!   TwoLevel                                   10 bits    10 bits   32 bit  4 MiB
//!   Pae                              2 bits     9 bits     9 bits   64 bit  2 MiB
//!   FourLevel            9 bits      9 bits     9 bits     9 bits   64 bit  2 MiB, 1 GiB
//!   FiveLevel  9 bits    9 bits      9 bits     9 bits     9 bits   64 bit  2 MiB, 1 GiB
//!
//!   root ─▶ table ─▶ … ─▶ LeafTable ─▶ Pte { frame, flags }
//! ```
//!
//! # Concepts
//! * [`Pte`]: an entry with names for its bits, the same for all formats; the format narrows it when
//!   it is written. An entry is *none* (zero), *present*, or neither: then its bits are its owner's.
//! * [`PageTable`]: the tables of one address space. [`PageTable::walk`] answers what is mapped.
//! * [`LeafTable`]: one table of 4 KiB entries. Fault-around, fork and unmap walk once and then
//!   work on neighbouring entries by index.
//! * [`PageTable::entries`] and [`PageTable::leaves`]: what is there in a range, skipping absent
//!   subtrees at the cost of one entry each.
//! * [`TlbGather`]: the only way for an unmapped frame, or a table, to become free.
//! * The **kernel half**: root entries that one table, the kernel's, owns and all others copy. What is
//!   mapped below them later is seen everywhere, since the tables are the same. A root entry of the
//!   kernel half goes from none to a link once and never changes, so that a copy cannot be wrong,
//!   only missing: see [`PageTable::new_sharing`] and [`PageTable::sync_kernel_entry`].
//!
//! # States of a table frame
//! Allocated by the page allocator, then `PageTable` with owner = the space's id while it is linked,
//! then pending in a gather (no entry points to it, a walker may still), then free after the flush.
//!
//! # Invariants
//! * Each table is linked from exactly one entry; its frame has state `PageTable`, reference count
//!   one and the owner word of its space. [`PageTable::validate`] checks it.
//! * A table is zero before it is linked: the store that links it is a Release, and walkers read
//!   with Acquire.
//! * No frame given to a gather is free before `flush_tlb_range` of its addresses and `flush_wait`
//!   have returned.
//!
//! # Locks
//! None here. The page-table structure changes under the exclusive lock of the address space
//! (`&mut self`). Entries may be changed by a hardware walker meanwhile (accessed and dirty bits):
//! [`LeafTable::replace`] loses none.
//!
//! # Failure
//! Only taking a table can fail, with `OutOfMemory`. Tables linked before the failure stay: they are
//! empty, valid, and reused or freed later. Removing and freeing never fail.
//!
//! # What this does not do
//! It knows no areas, no copy-on-write and no reference counts of mapped frames other than the one
//! that [`TlbGather::remove`] drops. Page attributes (PAT) and protection keys are not modelled.
//!
//! Linux: `mm/memory.c` (`free_pgtables`), `mm/mmu_gather.c`, `arch/x86/include/asm/pgtable*.h`.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod cursor;
mod format;
mod gather;
mod huge;
mod kernel_half;
mod leaf;
mod pte;
mod table;
mod teardown;
mod validate;

pub use cursor::{Entries, Leaves, Mapped};
pub use format::{Format, X86_64FiveLevel, X86_64FourLevel, X86Pae, X86TwoLevel};
pub use gather::TlbGather;
pub use huge::MapHugeError;
pub use leaf::LeafTable;
pub use pte::{Pte, PteFlags};
pub use table::PageTable;
