//! The narrow waist between the core and the machine it runs on.
//!
//! Layer 1. A kernel, a simulator or a user-space supervisor that wants the core implements
//! [`Machine`]: it lends RAM through a [`DirectMap`] and answers the hooks that Linux gives its
//! architectures. The core keeps page tables in that RAM and **they are the truth; everything a
//! machine keeps besides is a TLB**:
//!
//! ```text
//!            core                                   machine
//!   page table entry written ── update_mmu_cache_range ──▶ may fill its TLB
//!   entry removed            ── flush_tlb_range ─────────▶ must drop it   ┐ flush_wait:
//!   entry made read-only     ── wrprotect_range ─────────▶ must narrow it ┘ all done on return
//!   fault(space, addr, access)      ◀── on any miss; a fault on a present entry is a refill
//! ```
//!
//! Kernel translations (`vmalloc`) have hooks of their own. A machine also says which CPUs it has
//! ([`Cpus`]), how far its nodes are from each other, and which pages running I/O uses, so that fork
//! and reclaim leave them alone.
//!
//! Also here, because every layer above needs them: ranked spin locks ([`SpinLock`]), values of which
//! each CPU has its own ([`PerCpu`]), the counters of `/proc/vmstat` ([`VmStat`]) and typed trace
//! events ([`TraceEvent`]).
//!
//! # Invariants
//! * A machine may drop a TLB entry at any time, and may never invent one.
//! * After `flush_wait` no stale entry of an earlier flush remains on any CPU; only then may the
//!   core give the frame to somebody else.
//!
//! # Locks
//! The hooks may be called under the locks of an address space; a machine must not call back into
//! the core from a hook. Lock order: `docs/LOCKING.md`; checked at run time with feature `lockdep`.
//!
//! # What this does not do
//! Tasks, signals, files and time slices belong to the machine; the core only sees faults and calls.
#![no_std]
#![warn(missing_docs)]

#[cfg(feature = "lockdep")]
extern crate std;

mod cpu;
mod direct_map;
mod lock;
mod machine;
mod trace;
mod vmstat;

pub use cpu::{CpuLocal, CpuPin, Cpus, MAX_CPUS, PerCpu, PerCpuSlot};
pub use direct_map::DirectMap;
pub use lock::{LockRank, SpinGuard, SpinLock};
pub use machine::{Features, Fill, Machine, MemoryKind, MemoryRegion};
pub use trace::{Trace, TraceEvent, TraceSink};
pub use vmstat::{VmEvent, VmItem, VmStat};
