//! The firmware's tables of CPUs and nodes: MADT, SRAT, SLIT. Source: ACPI 6.5, chapter 5.2.
//!
//! Each reader takes one table's bytes, checked by [`table`].

use crate::bytes::{array, u16_at, u32_at, u64_at};
use crate::pvh::NodeMemory;
use alloc::vec::Vec;
use vellum_types::{NodeId, PhysAddr, PhysRange};

/// Bytes of the header that every table has.
pub const HEADER_BYTES: usize = 36;

/// Where the table of tables is, from the root pointer: its address, and the bytes of an entry.
pub fn root(rsdp: &[u8]) -> Option<(u64, usize)> {
    if array::<8>(rsdp, 0)? != *b"RSD PTR " {
        return None;
    }
    match (rsdp.get(15)?, u64_at(rsdp, 24)) {
        (2.., Some(xsdt)) if xsdt != 0 => Some((xsdt, 8)),
        _ => Some((u64::from(u32_at(rsdp, 16)?), 4)),
    }
}

/// The addresses in the table of tables.
pub fn addresses(root: &[u8], width: usize) -> Vec<u64> {
    let rows = root.get(HEADER_BYTES..).unwrap_or(&[]).chunks_exact(width);
    rows.filter_map(|row| u64_at(row, 0).or_else(|| u32_at(row, 0).map(u64::from)))
        .collect()
}

/// Name and length of the table that starts with `header`.
pub fn header(header: &[u8]) -> Option<([u8; 4], usize)> {
    Some((array(header, 0)?, u32_at(header, 4)? as usize))
}

/// True if the bytes of a table add up to zero, as they must.
pub fn table(bytes: &[u8]) -> bool {
    bytes.len() >= HEADER_BYTES && bytes.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)) == 0
}

/// Entries of one byte of type and one of length, behind `skip` bytes.
fn entries(bytes: &[u8], skip: usize) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = bytes.get(skip..).unwrap_or(&[]);
    core::iter::from_fn(move || {
        let (&kind, &len) = (rest.first()?, rest.get(1)?);
        let (entry, after) = rest.split_at_checked(usize::from(len).max(2))?;
        rest = after;
        Some((kind, entry))
    })
}

/// The local APIC numbers of the CPUs that can be used, in the table's order.
pub fn madt_cpus(madt: &[u8]) -> Vec<u8> {
    entries(madt, 44)
        .filter(|(kind, entry)| *kind == 0 && u32_at(entry, 4).is_some_and(|flags| flags & 1 != 0))
        .filter_map(|(_, entry)| entry.get(3).copied())
        .collect()
}

/// The nodes of memory and of CPUs (local APIC number, node).
pub fn srat(srat: &[u8]) -> (Vec<NodeMemory>, Vec<(u8, NodeId)>) {
    let (mut memory, mut cpus) = (Vec::new(), Vec::new());
    for (kind, entry) in entries(srat, 48) {
        match kind {
            0 if u32_at(entry, 4).is_some_and(|flags| flags & 1 != 0) => {
                cpus.push((entry[3], NodeId(entry[2])));
            }
            1 if u32_at(entry, 28).is_some_and(|flags| flags & 1 != 0) => {
                let (Some(node), Some(base), Some(len)) =
                    (u16_at(entry, 2), u64_at(entry, 8), u64_at(entry, 16))
                else {
                    continue;
                };
                if let Some(range) = PhysRange::from_len(PhysAddr::new(base), len) {
                    memory.push(NodeMemory {
                        range,
                        node: NodeId(node as u8),
                    });
                }
            }
            _ => {}
        }
    }
    (memory, cpus)
}

/// The distance between two nodes, if the table has it.
pub fn slit_distance(slit: &[u8], from: NodeId, to: NodeId) -> Option<u8> {
    let nodes = u64_at(slit, HEADER_BYTES)?;
    let (from, to) = (u64::from(from.0), u64::from(to.0));
    if from >= nodes || to >= nodes {
        return None;
    }
    slit.get(usize::try_from(44 + from.checked_mul(nodes)? + to).ok()?)
        .copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn cpus_and_memory_of_two_nodes() {
        let mut table = vec![0; 48];
        table.extend([0, 16, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        table.extend([0, 16, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let mut entry = vec![1, 40, 1, 0, 0, 0, 0, 0];
        entry.extend(0x1000_0000u64.to_le_bytes());
        entry.extend(0x1000_0000u64.to_le_bytes());
        entry.extend([0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        table.extend(entry);
        let (memory, cpus) = srat(&table);
        assert_eq!(cpus, [(0, NodeId(0)), (1, NodeId(1))]);
        assert_eq!(memory.len(), 1);
        assert_eq!(memory[0].node, NodeId(1));
        assert_eq!(memory[0].range.end(), PhysAddr::new(0x2000_0000));
    }

    #[test]
    fn a_length_of_zero_does_not_hang() {
        assert_eq!(madt_cpus(&[0; 200]), [] as [u8; 0]);
    }

    #[test]
    fn distances() {
        let mut table = vec![0; 36];
        table.extend(2u64.to_le_bytes());
        table.extend([10, 21, 21, 10]);
        assert_eq!(slit_distance(&table, NodeId(0), NodeId(1)), Some(21));
        assert_eq!(slit_distance(&table, NodeId(0), NodeId(2)), None);
    }
}
