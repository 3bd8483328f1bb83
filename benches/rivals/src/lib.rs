//! The allocators of the core beside others.
//!
//! Each pattern is one generic function, compiled for each allocator, so that nobody pays for a call
//! that the others do not make. Whoever needs a lock to be shared by threads has the lock that its
//! users give it: a spin lock. The core's own runs with two CPUs, of which each thread is one.
//!
//! ```text
//!   patterns  what is done: pairs, batches, random lifetimes, one thread to another
//!   heaps     who does it: objects of any size        frames   who does it: page frames
//!   ours      the core as such an allocator
//!   waste     what it takes for a history to be served at all
//!   clock     the best of several short runs
//! ```
//!
//! # Left out
//! slab_allocator 0.3.5 builds on no compiler of the last five years: it needs
//! linked_list_allocator 0.6, which needs `#![feature(const_fn)]`, and that no longer exists.
#![warn(missing_docs)]

pub mod clock;
pub mod frames;
pub mod heaps;
pub mod ours;
pub mod patterns;
pub mod region;
pub mod waste;
