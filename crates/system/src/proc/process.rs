//! Texts about one address space.

use crate::System;
use core::fmt::{self, Write};
use vellum_machine::Machine;
use vellum_mm::{Area, AreaUsage, Mm, MmLayout, Object};
use vellum_page_cache::BackingStore;
use vellum_types::{PAGE_SHIFT, PAGE_SIZE, VmFlags};

/// Counts the bytes written, to pad like Linux.
struct Counted<'a> {
    out: &'a mut dyn Write,
    len: usize,
}

impl Write for Counted<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.len += text.len();
        self.out.write_str(text)
    }
}

/// The column at which a line of maps shows its name: 25 + 6 * 8, less one.
const NAME_COLUMN: usize = 73;

fn line(
    area: &Area<'_>,
    layout: &MmLayout,
    brk: u64,
    store: &dyn BackingStore,
    out: &mut dyn Write,
) -> fmt::Result {
    let bit = |flag, yes: char| if area.flags.contains(flag) { yes } else { '-' };
    let shared = if area.flags.contains(VmFlags::MAYSHARE) {
        's'
    } else {
        'p'
    };
    let mut line = Counted { out, len: 0 };
    let (offset, (major, minor, inode)) = match area.backing.mapping() {
        Some(mapping) => (area.pgoff() << PAGE_SHIFT, store.dev_ino(mapping.file())),
        None => (0, (0, 0, 0)),
    };
    write!(
        line,
        "{:08x}-{:08x} {}{}{}{shared} {offset:08x} {major:02x}:{minor:02x} {inode} ",
        area.start(),
        area.end(),
        bit(VmFlags::READ, 'r'),
        bit(VmFlags::WRITE, 'w'),
        bit(VmFlags::EXEC, 'x'),
    )?;
    let (start, end) = (area.start().as_u64(), area.end().as_u64());
    let name = match &area.backing.object {
        Object::Special(name) => Some(*name),
        Object::Anonymous if start <= brk && end > layout.start_brk && brk > layout.start_brk => {
            Some("[heap]")
        }
        Object::Anonymous if start <= layout.start_stack && layout.start_stack < end => {
            Some("[stack]")
        }
        Object::Anonymous => None,
        Object::File(_) => Some(""),
    };
    if let Some(name) = name {
        for _ in line.len..NAME_COLUMN {
            line.write_char(' ')?;
        }
        line.write_str(name)?;
        if let Object::File(mapping) = &area.backing.object {
            store.name(mapping.file(), &mut line)?;
        }
    }
    line.write_char('\n')
}

/// `/proc/PID/maps`.
///
/// # Errors
/// Those of `out`.
pub fn maps<'m, M: Machine>(
    system: &System<'m, M>,
    mm: &Mm<'m>,
    out: &mut dyn Write,
) -> fmt::Result {
    let (layout, brk) = (mm.layout(), mm.stats().brk);
    let store = system.cache().store();
    let mut result = Ok(());
    mm.for_each_area(&mut |area| {
        if result.is_ok() {
            result = line(area, &layout, brk, store, out);
        }
    });
    result
}

fn usage_lines(usage: &AreaUsage, out: &mut dyn Write) -> fmt::Result {
    let kb = |pages: u64| pages * (PAGE_SIZE / 1024);
    let pss = usage.pss_parts * (PAGE_SIZE / 1024) / 4096;
    for (name, value) in [
        ("Rss", kb(usage.rss)),
        ("Pss", pss),
        ("Shared_Clean", kb(usage.shared_clean)),
        ("Shared_Dirty", kb(usage.shared_dirty)),
        ("Private_Clean", kb(usage.private_clean)),
        ("Private_Dirty", kb(usage.private_dirty)),
        ("Referenced", kb(usage.referenced)),
        ("Anonymous", kb(usage.anonymous)),
        ("LazyFree", 0),
        ("AnonHugePages", 0),
        ("ShmemPmdMapped", 0),
        ("FilePmdMapped", 0),
        ("Shared_Hugetlb", 0),
        ("Private_Hugetlb", 0),
        ("Swap", 0),
        ("SwapPss", 0),
    ] {
        kb_line(out, name, value)?;
    }
    Ok(())
}

/// `Name:` padded to 16 columns, a number of 8, `kB`.
fn kb_line(out: &mut dyn Write, name: &str, kb: u64) -> fmt::Result {
    write!(out, "{name}:")?;
    for _ in name.len() + 1..16 {
        out.write_char(' ')?;
    }
    writeln!(out, "{kb:>8} kB")
}

/// The two-letter names of smaps' VmFlags. Source: `fs/proc/task_mmu.c`.
const FLAG_NAMES: [(VmFlags, &str); 17] = [
    (VmFlags::READ, "rd"),
    (VmFlags::WRITE, "wr"),
    (VmFlags::EXEC, "ex"),
    (VmFlags::SHARED, "sh"),
    (VmFlags::MAYREAD, "mr"),
    (VmFlags::MAYWRITE, "mw"),
    (VmFlags::MAYEXEC, "me"),
    (VmFlags::MAYSHARE, "ms"),
    (VmFlags::GROWSDOWN, "gd"),
    (VmFlags::PFNMAP, "pf"),
    (VmFlags::LOCKED, "lo"),
    (VmFlags::SEQ_READ, "sr"),
    (VmFlags::RAND_READ, "rr"),
    (VmFlags::DONTCOPY, "dc"),
    (VmFlags::DONTEXPAND, "de"),
    (VmFlags::NORESERVE, "nr"),
    (VmFlags::DONTDUMP, "dd"),
];

