//! The first words on a program's stack.
//!
//! ```text
//!   top   8 zero bytes
//!         path of the program        ◀─ AT_EXECFN
//!         environment strings
//!         argument strings
//!         "x86_64", 16 random bytes  ◀─ AT_PLATFORM, AT_RANDOM
//!         auxiliary vector, ends with AT_NULL
//!         environment pointers, 0
//!         argument pointers, 0
//!   sp ▶  argument count             (16-byte aligned)
//! ```

/// What the auxiliary vector tells besides what the stack itself knows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    pub(super) headers: u64,
    pub(super) header_count: u64,
    /// Where the interpreter is loaded; zero without one.
    pub(super) base: u64,
    pub(super) entry: u64,
    /// Real, effective.
    pub(super) user: [u64; 2],
    pub(super) group: [u64; 2],
    pub(super) hwcap: u64,
    pub(super) hwcap2: u64,
    pub(super) signal_stack: u64,
    pub(super) random: [u8; 16],
}

/// A finished stack.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Stack {
    /// The stack pointer; `bytes` begin here.
    pub(super) sp: u64,
    pub(super) bytes: Vec<u8>,
    /// Address of the value of AT_SYSINFO_EHDR.
    pub(super) vdso_slot: u64,
    pub(super) arguments: (u64, u64),
    pub(super) environment: (u64, u64),
}

/// Lays the stack out below `top`, a page boundary.
pub(super) fn stack(
    top: u64,
    path: &[u8],
    arguments: &[Vec<u8>],
    environment: &[Vec<u8>],
    facts: &Facts,
) -> Stack {
    let mut strings = Strings {
        at: top - 8,
        pieces: Vec::new(),
    };
    let path_at = strings.push(path);
    let environment_end = path_at;
    let environment_at = strings.push_all(environment);
    let arguments_end = strings.at;
    let arguments_at = strings.push_all(arguments);
    let arguments_start = strings.at;
    let platform = strings.push(b"x86_64");
    let random = strings.at - 16;
    let vector: [(u64, u64); 21] = [
        (libc::AT_SYSINFO_EHDR, 0),
        (libc::AT_HWCAP, facts.hwcap),
        (libc::AT_PAGESZ, vellum_types::PAGE_SIZE),
        (libc::AT_CLKTCK, 100),
        (libc::AT_PHDR, facts.headers),
        (libc::AT_PHENT, super::elf::PROGRAM_HEADER as u64),
        (libc::AT_PHNUM, facts.header_count),
        (libc::AT_BASE, facts.base),
        (libc::AT_FLAGS, 0),
        (libc::AT_ENTRY, facts.entry),
        (libc::AT_UID, facts.user[0]),
        (libc::AT_EUID, facts.user[1]),
        (libc::AT_GID, facts.group[0]),
        (libc::AT_EGID, facts.group[1]),
        (libc::AT_SECURE, 0),
        (libc::AT_RANDOM, random),
        (libc::AT_HWCAP2, facts.hwcap2),
        (libc::AT_MINSIGSTKSZ, facts.signal_stack),
        (libc::AT_EXECFN, path_at),
        (libc::AT_PLATFORM, platform),
        (libc::AT_NULL, 0),
    ];
    let words = 1 + arguments.len() + 1 + environment.len() + 1 + 2 * vector.len();
    let sp = (random - 8 * words as u64) & !15;

    let mut list = vec![arguments.len() as u64];
    list.extend(&arguments_at);
    list.push(0);
    list.extend(&environment_at);
    list.push(0);
    let vdso_slot = sp + 8 * list.len() as u64 + 8;
    list.extend(vector.iter().flat_map(|(key, value)| [*key, *value]));

    let mut bytes = vec![0; (top - sp) as usize];
    let mut put = |at: u64, piece: &[u8]| {
        let from = (at - sp) as usize;
        bytes[from..from + piece.len()].copy_from_slice(piece);
    };
    for (i, word) in list.iter().enumerate() {
        put(sp + 8 * i as u64, &word.to_le_bytes());
    }
    put(random, &facts.random);
    for (at, piece) in &strings.pieces {
        put(*at, piece);
    }
    Stack {
        sp,
        bytes,
        vdso_slot,
        arguments: (arguments_start, arguments_end),
        environment: (arguments_end, environment_end),
    }
}

