//! Swap areas that the command line asks for, and kswapd's work.

use crate::machine::system;
use crate::sync::Lock;
use crate::{cpu, heap, init};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use vellum_bare::lz4;
use vellum_swap::{Compressor, Corrupt, SwapOn};
use vellum_types::{NodeId, PAGE_SIZE};

/// How many nodes there are.
static NODES: AtomicU8 = AtomicU8::new(0);
/// A CPU is making pages free.
static BUSY: AtomicBool = AtomicBool::new(false);

/// A table for each CPU, so that compressing takes no memory. A CPU that compresses is not interrupted.
struct Lz4 {
    tables: Vec<Lock<lz4::Table>>,
}

impl Compressor for Lz4 {
    fn name(&self) -> &str {
        "lz4"
    }

    fn compress(&self, page: &[u8], out: &mut [u8]) -> Option<usize> {
        let id = cpu::this().id.load(Ordering::Relaxed) as usize;
        lz4::compress(page, out, &mut self.tables[id].lock())
    }

    fn decompress(&self, data: &[u8], page: &mut [u8]) -> Result<(), Corrupt> {
        if lz4::decompress(data, page) {
            Ok(())
        } else {
            Err(Corrupt)
        }
    }
}

/// Puts into use what `swap=` asks for.
pub(crate) fn set_up(nr_cpus: u16) {
    let pages = system().pages();
    let last = pages.zones().map(|zone| zone.node.0).max();
    NODES.store(last.unwrap_or(0) + 1, Ordering::Relaxed);
    let Some(what) = init::option("swap") else {
        return;
    };
    let size = what
        .strip_prefix("zram:")
        .and_then(|size| size.parse().ok());
    let Some(bytes) = size else {
        init::refuse(&alloc::format!("swap={what}: zram:BYTES is needed"));
    };
    let tables = (0..nr_cpus).map(|_| Lock::new(lz4::Table::new())).collect();
    let compressor = Box::leak(Box::new(Lz4 { tables }));
    // Compressed pages may take half of RAM; the rest is for those in use.
    let limit = pages.nr_free_pages() * PAGE_SIZE / 2;
    if let Err(error) = system().swapon_zram(compressor, bytes, limit, SwapOn::default()) {
        init::refuse(&alloc::format!("swap={what}: {error}"));
    }
}

/// True if an allocation found little memory since the last [`relieve`].
#[inline]
pub(crate) fn wanted() -> bool {
    let pages = system().pages();
    let nodes = NODES.load(Ordering::Relaxed);
    (0..nodes).any(|node| pages.kswapd_wanted(NodeId(node)).is_some())
}

/// Makes pages free, if no other CPU is at it. The caller holds no lock.
#[cold]
pub(crate) fn relieve() {
    if BUSY.swap(true, Ordering::Acquire) {
        return;
    }
    system().housekeeping();
    heap::refill_reserve();
    BUSY.store(false, Ordering::Release);
}
