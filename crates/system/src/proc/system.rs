//! Texts about the whole machine.

use crate::System;
use core::fmt::{self, Write};
use vellum_machine::{Machine, VmEvent, VmItem};
use vellum_types::PAGE_SIZE;

/// `/proc/meminfo`.
///
/// # Errors
/// Those of `out`.
pub fn meminfo<M: Machine>(system: &System<'_, M>, out: &mut dyn Write) -> fmt::Result {
    for (name, kb) in system.meminfo().fields() {
        // Linux pads name and colon to 16 columns, the number to 8.
        write!(out, "{name}:")?;
        for _ in name.len() + 1..16 {
            out.write_char(' ')?;
        }
        writeln!(out, "{kb:>8} kB")?;
    }
    Ok(())
}

/// `/proc/vmstat`.
///
/// # Errors
/// Those of `out`.
pub fn vmstat<M: Machine>(system: &System<'_, M>, out: &mut dyn Write) -> fmt::Result {
    system.pages().fold_counters();
    for item in VmItem::ALL {
        writeln!(out, "{} {}", item.name(), system.vmstat().item(*item))?;
    }
    for event in VmEvent::ALL {
        writeln!(out, "{} {}", event.name(), system.vmstat().events(*event))?;
    }
    Ok(())
}

/// `/proc/buddyinfo`.
///
/// # Errors
/// Those of `out`.
pub fn buddyinfo<M: Machine>(system: &System<'_, M>, out: &mut dyn Write) -> fmt::Result {
    for zone in system.pages().zones() {
        write!(out, "Node {}, zone {:>8} ", zone.node.0, zone.name)?;
        for blocks in zone.free_area {
            write!(out, "{blocks:>6} ")?;
        }
        out.write_char('\n')?;
    }
    Ok(())
}

/// `/proc/zoneinfo`.
///
/// # Errors
/// Those of `out`.
pub fn zoneinfo<M: Machine>(system: &System<'_, M>, out: &mut dyn Write) -> fmt::Result {
    for zone in system.pages().zones() {
        writeln!(out, "Node {}, zone {:>8}", zone.node.0, zone.name)?;
        writeln!(out, "  pages free     {}", zone.free)?;
        writeln!(out, "        boost    0")?;
        writeln!(out, "        min      {}", zone.min)?;
        writeln!(out, "        low      {}", zone.low)?;
        writeln!(out, "        high     {}", zone.high)?;
        writeln!(out, "        spanned  {}", zone.spanned)?;
        writeln!(out, "        present  {}", zone.present)?;
        writeln!(out, "        managed  {}", zone.managed)?;
        write!(out, "        protection: (")?;
        for (n, pages) in zone.lowmem_reserve.iter().enumerate() {
            write!(out, "{}{pages}", if n == 0 { "" } else { ", " })?;
        }
        writeln!(out, ")")?;
        writeln!(out, "  start_pfn:           {}", zone.start.as_u32())?;
    }
    Ok(())
}

/// `/proc/slabinfo`.
///
/// # Errors
/// Those of `out`.
pub fn slabinfo<M: Machine>(system: &System<'_, M>, out: &mut dyn Write) -> fmt::Result {
    writeln!(out, "slabinfo - version: 2.1")?;
    writeln!(
        out,
        "# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>"
    )?;
    for info in system.slab().slabinfo() {
        writeln!(out, "{info}")?;
    }
    Ok(())
}

/// `/proc/vmallocinfo`: a line for each area of kernel addresses that vmalloc or vmap gave out.
///
/// # Errors
/// Those of `out`.
pub fn vmallocinfo<M: Machine>(system: &System<'_, M>, out: &mut dyn Write) -> fmt::Result {
    system.vmalloc().write_vmallocinfo(out)
}

/// `/proc/swaps`: a line for each area, kilobytes.
///
/// # Errors
/// Those of `out`.
pub fn swaps<M: Machine>(system: &System<'_, M>, out: &mut dyn Write) -> fmt::Result {
    writeln!(out, "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority")?;
    let mut result = Ok(());
    system.swaps(&mut |area, device| {
        let kb = |slots: u32| u64::from(slots) * (PAGE_SIZE / 1024);
        let kind = if device.name().starts_with('/') {
            "file"
        } else {
            "partition"
        };
        result = result.and(writeln!(
            out,
            "{:<40}{kind}\t{}\t\t{}\t\t{}",
            device.name(),
            kb(area.usable),
            kb(area.used),
            area.priority
        ));
    });
    result
}
