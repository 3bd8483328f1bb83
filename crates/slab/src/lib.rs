//! Object caches: equal-sized pieces of memory, carved from blocks of page frames.
//!
//! Layer 4. Areas, tree nodes, address spaces and files are small objects that come and go all the
//! time. A [`KmemCache`] keeps blocks of frames, the *slabs*, cut into objects of one size, so that
//! taking or returning one is a few instructions and no object is ever searched for. Caches are
//! made by the [`SlabAllocator`], whose own descriptors come from a cache as well: the cache of
//! caches. The users see only [`vellum_object::ObjectSource`] and the handles built on it.
//!
//! ```text
//!   SlabAllocator ── cache of caches ──▶ KmemCache "vm_area"  ──▶ KmemCache …
//!                                          │ partial   full   empty (one slab at most)
//!                                          ▼
//!                                        slab ◀──▶ slab          linked through struct Page
//!
//!   a slab:   | index list | object 0 | object 1 | … | object n-1 | left over |
//!                  2 3 - …     free      live                        ≤ 1/8 where possible
//! ```
//!
//! # Concepts
//! * The **index list** (Linux 2.4's `kmem_bufctl_t`) has a 16-bit word for each object: the next
//!   free object, or the mark of a live one. Its head stands in the `index` word of the slab's first
//!   `Page`. Slabs of objects of 512 bytes and more have at most 32 of them and keep a bitmap of the
//!   free ones in the `mapcount` word instead, so that a power of two wastes nothing.
//! * The **slab of an object** is its address rounded down to the slab's size: blocks are naturally
//!   aligned in physical memory. The owner word of the first `Page` says which cache it belongs to.
//! * [`CacheFlags`]: alignment to cache lines, and two debugging aids, POISON and RED_ZONE.
//!
//! # States of a slab
//! ```text
//!   grow ──▶ partial ◀──▶ full        last object freed: partial ──▶ empty, or back to the page
//!               ▲  └──▶ empty ──┐     allocator if the cache has an empty slab already;
//!               └───────────────┘     shrink() gives that one back too
//! ```
//! # Invariants
//! * A slab is on exactly one list, the one that its count of live objects says.
//! * Each object is either on the free list of its slab or live; [`KmemCache::validate`] checks it.
//! * The descriptor of a cache is never freed, because references to it live as long as the RAM. A
//!   destroyed cache refuses to allocate; [`SlabAllocator::create_cache`] with the same arguments
//!   revives it.
//!
//! # Locks
//! One spin lock of rank `Slab` for each cache; one of the same rank for the list of caches, never
//! held together with another. Pages are taken and given back with no lock held.
//!
//! # Failure
//! No memory is `None` or `OutOfMemory` and changes nothing. A double free, a foreign free, and an
//! object written after it was freed or beyond its end (with the flags for it) panic with the name
//! of the cache: the memory is corrupt already.
//!
//! # Statistics
//! [`SlabInfo`] has the columns of `/proc/slabinfo`; pages of slabs are `nr_slab_unreclaimable`.
//!
//! # What this does not do
//! No constructors, no cache colouring, no per-CPU arrays, no size classes for `kmalloc`, no
//! shrinker of live objects.
//!
//! Linux: `mm/slab.c` of 2.4, Bonwick's "The Slab Allocator" (1994). How it is tested: random
//! operations against a set of live ranges, and each page allocation failing in turn.
#![no_std]
#![warn(missing_docs)]

mod admin;
mod allocator;
mod cache;
mod check;
mod class;
mod debug;
mod flags;
mod geometry;
mod heap;
mod info;
mod kmalloc;
mod list;
mod memory;
mod node;
mod parts;
mod sheaf;
mod slabs;
mod slow;
mod words;

pub use allocator::{CacheSpec, LiveObjects, SlabAllocator};
pub use cache::KmemCache;
pub use flags::{CacheFlags, SlabDebug, UnknownOption};
pub use heap::KernelHeap;
pub use info::SlabInfo;
pub use kmalloc::{Kmalloc, ZERO_SIZE_PTR};
