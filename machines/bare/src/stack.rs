//! The first stack of a program: arguments, environment, auxiliary vector. Source:
//! `create_elf_tables` in `fs/binfmt_elf.c`, System V ABI for AMD64, chapter 3.4.

use alloc::vec::Vec;

/// Where execve(2) put the program, for the auxiliary vector.
#[derive(Clone, Copy, Debug)]
pub struct Loaded {
    /// First instruction.
    pub entry: u64,
    /// Address of the program headers.
    pub headers_at: u64,
    /// How many there are.
    pub headers: u16,
}

/// The bytes of a stack and where its parts are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stack {
    /// The stack pointer; `bytes` lie from here up to the top.
    pub pointer: u64,
    /// What to write there.
    pub bytes: Vec<u8>,
    /// Arguments: start and end.
    pub arguments: (u64, u64),
    /// Environment: start and end.
    pub environment: (u64, u64),
}

const AT_NULL: u64 = 0;
const AT_PHDR: u64 = 3;
const AT_PHENT: u64 = 4;
const AT_PHNUM: u64 = 5;
const AT_PAGESZ: u64 = 6;
const AT_BASE: u64 = 7;
const AT_FLAGS: u64 = 8;
const AT_ENTRY: u64 = 9;
const AT_UID: u64 = 11;
const AT_EUID: u64 = 12;
const AT_GID: u64 = 13;
const AT_EGID: u64 = 14;
const AT_PLATFORM: u64 = 15;
const AT_CLKTCK: u64 = 17;
const AT_SECURE: u64 = 23;
const AT_RANDOM: u64 = 25;
const AT_EXECFN: u64 = 31;
const AT_MINSIGSTKSZ: u64 = 51;

/// Lays a stack out below `top`.
pub fn build(
    top: u64,
    arguments: &[Vec<u8>],
    environment: &[Vec<u8>],
    path: &[u8],
    loaded: Loaded,
    random: [u8; 16],
) -> Stack {
    // Strings from the top down, as Linux has them: 8 zero bytes, the path, environment, arguments.
    let mut strings: Vec<u8> = Vec::new();
    let mut put = |text: &[u8]| {
        let at = strings.len();
        strings.extend_from_slice(text);
        strings.push(0);
        at
    };
    let argument_at: Vec<usize> = arguments.iter().map(|a| put(a)).collect();
    let environment_at: Vec<usize> = environment.iter().map(|e| put(e)).collect();
    let path_at = put(path);
    let arguments_end = environment_at.first().copied().unwrap_or(path_at);
    let size = strings.len() as u64 + 8;
    let base = (top - size) & !15;
    let platform = base - 16;
    let random_at = platform - 16;
    let mut words: Vec<u64> = Vec::new();
    words.push(arguments.len() as u64);
    words.extend(argument_at.iter().map(|&at| base + at as u64));
    words.push(0);
    words.extend(environment_at.iter().map(|&at| base + at as u64));
    words.push(0);
    for (key, value) in [
        (AT_MINSIGSTKSZ, 1776),
        (AT_PAGESZ, 4096),
        (AT_CLKTCK, 100),
        (AT_PHDR, loaded.headers_at),
        (AT_PHENT, 56),
        (AT_PHNUM, u64::from(loaded.headers)),
        (AT_BASE, 0),
        (AT_FLAGS, 0),
        (AT_ENTRY, loaded.entry),
        (AT_UID, 0),
        (AT_EUID, 0),
        (AT_GID, 0),
        (AT_EGID, 0),
        (AT_SECURE, 0),
        (AT_RANDOM, random_at),
        (AT_EXECFN, base + path_at as u64),
        (AT_PLATFORM, platform),
        (AT_NULL, 0),
    ] {
        words.extend([key, value]);
    }
    let pointer = (random_at - words.len() as u64 * 8) & !15;
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.resize((random_at - pointer) as usize, 0);
    bytes.extend_from_slice(&random);
    bytes.extend_from_slice(b"x86_64\0\0\0\0\0\0\0\0\0\0");
    bytes.extend_from_slice(&strings);
    Stack {
        pointer,
        bytes,
        arguments: (base, base + arguments_end as u64),
        environment: (base + arguments_end as u64, base + path_at as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::u64_at;
    use alloc::vec;

    #[test]
    fn a_program_finds_its_arguments() {
        let loaded = Loaded {
            entry: 0x40_1000,
            headers_at: 0x40_0040,
            headers: 4,
        };
        let top = 0x7fff_ffff_e000;
        let stack = build(
            top,
            &[b"prog".to_vec(), b"x".to_vec()],
            &[b"A=b".to_vec()],
            b"/prog",
            loaded,
            [7; 16],
        );
        assert_eq!(stack.pointer % 16, 0);
        assert!(stack.pointer + stack.bytes.len() as u64 <= top);
        let word = |n: usize| u64_at(&stack.bytes, n * 8).unwrap();
        let text = |at: u64| {
            let from = (at - stack.pointer) as usize;
            let bytes = &stack.bytes[from..];
            bytes[..bytes.iter().position(|b| *b == 0).unwrap()].to_vec()
        };
        assert_eq!(word(0), 2);
        assert_eq!(text(word(1)), b"prog");
        assert_eq!(text(word(2)), b"x");
        assert_eq!(word(3), 0);
        assert_eq!(text(word(4)), b"A=b");
        assert_eq!(word(5), 0);
        let auxv: Vec<_> = (0..18)
            .map(|n| (word(6 + 2 * n), word(7 + 2 * n)))
            .collect();
        let random = auxv.iter().find(|(key, _)| *key == AT_RANDOM).unwrap().1;
        assert_eq!(stack.bytes[(random - stack.pointer) as usize], 7);
        let path = auxv.iter().find(|(key, _)| *key == AT_EXECFN).unwrap().1;
        assert_eq!(text(path), b"/prog");
        assert_eq!(auxv.last(), Some(&(AT_NULL, 0)));
        assert_eq!(vec![stack.arguments.0], vec![word(1)]);
    }
}
