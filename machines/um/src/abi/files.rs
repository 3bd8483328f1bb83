//! Open files of the traced programs: which of them the core caches, and keeping that copy fresh.

use super::fd::{self, Inode, Stat};
use super::known_files::Known;
use super::store::HostStore;
use crate::engine::Engine;
use crate::facade::MappingRef;
use crate::task::Task;
use std::cell::OnceCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use vellum_types::FileId;

type Result<T> = core::result::Result<T, i32>;

/// A regular file, opened.
#[derive(Debug)]
pub(super) struct Regular {
    /// A duplicate of the program's descriptor: position and flags are shared with it.
    pub(super) fd: Rc<OwnedFd>,
    pub(super) inode: Inode,
    pub(super) flags: i32,
    /// As it was when the present call first asked.
    stat: OnceCell<Stat>,
}

impl Regular {
    pub(super) fn new(fd: Rc<OwnedFd>, stat: Stat, flags: i32) -> Self {
        Self {
            fd,
            inode: stat.inode(),
            flags,
            stat: OnceCell::from(stat),
        }
    }

    /// fstat(2), once for each call.
    ///
    /// # Errors
    /// The host's errno.
    pub(super) fn stat(&self) -> Result<&Stat> {
        if let Some(stat) = self.stat.get() {
            return Ok(stat);
        }
        let stat = fd::stat(&self.fd)?;
        Ok(self.stat.get_or_init(|| stat))
    }
}

/// What a descriptor refers to.
#[derive(Debug)]
pub(super) enum OpenFile {
    /// A file whose content the core caches.
    Regular(Regular),
    /// A pipe or a socket.
    Stream,
    /// Anything else.
    Other {
        fd: Rc<OwnedFd>,
        stat: Stat,
        flags: i32,
    },
}

/// Magic numbers of file systems whose regular files are made up as they are read.
const MADE_UP: &[i64] = &[
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0xf97c_ff8c, // selinuxfs
    0x4341_5d53, // smackfs
    0x27_e0eb,   // cgroup
    0x6367_7270, // cgroup2
    0xcafe_4a11, // bpf
    0x6265_6570, // configfs
    0x6165_676c, // pstore
    0xde5e_81e4, // efivarfs
    0x4249_4e4d, // binfmt_misc
    0x1980_0202, // mqueue
    0x6e73_6673, // nsfs
    0x5049_4446, // pidfs
    0x0904_1934, // anon_inode
    0x5345_434d, // secretmem
    0x9584_58f6, // hugetlbfs
    0x0765_5821, // resctrl
];

/// Looks descriptor `number` of the task up.
///
/// # Errors
/// EBADF.
pub(super) fn open_file<'m>(
    engine: &mut Engine<'m>,
    task: &Task<'m>,
    number: u64,
) -> Result<OpenFile> {
    let number = number as i32;
    match engine.abi.known_files.get(task.tgid, number) {
        Some(Known::Stream) => return Ok(OpenFile::Stream),
        Some(Known::Regular(fd, inode, flags)) => {
            let flags = match flags {
                Some(flags) => flags,
                None => fd::flags(&fd)?,
            };
            return Ok(OpenFile::Regular(Regular {
                fd,
                inode,
                flags,
                stat: OnceCell::new(),
            }));
        }
        Some(Known::Directory(fd, stat, flags)) => return Ok(OpenFile::Other { fd, stat, flags }),
        None => {}
    }
    let fd = engine.abi.descriptors.get(task.tgid, task.tid, number)?;
    let stat = fd::stat(&fd)?;
    let flags = fd::flags(&fd)?;
    let cached = stat.is_regular()
        && flags & libc::O_PATH == 0
        && is_ordinary(engine, &fd, &stat)
        && !engine.abi.snapshots.contains(&stat);
    let known = &mut engine.abi.known_files;
    Ok(if cached {
        let fd = Rc::new(fd);
        // Every call that sets this flag is seen, not every one that clears it.
        let lasting = (flags & libc::O_APPEND == 0).then_some(flags);
        let regular = Known::Regular(Rc::clone(&fd), stat.inode(), lasting);
        known.remember(task.tgid, number, regular);
        OpenFile::Regular(Regular::new(fd, stat, flags))
    } else if stat.is_stream() && flags & libc::O_PATH == 0 {
        known.remember(task.tgid, number, Known::Stream);
        OpenFile::Stream
    } else {
        let fd = Rc::new(fd);
        if stat.mode & libc::S_IFMT == libc::S_IFDIR {
            let directory = Known::Directory(Rc::clone(&fd), stat, flags);
            known.remember(task.tgid, number, directory);
        }
        OpenFile::Other { fd, stat, flags }
    })
}

