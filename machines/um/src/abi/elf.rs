//! ELF headers of programs and interpreters, as far as execve(2) reads them.

use super::user::{half_at, word_at};
use vellum_types::PAGE_SIZE;

type Result<T> = core::result::Result<T, i32>;

/// Bytes of the file header.
pub(super) const HEADER: usize = 64;
/// Bytes of one program header.
pub(super) const PROGRAM_HEADER: usize = 56;
/// The longest name of an interpreter, with its NUL.
const INTERPRETER_MAX: u64 = 4096;

const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_PHDR: u32 = 6;
const PT_GNU_STACK: u32 = 0x6474_e551;

/// `PF_X`, `PF_W`, `PF_R`.
pub(super) const EXECUTE: u32 = 1;
pub(super) const WRITE: u32 = 2;
pub(super) const READ: u32 = 4;

/// The file header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) entry: u64,
    /// May be loaded anywhere.
    pub(super) relocatable: bool,
    pub(super) table: u64,
    pub(super) count: u16,
}

/// A part of the file to be mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Segment {
    pub(super) flags: u32,
    pub(super) offset: u64,
    pub(super) address: u64,
    pub(super) file_size: u64,
    pub(super) memory_size: u64,
    pub(super) align: u64,
}

impl Segment {
    /// The first page.
    pub(super) fn start(&self) -> u64 {
        self.address & !(PAGE_SIZE - 1)
    }
    /// One past the last byte.
    pub(super) fn end(&self) -> u64 {
        self.address + self.memory_size
    }
}

/// What the program headers say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Segments {
    pub(super) loads: Vec<Segment>,
    /// Where the name of the interpreter stands in the file, and its length with the NUL.
    pub(super) interpreter: Option<(u64, u64)>,
    /// Address of the program headers.
    pub(super) headers: Option<u64>,
    /// The stack may be executed, if it is said at all.
    pub(super) stack_flags: Option<u32>,
}

fn short(bytes: &[u8], at: usize) -> u16 {
    half_at(bytes, at) as u16
}

/// Reads the first [`HEADER`] bytes of a file.
///
/// # Errors
/// ENOEXEC if this is no program for x86-64.
pub(super) fn header(bytes: &[u8]) -> Result<Header> {
    let is_elf64 = bytes.len() >= HEADER && bytes.starts_with(b"\x7fELF\x02\x01");
    if !is_elf64 || short(bytes, 18) != EM_X86_64 {
        return Err(libc::ENOEXEC);
    }
    let kind = short(bytes, 16);
    let count = short(bytes, 56);
    let fits = (1..=65536 / PROGRAM_HEADER).contains(&usize::from(count));
    if !matches!(kind, ET_EXEC | ET_DYN) || usize::from(short(bytes, 54)) != PROGRAM_HEADER || !fits
    {
        return Err(libc::ENOEXEC);
    }
    Ok(Header {
        entry: word_at(bytes, 24),
        relocatable: kind == ET_DYN,
        table: word_at(bytes, 32),
        count,
    })
}

/// Reads the program headers.
///
/// # Errors
/// ENOEXEC for nonsense, EINVAL for segments that cannot be mapped.
pub(super) fn segments(header: &Header, table: &[u8]) -> Result<Segments> {
    if table.len() < usize::from(header.count) * PROGRAM_HEADER {
        return Err(libc::ENOEXEC);
    }
    let mut found = Segments::default();
    for row in table
        .chunks_exact(PROGRAM_HEADER)
        .take(usize::from(header.count))
    {
        let segment = Segment {
            flags: half_at(row, 4),
            offset: word_at(row, 8),
            address: word_at(row, 16),
            file_size: word_at(row, 32),
            memory_size: word_at(row, 40),
            align: word_at(row, 48),
        };
        match half_at(row, 0) {
            PT_LOAD => add_load(&mut found.loads, segment)?,
            PT_INTERP if found.interpreter.is_none() => {
                if !(2..=INTERPRETER_MAX).contains(&segment.file_size) {
                    return Err(libc::ENOEXEC);
                }
                found.interpreter = Some((segment.offset, segment.file_size));
            }
            PT_PHDR => found.headers = Some(segment.address),
            PT_GNU_STACK => found.stack_flags = Some(segment.flags),
            _ => {}
        }
    }
    if found.loads.is_empty() {
        return Err(libc::ENOEXEC);
    }
    // Without PT_PHDR: the segment that the table lies in.
    found.headers = found.headers.or_else(|| {
        let holds =
            |s: &&Segment| s.offset <= header.table && header.table < s.offset + s.file_size;
        found
            .loads
            .iter()
            .find(holds)
            .map(|s| header.table - s.offset + s.address)
    });
    Ok(found)
}

