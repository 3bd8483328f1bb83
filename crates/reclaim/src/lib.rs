//! Reclaim: lists of pages, policies, watermarks' keepers.
#![no_std]
#![warn(missing_docs)]
