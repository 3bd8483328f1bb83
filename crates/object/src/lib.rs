//! Owned and shared handles to objects that live in a machine's own memory.
//!
//! Layer 1. Trees, areas, address spaces and files are objects in slabs inside RAM. This crate is
//! the seam between those who need objects (`collections`, `vma`, `mm`, …) and the one who provides
//! them (`slab`): the users see safe handles, the provider implements [`ObjectSource`].
//!
//! ```text
//!   ObjectCache<T> ── boxed(value) ──▶ KBox<T>   sole owner, dropped and freed together
//!        │         └─ shared(value) ─▶ KArc<T>   counted; the last one drops and frees
//!        └── &dyn ObjectSource  (a KmemCache, or the host's heap in tests)
//! ```
//!
//! Each object carries a reference to its source in front of it, so a handle is one word and frees
//! itself: an error path that drops a handle cannot leak.
//!
//! # Invariants
//! * A handle's object is initialised and belongs to `source` until the handle is dropped.
//! * The source outlives `'m`, and `'m` outlives every handle.
//!
//! # Failure
//! Running out of memory is [`OutOfMemory`]; nothing else fails at run time.
#![no_std]
#![warn(missing_docs)]

#[cfg(feature = "heap")]
extern crate std;

mod handle;
#[cfg(feature = "heap")]
mod heap;
mod source;

pub use handle::{KArc, KBox};
#[cfg(feature = "heap")]
pub use heap::HeapSource;
pub use source::{ObjectCache, ObjectSource};
pub use vellum_types::OutOfMemory;
