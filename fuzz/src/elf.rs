//! Headers of programs, which anybody may have written. The parser is that of `machines/um`, compiled
//! here from its file: it is not public there.

use crate::input::Input;

/// What the parser uses of its neighbour.
mod user {
    fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
        let found = bytes
            .get(at..at + N)
            .and_then(|found| found.try_into().ok());
        found.unwrap_or([0; N])
    }
    pub(super) fn word_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes_at(bytes, at))
    }
    pub(super) fn half_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes_at(bytes, at))
    }
}

mod image {
    pub(super) const TASK_SIZE: u64 = 0x7fff_ffff_f000;
}

#[allow(dead_code, reason = "only what parses is called")]
#[path = "../../machines/um/src/abi/elf.rs"]
mod parser;

use parser::{HEADER, PROGRAM_HEADER};

/// Parses a file of headers alone, or the first line of a script; what is accepted must be sane.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut head = [0; HEADER];
    if input.one_in(4) {
        let text = input.rest();
        if let Ok((name, argument)) = parser::script(text) {
            assert!(!name.is_empty() && !name.contains(&b' ') && !name.contains(&b'\n'));
            assert!(argument.is_none_or(|text| !text.is_empty() && !text.contains(&b'\n')));
        }
        return;
    }
    // What every program has, so that the fuzzer need not find it; then single bytes of it change.
    head[..6].copy_from_slice(b"\x7fELF\x02\x01");
    head[16] = 2 + input.below(2) as u8;
    head[18] = 62;
    head[32] = HEADER as u8;
    head[54] = PROGRAM_HEADER as u8;
    head[56] = input.byte();
    for _ in 0..input.below(4) {
        head[input.below(HEADER as u64) as usize] = input.byte();
    }
    let Ok(header) = parser::header(&head) else {
        return;
    };
    assert!(header.count > 0 && usize::from(header.count) * PROGRAM_HEADER <= 65536);
    let Ok(found) = parser::segments(&header, input.rest()) else {
        return;
    };
    assert!(!found.loads.is_empty());
    let mut below = 0;
    for segment in &found.loads {
        assert!(segment.file_size <= segment.memory_size);
        assert!(segment.end() >= segment.address, "wraps");
        assert!(segment.address >= below, "not in order");
        assert_eq!(
            segment.address % 4096,
            segment.offset % 4096,
            "cannot be mapped"
        );
        below = segment.address;
    }
    if let Some((_, len)) = found.interpreter {
        assert!((2..=4096).contains(&len));
    }
}
