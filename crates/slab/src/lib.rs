//! Object caches and `kmalloc`: memory for what is smaller than a page, and for any size.
//!
//! Layer 4. Areas, tree nodes, address spaces and files are small objects that come and go all the
//! time. A [`KmemCache`] cuts blocks of frames, the *slabs*, into objects of one size. Taking or
//! returning one is a few instructions on this CPU's own memory, without lock or atomic
//! read-modify-write, and no object is ever searched for. [`Kmalloc`] is a cache for each size class
//! and whole pages above; [`KernelHeap`] makes it a kernel's global allocator.
//!
//! ```text
//!   CPU 0            CPU 1                a sheaf: 30 pointers to free objects
//!   ┌──────┬───────┐ ┌──────┬───────┐
//!   │first │second │ │first │second │     pop, push: this CPU alone
//!   └──┬───┴───────┘ └──┬───┴───────┘
//!      │  whole sheaves │                 the lock of the node, once for 8 to 30 objects
//!   ┌──┴────────────────┴──┐
//!   │ barn: full and empty │ sheaves      what one CPU frees another takes, untouched
//!   └──────────┬───────────┘
//!              │ object by object         the same lock, in batches
//!   partial · full · empty · deferred     lists of slabs, for each node
//!
//!   a slab:   | index list | colour | object 0 | object 1 | … | object n-1 | left over |
//!                  2 3 - …              free      live
//! ```
//!
//! # Concepts
//! * **Sheaves** (Bonwick's magazines, 2001; Linux 6.18): a full and an empty one for each CPU, so that
//!   a burst of either kind finds room. A sheaf is full at 8 objects at first; each time a CPU has to
//!   go to the slabs the limit doubles, up to 30 (12 above 1 KiB, 4 above 4 KiB); `shrink` sets it back.
//! * **Remote free**: an object goes into the sheaf of the CPU that frees it. A producer's objects
//!   come back to it by the barn, a sheaf at a time. A lock-free list in each slab would cost an atomic
//!   exchange for every object, and the producer a cache miss for each; the barn costs a lock for 30.
//!   On machines of several nodes an object of another node goes back to its slab at once, so that no
//!   CPU works on far memory.
//! * The **index list** (Linux 2.4's `kmem_bufctl_t`) is a 16-bit word for each object in front of
//!   them. Slabs of objects of 512 bytes and more have it off the slab, as a bitmap in the `Page`, so
//!   that powers of two waste nothing. The order is the smallest that wastes little: a sixteenth if
//!   possible. Left-over bytes are spent on **colours**: slabs begin at different cache lines.
//! * The **owner word** of each page of a slab names cache, node and kmalloc class.
//! * **Constructors**: objects stay constructed while free ([`ConstructedCache`] has it typed). With
//!   [`CacheFlags::TYPESAFE`] memory stays of its type until [`SlabAllocator::quiesce`].
//!
//! # Who catches what
//! ```text
//!                               as it is                        with a debugging flag (no sheaves)
//!   foreign free                at once                         at once
//!   double free, the last one   at once                         at once: any of them
//!   double free, earlier        when it goes back to its slab   at once
//!   pointer into an object      when it goes back to its slab   at once
//!   overrun, underrun           –                               RED_ZONE: at the free
//!   use after free              –                               POISON: at the next alloc of it
//! ```
//! What is caught late may have been given to two users meanwhile. A report is a panic with cache,
//! object and the line that noticed, and with STORE_USER the lines that allocated and freed it last.
//! [`SlabDebug`] switches flags on for all caches or some, as `slub_debug` does.
//!
//! # States of a slab
//! ```text
//!   grow ──▶ partial ◀──▶ full        last object freed: partial ──▶ empty, or back to the page
//!               ▲  └──▶ empty ──┐     allocator if the node has an empty slab already;
//!               └───────────────┘     TYPESAFE: deferred until the grace point, or used again
//! ```
//! # Invariants
//! * A slab is on exactly one list of its node, the one that its count of live objects says; what is in
//!   a sheaf is live for its slab. [`KmemCache::validate`] checks it.
//! * The descriptor of a cache is never freed, because references to it live as long as the RAM. A
//!   destroyed cache refuses to allocate; creation with the same arguments revives it.
//!
//! # Locks
//! One spin lock of rank `Slab` for each node of a cache; one of the same rank for the list of caches;
//! never two together. Pages and sheaves are taken and given back with no lock held.
//!
//! # Failure
//! No memory is `None` or `OutOfMemory` and changes nothing; only a cache with
//! [`CacheFlags::PANIC`] panics, at its creation. Without memory for a sheaf, a CPU works on the slabs
//! directly. Corrupt memory panics: see the table.
//!
//! # Examples
//! The fallible interface:
//! ```
//! # use vellum_slab::{CacheFlags, SlabAllocator};
//! # use vellum_types::OutOfMemory;
//! #[derive(Default)]
//! struct Task { id: u64 }
//!
//! fn start(slab: &'static SlabAllocator<'static>) -> Result<(), OutOfMemory> {
//!     let tasks = slab.typed_box::<Task>("task_struct")?;
//!     let mut init = tasks.boxed(Task { id: 0 })?;
//!     init.id = 1;
//!     Ok(()) // `init` goes back to its cache here
//! }
//! ```
//! The global allocator: [`KernelHeap`], and `examples/kernel-heap` for a whole one.
//!
//! # Statistics
//! [`SlabInfo`] has the columns of `/proc/slabinfo`, exact while nobody works; pages are counted in
//! `nr_slab_reclaimable` or `nr_slab_unreclaimable`.
//!
//! # What this does not do
//! No shrinker of live objects, no charge to a group, no random order of the free list.
//!
//! Linux: `mm/slab.c` of 2.4, `mm/slub.c` of 6.18, Bonwick's papers of 1994 and 2001. How it is tested:
//! random operations against a set of live ranges, on one CPU and several; each page allocation
//! failing in turn; each misuse of the table.
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
mod run;
mod sheaf;
mod slabs;
mod slow;
mod typed;
mod words;

pub use allocator::{CacheSpec, Ctor, LiveObjects, SlabAllocator};
pub use cache::KmemCache;
pub use flags::{CacheFlags, SlabDebug, UnknownOption};
pub use heap::KernelHeap;
pub use info::SlabInfo;
pub use kmalloc::{Kmalloc, ZERO_SIZE_PTR};
pub use typed::{Constructed, ConstructedCache};
