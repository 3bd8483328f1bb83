//! Thin wrappers of the host's system calls.
pub mod affinity;
