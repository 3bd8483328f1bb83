//! Which nodes want reclaim in the background. Linux: `wakeup_kswapd`, `pgdat->kswapd_order`.

use crate::allocator::PageAllocator;
use crate::node::Node;
use core::sync::atomic::{AtomicU8, Ordering};
use vellum_types::{GfpFlags, NodeId, Order};

/// The largest order wanted from a node's kswapd.
///
/// Relaxed throughout: a hint. Two wakers may overwrite each other, and the next request wakes again.
pub(crate) struct Wanted(AtomicU8);

impl Wanted {
    pub(crate) const fn nothing() -> Self {
        Self(AtomicU8::new(0))
    }

    fn raise(&self, order: Order) {
        let raw = order.as_u8() + 1;
        if self.0.load(Ordering::Relaxed) < raw {
            self.0.store(raw, Ordering::Relaxed);
        }
    }

    fn order(&self) -> Option<Order> {
        Order::new(self.0.load(Ordering::Relaxed).checked_sub(1)?)
    }

    fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

impl<'m> PageAllocator<'m> {
    /// An allocation of `order` for `node` found no zone above its low mark: all nodes that it may use
    /// are short.
    pub(crate) fn wake_kswapd(&self, order: Order, gfp: GfpFlags, node: &'m Node) {
        let this_node = gfp.contains(GfpFlags::THISNODE);
        for zone in self.nodes.zonelist(node, self.highest_zone(gfp), this_node) {
            if let Some(node) = self.nodes.get(zone.node) {
                node.wanted.raise(order);
            }
        }
    }

    /// The largest order for which somebody who may use `node` found all zones below their low marks,
    /// since the last call of [`PageAllocator::kswapd_served`]; `None` if nobody did, or if there is no
    /// such node.
    pub fn kswapd_wanted(&self, node: NodeId) -> Option<Order> {
        self.nodes.get(node)?.wanted.order()
    }

    /// Reclaim has done what was wanted of `node`.
    pub fn kswapd_served(&self, node: NodeId) {
        if let Some(node) = self.nodes.get(node) {
            node.wanted.clear();
        }
    }
}
