//! Programs: ELF files for x86-64 that need no interpreter. Source: elf(5), `fs/binfmt_elf.c`.

use crate::bytes::{array, u16_at, u32_at, u64_at};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Bytes of the file that must be read to see all headers that this reader accepts.
pub const HEAD_BYTES: usize = 4096;

const FILE_HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_GNU_STACK: u32 = 0x6474_e551;
const PAGE: u64 = 4096;
const TASK_SIZE: u64 = 0x7fff_ffff_f000;

/// A part of the file that is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// First byte in memory, before relocation.
    pub address: u64,
    /// Bytes in memory.
    pub memory_size: u64,
    /// First byte in the file.
    pub offset: u64,
    /// Bytes in the file; the rest is zero.
    pub file_size: u64,
    /// `PROT_*`.
    pub prot: u32,
}

/// What execve(2) needs to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program {
    /// First instruction, before relocation.
    pub entry: u64,
    /// May be loaded anywhere: a static PIE.
    pub relocatable: bool,
    /// Address of the program headers in memory, before relocation; 0 if no segment shows them.
    pub headers_at: u64,
    /// How many program headers there are.
    pub headers: u16,
    /// In order of address.
    pub segments: Vec<Segment>,
    /// The stack may hold code.
    pub executable_stack: bool,
}

/// Why a file is no program for this kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ElfError {
    /// Not an ELF file at all.
    NotElf,
    /// For another processor, or not a program.
    Foreign(&'static str),
    /// Broken.
    Corrupt(&'static str),
    /// Needs this interpreter.
    Dynamic(String),
}

impl ElfError {
    /// What execve(2) answers.
    pub const fn errno(&self) -> i32 {
        match self {
            Self::Dynamic(_) => 2, // ENOENT: as if the interpreter were missing, and so it is
            _ => 8,                // ENOEXEC
        }
    }
}

impl fmt::Display for ElfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotElf => f.write_str("not an ELF file"),
            Self::Foreign(what) => write!(f, "not a program for x86-64: {what}"),
            Self::Corrupt(what) => write!(f, "corrupt ELF file: {what}"),
            Self::Dynamic(interpreter) => write!(
                f,
                "dynamically linked: it needs {interpreter}; only static programs run here"
            ),
        }
    }
}

/// Reads the headers. `head` is the start of the file, at least [`HEAD_BYTES`] of it if it has that
/// many; `file_size` is the whole.
///
/// # Errors
/// See [`ElfError`].
pub fn parse(head: &[u8], file_size: u64) -> Result<Program, ElfError> {
    if array::<4>(head, 0) != Some(*b"\x7fELF") {
        return Err(ElfError::NotElf);
    }
    let cut = || ElfError::Corrupt("the file header is cut short");
    if head.get(4..6) != Some(&[2, 1]) {
        return Err(ElfError::Foreign("not 64-bit little-endian"));
    }
    let kind = u16_at(head, 16).ok_or_else(cut)?;
    if u16_at(head, 18).ok_or_else(cut)? != EM_X86_64 {
        return Err(ElfError::Foreign("another processor"));
    }
    if kind != ET_EXEC && kind != ET_DYN {
        return Err(ElfError::Foreign("not an executable"));
    }
    if head.len() < FILE_HEADER {
        return Err(cut());
    }
    let entry = u64_at(head, 24).ok_or_else(cut)?;
    let table = u64_at(head, 32).ok_or_else(cut)?;
    let size = u16_at(head, 54).ok_or_else(cut)?;
    let headers = u16_at(head, 56).ok_or_else(cut)?;
    if usize::from(size) != PROGRAM_HEADER || headers == 0 {
        return Err(ElfError::Corrupt("no program headers of the usual size"));
    }
    let at = usize::try_from(table).map_err(|_| cut())?;
    let rows = at
        .checked_add(usize::from(headers) * PROGRAM_HEADER)
        .and_then(|end| head.get(at..end))
        .ok_or(ElfError::Corrupt(
            "program headers outside of the first page",
        ))?;
    let mut program = Program {
        entry,
        relocatable: kind == ET_DYN,
        headers_at: 0,
        headers,
        segments: Vec::new(),
        executable_stack: false,
    };
    for row in rows.chunks_exact(PROGRAM_HEADER) {
        read_row(row, head, file_size, &mut program)?;
    }
    check(&mut program, table)?;
    Ok(program)
}

