//! What a boot allocation asks for.

use vellum_types::{NodeId, PhysAddr, PhysRange};

/// From which end free memory is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Direction {
    /// The highest place that fits: keeps low memory for devices. Linux's default.
    #[default]
    TopDown,
    /// The lowest place that fits.
    BottomUp,
}

/// A boot allocation: how much, where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AllocSpec {
    pub(crate) size: u64,
    pub(crate) align: u64,
    pub(crate) min: PhysAddr,
    pub(crate) max: PhysAddr,
    pub(crate) direction: Direction,
    pub(crate) node: Option<NodeId>,
    /// Another node will do.
    pub(crate) any_node: bool,
    /// A place below `min` will do.
    pub(crate) below_min: bool,
}

impl AllocSpec {
    /// `size` bytes at a multiple of `align`, anywhere, top-down, on any node. An allocation of
    /// zero bytes is always refused.
    ///
    /// # Panics
    /// If `align` is not a power of two.
    pub const fn new(size: u64, align: u64) -> Self {
        assert!(align.is_power_of_two(), "alignment is not a power of two");
        Self {
            size,
            align,
            min: PhysAddr::ZERO,
            max: PhysAddr::new(u64::MAX),
            direction: Direction::TopDown,
            node: None,
            any_node: false,
            below_min: false,
        }
    }

    /// All bytes must lie inside `limits`.
    pub const fn within(mut self, limits: PhysRange) -> Self {
        self.min = limits.start();
        self.max = limits.end();
        self
    }

    /// From which end to take.
    pub const fn direction(mut self, direction: Direction) -> Self {
        self.direction = direction;
        self
    }

    /// At or above `min` if possible, else anywhere below the upper limit. Linux's
    /// `memblock_alloc_from`.
    pub const fn preferably_from(mut self, min: PhysAddr) -> Self {
        self.min = min;
        self.below_min = true;
        self
    }

    /// Only memory of `node`. Linux's `memblock_alloc_exact_nid_raw`.
    pub const fn on_node(mut self, node: NodeId) -> Self {
        self.node = Some(node);
        self.any_node = false;
        self
    }

    /// Memory of `node` if there is such, else of any. Linux's `memblock_alloc_try_nid`.
    pub const fn near_node(mut self, node: NodeId) -> Self {
        self.node = Some(node);
        self.any_node = true;
        self
    }

    /// What to try, best first: a node is given up before a lower limit is, as in Linux.
    pub(crate) fn attempts(self) -> impl Iterator<Item = Self> {
        let low = self.below_min && self.min > PhysAddr::ZERO;
        let mins = core::iter::once(self.min).chain(low.then_some(PhysAddr::ZERO));
        mins.flat_map(move |min| {
            let other = (self.any_node && self.node.is_some()).then_some(None);
            core::iter::once(self.node)
                .chain(other)
                .map(move |node| Self { min, node, ..self })
        })
    }
}
