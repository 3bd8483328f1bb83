//! Scenarios on the simulator.

use crate::host::{SimHost, Trouble};
use vellum_mm::{MmError, MmapRequest};
use vellum_testkit::{Call, Executor, Op, READ_ONLY_FILE, Reply, abi, pattern_byte};
use vellum_types::{FileId, VirtAddr};

/// Carries a scenario's operations out on a [`SimHost`], and checks everything after each.
pub struct SimExecutor<'m> {
    host: SimHost<'m>,
}

const RETURN_INSTRUCTION: u8 = 0xc3;

/// What a process's accesses and calls came to, before it becomes a [`Reply`].
enum Stop {
    Trouble(Trouble),
    Errno(MmError),
    Reply(Reply),
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl From<MmError> for Stop {
    fn from(error: MmError) -> Self {
        Self::Errno(error)
    }
}

impl<'m> SimExecutor<'m> {
    /// Starts process 0 on `host`.
    ///
    /// # Errors
    /// NoMem.
    pub fn start(mut host: SimHost<'m>) -> Result<Self, MmError> {
        host.spawn()?;
        Ok(Self { host })
    }

    /// The host.
    pub fn host(&self) -> &SimHost<'m> {
        &self.host
    }

    /// Ends it all.
    ///
    /// # Errors
    /// As [`SimHost::shutdown`].
    pub fn shutdown(self) -> Result<(), String> {
        self.host.shutdown()
    }

    fn perform(&mut self, pid: usize, call: &Call) -> Result<u64, Stop> {
        let host = &mut self.host;
        let [a, b, c, d, e, f] = call.args;
        let file = FileId(a + 1);
        match call.op {
            Op::Map => {
                let file = match e {
                    0 => None,
                    word => Some(host.open(FileId(word & 0xffff), word & READ_ONLY_FILE == 0)?),
                };
                let (prot, flags) = (c as u32, d as u32);
                let request = MmapRequest {
                    addr: a,
                    len: b,
                    prot,
                    flags,
                    file,
                    offset: f,
                };
                return Ok(host.mmap(pid, request)?);
            }
            Op::Unmap => host.syscall(pid, |s, mm| s.munmap(mm, a, b))?,
            Op::Protect => host.syscall(pid, |s, mm| s.mprotect(mm, a, b, c as u32))?,
            Op::Remap => return Ok(host.syscall(pid, |s, mm| s.mremap(mm, a, b, c, d as u32, e))?),
            Op::Brk => return Ok(host.syscall(pid, |s, mm| s.brk(mm, a))),
            Op::Advise => host.syscall(pid, |s, mm| s.madvise(mm, a, b, c as i32))?,
            Op::Sync => host.syscall(pid, |s, mm| s.msync(mm, a, b, c as u32))?,
            Op::Lock if c == 0 => host.syscall(pid, |s, mm| s.mlock(mm, a, b))?,
            Op::Lock => host.syscall(pid, |s, mm| s.mlock2(mm, a, b, c as u32))?,
            Op::Unlock => host.syscall(pid, |s, mm| s.munlock(mm, a, b))?,
            Op::LockAll => host.syscall(pid, |s, mm| s.mlockall(mm, a as u32))?,
            Op::UnlockAll => host.syscall(pid, |s, mm| s.munlockall(mm))?,
            Op::Mincore => return Ok(host.mincore(pid, a, b)?),
            Op::Read => self.each_chunk(a, b, |host, at, chunk| Ok(host.read(pid, at, chunk)?))?,
            Op::Write => self.each_chunk(a, c, |host, at, chunk| {
                chunk.fill(b as u8);
                Ok(host.write(pid, at, chunk)?)
            })?,
            Op::Expect => self.each_chunk(a, c, |host, at, chunk| {
                host.read(pid, at, chunk)?;
                compare(at, chunk, b as u8)
            })?,
            Op::Exec => {
                host.exec(pid, a)?;
                let mut byte = [0];
                host.read(pid, a, &mut byte)?;
                compare(a, &byte, RETURN_INSTRUCTION)?;
            }
            Op::Pread | Op::Pwrite => {
                let mapping = host.system().mapping(file)?;
                let user = VirtAddr::new(d);
                let result = host.syscall(pid, |system, mm| match call.op {
                    Op::Pread => system.file_read(&mapping, b, mm, user, c),
                    _ => system.file_write(&mapping, b, mm, user, c),
                });
                return Ok(result?);
            }
            Op::FileExpect => self.each_chunk(b, d, |host, at, chunk| {
                let read = host.pread(file, at, chunk)?;
                compare(at, &chunk[..read], c as u8)?;
                let at = at + read as u64;
                let end = Stop::Reply(Reply::Differs { at, found: None });
                if read < chunk.len() { Err(end) } else { Ok(()) }
            })?,
            Op::FileWrite => self.each_chunk(b, d, |host, at, chunk| {
                chunk.fill(c as u8);
                let written = host.pwrite(pid, file, at, chunk)?;
                if written < chunk.len() as u64 {
                    Err(MmError::NoMem.into())
                } else {
                    Ok(())
                }
            })?,
            Op::FileCreate => {
                let bytes = (0..b).map(|at| pattern_byte(c, at)).collect();
                host.store()
                    .create(file, &format!("/file{}", file.0), bytes);
            }
            Op::FileTruncate => host.truncate(file, b),
            Op::FileSize => return Ok(host.file_size(file)),
            Op::Fork => host.fork(pid, a as usize)?,
            Op::Exit => host.exit(pid),
            Op::Limit => host.limit(pid, |limits| match a {
                abi::RLIMIT_AS => limits.address_space = b,
                abi::RLIMIT_DATA => limits.data = b,
                _ => limits.stack = b,
            }),
            Op::Areas => return Ok(host.areas(pid, a, b)),
        }
        Ok(0)
    }

    /// Does `step` for each piece of a range that lies within a page.
    fn each_chunk(
        &mut self,
        start: u64,
        len: u64,
        mut step: impl FnMut(&mut SimHost<'m>, u64, &mut [u8]) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let mut buffer = [0; 4096];
        let mut done = 0;
        while done < len {
            let at = start.wrapping_add(done);
            let piece = (4096 - at % 4096).min(len - done);
            step(&mut self.host, at, &mut buffer[..piece as usize])?;
            done += piece;
        }
        Ok(())
    }
}

fn compare(at: u64, bytes: &[u8], want: u8) -> Result<(), Stop> {
    match bytes.iter().position(|byte| *byte != want) {
        None => Ok(()),
        Some(i) => Err(Stop::Reply(Reply::Differs {
            at: at + i as u64,
            found: Some(bytes[i]),
        })),
    }
}

impl Executor for SimExecutor<'_> {
    fn call(&mut self, proc: usize, call: &Call) -> Result<Reply, String> {
        let reply = match self.perform(proc, call) {
            Ok(value) => Reply::Done(value),
            Err(Stop::Reply(reply)) => reply,
            Err(Stop::Errno(error)) => Reply::Errno(error.errno()),
            Err(Stop::Trouble(Trouble::OutOfMemory)) => Reply::OutOfMemory,
            Err(Stop::Trouble(Trouble::Signal { number, code, addr })) => {
                Reply::Signal { number, code, addr }
            }
        };
        self.host
            .check()
            .map_err(|wrong| format!("{wrong}, after {reply:x?}"))?;
        Ok(reply)
    }
}
