//! `/proc/vmallocinfo` and the lines of `/proc/meminfo`.

use crate::Vmalloc;
use crate::area::{AreaInfo, AreaKind};
use crate::node::VmapNode;
use core::fmt::{self, Write};
use core::ops::ControlFlow;
use vellum_machine::Machine;
use vellum_page_table::Format;
use vellum_types::{PAGE_SIZE, VirtAddr, VirtRange};

/// The vmalloc lines of `/proc/meminfo`, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VmallocStats {
    /// VmallocTotal: the window.
    pub total: u64,
    /// VmallocUsed: what vmalloc allocated.
    pub used: u64,
    /// VmallocChunk: the longest free run. Linux since 4.4 always says 0.
    pub chunk: u64,
    /// Areas in use.
    pub areas: usize,
}

impl<'m, M: Machine, F: Format> Vmalloc<'m, M, F> {
    /// The numbers.
    pub fn stats(&self) -> VmallocStats {
        let state = self.lock();
        VmallocStats {
            total: state.arena.window().len(),
            used: state.alloc_pages * PAGE_SIZE,
            chunk: state.arena.free.longest(),
            areas: state.arena.busy.len(),
        }
    }

    /// Calls `f` with each area in order of address, then with those that were freed and wait for
    /// the flush, until it breaks. Under the lock of the arena: `f` must not call back.
    pub fn for_each_area<E>(
        &self,
        f: &mut dyn FnMut(AreaInfo) -> ControlFlow<E>,
    ) -> ControlFlow<E> {
        let state = self.lock();
        state
            .arena
            .busy
            .for_each(&mut |node| f(info::<F>(node, false)))?;
        state
            .arena
            .for_each_lazy(&mut |node| f(info::<F>(node, true)))
    }

    /// Writes `/proc/vmallocinfo`: addresses with the guard page, bytes, caller, pages, flags.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_vmallocinfo(&self, out: &mut dyn Write) -> fmt::Result {
        match self.for_each_area(&mut |area| match line(area, out) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(error),
        }
    }
}

fn info<F: Format>(node: &VmapNode<'_>, unpurged: bool) -> AreaInfo {
    let start = F::canonical(VirtAddr::new(node.start));
    AreaInfo {
        range: VirtRange::from_len(start, node.len()).expect("inside the window"),
        kind: node.area.kind,
        huge: node.area.huge,
        pages: node.area.pages,
        caller: node.area.caller,
        unpurged,
    }
}

fn line(area: AreaInfo, out: &mut dyn Write) -> fmt::Result {
    let (start, end) = (area.range.start(), area.range.end());
    write!(out, "{start:#018x}-{end:#018x} {:>7}", area.range.len())?;
    if area.unpurged {
        return out.write_str(" unpurged vm_area\n");
    }
    if let Some(caller) = area.caller {
        write!(out, " {}:{}", caller.file(), caller.line())?;
    }
    write!(out, " pages={}", area.pages)?;
    out.write_str(match area.kind {
        AreaKind::Alloc => " vmalloc",
        AreaKind::Map => " vmap",
    })?;
    out.write_str(if area.huge { " huge\n" } else { "\n" })
}
