//! One process of a scenario. Nothing here allocates.

use super::probe::{self, Caught};
use crate::call::{Call, MAX_FILES, MAX_PROCS, Op, READ_ONLY_FILE};
use std::ffi::{CStr, c_void};

/// Words of a command: operation and arguments.
pub(super) const COMMAND: usize = 7;
/// Words of a reply: kind, value, code, address.
pub(super) const REPLY: usize = 4;

/// Kinds of reply.
pub(super) const DONE: u64 = 0;
pub(super) const ERRNO: u64 = 1;
pub(super) const SIGNAL: u64 = 2;
pub(super) const DIFFERS: u64 = 3;
pub(super) const END_OF_FILE: u64 = 4;

/// The ends of a worker's pipes: commands in, replies out.
#[derive(Clone, Copy)]
pub(super) struct Channel {
    pub(super) commands: i32,
    pub(super) replies: i32,
}

type Words = [u64; REPLY];

/// What every worker knows.
pub(super) struct Worker<'a> {
    pub(super) channels: &'a [Channel; MAX_PROCS],
    /// Paths of the files, made by the controller before they are used.
    pub(super) paths: &'a [std::ffi::CString; MAX_FILES],
    /// Descriptors for reading and writing, and for reading only; -1 is not open yet.
    pub(super) open: [[i32; 2]; MAX_FILES],
    pub(super) number: usize,
}

