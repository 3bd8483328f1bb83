//! A way down the tree in one word.

use crate::inner::INNER_CHILDREN;
use crate::leaf::LEAF_AREAS;
use crate::node::MAX_LEVELS;

/// Bits per level.
const SLOT_BITS: usize = 6;

const _: () = assert!(INNER_CHILDREN < 1 << SLOT_BITS && LEAF_AREAS < 1 << SLOT_BITS);
const _: () = assert!(MAX_LEVELS * SLOT_BITS <= u64::BITS as usize);

/// Slot numbers from the root down to one in a leaf, packed, the first in the lowest bits.
#[derive(Clone, Copy, Default)]
pub(crate) struct Path {
    packed: u64,
    bits: usize,
}

impl Path {
    #[inline]
    pub(crate) fn push(&mut self, slot: usize) {
        self.packed |= (slot as u64) << self.bits;
        self.bits += SLOT_BITS;
    }

    #[inline]
    pub(crate) fn packed(self) -> u64 {
        self.packed
    }

    #[inline]
    pub(crate) fn steps(self) -> Steps {
        Steps(self.packed)
    }
}

/// The slots of a path, one after the other; zeros at the end.
pub(crate) struct Steps(u64);

impl Steps {
    #[inline]
    pub(crate) fn from_packed(packed: u64) -> Self {
        Self(packed)
    }

    #[inline]
    pub(crate) fn next(&mut self) -> usize {
        let slot = self.0 as usize & ((1 << SLOT_BITS) - 1);
        self.0 >>= SLOT_BITS;
        slot
    }
}
