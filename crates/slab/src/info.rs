//! A line of `/proc/slabinfo`.

use core::fmt;

/// The numbers of one cache at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlabInfo {
    /// The cache.
    pub name: &'static str,
    /// Live objects.
    pub active_objs: u64,
    /// Objects in all slabs, live or free.
    pub num_objs: u64,
    /// Bytes from one object to the next.
    pub obj_size: u32,
    /// Objects of one slab.
    pub objs_per_slab: u32,
    /// Pages of one slab.
    pub pages_per_slab: u32,
    /// Slabs with live objects.
    pub active_slabs: u64,
    /// Slabs.
    pub num_slabs: u64,
}

impl fmt::Display for SlabInfo {
    /// The first and the last columns of version 2.1; tunables are all zero, as with SLUB.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<17} {:>6} {:>6} {:>6} {:>4} {:>4} : tunables {:>4} {:>4} {:>4} : slabdata {:>6} {:>6} {:>6}",
            self.name,
            self.active_objs,
            self.num_objs,
            self.obj_size,
            self.objs_per_slab,
            self.pages_per_slab,
            0,
            0,
            0,
            self.active_slabs,
            self.num_slabs,
            0
        )
    }
}