fn add_load(loads: &mut Vec<Segment>, segment: Segment) -> Result<()> {
    if segment.memory_size == 0 {
        return Ok(());
    }
    let end = segment.address.checked_add(segment.memory_size);
    let in_file = segment.offset.checked_add(segment.file_size);
    let sound = segment.file_size <= segment.memory_size
        && end.is_some_and(|end| end <= super::image::TASK_SIZE)
        && in_file.is_some_and(|end| end <= i64::MAX as u64)
        && (segment.align <= 1 || segment.align.is_power_of_two())
        && loads
            .last()
            .is_none_or(|last| last.end() <= segment.address);
    if !sound {
        return Err(libc::ENOEXEC);
    }
    if segment.offset % PAGE_SIZE != segment.address % PAGE_SIZE {
        return Err(libc::EINVAL);
    }
    loads.push(segment);
    Ok(())
}

/// The line after `#!`: the interpreter, and its one argument if there is one.
///
/// `start` is the beginning of the file, at most 256 bytes as Linux reads.
///
/// # Errors
/// ENOEXEC if no interpreter is named or its name may be cut off.
pub(super) fn script(start: &[u8]) -> Result<(&[u8], Option<&[u8]>)> {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let text = start.strip_prefix(b"#!").ok_or(libc::ENOEXEC)?;
    let (line, whole) = match text.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&text[..end], true),
        // A file that ends without a newline is whole; a longer line is not.
        None => (text, start.len() < 256),
    };
    let line = line.split(|byte| *byte == 0).next().unwrap_or(line);
    let line = trim(line, blank);
    let end = line.iter().position(&blank).unwrap_or(line.len());
    if end == 0 || (end == line.len() && !whole) {
        return Err(libc::ENOEXEC);
    }
    let argument = trim(&line[end..], blank);
    Ok((&line[..end], (!argument.is_empty()).then_some(argument)))
}

