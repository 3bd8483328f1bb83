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

    /// Only memory of `node`.
    pub const fn on_node(mut self, node: NodeId) -> Self {
        self.node = Some(node);
        self
    }
}
