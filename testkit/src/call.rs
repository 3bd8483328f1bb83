//! Operations and their results, as words.

/// What is done. The words are those of [`Call::args`], in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Op {
    /// addr, len, prot, flags, file (number plus one, 0 = none, [`READ_ONLY_FILE`]), offset → address.
    Map,
    /// addr, len.
    Unmap,
    /// addr, len, prot.
    Protect,
    /// old addr, old len, new len, flags, new addr → address.
    Remap,
    /// addr (0 asks) → the break.
    Brk,
    /// addr, len, advice.
    Advise,
    /// addr, len, flags.
    Sync,
    /// addr, len, flags of mlock2.
    Lock,
    /// addr, len.
    Unlock,
    /// flags.
    LockAll,
    /// None.
    UnlockAll,
    /// addr, len → bit i set if page i is resident. At most 64 pages.
    Mincore,
    /// addr, len. Loads every byte.
    Read,
    /// addr, byte, len. Stores to every byte.
    Write,
    /// addr, byte, len. Loads and compares every byte.
    Expect,
    /// addr. Calls it; a `ret` instruction (0xc3) must be there.
    Exec,
    /// file, offset, len, addr → bytes. Through a system call, into memory of the process.
    Pread,
    /// file, offset, len, addr → bytes.
    Pwrite,
    /// file, offset, byte, len. Reads the file and compares.
    FileExpect,
    /// file, offset, byte, len. Writes the file.
    FileWrite,
    /// file, size, pattern: a byte, or [`COUNT_PATTERN`]. By no process.
    FileCreate,
    /// file, size. By no process.
    FileTruncate,
    /// file → size. By no process.
    FileSize,
    /// number of the child.
    Fork,
    /// None.
    Exit,
    /// resource (`RLIMIT_*`), soft limit.
    Limit,
    /// addr, len → how many areas (lines of `/proc/self/maps`) share a byte with the range.
    Areas,
}

impl Op {
    /// All, in order of their numbers.
    pub const ALL: [Self; 27] = [
        Self::Map,
        Self::Unmap,
        Self::Protect,
        Self::Remap,
        Self::Brk,
        Self::Advise,
        Self::Sync,
        Self::Lock,
        Self::Unlock,
        Self::LockAll,
        Self::UnlockAll,
        Self::Mincore,
        Self::Read,
        Self::Write,
        Self::Expect,
        Self::Exec,
        Self::Pread,
        Self::Pwrite,
        Self::FileExpect,
        Self::FileWrite,
        Self::FileCreate,
        Self::FileTruncate,
        Self::FileSize,
        Self::Fork,
        Self::Exit,
        Self::Limit,
        Self::Areas,
    ];

    /// True for operations on files that no process does.
    pub const fn is_global(self) -> bool {
        matches!(self, Self::FileCreate | Self::FileTruncate | Self::FileSize)
    }
}

/// In the file word of [`Op::Map`]: the file is opened `O_RDONLY`.
pub const READ_ONLY_FILE: u64 = 1 << 32;
/// A pattern that fills page `i` (from 0) with byte `i + 1`.
pub const COUNT_PATTERN: u64 = 256;
/// Files that a scenario may name.
pub const MAX_FILES: usize = 8;
/// Processes that a scenario may name.
pub const MAX_PROCS: usize = 16;

/// The byte at `offset` of a file made with `pattern`.
pub const fn pattern_byte(pattern: u64, offset: u64) -> u8 {
    if pattern == COUNT_PATTERN {
        (offset / 4096 + 1) as u8
    } else {
        pattern as u8
    }
}

/// An operation with its words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// What.
    pub op: Op,
    /// With what; unused words are zero.
    pub args: [u64; 6],
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// Success, and the result if there is one.
    Done(u64),
    /// An error number of Linux, positive.
    Errno(i32),
    /// The access was answered by a signal. Nothing else changed.
    Signal {
        /// SIGSEGV or SIGBUS.
        number: i32,
        /// `si_code`.
        code: i32,
        /// `si_addr`.
        addr: u64,
    },
    /// A comparison failed.
    Differs {
        /// The address or file offset.
        at: u64,
        /// The byte there; `None` past the end of a file.
        found: Option<u8>,
    },
    /// The process was killed for lack of memory.
    OutOfMemory,
}

/// Whoever carries a scenario out: the simulator, or the kernel under this process.
pub trait Executor {
    /// Carries out `call` in process `proc`; process 0 exists from the start.
    ///
    /// # Errors
    /// A text, if the executor itself failed: the scenario says nothing about that.
    fn call(&mut self, proc: usize, call: &Call) -> Result<Reply, String>;
}
