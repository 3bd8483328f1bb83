//! Unmodified Linux programs whose memory is served by the core.
#![allow(missing_docs, unreachable_pub)]

mod abi;
mod access;
mod engine;
mod exec;
mod exit;
mod facade;
mod fault;
mod fork;
mod host;
mod inject;
mod launch;
mod machine;
mod pace;
mod ram;
mod run;
mod signal;
mod space;
mod stub;
mod supervisor;
mod task;
mod tlb;

pub use run::{Exit, RunConfig, RunError, RunOutcome, run};
