//! Other CPUs: which there are, waking them, and flushing what they remember of page tables.

use crate::task::Task;
use alloc::vec::Vec;
use vellum_bare::pvh::NodeMemory;
use vellum_types::{NodeId, SpaceId};

/// What ACPI says.
#[derive(Default)]
pub(crate) struct Firmware {
    /// Numbers of the local APICs; the first is this CPU's.
    pub(crate) apics: Vec<u8>,
    pub(crate) memory: Vec<NodeMemory>,
    pub(crate) cpu_nodes: Vec<(u8, NodeId)>,
    pub(crate) distances: Vec<u8>,
}

pub(crate) fn read_tables(_: u64) -> Firmware {
    Firmware::default()
}

pub(crate) fn choose_cpus(_: &Firmware) -> u16 {
    1
}

pub(crate) fn start_others(_: &Firmware, _: u16) {}

#[inline]
pub(crate) fn entered() {}

#[inline]
pub(crate) fn may_leave() -> bool {
    true
}

pub(crate) fn kick(_: &Task) {}

pub(crate) fn wake_idle() {}

/// Other CPUs that run in `space` must flush before a program goes on there.
#[inline]
pub(crate) fn note_flush(_: SpaceId) {}

/// Returns when no program runs on with an old translation of `space`.
#[inline]
pub(crate) fn wait_for_flush(_: SpaceId) {}
