//! A new program in a new address space.

use super::elf::{self, Header, Segment, Segments};
use crate::engine::Engine;
use crate::facade::{FileRef, MappingRef, MmRef, MmapRequest};
use vellum_types::{PAGE_SIZE, VirtAddr};

type Result<T> = core::result::Result<T, i32>;

/// The end of a program's addresses. The stub is above, and the host's vdso far above.
pub(super) const TASK_SIZE: u64 = crate::stub::STUB_BASE;
/// The end of the stack.
pub(super) const STACK_TOP: u64 = crate::space::RESIDENT_STACK.end;
/// Where a relocatable program is loaded: Linux's ELF_ET_DYN_BASE without randomisation.
const PROGRAM_BASE: u64 = 0x5555_5555_4000;
/// What a stack has before it grows.
pub(super) const STACK_SIZE: u64 = 33 * PAGE_SIZE;
/// Addresses kept for the stack: at least and at most.
const STACK_GAP: (u64, u64) = (128 << 20, 1 << 40);

const PRIVATE_FIXED: u32 = (libc::MAP_PRIVATE | libc::MAP_FIXED) as u32;
const ANONYMOUS: u32 = libc::MAP_ANONYMOUS as u32;

/// A program file that execve found good, with its headers.
#[derive(Debug)]
pub(super) struct Object<'m> {
    pub(super) mapping: MappingRef<'m>,
    pub(super) header: Header,
    pub(super) segments: Segments,
}

/// Where an object was loaded.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Loaded {
    /// What was added to its addresses.
    pub(super) bias: u64,
    pub(super) entry: u64,
    pub(super) code: (u64, u64),
    pub(super) data: (u64, u64),
    /// The first page after it.
    pub(super) end: u64,
}

fn page_up(at: u64) -> u64 {
    at.next_multiple_of(PAGE_SIZE)
}

/// The highest address for mappings, which leaves room for a stack of `limit` bytes.
pub(super) fn mmap_base(limit: u64) -> u64 {
    STACK_TOP
        - page_up(
            limit
                .saturating_add(1 << 20)
                .clamp(STACK_GAP.0, STACK_GAP.1),
        )
}

fn map<'m>(engine: &Engine<'m>, mm: &MmRef<'m>, request: MmapRequest<'m>) -> Result<u64> {
    engine.sys.mmap(mm, request).map_err(|error| error.errno())
}

fn anonymous<'m>(addr: u64, len: u64, prot: u32, flags: u32) -> MmapRequest<'m> {
    MmapRequest {
        addr,
        len,
        prot,
        flags: flags | ANONYMOUS,
        file: None,
        offset: 0,
    }
}

/// Maps the initial stack.
pub(super) fn map_stack<'m>(engine: &Engine<'m>, mm: &MmRef<'m>, executable: bool) -> Result<()> {
    let exec = if executable { libc::PROT_EXEC } else { 0 };
    let prot = (libc::PROT_READ | libc::PROT_WRITE | exec) as u32;
    let flags = PRIVATE_FIXED | (libc::MAP_GROWSDOWN | libc::MAP_STACK) as u32;
    map(
        engine,
        mm,
        anonymous(STACK_TOP - STACK_SIZE, STACK_SIZE, prot, flags),
    )
    .map(drop)
}