/// Bytes that the strings and pointers of a program take at most.
pub(super) fn size(path: &[u8], arguments: &[Vec<u8>], environment: &[Vec<u8>]) -> u64 {
    let strings = arguments
        .iter()
        .chain(environment)
        .map(|s| s.len() as u64 + 1 + 8);
    strings.sum::<u64>() + path.len() as u64 + 1024
}

struct Strings<'a> {
    at: u64,
    pieces: Vec<(u64, &'a [u8])>,
}

impl<'a> Strings<'a> {
    /// Puts a string, with a NUL, below the others.
    fn push(&mut self, string: &'a [u8]) -> u64 {
        self.at -= string.len() as u64 + 1;
        self.pieces.push((self.at, string));
        self.at
    }
    /// Puts strings so that they ascend, and says where each is.
    fn push_all(&mut self, strings: &'a [Vec<u8>]) -> Vec<u64> {
        let mut at: Vec<u64> = strings
            .iter()
            .rev()
            .map(|string| self.push(string))
            .collect();
        at.reverse();
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::user::word_at;

    fn string_at(stack: &Stack, at: u64) -> &[u8] {
        let bytes = &stack.bytes[(at - stack.sp) as usize..];
        &bytes[..bytes.iter().position(|byte| *byte == 0).unwrap()]
    }

    #[test]
    fn the_stack_is_as_the_abi_says() {
        let arguments: Vec<Vec<u8>> = vec![b"prog".to_vec(), b"one".to_vec()];
        let environment: Vec<Vec<u8>> = vec![b"A=1".to_vec(), b"B=2".to_vec(), b"".to_vec()];
        let facts = Facts {
            entry: 77,
            random: [9; 16],
            header_count: 13,
            ..Facts::default()
        };
        let top = 0x7000_0000;
        let stack = stack(top, b"/bin/prog", &arguments, &environment, &facts);
        assert_eq!(stack.sp % 16, 0);
        assert_eq!(stack.sp + stack.bytes.len() as u64, top);
        let word = |i: usize| word_at(&stack.bytes, i * 8);
        assert_eq!(word(0), 2);
        assert_eq!(string_at(&stack, word(1)), b"prog");
        assert_eq!(string_at(&stack, word(2)), b"one");
        assert_eq!(word(3), 0);
        assert_eq!(string_at(&stack, word(4)), b"A=1");
        assert_eq!(string_at(&stack, word(6)), b"");
        assert_eq!(word(7), 0);
        assert_eq!(word(8), libc::AT_SYSINFO_EHDR);
        assert_eq!(stack.vdso_slot, stack.sp + 9 * 8);
        let value = |key| {
            (8..)
                .step_by(2)
                .find(|i| word(*i) == key)
                .map(|i| word(i + 1))
                .unwrap()
        };
        assert_eq!(value(libc::AT_ENTRY), 77);
        assert_eq!(value(libc::AT_PHNUM), 13);
        assert_eq!(string_at(&stack, value(libc::AT_EXECFN)), b"/bin/prog");
        assert_eq!(string_at(&stack, value(libc::AT_PLATFORM)), b"x86_64");
        let random = (value(libc::AT_RANDOM) - stack.sp) as usize;
        assert_eq!(stack.bytes[random..random + 16], [9; 16]);
        // Arguments and environment lie together, as /proc/PID/cmdline and environ need them.
        let (start, end) = stack.arguments;
        let range = (start - stack.sp) as usize..(end - stack.sp) as usize;
        assert_eq!(&stack.bytes[range], b"prog\0one\0");
        let (start, end) = stack.environment;
        let range = (start - stack.sp) as usize..(end - stack.sp) as usize;
        assert_eq!(&stack.bytes[range], b"A=1\0B=2\0\0");
        assert!(stack.bytes.len() as u64 <= size(b"/bin/prog", &arguments, &environment));
    }
}
