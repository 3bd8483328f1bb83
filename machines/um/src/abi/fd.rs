//! The host's calls on descriptors, as far as they are needed here.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

type Result<T> = core::result::Result<T, i32>;

/// The calling thread's errno.
pub(super) fn errno() -> i32 {
    std::io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or(libc::EIO)
}

fn check(result: i64) -> Result<i64> {
    if result < 0 { Err(errno()) } else { Ok(result) }
}

pub(super) fn owned(result: i64) -> Result<OwnedFd> {
    let fd = check(result)?;
    // SAFETY: the host just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A C string; EINVAL if it holds a NUL.
pub(super) fn c_string(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|_| libc::EINVAL)
}

/// What fstat(2) says, as far as anybody here asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stat {
    pub(super) dev: u64,
    pub(super) ino: u64,
    pub(super) mode: u32,
    pub(super) rdev: u64,
    pub(super) size: u64,
    pub(super) links: u64,
    /// Nanoseconds of the last change of content.
    pub(super) mtime: i128,
}

/// Which file: device and inode number.
pub(super) type Inode = (u64, u64);

impl Stat {
    pub(super) fn inode(&self) -> Inode {
        (self.dev, self.ino)
    }
    pub(super) fn is_regular(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }
    /// A pipe or a socket.
    pub(super) fn is_stream(&self) -> bool {
        matches!(self.mode & libc::S_IFMT, libc::S_IFIFO | libc::S_IFSOCK)
    }
    pub(super) fn is_char_device(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFCHR
    }
}

/// fstat(2).
pub(super) fn stat(fd: &impl AsRawFd) -> Result<Stat> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the buffer holds a struct stat.
    check(i64::from(unsafe {
        libc::fstat(fd.as_raw_fd(), stat.as_mut_ptr())
    }))?;
    // SAFETY: fstat succeeded and filled it.
    let stat = unsafe { stat.assume_init() };
    Ok(Stat {
        dev: stat.st_dev,
        ino: stat.st_ino,
        mode: stat.st_mode,
        rdev: stat.st_rdev,
        size: stat.st_size as u64,
        links: stat.st_nlink,
        mtime: i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec),
    })
}

/// fstat(2), as the host fills it in.
pub(super) fn stat_bytes(fd: &impl AsRawFd) -> Result<Vec<u8>> {
    let mut bytes = vec![0_u8; size_of::<libc::stat>()];
    // SAFETY: the buffer is as long as a struct stat.
    let result = unsafe { libc::fstat(fd.as_raw_fd(), bytes.as_mut_ptr().cast()) };
    check(i64::from(result)).map(|_| bytes)
}

/// statx(2) of what is open, as the host fills it in.
pub(super) fn statx_bytes(fd: &impl AsRawFd, flags: i32, mask: u32) -> Result<Vec<u8>> {
    let mut bytes = vec![0_u8; size_of::<libc::statx>()];
    let (fd, flags) = (fd.as_raw_fd(), flags | libc::AT_EMPTY_PATH);
    // SAFETY: the path is a C string, and the buffer is as long as a struct statx.
    let result = unsafe { libc::statx(fd, c"".as_ptr(), flags, mask, bytes.as_mut_ptr().cast()) };
    check(i64::from(result)).map(|_| bytes)
}

/// access(2) of what is open.
pub(super) fn access(fd: &impl AsRawFd, mode: i32) -> Result<()> {
    let path = c_string(format!("/proc/self/fd/{}", fd.as_raw_fd()).as_bytes())?;
    // SAFETY: the path is a C string.
    check(i64::from(unsafe { libc::access(path.as_ptr(), mode) })).map(drop)
}

/// The magic number of the file system.
pub(super) fn magic(fd: &impl AsRawFd) -> Result<i64> {
    let mut stat = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the buffer holds a struct statfs.
    check(i64::from(unsafe {
        libc::fstatfs(fd.as_raw_fd(), stat.as_mut_ptr())
    }))?;
    // SAFETY: fstatfs succeeded and filled it.
    Ok(unsafe { stat.assume_init() }.f_type)
}

/// True if programs may not be executed from where the file is mounted.
pub(super) fn is_noexec(fd: &impl AsRawFd) -> Result<bool> {
    let mut stat = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the buffer holds a struct statvfs.
    check(i64::from(unsafe {
        libc::fstatvfs(fd.as_raw_fd(), stat.as_mut_ptr())
    }))?;
    // SAFETY: fstatvfs succeeded and filled it.
    Ok(unsafe { stat.assume_init() }.f_flag & libc::ST_NOEXEC != 0)
}

