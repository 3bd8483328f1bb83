//! The vocabulary of the virtual-memory subsystem: addresses, frame numbers, ranges, flags.
//!
//! Layer 0. Every other crate speaks in these types, so that bytes are never mixed with pages and
//! a physical address never with a virtual one.
//!
//! ```text
//!   PhysAddr ──/4096──▶ Pfn        VirtAddr ──/4096──▶ page number
//!      │                 │             │
//!   PhysRange        PfnRange      VirtRange      (start..end, end exclusive, never empty)
//! ```
//!
//! # Invariants
//! * A [`VirtRange`] and a [`PfnRange`] are non-empty and never wrap.
//! * An [`Order`] is at most [`Order::MAX`].
//!
//! Nothing here allocates, locks, panics on user input or uses `unsafe`. The only dependency is
//! `bitflags`, which is macros alone. Linux: `include/linux/{types,pfn,gfp_types,mm}.h`.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod access;
mod addr;
mod gfp;
mod ids;
mod io;
mod order;
mod range;
mod swap_entry;
mod vm_flags;

pub use access::{Access, Prot};
pub use addr::{PAGE_SHIFT, PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
pub use gfp::GfpFlags;
pub use ids::{CpuId, FileId, MigrateType, NodeId, SpaceId, ZoneType};
pub use io::IoError;
pub use order::Order;
pub use range::{PfnRange, PhysRange, VirtRange};
pub use swap_entry::SwapEntry;
pub use vm_flags::VmFlags;

/// No memory could be had. The one error that every allocating function shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

impl core::fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("out of memory")
    }
}

impl core::error::Error for OutOfMemory {}
