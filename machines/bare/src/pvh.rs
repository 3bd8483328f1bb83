//! What the boot loader hands over. Source: Xen's `hvm/start_info.h`, version 1.

use crate::bytes::{u32_at, u64_at};
use alloc::vec::Vec;
use vellum_machine::{MemoryKind, MemoryRegion};
use vellum_types::{NodeId, PhysAddr, PhysRange};

/// The first word of the structure.
pub const MAGIC: u32 = 0x336e_c578;
/// Its size in bytes.
pub const START_INFO_BYTES: u64 = 56;
/// Bytes of one line of the memory map.
pub const MEMMAP_ENTRY_BYTES: u64 = 24;
/// Bytes of one line of the list of modules.
pub const MODULE_BYTES: u64 = 32;

/// `hvm_start_info`: where the rest is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StartInfo {
    /// Modules: the initramfs is the first.
    pub modules: u32,
    /// Where their list is.
    pub module_list: u64,
    /// The command line; 0 for none.
    pub command_line: u64,
    /// ACPI's root pointer; 0 for none.
    pub rsdp: u64,
    /// Where the memory map is.
    pub memory_map: u64,
    /// Its lines.
    pub memory_map_lines: u32,
}

impl StartInfo {
    /// Reads the structure; `None` if it is not one of version 1 or later.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        if u32_at(bytes, 0)? != MAGIC || u32_at(bytes, 4)? < 1 {
            return None;
        }
        Some(Self {
            modules: u32_at(bytes, 12)?,
            module_list: u64_at(bytes, 16)?,
            command_line: u64_at(bytes, 24)?,
            rsdp: u64_at(bytes, 32)?,
            memory_map: u64_at(bytes, 40)?,
            memory_map_lines: u32_at(bytes, 48)?,
        })
    }
}

/// First byte and length of a module.
pub fn module(bytes: &[u8]) -> Option<(u64, u64)> {
    Some((u64_at(bytes, 0)?, u64_at(bytes, 8)?))
}

/// A stretch of memory that a node owns, as SRAT says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeMemory {
    /// The bytes.
    pub range: PhysRange,
    /// The node.
    pub node: NodeId,
}

/// Below this nothing is used: real mode, firmware tables, and the pages that wake other CPUs.
const LOW_RESERVED: u64 = 0x10_0000;

/// Frame numbers have 32 bits, and the direct map is made for at most this much.
const HIGHEST: u64 = 1 << 40;

/// The firmware's map as the core takes it: usable RAM cut along `nodes`, then what is reserved.
/// Empty, overlapping and absurd lines do no harm: they are left out, or sorted out by memblock.
pub fn regions(map: &[u8], reserved: &[PhysRange], nodes: &[NodeMemory]) -> Vec<MemoryRegion> {
    let mut regions = Vec::new();
    for line in map.chunks_exact(MEMMAP_ENTRY_BYTES as usize) {
        let (Some(start), Some(len), Some(kind)) =
            (u64_at(line, 0), u64_at(line, 8), u32_at(line, 16))
        else {
            continue;
        };
        let end = start.saturating_add(len).min(HIGHEST);
        let (start, end) = if kind == 1 {
            (start.max(LOW_RESERVED).next_multiple_of(4096), end & !4095)
        } else {
            continue;
        };
        if start < end {
            add_usable(&mut regions, start, end, nodes);
        }
    }
    let mut reserve = |range: PhysRange| {
        regions.push(MemoryRegion {
            range,
            node: NodeId(0),
            kind: MemoryKind::Reserved,
        });
    };
    reserved.iter().copied().for_each(&mut reserve);
    regions
}

fn add_usable(regions: &mut Vec<MemoryRegion>, mut start: u64, end: u64, nodes: &[NodeMemory]) {
    while start < end {
        let here = nodes
            .iter()
            .find(|n| n.range.start().as_u64() <= start && start < n.range.end().as_u64());
        let (node, stop) = match here {
            Some(n) => (n.node, n.range.end().as_u64().min(end)),
            None => {
                let next = nodes.iter().map(|n| n.range.start().as_u64());
                (NodeId(0), next.filter(|&at| at > start).fold(end, u64::min))
            }
        };
        if let Some(range) = PhysRange::new(PhysAddr::new(start), PhysAddr::new(stop)) {
            regions.push(MemoryRegion {
                range,
                node,
                kind: MemoryKind::Usable,
            });
        }
        start = stop;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(start: u64, len: u64, kind: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&start.to_le_bytes());
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes
    }

    fn range(start: u64, end: u64) -> PhysRange {
        PhysRange::new(PhysAddr::new(start), PhysAddr::new(end)).unwrap()
    }

    #[test]
    fn only_whole_pages_of_ram_above_the_first_mebibyte_are_used() {
        let mut map = line(0, 0x9_fc00, 1);
        map.extend(line(0xf_0000, 0x1_0000, 2));
        map.extend(line(0x10_0800, 0x7f0_0000, 1));
        map.extend(line(0, 0, 0));
        let regions = regions(&map, &[], &[]);
        assert_eq!(regions.len(), 1);
        assert_eq!(regions[0].range, range(0x10_1000, 0x800_0000));
    }

    #[test]
    fn ram_is_cut_where_nodes_meet() {
        let map = line(0x10_0000, 0x3ff0_0000, 1);
        let nodes = [
            NodeMemory {
                range: range(0, 0x2000_0000),
                node: NodeId(0),
            },
            NodeMemory {
                range: range(0x2000_0000, 0x4000_0000),
                node: NodeId(1),
            },
        ];
        let found: Vec<_> = regions(&map, &[], &nodes)
            .iter()
            .map(|r| (r.range, r.node.0))
            .collect();
        assert_eq!(
            found,
            [
                (range(0x10_0000, 0x2000_0000), 0),
                (range(0x2000_0000, 0x4000_0000), 1)
            ]
        );
    }

    #[test]
    fn a_foreign_structure_is_refused() {
        assert_eq!(StartInfo::read(&[0; 56]), None);
        assert_eq!(StartInfo::read(&MAGIC.to_le_bytes()), None);
    }
}