/// `F_GETFL`: access mode and status flags.
pub(super) fn flags(fd: &impl AsRawFd) -> Result<i32> {
    // SAFETY: takes no pointer.
    check(i64::from(unsafe {
        libc::fcntl(fd.as_raw_fd(), libc::F_GETFL)
    }))
    .map(|f| f as i32)
}

/// `F_GET_SEALS`, zero for files that have none.
pub(super) fn seals(fd: &impl AsRawFd) -> i32 {
    // SAFETY: takes no pointer.
    let seals = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
    seals.max(0)
}

/// lseek(2).
pub(super) fn seek(fd: &impl AsRawFd, offset: i64, whence: i32) -> Result<u64> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::lseek(fd.as_raw_fd(), offset, whence) }).map(|at| at as u64)
}

/// ftruncate(2).
pub(super) fn truncate(fd: &impl AsRawFd, size: i64) -> Result<()> {
    // SAFETY: takes no pointer.
    check(i64::from(unsafe { libc::ftruncate(fd.as_raw_fd(), size) })).map(drop)
}

/// fallocate(2).
pub(super) fn allocate(fd: &impl AsRawFd, mode: i32, offset: i64, len: i64) -> Result<()> {
    // SAFETY: takes no pointer.
    check(i64::from(unsafe {
        libc::fallocate(fd.as_raw_fd(), mode, offset, len)
    }))
    .map(drop)
}

/// fdatasync(2).
pub(super) fn sync(fd: &impl AsRawFd) -> Result<()> {
    // SAFETY: takes no pointer.
    check(i64::from(unsafe { libc::fdatasync(fd.as_raw_fd()) })).map(drop)
}

/// One piece of our own address space, for a vectored transfer.
pub(super) type Piece = libc::iovec;

/// preadv(2).
///
/// # Safety
/// Each piece is writable memory that no Rust reference covers.
pub(super) unsafe fn read_pieces(fd: &impl AsRawFd, pieces: &[Piece], offset: u64) -> Result<u64> {
    let (at, count, fd) = (pieces.as_ptr(), pieces.len() as i32, fd.as_raw_fd());
    // SAFETY: the array is valid; its pieces are by the caller's promise.
    check(unsafe { libc::preadv(fd, at, count, offset as i64) } as i64).map(|n| n as u64)
}

/// pwritev2(2); at the file's own position if `offset` is `None`.
///
/// # Safety
/// Each piece is readable memory.
pub(super) unsafe fn write_pieces(
    fd: &impl AsRawFd,
    pieces: &[Piece],
    offset: Option<u64>,
    flags: i32,
) -> Result<u64> {
    let offset = offset.map_or(-1, |at| at as i64);
    let (at, count, fd) = (pieces.as_ptr(), pieces.len() as i32, fd.as_raw_fd());
    // SAFETY: the array is valid; its pieces are by the caller's promise.
    check(unsafe { libc::pwritev2(fd, at, count, offset, flags) } as i64).map(|n| n as u64)
}

/// openat(2), always close-on-exec.
pub(super) fn open_at(dir: Option<BorrowedFd<'_>>, path: &[u8], flags: i32) -> Result<OwnedFd> {
    let path = c_string(path)?;
    let dir = dir.map_or(libc::AT_FDCWD, |dir| dir.as_raw_fd());
    // SAFETY: the path is a C string.
    owned(i64::from(unsafe {
        libc::openat(dir, path.as_ptr(), flags | libc::O_CLOEXEC | libc::O_NOCTTY)
    }))
}

/// Opens what `fd` refers to anew, so that position, flags and locks are not shared with it.
pub(crate) fn reopen(fd: &impl AsRawFd, flags: i32) -> Result<OwnedFd> {
    open_at(
        None,
        format!("/proc/self/fd/{}", fd.as_raw_fd()).as_bytes(),
        flags,
    )
}

/// readlinkat(2).
pub(super) fn read_link(path: &[u8]) -> Result<Vec<u8>> {
    let path = c_string(path)?;
    let mut target = vec![0u8; 4096];
    // SAFETY: the path is a C string, and the buffer holds as many bytes as are said.
    let len =
        check(
            unsafe { libc::readlink(path.as_ptr(), target.as_mut_ptr().cast(), target.len()) }
                as i64,
        )?;
    target.truncate(len as usize);
    Ok(target)
}

