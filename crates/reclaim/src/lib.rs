//! Reclaim: lists of pages, policies, watermarks' keepers.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod host;

pub use host::{MayDo, Outcome, Referenced, ReclaimHost};