/// `/proc/PID/smaps`.
///
/// # Errors
/// Those of `out`.
pub fn smaps<'m, M: Machine>(
    system: &System<'m, M>,
    mm: &Mm<'m>,
    out: &mut dyn Write,
) -> fmt::Result {
    let (layout, brk) = (mm.layout(), mm.stats().brk);
    let store = system.cache().store();
    let mut at = 0;
    // Usage needs the lock that the walk over the areas holds, so areas are looked up one by one.
    while let Some(area) = next_area(mm, at) {
        at = area.end().as_u64();
        line(&area, &layout, brk, store, out)?;
        kb_line(out, "Size", area.range().len() / 1024)?;
        kb_line(out, "KernelPageSize", PAGE_SIZE / 1024)?;
        kb_line(out, "MMUPageSize", PAGE_SIZE / 1024)?;
        let usage = system.usage(mm, area.range());
        usage_lines(&usage, out)?;
        let locked = if area.flags.contains(VmFlags::LOCKED) {
            usage.rss * (PAGE_SIZE / 1024)
        } else {
            0
        };
        kb_line(out, "Locked", locked)?;
        writeln!(out, "THPeligible:           0")?;
        write!(out, "VmFlags: ")?;
        for (flag, name) in FLAG_NAMES {
            if area.flags.contains(flag) {
                write!(out, "{name} ")?;
            }
        }
        out.write_char('\n')?;
    }
    Ok(())
}

/// `/proc/PID/smaps_rollup`.
///
/// # Errors
/// Those of `out`.
pub fn smaps_rollup<'m, M: Machine>(
    system: &System<'m, M>,
    mm: &Mm<'m>,
    out: &mut dyn Write,
) -> fmt::Result {
    let (mut first, mut last, mut total) = (None, 0, AreaUsage::default());
    let mut at = 0;
    while let Some(area) = next_area(mm, at) {
        at = area.end().as_u64();
        first = first.or(Some(area.start().as_u64()));
        last = at;
        total.add(&system.usage(mm, area.range()));
    }
    writeln!(
        out,
        "{:08x}-{last:08x} ---p 00000000 00:00 0                              [rollup]",
        first.unwrap_or(0)
    )?;
    usage_lines(&total, out)
}

fn next_area<'m>(mm: &Mm<'m>, at: u64) -> Option<Area<'m>> {
    let mut found = None;
    mm.for_each_area(&mut |area| {
        if found.is_none() && area.start().as_u64() >= at {
            found = Some(area.clone());
        }
    });
    found
}

/// `/proc/PID/statm`: pages in all, resident, shared, text, 0, data and stack, 0.
///
/// # Errors
/// Those of `out`.
pub fn statm(mm: &Mm<'_>, out: &mut dyn Write) -> fmt::Result {
    let stats = mm.stats();
    let layout = mm.layout();
    let text = (layout.end_code.div_ceil(PAGE_SIZE)).saturating_sub(layout.start_code / PAGE_SIZE);
    let shared = stats.rss.file + stats.rss.shmem;
    let data = stats.data_vm + stats.stack_vm;
    writeln!(
        out,
        "{} {} {shared} {text} 0 {data} 0",
        stats.total_vm,
        stats.rss.total()
    )
}

/// The lines `VmPeak` to `VmSwap` of `/proc/PID/status`.
///
/// # Errors
/// Those of `out`.
pub fn status_memory_lines(mm: &Mm<'_>, out: &mut dyn Write) -> fmt::Result {
    let stats = mm.stats();
    let layout = mm.layout();
    let kb = |pages: u64| pages * (PAGE_SIZE / 1024);
    let text = (layout.end_code.div_ceil(PAGE_SIZE)).saturating_sub(layout.start_code / PAGE_SIZE);
    for (name, value) in [
        ("VmPeak", kb(stats.hiwater_vm)),
        ("VmSize", kb(stats.total_vm)),
        ("VmLck", kb(stats.locked_vm)),
        ("VmPin", 0),
        ("VmHWM", kb(stats.hiwater_rss)),
        ("VmRSS", kb(stats.rss.total())),
        ("RssAnon", kb(stats.rss.anon)),
        ("RssFile", kb(stats.rss.file)),
        ("RssShmem", kb(stats.rss.shmem)),
        ("VmData", kb(stats.data_vm)),
        ("VmStk", kb(stats.stack_vm)),
        ("VmExe", kb(text)),
        ("VmLib", kb(stats.exec_vm.saturating_sub(text))),
        ("VmPTE", stats.pgtables_bytes / 1024),
        ("VmSwap", 0),
    ] {
        writeln!(out, "{name}:\t{value:>8} kB")?;
    }
    Ok(())
}
