//! How a cache treats its objects.

use core::fmt;

bitflags::bitflags! {
    /// `SLAB_*`. Linux: `include/linux/slab.h`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
    pub struct CacheFlags: u32 {
        /// Objects do not share cache lines needlessly: aligned to 64 bytes, or to the half or
        /// quarter of it that holds them.
        const HWCACHE_ALIGN = 1 << 0;
        /// Free objects are filled with `0x6b`, new ones with `0x5a`; a free object that changed is
        /// reported when it is allocated. Without effect on objects that stay constructed.
        const POISON = 1 << 1;
        /// Known bytes before and behind each object, checked when it is allocated and freed.
        const RED_ZONE = 1 << 2;
        /// Who allocated and who freed each object last, kept beside it.
        const STORE_USER = 1 << 3;
        /// A cache that cannot be created is a reason to stop: creation panics.
        const PANIC = 1 << 4;
        /// Slabs come from ZONE_DMA.
        const CACHE_DMA = 1 << 5;
        /// A shrinker can free the objects: the pages are asked for as reclaimable and counted in
        /// `nr_slab_reclaimable`.
        const RECLAIM_ACCOUNT = 1 << 6;
        /// A page of the cache stays one until the next grace point
        /// ([`crate::SlabAllocator::quiesce`]), so that a stale pointer leads to an object of the
        /// same type, free or not. Linux's `SLAB_TYPESAFE_BY_RCU`.
        const TYPESAFE = 1 << 7;
        /// Each free goes to the slab at once and is checked there, as with the other debugging aids,
        /// but costs no memory. Linux's `SLAB_CONSISTENCY_CHECKS`.
        const CONSISTENCY_CHECKS = 1 << 8;
    }
}

impl CacheFlags {
    /// Those that need work at each allocation and free: such a cache has no sheaves.
    pub const DEBUG: Self = Self::POISON
        .union(Self::RED_ZONE)
        .union(Self::STORE_USER)
        .union(Self::CONSISTENCY_CHECKS);
}

/// Debugging aids for all caches of a system, or for some. Linux's boot parameter `slub_debug`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlabDebug<'a> {
    /// Added to the flags of each cache that is concerned.
    pub flags: CacheFlags,
    /// Only caches whose names begin like this; all if empty.
    pub prefix: &'a str,
}

impl SlabDebug<'_> {
    /// None.
    pub const OFF: Self = Self {
        flags: CacheFlags::empty(),
        prefix: "",
    };
}

/// A letter that names no debugging aid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownOption(pub char);

impl fmt::Display for UnknownOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slub_debug: unknown option {:?}", self.0)
    }
}

impl core::error::Error for UnknownOption {}

impl<'a> SlabDebug<'a> {
    /// Reads `FZPU,prefix` as Linux does: consistency checks, red zones, poison, users. No letters
    /// mean all four, `-` none; no prefix means all caches.
    ///
    /// # Errors
    /// A letter that is not known.
    pub fn parse(text: &'a str) -> Result<Self, UnknownOption> {
        let (letters, prefix) = text.split_once(',').unwrap_or((text, ""));
        let mut flags = CacheFlags::empty();
        for letter in letters.chars() {
            flags |= match letter.to_ascii_uppercase() {
                'F' => CacheFlags::CONSISTENCY_CHECKS,
                'Z' => CacheFlags::RED_ZONE,
                'P' => CacheFlags::POISON,
                'U' => CacheFlags::STORE_USER,
                '-' => CacheFlags::empty(),
                other => return Err(UnknownOption(other)),
            };
        }
        if letters.is_empty() {
            flags = CacheFlags::DEBUG;
        }
        Ok(Self { flags, prefix })
    }

    /// What a cache of this name gets.
    pub(crate) fn flags_for(&self, name: &str) -> CacheFlags {
        if name.starts_with(self.prefix) {
            self.flags
        } else {
            CacheFlags::empty()
        }
    }
}