/// The regular file behind a descriptor; `None` for others and for bad descriptors, both of which
/// are the host's business.
pub(super) fn regular<'m>(
    engine: &mut Engine<'m>,
    task: &Task<'m>,
    number: u64,
) -> Option<Regular> {
    match open_file(engine, task, number) {
        Ok(OpenFile::Regular(open)) => Some(open),
        _ => None,
    }
}

fn is_ordinary(engine: &mut Engine<'_>, fd: &OwnedFd, stat: &Stat) -> bool {
    *engine.abi.devices.entry(stat.dev).or_insert_with(|| {
        fd::magic(fd).is_ok_and(|magic| !MADE_UP.contains(&(magic & 0xffff_ffff)))
    })
}

/// The cached file behind `open`, fresh. With `write` it can be written back to.
///
/// # Errors
/// The host's errno, or ENOMEM.
pub(super) fn mapping<'m>(
    engine: &Engine<'m>,
    open: &Regular,
    write: bool,
) -> Result<MappingRef<'m>> {
    if engine.store.is_time_to_sweep() {
        sweep(engine);
    }
    let stat = open.stat()?;
    let id = engine.store.adopt(&open.fd, stat, write)?;
    let mapping = engine.sys.mapping(id).map_err(|error| error.errno())?;
    freshen(engine, id, &mapping, stat);
    Ok(mapping)
}

/// Lets go of files that were removed, so that the host can free their blocks, and of the oldest
/// ones if there are very many. Those that are mapped stay.
fn sweep(engine: &Engine<'_>) {
    for id in engine.store.dispensable() {
        if let Some(mapping) = engine.sys.find_mapping(id)
            && engine.sys.writeback(&mapping, 0, u64::MAX).is_err()
        {
            continue;
        }
        if engine.sys.cache().drop_mapping(id) {
            // Does nothing if the cache released it.
            engine.store.forget(id);
        }
    }
    engine.store.swept();
}

/// What the core holds of a file, if anything.
pub(super) fn cached<'m>(engine: &Engine<'m>, inode: Inode) -> Option<(FileId, MappingRef<'m>)> {
    let id = engine.store.find(inode)?;
    Some((id, engine.sys.find_mapping(id)?))
}

/// Drops what the core holds of a file that somebody else changed. What programs wrote through
/// mappings is written back first: it is newer than anything else.
pub(super) fn freshen<'m>(engine: &Engine<'m>, id: FileId, mapping: &MappingRef<'m>, stat: &Stat) {
    if !engine.store.is_stale(id, stat) {
        return;
    }
    if stat.size < mapping.size() {
        engine.sys.truncate(mapping, stat.size);
    }
    // Neither can be told to anybody: a page that cannot be written stays dirty, and one that is
    // mapped and cannot be read keeps what it had.
    let _ = engine.sys.writeback(mapping, 0, u64::MAX);
    let _ = engine.sys.invalidate(mapping);
    match engine
        .store
        .descriptor(id)
        .and_then(|fd| fd::stat(&*fd).ok())
    {
        Some(now) => engine.store.record(id, &now),
        None => engine.store.record(id, stat),
    }
}

/// A file that the host may have changed in a call of ours is looked at again.
pub(super) fn refresh(engine: &Engine<'_>, id: FileId) {
    if let Some(descriptor) = engine.store.descriptor(id)
        && let Ok(stat) = fd::stat(&*descriptor)
        && let Some(mapping) = engine.sys.find_mapping(id)
    {
        freshen(engine, id, &mapping, &stat);
    }
}

/// Writes what programs changed through mappings to the host's file, because the host is about to
/// read it.
///
/// # Errors
/// The host's errno.
pub(super) fn write_back(engine: &Engine<'_>, open: &Regular) -> Result<()> {
    let Some((id, mapping)) = cached(engine, open.inode) else {
        return Ok(());
    };
    freshen(engine, id, &mapping, open.stat()?);
    engine
        .sys
        .writeback(&mapping, 0, u64::MAX)
        .map_err(|error| error.errno())
}

/// Records the present time and size of a file as our own doing.
pub(super) fn record(store: &HostStore, id: FileId, fd: &OwnedFd) -> Option<Stat> {
    let stat = fd::stat(fd).ok()?;
    store.record(id, &stat);
    Some(stat)
}

#[cfg(test)]
mod tests {
    #[test]
    fn made_up_file_systems_are_told_apart() {
        let magic = |path: &str| {
            let file = std::fs::File::open(path).unwrap();
            super::fd::magic(&file).unwrap()
        };
        assert!(super::MADE_UP.contains(&magic("/proc/self/maps")));
        assert!(super::MADE_UP.contains(&magic("/sys/kernel")));
        assert!(!super::MADE_UP.contains(&magic("/etc/passwd")));
    }
}
