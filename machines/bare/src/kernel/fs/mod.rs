//! Files: a tree in memory whose regular files are mappings of the page cache, as Linux's ramfs.

pub(crate) mod console;
mod open;
pub(crate) mod pipe;
pub(crate) mod procfs;
pub(crate) mod table;
mod tree;

pub(crate) use open::{File, Kind};
pub(crate) use table::FdTable;
pub(crate) use tree::{
    Device, Inode, Node, Place, lookup, lookup_parent, mount_root, root, unpack,
};

use alloc::sync::Arc;

/// What calls answer: a number, or an errno.
pub(crate) type Result<T> = core::result::Result<T, i32>;

pub(crate) const EPERM: i32 = 1;
pub(crate) const ENOENT: i32 = 2;
pub(crate) const ESRCH: i32 = 3;
pub(crate) const EINTR: i32 = 4;
pub(crate) const E2BIG: i32 = 7;
pub(crate) const ENOEXEC: i32 = 8;
pub(crate) const EBADF: i32 = 9;
pub(crate) const ECHILD: i32 = 10;
pub(crate) const EAGAIN: i32 = 11;
pub(crate) const ENOMEM: i32 = 12;
pub(crate) const EACCES: i32 = 13;
pub(crate) const EFAULT: i32 = 14;
pub(crate) const EEXIST: i32 = 17;
pub(crate) const ENODEV: i32 = 19;
pub(crate) const ENOTDIR: i32 = 20;
pub(crate) const EISDIR: i32 = 21;
pub(crate) const EINVAL: i32 = 22;
pub(crate) const EMFILE: i32 = 24;
pub(crate) const ENOTTY: i32 = 25;
pub(crate) const ESPIPE: i32 = 29;
pub(crate) const EPIPE: i32 = 32;
pub(crate) const ERANGE: i32 = 34;
pub(crate) const ENAMETOOLONG: i32 = 36;
pub(crate) const ENOSYS: i32 = 38;
pub(crate) const ENOTEMPTY: i32 = 39;
pub(crate) const ELOOP: i32 = 40;
pub(crate) const ETIMEDOUT: i32 = 110;
/// The call is made again after the signal, unless its handler says otherwise. Never seen outside.
pub(crate) const ERESTARTSYS: i32 = 512;

pub(crate) const S_IFMT: u32 = 0o170_000;
pub(crate) const S_IFDIR: u32 = 0o040_000;
pub(crate) const S_IFREG: u32 = 0o100_000;
pub(crate) const S_IFLNK: u32 = 0o120_000;
pub(crate) const S_IFCHR: u32 = 0o020_000;
pub(crate) const S_IFIFO: u32 = 0o010_000;

/// The open file of a descriptor of the current process.
pub(crate) fn file(fd: i32) -> Result<Arc<File>> {
    let files = crate::task::current().process.files.lock();
    let table = files.lock();
    table.get(fd)
}
