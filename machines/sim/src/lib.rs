//! A software machine.
#![warn(missing_docs)]

mod config;
mod failure;
mod host;
mod machine;
mod mmu;
mod ram;
mod rng;
mod scenario;
mod store;
mod tlb;

pub use config::{FlushMode, Refill, SimConfig};
pub use failure::Failure;
pub use host::{SimHost, Trouble};
pub use machine::{Cpu, MmuStats, PageFault, SimMachine};
pub use rng::Rng;
pub use scenario::SimExecutor;
pub use store::{Injection, SimStore, StoreOp};
pub use tlb::TlbEntry;