impl Worker<'_> {
    /// Serves commands until told to exit or the controller is gone.
    pub(super) fn serve(mut self) -> ! {
        loop {
            let mut command = [0u64; COMMAND];
            let channel = self.channels[self.number];
            if !read_words(channel.commands, &mut command) {
                exit(1);
            }
            let reply = match Op::ALL.iter().find(|op| **op as u64 == command[0]) {
                Some(Op::Fork) => match self.fork(command[1] as usize) {
                    Some(reply) => reply,
                    // The child: its first command comes through its own pipe.
                    None => continue,
                },
                Some(Op::Exit) => {
                    write_words(channel.replies, &[DONE, 0, 0, 0]);
                    exit(0);
                }
                Some(op) => {
                    let mut args = [0; 6];
                    args.copy_from_slice(&command[1..]);
                    self.call(&Call { op: *op, args })
                }
                None => [ERRNO, libc::ENOSYS as u64, 0, 0],
            };
            if !write_words(channel.replies, &reply) {
                exit(1);
            }
        }
    }

    fn fork(&mut self, child: usize) -> Option<Words> {
        // SAFETY: single-threaded, and the child goes on with the same straight-line code.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            self.number = child;
            return None;
        }
        Some(result(i64::from(pid)))
    }

    fn fd(&mut self, file: u64, read_only: bool) -> i32 {
        let slot = &mut self.open[file as usize][usize::from(read_only)];
        if *slot < 0 {
            let flags = if read_only {
                libc::O_RDONLY
            } else {
                libc::O_RDWR
            };
            let path: &CStr = &self.paths[file as usize];
            // SAFETY: a C string and plain flags.
            *slot = unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) };
        }
        *slot
    }

    fn call(&mut self, call: &Call) -> Words {
        let [a, b, c, d, e, f] = call.args;
        match call.op {
            Op::Map => {
                let fd = match e {
                    0 => -1,
                    file => self.fd((file & 0xffff) - 1, file & READ_ONLY_FILE != 0),
                };
                syscall(libc::SYS_mmap, [a, b, c, d, fd as u64, f])
            }
            Op::Unmap => syscall(libc::SYS_munmap, [a, b, 0, 0, 0, 0]),
            Op::Protect => syscall(libc::SYS_mprotect, [a, b, c, 0, 0, 0]),
            Op::Remap => syscall(libc::SYS_mremap, [a, b, c, d, e, 0]),
            Op::Brk => syscall(libc::SYS_brk, [a, 0, 0, 0, 0, 0]),
            Op::Advise => syscall(libc::SYS_madvise, [a, b, c, 0, 0, 0]),
            Op::Sync => syscall(libc::SYS_msync, [a, b, c, 0, 0, 0]),
            Op::Lock if c == 0 => syscall(libc::SYS_mlock, [a, b, 0, 0, 0, 0]),
            Op::Lock => syscall(libc::SYS_mlock2, [a, b, c, 0, 0, 0]),
            Op::Unlock => syscall(libc::SYS_munlock, [a, b, 0, 0, 0, 0]),
            Op::LockAll => syscall(libc::SYS_mlockall, [a, 0, 0, 0, 0, 0]),
            Op::UnlockAll => syscall(libc::SYS_munlockall, [0; 6]),
            Op::Mincore => mincore(a, b),
            Op::Read => each_chunk(a, b, |at, chunk| accessed(probe::load(at, chunk))),
            Op::Write => reply(accessed(probe::fill(a, b as u8, c))),
            Op::Expect => each_chunk(a, c, |at, chunk| {
                accessed(probe::load(at, chunk))?;
                compare(at, chunk, b as u8)
            }),
            Op::Exec => reply(accessed(probe::exec(a))),
            Op::Pread => {
                let fd = self.fd(a, false);
                syscall(libc::SYS_pread64, [fd as u64, d, c, b, 0, 0])
            }
            Op::Pwrite => {
                let fd = self.fd(a, false);
                syscall(libc::SYS_pwrite64, [fd as u64, d, c, b, 0, 0])
            }
            Op::FileExpect => {
                let fd = self.fd(a, false);
                each_chunk(b, d, |at, chunk| {
                    let args = [
                        fd as u64,
                        chunk.as_mut_ptr() as u64,
                        chunk.len() as u64,
                        at,
                        0,
                        0,
                    ];
                    let read = syscall(libc::SYS_pread64, args);
                    if read[0] != DONE {
                        return Err(read);
                    }
                    compare(at, &chunk[..read[1] as usize], c as u8)?;
                    let short = read[1] < chunk.len() as u64;
                    if short {
                        Err([END_OF_FILE, 0, 0, at + read[1]])
                    } else {
                        Ok(())
                    }
                })
            }
            Op::FileWrite => {
                let fd = self.fd(a, false);
                each_chunk(b, d, |at, chunk| {
                    chunk.fill(c as u8);
                    let args = [
                        fd as u64,
                        chunk.as_ptr() as u64,
                        chunk.len() as u64,
                        at,
                        0,
                        0,
                    ];
                    let written = syscall(libc::SYS_pwrite64, args);
                    if written[0] == DONE {
                        Ok(())
                    } else {
                        Err(written)
                    }
                })
            }
            Op::Limit => {
                // The hard limit stays where it is.
                let mut old = [0u64; 2];
                syscall(
                    libc::SYS_prlimit64,
                    [0, a, 0, old.as_mut_ptr() as u64, 0, 0],
                );
                let new = [b, old[1]];
                syscall(libc::SYS_prlimit64, [0, a, new.as_ptr() as u64, 0, 0, 0])
            }
            Op::Areas => areas(a, b),
            Op::FileCreate | Op::FileTruncate | Op::FileSize | Op::Fork | Op::Exit => {
                [ERRNO, libc::ENOSYS as u64, 0, 0]
            }
        }
    }
}

/// One system call, without the C library's opinions about it.
fn syscall(number: i64, args: [u64; 6]) -> Words {
    let [a, b, c, d, e, f] = args;
    // SAFETY: the scenario asks for it; workers hold no reference into memory that scenarios change.
    let value = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    result(value)
}

fn result(value: i64) -> Words {
    // The wrapper turned -errno into -1; brk and mmap results are never -1 on success.
    if value == -1 {
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        [ERRNO, errno as u64, 0, 0]
    } else {
        [DONE, value as u64, 0, 0]
    }
}

fn accessed(result: Result<(), Caught>) -> Result<(), Words> {
    result.map_err(|caught| {
        [
            SIGNAL,
            caught.number as u64,
            caught.code as u64,
            caught.addr,
        ]
    })
}

fn reply(result: Result<(), Words>) -> Words {
    result.err().unwrap_or([DONE, 0, 0, 0])
}

