//! A node: zones that one part of the machine reaches equally fast, and the order to try them in.

use crate::zone::{self, Zone};
use vellum_types::{Pfn, PfnRange, ZoneType};

/// Zones in the order in which an allocation tries them: the highest allowed one first.
///
/// With several nodes this will name zones of others behind one's own.
#[derive(Clone, Copy)]
pub(crate) struct ZoneList {
    zones: [ZoneType; ZoneType::COUNT],
    len: usize,
}

impl ZoneList {
    const EMPTY: Self = Self {
        zones: [ZoneType::Dma; ZoneType::COUNT],
        len: 0,
    };

    /// The zones of `zones` that have memory, from `highest` down.
    fn new(zones: &[Zone; ZoneType::COUNT], highest: ZoneType) -> Self {
        let mut list = Self::EMPTY;
        for zone in zones[..=highest.index()]
            .iter()
            .rev()
            .filter(|zone| zone.managed != 0)
        {
            list.zones[list.len] = zone.zone_type;
            list.len += 1;
        }
        list
    }

    #[inline]
    fn as_slice(&self) -> &[ZoneType] {
        &self.zones[..self.len]
    }
}

/// `pg_data_t`.
pub(crate) struct Node {
    zones: [Zone; ZoneType::COUNT],
    zonelists: [ZoneList; ZoneType::COUNT],
}

impl Node {
    pub(crate) fn new() -> Self {
        Self {
            zones: ZoneType::ALL.map(Zone::new),
            zonelists: [ZoneList::EMPTY; ZoneType::COUNT],
        }
    }

    /// Counts memory into the zones that hold it.
    pub(crate) fn add_present(&mut self, memory: PfnRange) {
        self.zones
            .iter_mut()
            .for_each(|zone| zone.add_present(memory));
    }

    pub(crate) fn zone_mut(&mut self, pfn: Pfn) -> &mut Zone {
        &mut self.zones[zone::zone_type_of(pfn).index()]
    }

    /// Works out the reserves and the order of zones, when all memory is in.
    pub(crate) fn finish(&mut self) {
        let managed = core::array::from_fn(|at| self.zones[at].managed);
        self.zones
            .iter_mut()
            .for_each(|zone| zone.set_lowmem_reserve(&managed));
        self.zonelists = ZoneType::ALL.map(|highest| ZoneList::new(&self.zones, highest));
    }

    /// The zone of a frame.
    #[inline]
    pub(crate) fn zone_of(&self, pfn: Pfn) -> &Zone {
        &self.zones[zone::zone_type_of(pfn).index()]
    }

    /// The zone of a kind.
    #[inline]
    pub(crate) fn zone(&self, index: usize) -> &Zone {
        &self.zones[index]
    }

    /// All zones, absent ones too.
    pub(crate) fn zones(&self) -> impl Iterator<Item = &Zone> + Clone {
        self.zones.iter()
    }

    /// The zones that may serve an allocation whose highest allowed zone is `highest`.
    #[inline]
    pub(crate) fn zonelist(&self, highest: ZoneType) -> impl Iterator<Item = &Zone> {
        self.zonelists[highest.index()]
            .as_slice()
            .iter()
            .map(|zone| &self.zones[zone.index()])
    }
}
