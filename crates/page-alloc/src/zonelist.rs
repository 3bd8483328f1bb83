//! The order in which zones are tried.

use core::sync::atomic::{AtomicU8, Ordering};
use vellum_types::{NodeId, ZoneType};

use crate::node::MAX_NODES;

/// The name of a zone among all zones of a machine: node and kind in a byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ZoneId(u8);

impl ZoneId {
    /// How many names there are.
    pub(crate) const COUNT: usize = MAX_NODES << Self::SHIFT;
    /// A pageblock of no zone: its frames were removed.
    pub(crate) const NONE: Self = Self(u8::MAX);
    const SHIFT: u8 = 3;

    pub(crate) const fn new(node: NodeId, zone_type: ZoneType) -> Self {
        Self(node.0 << Self::SHIFT | zone_type as u8)
    }

    #[inline]
    pub(crate) const fn from_raw(raw: u8) -> Self {
        Self(raw)
    }

    #[inline]
    pub(crate) const fn raw(self) -> u8 {
        self.0
    }

    #[inline]
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }

    /// The [`ZoneType`] as a number.
    pub(crate) const fn kind(self) -> u8 {
        self.0 & ((1 << Self::SHIFT) - 1)
    }

    pub(crate) const fn node(self) -> NodeId {
        NodeId(self.0 >> Self::SHIFT)
    }
}

const MAX_ZONES: usize = MAX_NODES * ZoneType::COUNT;

/// Zones in the order in which an allocation tries them: those of one's own node first, the highest
/// allowed one before lower ones, then those of other nodes, near before far.
///
/// Atomics, because memory may be added to a running machine. Whoever walks the list meanwhile may see
/// a zone twice or miss one that moves; all that it sees are zones.
pub(crate) struct ZoneList {
    zones: [AtomicU8; MAX_ZONES],
    len: AtomicU8,
    /// How many of them belong to the list's own node.
    local: AtomicU8,
}

impl ZoneList {
    pub(crate) const fn new() -> Self {
        Self {
            zones: [const { AtomicU8::new(0) }; MAX_ZONES],
            len: AtomicU8::new(0),
            local: AtomicU8::new(0),
        }
    }

    /// Replaces the list. `own` is the node whose list it is.
    pub(crate) fn set(&self, own: NodeId, zones: impl Iterator<Item = ZoneId>) {
        let (mut len, mut local) = (0, 0);
        for (slot, zone) in self.zones.iter().zip(zones) {
            slot.store(zone.raw(), Ordering::Relaxed);
            len += 1;
            local += u8::from(zone.node() == own);
        }
        // Release: who sees the length sees that many zones.
        self.local.store(local, Ordering::Release);
        self.len.store(len, Ordering::Release);
    }

    /// The zones; with `this_node` only those of the list's own node.
    #[inline]
    pub(crate) fn iter(&self, this_node: bool) -> impl Iterator<Item = ZoneId> + Clone {
        let len = if this_node { &self.local } else { &self.len };
        let len = usize::from(len.load(Ordering::Acquire)).min(MAX_ZONES);
        self.zones[..len]
            .iter()
            .map(|zone| ZoneId::from_raw(zone.load(Ordering::Relaxed)))
    }
}
