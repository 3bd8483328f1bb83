//! How a cache treats its objects.

bitflags::bitflags! {
    /// `SLAB_*`. Linux: `include/linux/slab.h`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
    pub struct CacheFlags: u32 {
        /// Objects do not share cache lines needlessly: aligned to 64 bytes, or to the half or
        /// quarter of it that holds them.
        const HWCACHE_ALIGN = 1 << 0;
        /// Free objects are filled with `0x6b`, new ones with `0x5a`; a free object that changed is
        /// reported when it is allocated.
        const POISON = 1 << 1;
        /// Eight known bytes before and behind each object, checked when it is freed.
        const RED_ZONE = 1 << 2;
    }
}

impl CacheFlags {
    /// Those that need work at each allocation and free.
    pub(crate) const DEBUG: Self = Self::POISON.union(Self::RED_ZONE);
}
