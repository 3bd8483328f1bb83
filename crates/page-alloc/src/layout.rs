//! What goes where: the runs of frames, the node of each, and where ZONE_MOVABLE begins.

use crate::node::MAX_NODES;
use crate::profile::{MovableShare, ZoneProfile};
use vellum_memblock::MemBlock;
use vellum_types::{NodeId, Order, Pfn, PfnRange, ZoneType};

/// A stretch of frames of one node, with descriptors in one array on that node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RunPlan {
    pub(crate) range: PfnRange,
    pub(crate) node: NodeId,
}

/// The plan of a machine, made from its memory before anything is placed.
///
/// # Invariants
/// Runs ascend, and any two lie in different blocks of the largest order.
pub(crate) struct Layout {
    runs: [Option<RunPlan>; MemBlock::CAPACITY],
    len: usize,
    /// The first frame of each node's ZONE_MOVABLE.
    movable: [Option<Pfn>; MAX_NODES],
}

/// The number of the block of the largest order around a frame.
const fn unit(pfn: Pfn) -> u32 {
    pfn.as_u32() >> Order::MAX.as_u8()
}

const fn unit_end(pfn: Pfn) -> Pfn {
    Pfn::new((unit(pfn) + 1).saturating_mul(Order::MAX.pages()))
}

impl Layout {
    /// A hole of less than a whole block of the largest order (4 MiB) is described, larger ones are
    /// left out. If two nodes meet inside such a block, the lower one gets it whole.
    pub(crate) fn of(memblock: &MemBlock, profile: &ZoneProfile) -> Self {
        let mut layout = Self {
            runs: [None; MemBlock::CAPACITY],
            len: 0,
            movable: [None; MAX_NODES],
        };
        for region in memblock.memory() {
            if let Some(frames) = region.range.whole_frames() {
                layout.add(frames, region.node);
            }
        }
        layout.place_movable(memblock, profile);
        layout
    }

    fn add(&mut self, frames: PfnRange, node: NodeId) {
        let mut rest = Some(frames);
        if let Some(last) = self
            .len
            .checked_sub(1)
            .and_then(|at| self.runs[at].as_mut())
        {
            let end = Pfn::new(last.range.end().as_u32() - 1);
            let take = if last.node == node && unit(frames.start()) <= unit(end) + 1 {
                frames.end()
            } else if unit(frames.start()) == unit(end) {
                frames.end().min(unit_end(end))
            } else {
                frames.start()
            };
            if take > frames.start() {
                last.range = PfnRange::new(last.range.start(), take).unwrap_or(last.range);
            }
            rest = PfnRange::new(take, frames.end());
        }
        if let Some(range) = rest {
            // At most one run for each region, so there is a slot.
            self.runs[self.len] = Some(RunPlan { range, node });
            self.len += 1;
        }
    }

    pub(crate) fn runs(&self) -> impl DoubleEndedIterator<Item = RunPlan> + Clone + '_ {
        self.runs.iter().flatten().copied()
    }

    /// From the first frame to the last.
    pub(crate) fn span(&self) -> Option<PfnRange> {
        let (first, last) = (self.runs().next()?, self.runs().next_back()?);
        PfnRange::new(first.range.start(), last.range.end())
    }

    /// One bit for each node with memory.
    pub(crate) fn nodes(&self) -> u8 {
        self.runs()
            .filter(|run| usize::from(run.node.0) < MAX_NODES)
            .fold(0, |nodes, run| nodes | 1 << run.node.0)
    }

    pub(crate) fn movable_start(&self, node: NodeId) -> Option<Pfn> {
        self.movable.get(usize::from(node.0)).copied().flatten()
    }

    /// The zone of a frame of `node`.
    pub(crate) fn zone_type_of(&self, profile: &ZoneProfile, node: NodeId, pfn: Pfn) -> ZoneType {
        match self.movable_start(node) {
            Some(start) if pfn >= start => ZoneType::Movable,
            _ => profile.zone_type_of(pfn),
        }
    }

    /// Linux: `find_zone_movable_pfns_for_nodes`. Only the highest kind of zone gives up memory.
    fn place_movable(&mut self, memblock: &MemBlock, profile: &ZoneProfile) {
        let Some(span) = self.span() else { return };
        let highest = profile.zone_type_of(Pfn::new(span.end().as_u32() - 1));
        let floor = profile.zone_start(highest);
        let mut total = [0_u64; MAX_NODES];
        for (node, frames) in frames(memblock) {
            total[usize::from(node.0)] += u64::from(frames.len());
        }
        let all: u64 = total.iter().sum();
        let kernel = match profile.movable {
            MovableShare::None => return,
            MovableShare::KernelCore(pages) => shares(&total, pages),
            MovableShare::MovableCore(pages) => shares(&total, all.saturating_sub(pages)),
            MovableShare::Nodes(nodes) => {
                core::array::from_fn(|at| if nodes >> at & 1 == 1 { 0 } else { total[at] })
            }
        };
        for (at, kernel) in kernel.into_iter().enumerate() {
            if kernel < total[at] {
                self.movable[at] = start_behind(memblock, NodeId(at as u8), kernel, floor);
            }
        }
    }
}

/// The memory of nodes that there can be, in whole frames.
fn frames(memblock: &MemBlock) -> impl Iterator<Item = (NodeId, PfnRange)> + '_ {
    memblock
        .memory()
        .filter(|region| usize::from(region.node.0) < MAX_NODES)
        .filter_map(|region| Some((region.node, region.range.whole_frames()?)))
}

/// Spreads `pages` evenly; what a small node cannot take the others do.
fn shares(total: &[u64; MAX_NODES], pages: u64) -> [u64; MAX_NODES] {
    let mut shares = [0; MAX_NODES];
    let mut left = pages.min(total.iter().sum());
    while left > 0 {
        let open = (0..MAX_NODES).filter(|at| shares[*at] < total[*at]);
        let each = (left / open.count().max(1) as u64).max(1);
        for (share, total) in shares.iter_mut().zip(total) {
            let more = each.min(total - *share).min(left);
            *share += more;
            left -= more;
        }
    }
    shares
}

/// The first frame of `node` behind `kernel` pages of it, not below `floor`, at the start of a block
/// of the largest order.
fn start_behind(memblock: &MemBlock, node: NodeId, kernel: u64, floor: Pfn) -> Option<Pfn> {
    let mut left = kernel;
    for (_, range) in frames(memblock).filter(|(of, _)| *of == node) {
        let here = u64::from(range.len());
        if left < here {
            let start = (range.start() + left as u32).max(floor);
            let raw = start
                .as_u32()
                .checked_next_multiple_of(Order::MAX.pages())?;
            return Some(Pfn::new(raw));
        }
        left -= here;
    }
    None
}