/// Maps the segments of `object`: a relocatable one at the program's usual address or, as
/// interpreter, where mmap would put it.
pub(super) fn load<'m>(
    engine: &Engine<'m>,
    mm: &MmRef<'m>,
    object: &Object<'m>,
    interpreter: bool,
) -> Result<Loaded> {
    let loads = &object.segments.loads;
    let (Some(first), Some(last)) = (loads.first(), loads.last()) else {
        return Err(libc::ENOEXEC);
    };
    let bias = if object.header.relocatable {
        let align = loads
            .iter()
            .map(|load| load.align)
            .fold(PAGE_SIZE, u64::max);
        let base = if interpreter {
            let span = page_up(last.end() - first.start());
            free_range(engine, mm, span, align)?
        } else {
            PROGRAM_BASE.next_multiple_of(align)
        };
        base.wrapping_sub(first.start())
    } else {
        0
    };
    let mut loaded = Loaded {
        bias,
        entry: object.header.entry.wrapping_add(bias),
        code: (u64::MAX, 0),
        data: (u64::MAX, 0),
        end: 0,
    };
    for load in loads {
        map_segment(engine, mm, object, load, bias)?;
        let start = load.address.wrapping_add(bias);
        let file_end = start + load.file_size;
        if load.flags & elf::EXECUTE != 0 {
            loaded.code = (loaded.code.0.min(start), loaded.code.1.max(file_end));
        }
        loaded.data = (start, loaded.data.1.max(file_end));
        loaded.end = loaded.end.max(page_up(start + load.memory_size));
    }
    Ok(loaded)
}

/// A free range: reserved and given back, which nobody can see in a new address space.
fn free_range<'m>(engine: &Engine<'m>, mm: &MmRef<'m>, len: u64, align: u64) -> Result<u64> {
    let slack = align - PAGE_SIZE;
    let request = anonymous(
        0,
        len + slack,
        libc::PROT_NONE as u32,
        libc::MAP_PRIVATE as u32,
    );
    let at = map(engine, mm, request)?;
    engine
        .sys
        .munmap(mm, at, len + slack)
        .map_err(|error| error.errno())?;
    Ok(at.next_multiple_of(align))
}

fn map_segment<'m>(
    engine: &Engine<'m>,
    mm: &MmRef<'m>,
    object: &Object<'m>,
    load: &Segment,
    bias: u64,
) -> Result<()> {
    let mut prot = 0;
    for (flag, bit) in [
        (elf::READ, libc::PROT_READ),
        (elf::WRITE, libc::PROT_WRITE),
        (elf::EXECUTE, libc::PROT_EXEC),
    ] {
        if load.flags & flag != 0 {
            prot |= bit as u32;
        }
    }
    let address = load.address.wrapping_add(bias);
    let start = load.start().wrapping_add(bias);
    let file_end = address + load.file_size;
    let memory_end = address + load.memory_size;
    let mut mapped_end = start;
    if load.file_size != 0 {
        let file = FileRef {
            mapping: object.mapping.clone(),
            readable: true,
            writable: false,
            exec_ok: true,
        };
        mapped_end = page_up(file_end);
        let request = MmapRequest {
            addr: start,
            len: mapped_end - start,
            prot,
            flags: PRIVATE_FIXED,
            file: Some(file),
            offset: load.offset - load.offset % PAGE_SIZE,
        };
        map(engine, mm, request)?;
    }
    if memory_end > mapped_end {
        let len = page_up(memory_end) - mapped_end;
        map(engine, mm, anonymous(mapped_end, len, prot, PRIVATE_FIXED))?;
    }
    // The rest of the last page of file content is part of bss.
    let tail = mapped_end.min(memory_end).saturating_sub(file_end);
    if load.file_size != 0 && tail != 0 && load.flags & elf::WRITE != 0 {
        let len = (mapped_end - file_end) as usize;
        let zeros = [0; PAGE_SIZE as usize];
        let to = VirtAddr::new(file_end);
        engine
            .sys
            .copy_to_user(mm, to, &zeros[..len])
            .map_err(|_| libc::EFAULT)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stack_has_room() {
        assert_eq!(mmap_base(8 << 20), STACK_TOP - (128 << 20));
        assert_eq!(mmap_base(1 << 30), STACK_TOP - ((1 << 30) + (1 << 20)));
        assert_eq!(mmap_base(u64::MAX), STACK_TOP - (1 << 40));
        assert!(mmap_base(u64::MAX) > PROGRAM_BASE);
    }
}
