//! Linux's numbers for x86-64, by name.

/// `SIGBUS`.
pub const SIGBUS: i32 = 7;
/// `SIGSEGV`.
pub const SIGSEGV: i32 = 11;
/// `SEGV_MAPERR`: nothing is mapped there.
pub const SEGV_MAPERR: i32 = 1;
/// `SEGV_ACCERR`: the mapping does not allow it.
pub const SEGV_ACCERR: i32 = 2;
/// `BUS_ADRERR`: past the end of the file.
pub const BUS_ADRERR: i32 = 2;

/// `MAP_SHARED`.
pub const MAP_SHARED: u64 = 1;
/// `MAP_PRIVATE`.
pub const MAP_PRIVATE: u64 = 2;
/// `MAP_FIXED`.
pub const MAP_FIXED: u64 = 0x10;
/// `MAP_ANONYMOUS`.
pub const MAP_ANONYMOUS: u64 = 0x20;
/// `MAP_GROWSDOWN`.
pub const MAP_GROWSDOWN: u64 = 0x100;
/// `MAP_LOCKED`.
pub const MAP_LOCKED: u64 = 0x2000;
/// `MAP_NORESERVE`.
pub const MAP_NORESERVE: u64 = 0x4000;
/// `MAP_POPULATE`.
pub const MAP_POPULATE: u64 = 0x8000;
/// `MAP_STACK`.
pub const MAP_STACK: u64 = 0x20000;
/// `MAP_FIXED_NOREPLACE`.
pub const MAP_FIXED_NOREPLACE: u64 = 0x10_0000;
/// `MREMAP_MAYMOVE`.
pub const MREMAP_MAYMOVE: u64 = 1;
/// `MREMAP_FIXED`.
pub const MREMAP_FIXED: u64 = 2;
/// `MREMAP_DONTUNMAP`.
pub const MREMAP_DONTUNMAP: u64 = 4;
/// `RLIMIT_DATA`.
pub const RLIMIT_DATA: u64 = 2;
/// `RLIMIT_STACK`.
pub const RLIMIT_STACK: u64 = 3;
/// `RLIMIT_AS`.
pub const RLIMIT_AS: u64 = 9;

/// Error numbers.
pub const ERRNOS: &[(&str, i32)] = &[
    ("EPERM", 1),
    ("ENOENT", 2),
    ("EIO", 5),
    ("EBADF", 9),
    ("EAGAIN", 11),
    ("ENOMEM", 12),
    ("EACCES", 13),
    ("EFAULT", 14),
    ("EBUSY", 16),
    ("EEXIST", 17),
    ("ENODEV", 19),
    ("EINVAL", 22),
    ("EOVERFLOW", 75),
    ("EOPNOTSUPP", 95),
];

/// Advice of madvise(2).
pub const ADVICE: &[(&str, u64)] = &[
    ("normal", 0),
    ("random", 1),
    ("sequential", 2),
    ("willneed", 3),
    ("dontneed", 4),
    ("free", 8),
    ("remove", 9),
    ("dontfork", 10),
    ("dofork", 11),
    ("hugepage", 14),
    ("nohugepage", 15),
    ("dontdump", 16),
    ("dodump", 17),
    ("wipeonfork", 18),
    ("keeponfork", 19),
    ("cold", 20),
    ("pageout", 21),
    ("populate_read", 22),
    ("populate_write", 23),
];

/// Flags of msync(2).
pub const SYNC_FLAGS: &[(&str, u64)] = &[("async", 1), ("invalidate", 2), ("sync", 4)];

/// Flags of mmap(2) that are words of their own in a scenario.
pub const MAP_FLAGS: &[(&str, u64)] = &[
    ("growsdown", MAP_GROWSDOWN),
    ("locked", MAP_LOCKED),
    ("noreserve", MAP_NORESERVE),
    ("populate", MAP_POPULATE),
    ("stack", MAP_STACK),
];

/// Resources of setrlimit(2).
pub const RESOURCES: &[(&str, u64)] = &[
    ("as", RLIMIT_AS),
    ("data", RLIMIT_DATA),
    ("stack", RLIMIT_STACK),
];

/// Finds a name in one of the tables.
pub fn lookup<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table
        .iter()
        .find(|(n, _)| *n == name)
        .map(|(_, value)| *value)
}

/// The name of an error number, or `?`.
pub fn errno_name(errno: i32) -> &'static str {
    ERRNOS
        .iter()
        .find(|(_, value)| *value == errno)
        .map_or("?", |(name, _)| name)
}
