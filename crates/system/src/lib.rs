//! Boot order and wiring of a whole virtual-memory system.
//!
//! Layer 8, the only crate that sees everything. [`System::boot`] turns a machine's memory map into
//! a running system, each step using only what the steps before it set up:
//!
//! ```text
//!   Machine::memory_map ─▶ MemBlock ─▶ counters, shmem store   (boot memory)
//!                              │
//!                              └▶ PageAllocator (memmap, nodes, zones, per-CPU lists)
//!                                     ├▶ SlabAllocator ─▶ caches by name
//!                                     ├▶ Vmalloc: the kernel's page tables
//!                                     └▶ Reclaim ─▶ Swap ─▶ PageCache ─▶ MmContext ─▶ System
//! ```
//!
//! A [`System`] dereferences to its [`MmContext`](vellum_mm::MmContext), where the faults and memory
//! calls are. What is added here needs more than one layer: reports and `/proc` texts
//! ([`Report`], [`proc`]), swap areas, the choice of an OOM victim, what Linux leaves to kernel threads
//! ([`System::housekeeping`]), and the account at the end ([`System::shutdown`]): every frame that was
//! given out has come back, or is named.
//!
//! # Invariants
//! * All state hangs off the value: two systems in one process share nothing.
//! * After `shutdown` of a system whose address spaces are all gone, as many frames are free as
//!   after boot.
//!
//! # Failure
//! A machine that is too small is [`BootError`]; [`MIN_RAM`] is the least that boots and runs
//! something.
//!
//! # What this does not do
//! No tasks, no files, no time: those are the machine's. It starts no thread; a machine calls
//! [`System::housekeeping`] where it holds no lock. No swap where memory lies above the direct map.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod block;
mod boot;
mod memory_info;
mod oom;
mod pressure;
pub mod proc;
mod report;
mod shutdown;
mod swapping;
mod system;

pub use boot::{BootError, MIN_RAM, SystemConfig};
pub use memory_info::MemInfo;
pub use oom::OomVictim;
pub use report::Report;
pub use shutdown::Leaks;
pub use swapping::SwapArea;
pub use system::System;
pub use vellum_mm::{
    Area, FaultInfo, FaultOutcome, FileRef, Limits, Mm, MmError, MmLayout, MmRef, MmStats,
    MmapRequest, Rss, SegvCode,
};
pub use vellum_page_alloc::{MovableShare, ZoneInfo, ZoneProfile};
pub use vellum_page_cache::{BackingStore, DirtyLimits, ErrSeq, IoError, MappingRef, Wanted};
pub use vellum_reclaim::PolicyKind;
pub use vellum_slab::SlabInfo;
pub use vellum_swap::{AreaInfo, Compressor, Corrupt, SwapDevice, SwapError, SwapOn};
