//! A line of `/proc/slabinfo`.

use core::fmt;

/// The numbers of one cache at one moment. Exact while nobody uses the cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlabInfo {
    /// The cache.
    pub name: &'static str,
    /// Objects in use: neither free in a slab nor waiting in a sheaf.
    pub active_objs: u64,
    /// Objects in all slabs, live or free.
    pub num_objs: u64,
    /// Bytes from one object to the next.
    pub obj_size: u32,
    /// Objects of one slab.
    pub objs_per_slab: u32,
    /// Pages of one slab.
    pub pages_per_slab: u32,
    /// The most objects that a CPU's sheaf holds; 0 without sheaves.
    pub limit: u32,
    /// Objects that move between a CPU and the slabs at once.
    pub batchcount: u32,
    /// Full sheaves that a node keeps for its CPUs.
    pub sharedfactor: u32,
    /// Slabs with live objects.
    pub active_slabs: u64,
    /// Slabs.
    pub num_slabs: u64,
    /// Objects in the full sheaves of the nodes.
    pub sharedavail: u64,
    /// Free objects in all sheaves.
    pub cached_objs: u64,
    /// Slabs that wait for the next grace point.
    pub deferred_slabs: u64,
    /// How many places the first object of a slab may have.
    pub colours: u32,
    /// The list of free objects is outside of the slab.
    pub off_slab: bool,
}

impl fmt::Display for SlabInfo {
    /// The columns of version 2.1.
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
            self.limit,
            self.batchcount,
            self.sharedfactor,
            self.active_slabs,
            self.num_slabs,
            self.sharedavail
        )
    }
}
