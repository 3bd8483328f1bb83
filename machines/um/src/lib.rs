//! Unmodified Linux programs whose memory is served by the core.
#![allow(missing_docs, dead_code)]

mod abi;
mod engine;
mod facade;
mod host;
mod machine;
mod ram;
mod signal;
mod stub;
mod supervisor;
mod task;
mod tlb;