fn trim(mut bytes: &[u8], blank: impl Fn(&u8) -> bool) -> &[u8] {
    while let [first, rest @ ..] = bytes
        && blank(first)
    {
        bytes = rest;
    }
    while let [rest @ .., last] = bytes
        && blank(last)
    {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(kind: u16, machine: u16, count: u16) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[16..18].copy_from_slice(&kind.to_le_bytes());
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[24..32].copy_from_slice(&0x1040u64.to_le_bytes());
        bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&count.to_le_bytes());
        bytes
    }

    fn row(kind: u32, flags: u32, words: [u64; 6]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(kind.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        for word in words {
            bytes.extend(word.to_le_bytes());
        }
        bytes
    }

    /// Offset, address, size in file and in memory.
    fn load(offset: u64, address: u64, file: u64, memory: u64) -> Vec<u8> {
        row(PT_LOAD, READ, [offset, address, 0, file, memory, 4096])
    }

    #[test]
    fn headers() {
        let good = header(&file(ET_DYN, EM_X86_64, 3)).unwrap();
        assert_eq!(
            good,
            Header {
                entry: 0x1040,
                relocatable: true,
                table: 64,
                count: 3
            }
        );
        assert!(!header(&file(ET_EXEC, EM_X86_64, 3)).unwrap().relocatable);
        for bad in [
            Vec::new(),
            vec![0; 64],
            b"\x7fELF".to_vec(),
            file(1, EM_X86_64, 3),
            file(ET_DYN, 3, 3),
            file(ET_DYN, EM_X86_64, 0),
            file(ET_DYN, EM_X86_64, 2000),
        ] {
            assert_eq!(header(&bad), Err(libc::ENOEXEC));
        }
        let mut class32 = file(ET_DYN, EM_X86_64, 3);
        class32[4] = 1;
        assert_eq!(header(&class32), Err(libc::ENOEXEC));
    }

    #[test]
    fn program_headers() {
        let parse = |rows: &[Vec<u8>]| {
            let head = header(&file(ET_DYN, EM_X86_64, rows.len() as u16)).unwrap();
            segments(&head, &rows.concat())
        };
        let good = parse(&[
            row(PT_INTERP, READ, [0x200, 0x200, 0, 28, 28, 1]),
            load(0, 0, 0x1000, 0x1000),
            load(0x1000, 0x2000, 0x10, 0x3000),
            row(PT_GNU_STACK, READ | WRITE, [0; 6]),
        ])
        .unwrap();
        assert_eq!(good.loads.len(), 2);
        assert_eq!(good.interpreter, Some((0x200, 28)));
        assert_eq!(good.headers, Some(64));
        assert_eq!(good.stack_flags, Some(READ | WRITE));

        assert_eq!(
            parse(&[row(0, 0, [0; 6])]),
            Err(libc::ENOEXEC),
            "nothing to load"
        );
        assert_eq!(
            parse(&[load(0, 0, 2, 1)]),
            Err(libc::ENOEXEC),
            "more file than memory"
        );
        assert_eq!(
            parse(&[load(0, u64::MAX - 5, 1, 10)]),
            Err(libc::ENOEXEC),
            "wraps"
        );
        assert_eq!(
            parse(&[load(u64::MAX, 0xfff, 1, 10)]),
            Err(libc::ENOEXEC),
            "past any file"
        );
        assert_eq!(
            parse(&[load(1, 0, 1, 1)]),
            Err(libc::EINVAL),
            "cannot be mapped"
        );
        let descending = [load(0, 0x5000, 1, 1), load(0, 0x1000, 1, 1)];
        assert_eq!(parse(&descending), Err(libc::ENOEXEC));
        let long = row(PT_INTERP, READ, [0, 0, 0, 5000, 5000, 1]);
        assert_eq!(parse(&[long, load(0, 0, 1, 1)]), Err(libc::ENOEXEC));
        let head = header(&file(ET_DYN, EM_X86_64, 4)).unwrap();
        assert_eq!(
            segments(&head, &load(0, 0, 1, 1)),
            Err(libc::ENOEXEC),
            "cut off"
        );
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut state = 0x2545_f491_4f6c_dd1du64;
        for _ in 0..20_000 {
            let mut bytes = file(ET_DYN, EM_X86_64, 4);
            let mut table = load(0, 0, 0x1000, 0x1000).repeat(4);
            for _ in 0..8 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let at = (state >> 8) as usize;
                bytes[at % HEADER] = state as u8;
                let len = table.len();
                table[(at >> 16) % len] = state as u8;
            }
            if let Ok(head) = header(&bytes) {
                let _ = segments(&head, &table);
            }
        }
    }

    #[test]
    fn scripts() {
        let check = |text: &str, want: Option<(&str, Option<&str>)>| {
            let want = want.map(|(name, arg)| (name.as_bytes(), arg.map(str::as_bytes)));
            assert_eq!(script(text.as_bytes()).ok(), want, "{text:?}");
        };
        check("#!/bin/sh\necho", Some(("/bin/sh", None)));
        check("#! /bin/sh -e \t x \n", Some(("/bin/sh", Some("-e \t x"))));
        check("#!/bin/sh", Some(("/bin/sh", None)));
        check("#!\n", None);
        check("#!   \n/bin/sh", None);
        check("#/bin/sh\n", None);
        check("", None);
        check(&format!("#!/{}", "x".repeat(300))[..256], None);
        let long = format!("#!/bin/sh {}", "x".repeat(300));
        check(&long[..256], Some(("/bin/sh", Some(&"x".repeat(246)))));
    }
}