/// True if the file may be executed by our effective ids.
pub(super) fn may_execute(fd: &impl AsRawFd) -> Result<()> {
    let empty = c"";
    let flags = libc::AT_EMPTY_PATH | libc::AT_EACCESS;
    // SAFETY: the path is a C string. The raw call, as the C library may emulate AT_EACCESS.
    let result = unsafe {
        libc::syscall(
            libc::SYS_faccessat2,
            fd.as_raw_fd(),
            empty.as_ptr(),
            libc::X_OK,
            flags,
        )
    };
    check(result).map(drop)
}

/// A memory file with this name and content, at its start.
pub(super) fn memory_file(name: &str, content: &[u8]) -> Result<OwnedFd> {
    let name = c_string(name.as_bytes())?;
    // SAFETY: the name is a C string.
    let fd = owned(i64::from(unsafe {
        libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC)
    }))?;
    let mut file = std::fs::File::from(fd);
    std::io::Write::write_all(&mut file, content)
        .and_then(|()| std::io::Seek::rewind(&mut file))
        .map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))?;
    Ok(file.into())
}

/// While it lives, this thread looks files up with these ids: execve of a program that has given up
/// being what it was started as.
#[derive(Debug)]
pub(super) struct AsUser {
    back: Option<[u32; 2]>,
}

impl AsUser {
    /// Takes effective ids.
    pub(super) fn new(user: u32, group: u32) -> Self {
        // SAFETY: takes no pointer.
        let own_user = unsafe { libc::geteuid() };
        // SAFETY: takes no pointer.
        let own_group = unsafe { libc::getegid() };
        if (user, group) == (own_user, own_group) {
            return Self { back: None };
        }
        set_file_ids(user, group);
        Self {
            back: Some([own_user, own_group]),
        }
    }
}

impl Drop for AsUser {
    fn drop(&mut self) {
        if let Some([user, group]) = self.back {
            set_file_ids(user, group);
        }
    }
}

/// setfsuid(2) and setfsgid(2), which never fail visibly: then they change nothing.
fn set_file_ids(user: u32, group: u32) {
    // SAFETY: takes no pointer.
    unsafe { libc::setfsgid(group) };
    // SAFETY: takes no pointer.
    unsafe { libc::setfsuid(user) };
}

/// copy_file_range(2) between our descriptors, at their own positions where an offset is `None`.
pub(super) fn copy_range(
    from: &impl AsRawFd,
    from_at: Option<&mut i64>,
    to: &impl AsRawFd,
    to_at: Option<&mut i64>,
    len: usize,
    flags: u32,
) -> Result<u64> {
    let from_at = from_at.map_or(core::ptr::null_mut(), |at| at as *mut i64);
    let to_at = to_at.map_or(core::ptr::null_mut(), |at| at as *mut i64);
    // SAFETY: both offsets are exclusive borrows, or null.
    check(unsafe {
        libc::copy_file_range(from.as_raw_fd(), from_at, to.as_raw_fd(), to_at, len, flags)
    } as i64)
    .map(|n| n as u64)
}

/// sendfile(2) between our descriptors.
pub(super) fn send_file(
    to: &impl AsRawFd,
    from: &impl AsRawFd,
    at: Option<&mut i64>,
    len: usize,
) -> Result<u64> {
    let at = at.map_or(core::ptr::null_mut(), |at| at as *mut i64);
    // SAFETY: the offset is an exclusive borrow, or null.
    check(unsafe { libc::sendfile(to.as_raw_fd(), from.as_raw_fd(), at, len) } as i64)
        .map(|n| n as u64)
}

/// prlimit(2), reading only.
pub(super) fn limit(pid: i32, resource: libc::__rlimit_resource_t) -> Result<libc::rlimit> {
    let mut old = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: a null new limit, and a buffer for the old one.
    check(i64::from(unsafe {
        libc::prlimit(pid, resource, core::ptr::null(), &raw mut old)
    }))?;
    Ok(old)
}

/// Lets this process hold as many descriptors as it may ever, and returns the limits before. Files
/// in the page cache keep one each. Programs should get the old limits back.
///
/// # Errors
/// The host's errno.
pub fn raise_descriptor_limit() -> Result<libc::rlimit> {
    let old = limit(0, libc::RLIMIT_NOFILE)?;
    let new = libc::rlimit {
        rlim_cur: old.rlim_max,
        rlim_max: old.rlim_max,
    };
    // SAFETY: a valid limit.
    check(i64::from(unsafe {
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const new)
    }))?;
    Ok(old)
}
