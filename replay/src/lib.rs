//! Replays page-reference traces under each reclaim policy, beside Bélády's optimum.
//!
//! Layer 9, on a host. A trace says which pages a program used, in which order. A replay gives the
//! program a memory of so many pages and the *real* reclaim of `vellum-reclaim`, its lists in a real
//! memmap, and counts what had to be brought in:
//!
//! ```text
//!   lackey, R|W text, JSON lines ─▶ Trace ─┬─▶ replay(trace, ram, policy) ─▶ faults, refaults, writes
//!   generate::{looping, zipf, …}  ─▶       ├─▶ optimal_faults(trace, ram)    no policy can beat it
//!                                          └─▶ lru_faults(trace)             exact LRU, all sizes
//! ```
//!
//! # What this does not do
//! One address space of anonymous memory, and files that are used by read() and write() only; accessed
//! bits as hardware sets them; I/O takes no time. So the figures say how well a policy chooses and how
//! often it has to ask whether a page was used, and nothing else.
#![warn(missing_docs)]

mod chart;
mod compare;
mod frames;
pub mod generate;
mod optimum;
mod simulate;
mod trace;

pub use chart::svg;
pub use compare::{Comparison, Row, curve, geometric_mean};
pub use optimum::{lru_faults, optimal_faults};
pub use simulate::{Counts, replay};
pub use trace::{Recorder, Reference, Trace, TraceError};
