//! The end of the boot phase.

use crate::{MemBlock, Region};
use vellum_types::{NodeId, PfnRange, PhysAddr};

/// The memory of a machine after boot: yields each free frame once, in ascending runs.
///
/// Made by [`MemBlock::hand_over`], which consumes the boot allocator. Frames of which any byte is
/// reserved, missing or another node's are not yielded.
#[derive(Debug)]
#[must_use = "frames that are not taken are lost"]
pub struct HandOver {
    memblock: MemBlock,
    from: PhysAddr,
}

impl HandOver {
    pub(crate) const fn new(memblock: MemBlock) -> Self {
        Self {
            memblock,
            from: PhysAddr::ZERO,
        }
    }

    /// From the first whole frame of memory to the last; see [`MemBlock::span`].
    pub fn span(&self) -> Option<PfnRange> {
        self.memblock.span()
    }

    /// Usable memory, reserved or not, ascending.
    pub fn memory(&self) -> impl DoubleEndedIterator<Item = Region> + Clone + '_ {
        self.memblock.memory()
    }

    /// What stays reserved, ascending.
    pub fn reserved(&self) -> impl DoubleEndedIterator<Item = Region> + Clone + '_ {
        self.memblock.reserved()
    }
}

impl Iterator for HandOver {
    type Item = (PfnRange, NodeId);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let free = self.memblock.next_free(self.from)?;
            self.from = free.range.end();
            if let Some(frames) = free.range.whole_frames() {
                return Some((frames, free.node));
            }
        }
    }
}

impl core::iter::FusedIterator for HandOver {}