/// Does `step` for each piece of at most a page, with a buffer of its size on the stack.
fn each_chunk(
    start: u64,
    len: u64,
    mut step: impl FnMut(u64, &mut [u8]) -> Result<(), Words>,
) -> Words {
    let mut buffer = [0u8; 4096];
    let mut done = 0;
    while done < len {
        let at = start.wrapping_add(done);
        // Pieces end on page boundaries, so that a fault is met at the first byte of its page.
        let piece = (4096 - at % 4096).min(len - done);
        if let Err(words) = step(at, &mut buffer[..piece as usize]) {
            return words;
        }
        done += piece;
    }
    [DONE, 0, 0, 0]
}

fn compare(at: u64, bytes: &[u8], want: u8) -> Result<(), Words> {
    match bytes.iter().position(|byte| *byte != want) {
        None => Ok(()),
        Some(i) => Err([DIFFERS, u64::from(bytes[i]), 0, at + i as u64]),
    }
}

fn mincore(addr: u64, len: u64) -> Words {
    let mut bytes = [0u8; 64];
    if len.div_ceil(4096) > 64 {
        return [ERRNO, libc::E2BIG as u64, 0, 0];
    }
    let reply = syscall(
        libc::SYS_mincore,
        [addr, len, bytes.as_mut_ptr() as u64, 0, 0, 0],
    );
    if reply[0] != DONE {
        return reply;
    }
    let bits = bytes
        .iter()
        .rev()
        .fold(0, |sum, byte| sum << 1 | u64::from(byte & 1));
    [DONE, bits, 0, 0]
}

/// Counts the lines of `/proc/self/maps` whose range meets `addr..addr + len`.
fn areas(addr: u64, len: u64) -> Words {
    // SAFETY: a C string literal and plain flags.
    let fd = unsafe {
        libc::open(
            c"/proc/self/maps".as_ptr(),
            libc::O_RDONLY | libc::O_CLOEXEC,
        )
    };
    if fd < 0 {
        return result(-1);
    }
    let mut buffer = [0u8; 4096];
    let mut count = 0;
    let (mut bounds, mut field, mut number) = ([0u64; 2], 0, 0u64);
    loop {
        // SAFETY: a live buffer of this size.
        let read = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
        if read <= 0 {
            break;
        }
        for byte in &buffer[..read as usize] {
            match byte {
                b'\n' => {
                    count += u64::from(bounds[0] < addr + len && addr < bounds[1]);
                    (field, number) = (0, 0);
                }
                b'-' | b' ' if field < 2 => {
                    bounds[field] = number;
                    (field, number) = (field + 1, 0);
                }
                _ if field < 2 => {
                    let digit = char::from(*byte).to_digit(16).unwrap_or(0);
                    number = number << 4 | u64::from(digit);
                }
                _ => {}
            }
        }
    }
    // SAFETY: opened above.
    unsafe { libc::close(fd) };
    [DONE, count, 0, 0]
}

/// Reads exactly these words; false at the end of the pipe.
pub(super) fn read_words(fd: i32, words: &mut [u64]) -> bool {
    let total = size_of_val(words);
    let mut done = 0;
    while done < total {
        // SAFETY: done < total, so the address is inside the slice.
        let at = unsafe { words.as_mut_ptr().cast::<u8>().add(done) };
        // SAFETY: total - done bytes from there are the slice's.
        let read = unsafe { libc::read(fd, at.cast::<c_void>(), total - done) };
        if read <= 0 {
            return false;
        }
        done += read as usize;
    }
    true
}

/// Writes these words; false if nobody reads.
pub(super) fn write_words(fd: i32, words: &[u64]) -> bool {
    let total = size_of_val(words);
    // SAFETY: a live slice. Below PIPE_BUF a write is all or nothing.
    let written = unsafe { libc::write(fd, words.as_ptr().cast::<c_void>(), total) };
    written == total as isize
}

fn exit(code: i32) -> ! {
    // SAFETY: ends the process without running what the controller's copy would run at exit.
    unsafe { libc::_exit(code) }
}
