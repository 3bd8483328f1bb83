//! A software machine.
#![warn(missing_docs)]

mod config;
mod failure;
mod machine;
mod mmu;
mod ram;
mod rng;
mod tlb;

pub use config::{FlushMode, Refill, SimConfig};
pub use failure::Failure;
pub use machine::{Cpu, MmuStats, PageFault, SimMachine};
pub use rng::Rng;
pub use tlb::TlbEntry;
