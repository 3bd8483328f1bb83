//! What remains of a page that was reclaimed.

use vellum_types::NodeId;

/// A mark that the host keeps where the page was: in the page cache's slot, in the swap slot's word.
///
/// ```text
///   bits   0       1            2..5    5..30
///          1       WORKINGSET   node    the policy's clock at the time
/// ```
/// Never zero, and less than 2^30, so that the host has two bits to tell it from other words.
/// Linux: `pack_shadow` in `mm/workingset.c`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shadow(u32);

const CLOCK_SHIFT: u32 = 5;

impl Shadow {
    /// Bits of the clock.
    pub const CLOCK_BITS: u32 = 25;
    const CLOCK_MASK: u32 = (1 << Self::CLOCK_BITS) - 1;

    /// Packs; the clock loses its high bits, the node must be one of eight.
    pub const fn new(node: NodeId, workingset: bool, clock: u32) -> Self {
        let node = (node.0 & 7) as u32;
        Self((clock & Self::CLOCK_MASK) << CLOCK_SHIFT | node << 2 | (workingset as u32) << 1 | 1)
    }
    /// The word to keep.
    pub const fn as_u32(self) -> u32 {
        self.0
    }
    /// Reads a kept word; `None` if it is not a shadow.
    pub const fn from_u32(raw: u32) -> Option<Self> {
        if raw & 1 == 1 && raw >> (CLOCK_SHIFT + Self::CLOCK_BITS) == 0 {
            Some(Self(raw))
        } else {
            None
        }
    }
    /// The node the page was on.
    pub const fn node(self) -> NodeId {
        NodeId((self.0 >> 2 & 7) as u8)
    }
    /// The page had been active.
    pub const fn workingset(self) -> bool {
        self.0 & 2 != 0
    }
    /// The policy's clock when it left.
    pub const fn clock(self) -> u32 {
        self.0 >> CLOCK_SHIFT
    }
    /// How far the clock has gone since then. A very old shadow may look young: once in 2^25.
    pub const fn distance(self, now: u32) -> u32 {
        now.wrapping_sub(self.clock()) & Self::CLOCK_MASK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_keeps_all_parts() {
        for node in 0..8 {
            for clock in [0, 1, 77, (1 << 25) - 1, 1 << 25, u32::MAX] {
                for workingset in [false, true] {
                    let shadow = Shadow::new(NodeId(node), workingset, clock);
                    assert_eq!(Shadow::from_u32(shadow.as_u32()), Some(shadow));
                    assert!(shadow.as_u32() != 0 && shadow.as_u32() < 1 << 30);
                    assert_eq!(shadow.node(), NodeId(node));
                    assert_eq!(shadow.workingset(), workingset);
                    assert_eq!(shadow.distance(clock), 0);
                    assert_eq!(shadow.distance(clock.wrapping_add(1000)), 1000);
                }
            }
        }
        assert_eq!(Shadow::from_u32(0), None);
        assert_eq!(Shadow::from_u32(2), None);
        assert_eq!(Shadow::from_u32(1 | 1 << 30), None);
    }
}
