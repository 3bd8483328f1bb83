//! Calls about memory: decoded here, answered by the core.

use super::files::{self, OpenFile};
use crate::engine::Engine;
use crate::facade::{FileRef, Limits, Mm, MmapRequest};
use crate::task::Task;

type Result<T> = core::result::Result<T, i32>;

/// The device number of /dev/zero.
const DEV_ZERO: u64 = libc::makedev(1, 5);

/// mmap(2).
pub(super) fn mmap<'m>(engine: &mut Engine<'m>, task: &Task<'m>) -> Result<i64> {
    let (addr, len, prot) = (task.arg(0), task.arg(1), task.arg(2) as u32);
    let (flags, fd, offset) = (task.arg(3) as u32, task.arg(4), task.arg(5));
    if offset % vellum_types::PAGE_SIZE != 0 {
        return Err(libc::EINVAL);
    }
    let mut request = MmapRequest {
        addr,
        len,
        prot,
        flags,
        file: None,
        offset,
    };
    if flags & libc::MAP_ANONYMOUS as u32 == 0 {
        match files::open_file(engine, task, fd)? {
            OpenFile::Regular(open) => {
                let access = open.flags & libc::O_ACCMODE;
                let shared = flags & 0xf != libc::MAP_PRIVATE as u32;
                // Sealed against writing: as good as opened for reading only.
                let sealed = shared
                    && super::fd::seals(&open.fd) & (libc::F_SEAL_WRITE | F_SEAL_FUTURE_WRITE) != 0;
                let writable = access == libc::O_RDWR && !sealed;
                let exec_ok = !super::fd::is_noexec(&open.fd)?;
                let mapping = files::mapping(engine, &open, shared && writable)?;
                request.file = Some(FileRef {
                    mapping,
                    readable: access != libc::O_WRONLY,
                    writable,
                    exec_ok,
                });
            }
            OpenFile::Stream => return Err(libc::ENODEV),
            OpenFile::Other {
                stat,
                flags: open_flags,
                ..
            } => {
                if open_flags & libc::O_PATH != 0 {
                    return Err(libc::EBADF);
                }
                if !stat.is_char_device() || stat.rdev != DEV_ZERO {
                    return Err(libc::ENODEV);
                }
                // A mapping of /dev/zero is anonymous memory under another name.
                request.flags |= libc::MAP_ANONYMOUS as u32;
                request.offset = 0;
            }
        }
    }
    if request.flags & libc::MAP_HUGETLB as u32 != 0 {
        // No huge pages are reserved here.
        return Err(libc::ENOMEM);
    }
    let result = engine.sys.mmap(&task.mm, request);
    result.map(|at| at as i64).map_err(|error| error.errno())
}

/// `F_SEAL_FUTURE_WRITE`, which the C library does not name on all targets.
const F_SEAL_FUTURE_WRITE: i32 = 0x10;

/// munmap, mprotect, mremap, brk, madvise, msync, mincore, mlock and their kin.
pub(super) fn other<'m>(engine: &mut Engine<'m>, task: &Task<'m>) -> Result<i64> {
    let sys = &engine.sys;
    let mm = &task.mm;
    let [a, b, c, d, e, _] = super::prefault::arguments(task);
    let done = match task.nr() {
        libc::SYS_munmap => sys.munmap(mm, a, b),
        libc::SYS_mprotect => sys.mprotect(mm, a, b, c as u32),
        libc::SYS_pkey_mprotect => {
            if d as i32 != -1 {
                return Err(libc::EINVAL);
            }
            sys.mprotect(mm, a, b, c as u32)
        }
        libc::SYS_mremap => {
            return sys
                .mremap(mm, a, b, c, d as u32, e)
                .map(|at| at as i64)
                .map_err(|error| error.errno());
        }
        libc::SYS_brk => return Ok(sys.brk(mm, a) as i64),
        libc::SYS_madvise => sys.madvise(mm, a, b, c as i32),
        libc::SYS_msync => sys.msync(mm, a, b, c as u32),
        libc::SYS_mincore => sys.mincore(mm, a, b, c),
        libc::SYS_mlock => sys.mlock(mm, a, b),
        libc::SYS_mlock2 => sys.mlock2(mm, a, b, c as u32),
        libc::SYS_munlock => sys.munlock(mm, a, b),
        libc::SYS_mlockall => sys.mlockall(mm, a as u32),
        libc::SYS_munlockall => sys.munlockall(mm),
        _ => return Err(libc::ENOSYS),
    };
    done.map(|()| 0).map_err(|error| error.errno())
}

/// The memory limits of process `pid`: those that the host keeps, and `address_space` of its own.
pub(super) fn limits(pid: i32, address_space: u64) -> Limits {
    let of = |resource| super::fd::limit(pid, resource).map_or(u64::MAX, |limit| limit.rlim_cur);
    Limits {
        address_space,
        data: of(libc::RLIMIT_DATA),
        stack: of(libc::RLIMIT_STACK),
        // CAP_IPC_LOCK.
        memlock: if is_privileged() {
            u64::MAX
        } else {
            of(libc::RLIMIT_MEMLOCK)
        },
    }
}

/// The host's limits of process `pid` may have changed.
pub(super) fn set_limits(mm: &Mm<'_>, pid: i32) {
    mm.set_limits(limits(pid, mm.limits().address_space));
}

/// True if programs are the superuser's: they have our ids, and cannot gain any.
pub(super) fn is_privileged() -> bool {
    // SAFETY: takes no pointer.
    unsafe { libc::geteuid() == 0 }
}