fn read_row(
    row: &[u8],
    head: &[u8],
    file_size: u64,
    program: &mut Program,
) -> Result<(), ElfError> {
    let word = |at| u64_at(row, at).ok_or(ElfError::Corrupt("a program header is cut short"));
    let flags = u32_at(row, 4).unwrap_or(0);
    let offset = word(8)?;
    let size = word(32)?;
    match u32_at(row, 0).unwrap_or(0) {
        PT_LOAD => {
            let segment = Segment {
                address: word(16)?,
                memory_size: word(40)?,
                offset,
                file_size: size,
                // PF_R, PF_W, PF_X against PROT_READ, PROT_WRITE, PROT_EXEC.
                prot: (flags >> 2 & 1) | (flags & 2) | (flags & 1) << 2,
            };
            if segment.memory_size == 0 {
                return Ok(());
            }
            if segment.file_size > segment.memory_size {
                return Err(ElfError::Corrupt(
                    "a segment is larger in the file than in memory",
                ));
            }
            if segment.file_size > 0
                && segment
                    .offset
                    .checked_add(size)
                    .is_none_or(|end| end > file_size)
            {
                return Err(ElfError::Corrupt(
                    "a segment reaches past the end of the file",
                ));
            }
            if segment.address % PAGE != segment.offset % PAGE && segment.file_size > 0 {
                return Err(ElfError::Corrupt(
                    "a segment is not aligned to its file offset",
                ));
            }
            program.segments.push(segment);
        }
        PT_INTERP => {
            let name = usize::try_from(offset)
                .ok()
                .and_then(|at| head.get(at..at.checked_add(size as usize)?))
                .unwrap_or(b"an interpreter outside of the first page");
            let name: Vec<u8> = name.iter().copied().take_while(|&b| b != 0).collect();
            return Err(ElfError::Dynamic(
                String::from_utf8_lossy(&name).into_owned(),
            ));
        }
        PT_GNU_STACK => program.executable_stack = flags & 1 != 0,
        _ => {}
    }
    Ok(())
}

fn check(program: &mut Program, table: u64) -> Result<(), ElfError> {
    program.segments.sort_by_key(|segment| segment.address);
    let mut last = 0;
    for segment in &program.segments {
        let end = segment
            .address
            .checked_add(segment.memory_size)
            .filter(|&end| end <= TASK_SIZE)
            .ok_or(ElfError::Corrupt("a segment lies outside of user space"))?;
        if segment.address < last {
            return Err(ElfError::Corrupt("segments overlap"));
        }
        last = end;
        if table >= segment.offset && table < segment.offset + segment.file_size {
            program.headers_at = segment.address + (table - segment.offset);
        }
    }
    if program.segments.is_empty() {
        return Err(ElfError::Corrupt("nothing to load"));
    }
    let entry = program.entry;
    let inside = |s: &Segment| entry >= s.address && entry - s.address < s.memory_size;
    if !program.segments.iter().any(inside) {
        return Err(ElfError::Corrupt("the entry point lies in no segment"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn header(kind: u16, rows: &[(u32, u32, u64, u64, u64, u64)]) -> Vec<u8> {
        let mut bytes = vec![0; FILE_HEADER];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[16..18].copy_from_slice(&kind.to_le_bytes());
        bytes[18..20].copy_from_slice(&EM_X86_64.to_le_bytes());
        bytes[24..32].copy_from_slice(&0x40_1000u64.to_le_bytes());
        bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&(rows.len() as u16).to_le_bytes());
        for (kind, flags, offset, address, file, memory) in rows {
            bytes.extend_from_slice(&kind.to_le_bytes());
            bytes.extend_from_slice(&flags.to_le_bytes());
            for word in [offset, address, address, file, memory, &PAGE] {
                bytes.extend_from_slice(&word.to_le_bytes());
            }
        }
        bytes
    }

    const TEXT: (u32, u32, u64, u64, u64, u64) = (PT_LOAD, 5, 0, 0x40_0000, 0x2000, 0x2000);

    #[test]
    fn a_static_program_is_read() {
        let bytes = header(
            ET_EXEC,
            &[TEXT, (PT_LOAD, 6, 0x2000, 0x40_3000, 0x10, 0x5000)],
        );
        let program = parse(&bytes, 0x3000).unwrap();
        assert_eq!((program.entry, program.headers_at), (0x40_1000, 0x40_0040));
        assert_eq!(program.segments[0].prot, 5);
        assert_eq!(program.segments[1].prot, 3);
    }

    #[test]
    fn a_dynamic_program_names_its_interpreter() {
        let mut bytes = header(ET_DYN, &[TEXT, (PT_INTERP, 4, 176, 0, 28, 28)]);
        bytes.extend_from_slice(b"/lib64/ld-linux-x86-64.so.2\0");
        let error = parse(&bytes, 0x3000).unwrap_err();
        assert_eq!(
            error,
            ElfError::Dynamic("/lib64/ld-linux-x86-64.so.2".into())
        );
    }

    #[test]
    fn broken_files_are_refused_with_a_reason() {
        assert_eq!(parse(b"#!/bin/sh", 9), Err(ElfError::NotElf));
        let short = header(ET_EXEC, &[TEXT]);
        let past = ElfError::Corrupt("a segment reaches past the end of the file");
        assert_eq!(parse(&short, 0x1000), Err(past));
        let overlap = header(ET_EXEC, &[TEXT, (PT_LOAD, 6, 0, 0x40_1000, 0, 0x1000)]);
        assert_eq!(
            parse(&overlap, 0x9000),
            Err(ElfError::Corrupt("segments overlap"))
        );
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let good = header(ET_EXEC, &[TEXT, (PT_INTERP, 4, 0, 0, 28, 28)]);
        let mut state = 1u32;
        for _ in 0..200_000 {
            let mut bytes = good.clone();
            for _ in 0..3 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = (state >> 8) as usize % bytes.len();
                bytes[at] = state as u8;
            }
            bytes.truncate(bytes.len() - (state >> 28) as usize);
            let _ = parse(&bytes, 0x3000);
        }
    }
}
