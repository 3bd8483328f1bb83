//! Kernel mappings: vmalloc, vmap, kmap and fixmap.
//!
//! Layer 5. Most of a kernel's memory has an address already, in the direct map. This crate gives
//! addresses to the rest: to frames that are not contiguous but should look so (vmalloc), to frames
//! above a direct map that is too small for all of RAM (kmap), and at addresses that code knows in
//! advance (fixmap). It owns the kernel's page tables, whose half every address space shares.
//!
//! ```text
//!   kernel half          ┌────────────┬──────────────────────────┬─────────┬───────────────┐
//!   ([`KernelLayout`])   │ direct map │ vmalloc                  │ pkmap   │ fixmap        │
//!                        └────────────┴──────────────────────────┴─────────┴───────────────┘
//!                                       area │guard│ area │guard   one slot  one slot per CPU and
//!                                                                  a frame   depth │ fixed slots
//!   Vmalloc ── Arena ── free: tree of runs, by address, longest below each node
//!      │           ├─── busy: tree of areas, by address
//!      │           └─── lazy: list of areas that were freed
//!      └────── PageTable of the kernel ── root entries copied by every PageTable::new_sharing
//! ```
//!
//! # Concepts
//! * **Area**: pages at consecutive addresses and a guard page behind them that is never mapped. Its
//!   size is known from its address. Its frames are blocks linked through their descriptors.
//! * **Lazy purge**: [`Vmalloc::vfree`] only moves the area to a list. [`Vmalloc::purge`] unmaps all of
//!   the list, flushes all CPUs *once*, and frees frames and addresses. It runs when
//!   [`Vmalloc::lazy_max_pages`] wait, and whenever frames or addresses run out.
//! * **Kernel half**: a mapping made later is seen by every address space at once, for they share the
//!   tables below the root. With more than two levels the root entries of the windows are made at
//!   boot. With two, each 4 MiB have a root entry; the first access faults and
//!   [`Vmalloc::vmalloc_fault`] copies it, counted. No address space is ever walked for this, since a
//!   root entry never changes once it is there: that is why two levels get no huge vmalloc.
//! * **[`Kmap`]**: a slot for a high frame until the handle is dropped, shared by all who ask for that
//!   frame. If all slots are in use it fails at once; who can sleep, sleeps and tries again.
//! * **[`KmapLocal`]**: slots of this CPU, nested, given up in the opposite order; checked. On it:
//!   zeroing and copying of frames that may be high.
//! * **[`Fixmap`]**: slots with names.
//!
//! # States
//! Addresses: free → busy → lazy → (with a purge) → free. A pkmap slot: free → mapped and used →
//! mapped and unused → free, the last step for all unused ones with one flush.
//!
//! # Invariants
//! * Each address of the window is free, busy, lazy or with a purge; free runs that touch are one.
//! * Exactly the pages of busy and lazy areas are mapped, a guard page never.
//! * Neither frame nor address is used again before the flush that follows its unmapping.
//!
//! [`Vmalloc::validate`] and [`Kmap::validate`] check them.
//!
//! # Locks
//! One of rank `Vmalloc` over arena and tables, another one of that rank in each of [`Kmap`] and
//! [`Fixmap`]; they are never nested. Frames are taken and freed, and areas are flushed, with none
//! held; tables and nodes are allocated under it, so the page source must not wait. [`KmapLocal`]
//! has none: its slots are the CPU's.
//!
//! # Failure
//! Out of memory and a full window are values ([`VmallocError`], [`KmapError`]); before either, a
//! purge is tried. A call that fails has left nothing behind but empty tables. Freeing cannot fail for
//! want of memory.
//!
//! # Access to the bytes
//! A machine whose MMU maps the kernel half uses the addresses. [`Vmalloc::read`],
//! [`Vmalloc::write`] and the handles' work on any machine: they ask [`vellum_machine::Machine`]
//! for the bytes, naming both the address and where the tables lead.
//!
//! # What this does not do
//! The direct map itself and the kernel's image are the machine's to map
//! ([`Vmalloc::with_kernel_table`]). No ioremap with memory types, no per-CPU areas of small blocks
//! (`vm_map_ram`), no mapping of areas into programs.
//!
//! Linux: `mm/vmalloc.c`, `mm/highmem.c`, `arch/x86/mm/fault.c` (`vmalloc_fault`),
//! `arch/x86/include/asm/fixmap.h`. Different here: frames wait for the flush too.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod access;
mod area;
mod arena;
mod fixmap;
mod frames;
mod highmem;
mod info;
mod kmap;
mod kmap_local;
mod layout;
mod node;
mod purge;
mod tables;
mod tree;
mod validate;
mod vmalloc;
mod window;

pub use area::{AreaInfo, AreaKind, VmallocError, VmallocRequest};
pub use fixmap::Fixmap;
pub use info::VmallocStats;
pub use kmap::{Kmap, KmapError, KmapPage, KmapSlot};
pub use kmap_local::{KmapDepth, KmapLocal, LocalPage};
pub use layout::{FIX_SLOTS, KM_MAX, KernelLayout};
pub use node::VmapNode;
pub use vmalloc::Vmalloc;
