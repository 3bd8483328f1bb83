//! Nodes: parts of memory that a CPU reaches equally fast, and the order to try them in.

use crate::kswapd::Wanted;
use crate::zone::Zone;
use crate::zonelist::{ZoneId, ZoneList};
use core::sync::atomic::{AtomicU64, Ordering};
use vellum_types::{NodeId, Pfn, ZoneType};

/// The most nodes of one machine.
pub const MAX_NODES: usize = 8;

/// `pg_data_t`: the zones of a node, and the order of all zones seen from it.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    zones: [Zone; ZoneType::COUNT],
    zonelists: [ZoneList; ZoneType::COUNT],
    /// `numa_hit` and so on, in the order of [`NumaEvent`].
    numa: [AtomicU64; NumaEvent::COUNT],
    /// Where ZONE_MOVABLE begins on this node; [`Pfn::NONE`] if it has none at boot.
    pub(crate) movable_start: Pfn,
    pub(crate) wanted: Wanted,
    /// The distance to each node, as in ACPI's SLIT.
    distance: [u8; MAX_NODES],
}

/// What is counted for each node. Linux's `numa_stat_item`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NumaEvent {
    Hit,
    Miss,
    Foreign,
    Local,
    Other,
}

impl NumaEvent {
    const COUNT: usize = 5;
}

/// A node as `/sys/devices/system/node` shows it. Counts are pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeInfo {
    /// Which.
    pub node: NodeId,
    /// Frames that are memory.
    pub present: u64,
    /// Frames that the buddy system was given.
    pub managed: u64,
    /// Free now.
    pub free: u64,
    /// Taken here, and wanted here.
    pub numa_hit: u64,
    /// Taken here although another node was wanted.
    pub numa_miss: u64,
    /// Wanted here and taken elsewhere.
    pub numa_foreign: u64,
    /// Taken here by a CPU of this node.
    pub numa_local: u64,
    /// Taken here by a CPU of another node.
    pub numa_other: u64,
    /// The distance to each node: 10 is here.
    pub distance: [u8; MAX_NODES],
}

impl Node {
    pub(crate) fn new(id: NodeId, movable: Option<Pfn>, distance: [u8; MAX_NODES]) -> Self {
        Self {
            id,
            zones: ZoneType::ALL.map(|zone_type| Zone::new(id, zone_type)),
            zonelists: [const { ZoneList::new() }; ZoneType::COUNT],
            numa: [const { AtomicU64::new(0) }; NumaEvent::COUNT],
            movable_start: movable.unwrap_or(Pfn::NONE),
            wanted: Wanted::nothing(),
            distance,
        }
    }

    /// All zones, absent ones too.
    pub(crate) fn zones(&self) -> impl Iterator<Item = &Zone> + Clone {
        self.zones.iter()
    }

    fn count(&self, event: NumaEvent, pages: u64) {
        self.numa[event as usize].fetch_add(pages, Ordering::Relaxed);
    }

    fn info(&self) -> NodeInfo {
        let sum = |of: &dyn Fn(&Zone) -> u64| self.zones.iter().map(of).sum();
        let count = |event: NumaEvent| self.numa[event as usize].load(Ordering::Relaxed);
        NodeInfo {
            node: self.id,
            present: sum(&Zone::present),
            managed: sum(&Zone::managed),
            free: sum(&|zone| zone.lock().areas.pages()),
            numa_hit: count(NumaEvent::Hit),
            numa_miss: count(NumaEvent::Miss),
            numa_foreign: count(NumaEvent::Foreign),
            numa_local: count(NumaEvent::Local),
            numa_other: count(NumaEvent::Other),
            distance: self.distance,
        }
    }
}

