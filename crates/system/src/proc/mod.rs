//! The texts of `/proc`, in Linux's formats. Source: proc(5), `fs/proc/`.

mod process;
mod system;

pub use process::{maps, smaps, smaps_rollup, statm, status_memory_lines};
pub use system::{buddyinfo, meminfo, slabinfo, swaps, vmallocinfo, vmstat, zoneinfo};
