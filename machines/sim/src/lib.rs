//! A software machine for tests: RAM as bytes, an MMU that walks real tables, a TLB that goes stale.
//!
//! Layer 9. The core runs here exactly as it does elsewhere, but every access of every program is made
//! by this crate, which can therefore see what no real machine tells: a flush that was forgotten, a
//! frame freed while some CPU still translates to it, a store that will be lost.
//!
//! ```text
//!   scenario / model test                                         SimStore: files as bytes,
//!      │ calls, accesses                                            errors on demand, a log
//!      ▼                                                                 ▲
//!   SimHost ── processes, retries faults, moves between CPUs ──▶ System ─┤ the core
//!      │ read/write/exec(space, va)                                      │
//!      ▼                                                                 ▼ hooks
//!   SimMachine: CPU 0 … n: TLB ──miss──▶ walker ──▶ page tables in RAM ◀─┘
//!                        └── every hit is compared with the tables ──▶ Failure
//! ```
//!
//! # Concepts
//! * [`SimMachine`]: the [`Machine`](vellum_machine::Machine). The walker reads the x86-64 format by
//!   the manual and shares no code with the core, and sets accessed and dirty bits like the hardware,
//!   or leaves them to the core.
//! * [`SimConfig`]: memory map with holes, CPUs, TLB size, [`FlushMode`] (at once, or as late as the
//!   contract allows), [`Refill`] (a walker as on x86, or only what the core hints, as under `um`).
//! * **Low memory** ([`SimConfig::low_memory`]): the core gets a direct map of the low part of RAM alone, and
//!   reaches the rest by kernel mappings. Each CPU remembers what it used of the kernel half until the flush
//!   there. That half is walked by the core, which hands over what it found; the walker here does not.
//! * [`Failure`]: a broken promise of the core. It is noted where it happens, and each check asks.
//! * [`SimHost`]: processes without programs. Each access and each call happens on a CPU that the seed
//!   chooses; a TLB is emptied now and then. Equal seeds give equal runs.
//! * [`SimExecutor`]: scenarios of `vellum-testkit` on a host, with all structures checked after each
//!   operation.
//!
//! # Invariants
//! * TLB entries leave by eviction, flush or forgetting alone; a change of the tables does not touch
//!   them.
//! * A deferred flush reaches other CPUs at `flush_wait`, not before.
//!
//! # Failure
//! A wrong core makes a [`Failure`]; a wrong test panics. Allocations fail by
//! `System::pages().fail_after`, I/O by [`Injection`].
//!
//! # How it is tested, and what it tests
//! `tests/mmu.rs` has tables written by hand. `tests/scenarios.rs` plays every scenario on every kind
//! of machine, and with every allocation failing. `tests/differential` plays random calls of three
//! processes against a naive model, and `tests/against_linux.rs` against the kernel below.
//!
//! `tests/highmem.rs` plays the scenarios with the pages of programs above the direct map, and fills the
//! windows of a 32-bit kernel; programs themselves always have the tables of x86-64.
//!
//! # What this does not do
//! CPUs take turns, one operation at a time: races inside the core are not found here. There are no
//! paging-structure caches and no caches of data.
#![warn(missing_docs)]

mod config;
mod cpu;
mod failure;
mod files;
mod hooks;
mod host;
mod machine;
mod mmu;
mod ram;
mod rng;
mod scenario;
mod store;
mod tlb;

pub use config::{FlushMode, Refill, SimConfig};
pub use cpu::Cpu;
pub use failure::Failure;
pub use host::{SimHost, Trouble};
pub use machine::{MmuStats, PageFault, SimMachine};
pub use rng::Rng;
pub use scenario::SimExecutor;
pub use store::{Injection, SimStore, StoreOp};
pub use tlb::TlbEntry;