/// All nodes of a machine.
pub(crate) struct Nodes<'m> {
    /// By [`ZoneId`].
    zones: [Option<&'m Zone>; ZoneId::COUNT],
    nodes: [Option<&'m Node>; MAX_NODES],
    /// The node of CPUs that are near none that exists.
    first: &'m Node,
    several: bool,
}

impl<'m> Nodes<'m> {
    /// # Panics
    /// If there is no node.
    pub(crate) fn new(nodes: [Option<&'m Node>; MAX_NODES]) -> Self {
        let mut zones = [None; ZoneId::COUNT];
        for zone in nodes.iter().flatten().flat_map(|node| node.zones()) {
            zones[zone.id().index()] = Some(zone);
        }
        let all = Self {
            zones,
            nodes,
            first: nodes.iter().flatten().next().expect("a node"),
            several: nodes.iter().flatten().count() > 1,
        };
        all.rebuild();
        all
    }

    /// Works out the reserves and the order of zones from what each zone has.
    pub(crate) fn rebuild(&self) {
        for node in self.iter() {
            let managed = core::array::from_fn(|at| node.zones[at].managed());
            node.zones
                .iter()
                .for_each(|zone| zone.set_lowmem_reserve(&managed));
            for highest in ZoneType::ALL {
                let order = self.by_distance(node).flat_map(|other| {
                    let allowed = other.zones[..=highest.index()].iter().rev();
                    allowed.filter(|zone| zone.managed() != 0).map(Zone::id)
                });
                node.zonelists[highest.index()].set(node.id, order);
            }
        }
    }

    /// All nodes, the nearest to `from` first, of equals the one with the next higher number (and
    /// around), so that neighbours do not all fall back to the same one.
    fn by_distance(&self, from: &Node) -> impl Iterator<Item = &'m Node> {
        let key = |node: &Node| {
            let around = usize::from(node.id.0) + MAX_NODES - usize::from(from.id.0);
            let near = if node.id == from.id {
                0
            } else {
                from.distance[usize::from(node.id.0)].max(1)
            };
            (near, around % MAX_NODES)
        };
        let keys = self.nodes.map(|node| node.map(key));
        let nodes = self.nodes;
        let mut last = None;
        core::iter::from_fn(move || {
            let rest = keys.iter().enumerate().filter(|(_, key)| **key > last);
            let (at, key) = rest.min_by_key(|(_, key)| **key)?;
            last = *key;
            nodes[at]
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &'m Node> + Clone {
        self.nodes.into_iter().flatten()
    }

    pub(crate) fn get(&self, node: NodeId) -> Option<&'m Node> {
        self.nodes.get(usize::from(node.0)).copied().flatten()
    }

    /// All zones, node by node, lowest first, absent ones too.
    pub(crate) fn zones(&self) -> impl Iterator<Item = &'m Zone> + Clone {
        self.iter().flat_map(|node| node.zones())
    }

    #[inline]
    pub(crate) fn zone(&self, id: ZoneId) -> Option<&'m Zone> {
        self.zones.get(id.index()).copied().flatten()
    }

    /// From which node to look. `local` is asked only if it matters.
    #[inline]
    pub(crate) fn start(&self, wanted: Option<NodeId>, local: impl FnOnce() -> NodeId) -> &'m Node {
        if !self.several {
            return self.first;
        }
        self.get(wanted.unwrap_or_else(local)).unwrap_or(self.first)
    }

    /// The zones that may serve an allocation from `node` whose highest allowed zone is `highest`.
    #[inline]
    pub(crate) fn zonelist(
        &self,
        node: &'m Node,
        highest: ZoneType,
        this_node: bool,
    ) -> impl Iterator<Item = &'m Zone> {
        let ids = node.zonelists[highest.index()].iter(this_node);
        ids.filter_map(|id| self.zone(id))
    }

    pub(crate) fn zone_ids(
        &self,
        node: NodeId,
        highest: ZoneType,
    ) -> impl Iterator<Item = ZoneId> + 'm {
        let node = self.get(node);
        node.into_iter()
            .flat_map(move |node| node.zonelists[highest.index()].iter(false))
    }

    /// True if there is more than one.
    #[inline]
    pub(crate) fn are_several(&self) -> bool {
        self.several
    }

    /// Counts `pages` that were wanted from `wanted`, taken from `zone` and asked for on `local`;
    /// tells what happened. Linux's `zone_statistics`.
    pub(crate) fn count(
        &self,
        wanted: &Node,
        zone: &Zone,
        local: NodeId,
        pages: u64,
    ) -> (NumaEvent, NumaEvent) {
        let hit = zone.node == wanted.id;
        let how = if hit { NumaEvent::Hit } else { NumaEvent::Miss };
        let here = if zone.node == local {
            NumaEvent::Local
        } else {
            NumaEvent::Other
        };
        if let Some(node) = self.get(zone.node) {
            node.count(how, pages);
            node.count(here, pages);
        }
        if !hit {
            wanted.count(NumaEvent::Foreign, pages);
        }
        (how, here)
    }

    /// Counts `pages` that a CPU of the zone's node took there, as it wanted.
    pub(crate) fn count_near(&self, zone: &Zone, pages: u64) {
        if let Some(node) = self.get(zone.node) {
            node.count(NumaEvent::Hit, pages);
            node.count(NumaEvent::Local, pages);
        }
    }

    pub(crate) fn infos(&self) -> impl Iterator<Item = NodeInfo> + 'm {
        self.nodes.into_iter().flatten().map(Node::info)
    }
}
