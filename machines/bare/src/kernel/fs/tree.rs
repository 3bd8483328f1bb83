//! Inodes and paths.

use super::{
    EEXIST, EINVAL, ELOOP, ENAMETOOLONG, ENOENT, ENOMEM, ENOTDIR, Result, S_IFCHR, S_IFDIR,
    S_IFLNK, S_IFMT, S_IFREG,
};
use crate::clock;
use crate::machine::system;
use crate::sync::{Lock, Once};
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use vellum_bare::cpio;
use vellum_system::MappingRef;
use vellum_types::{FileId, PAGE_SIZE, PhysAddr};

/// Files of the core that have no store behind them are numbered from 2^63; the core itself gives
/// out those without this bit.
const FIRST_FILE: u64 = 1 << 63 | 1 << 62;
const MAX_LINKS: u32 = 40;
const MAX_NAME: usize = 255;

/// Devices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Device {
    Null,
    Zero,
    Full,
    Random,
    Console,
    /// `/sys/kernel/debug/fault_around_bytes`.
    FaultAround,
}

/// What an inode is.
pub(crate) enum Node {
    Folder(Lock<BTreeMap<String, Arc<Inode>>>),
    /// `None` only while it is dropped.
    Regular(Option<MappingRef<'static>>),
    Link(String),
    Device(Device),
}

/// A file, whatever its names.
pub(crate) struct Inode {
    pub(crate) number: u64,
    pub(crate) mode: AtomicU32,
    pub(crate) links: AtomicU32,
    pub(crate) modified: AtomicU64,
    pub(crate) parent: Lock<Weak<Inode>>,
    pub(crate) node: Node,
}

static NEXT_INODE: AtomicU64 = AtomicU64::new(1);
static NEXT_FILE: AtomicU64 = AtomicU64::new(1);
static ROOT: Once<Arc<Inode>> = Once::new();

impl Inode {
    fn new(mode: u32, node: Node) -> Arc<Self> {
        Arc::new(Self {
            number: NEXT_INODE.fetch_add(1, Ordering::Relaxed),
            mode: AtomicU32::new(mode),
            links: AtomicU32::new(1),
            modified: AtomicU64::new(clock::wall_ns()),
            parent: Lock::new(Weak::new()),
            node,
        })
    }

    /// A file of no bytes.
    pub(crate) fn regular(mode: u32) -> Result<Arc<Self>> {
        let number = NEXT_FILE.fetch_add(1, Ordering::Relaxed) + FIRST_FILE;
        let mapping = system().mapping(FileId(number)).map_err(|_| ENOMEM)?;
        Ok(Self::new(
            S_IFREG | mode & 0o7777,
            Node::Regular(Some(mapping)),
        ))
    }

    pub(crate) fn folder(mode: u32) -> Arc<Self> {
        Self::new(
            S_IFDIR | mode & 0o7777,
            Node::Folder(Lock::new(BTreeMap::new())),
        )
    }

    pub(crate) fn link(target: &str) -> Arc<Self> {
        Self::new(S_IFLNK | 0o777, Node::Link(target.to_string()))
    }

    fn device(device: Device) -> Arc<Self> {
        Self::new(S_IFCHR | 0o666, Node::Device(device))
    }

    pub(crate) fn kind(&self) -> u32 {
        self.mode.load(Ordering::Relaxed) & S_IFMT
    }

    /// The pages of a regular file.
    pub(crate) fn mapping(&self) -> Option<&MappingRef<'static>> {
        match &self.node {
            Node::Regular(mapping) => mapping.as_ref(),
            _ => None,
        }
    }

    pub(crate) fn size(&self) -> u64 {
        match &self.node {
            Node::Regular(mapping) => mapping.as_ref().map_or(0, |mapping| mapping.size()),
            Node::Link(target) => target.len() as u64,
            _ => 0,
        }
    }

    pub(crate) fn touch(&self) {
        self.modified.store(clock::wall_ns(), Ordering::Relaxed);
    }

    /// Puts `inode` into this folder.
    pub(crate) fn add(self: &Arc<Self>, name: &str, inode: Arc<Inode>) -> Result<()> {
        let Node::Folder(entries) = &self.node else {
            return Err(ENOTDIR);
        };
        if name.len() > MAX_NAME {
            return Err(ENAMETOOLONG);
        }
        let mut entries = entries.lock();
        if name == "." || name == ".." || entries.contains_key(name) {
            return Err(EEXIST);
        }
        *inode.parent.lock() = Arc::downgrade(self);
        entries.insert(name.to_string(), inode);
        Ok(())
    }
}

impl Drop for Inode {
    /// The last name and the last descriptor are gone: so are the bytes.
    fn drop(&mut self) {
        if let Node::Regular(mapping) = &mut self.node
            && let Some(mapping) = mapping.take()
        {
            let file = mapping.file();
            system().truncate(&mapping, 0);
            drop(mapping);
            system().cache().drop_mapping(file);
        }
    }
}

/// A folder with the path by which it was reached.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) folder: Arc<Inode>,
    pub(crate) path: String,
}

impl Place {
    pub(crate) fn root() -> Self {
        Self {
            folder: root().clone(),
            path: "/".to_string(),
        }
    }
}

/// The top of the tree.
pub(crate) fn root() -> &'static Arc<Inode> {
    ROOT.get()
}

/// Makes the tree with its devices.
pub(crate) fn mount_root() -> Result<()> {
    let root = ROOT.set(Inode::folder(0o755));
    for (name, mode) in [
        ("dev", 0o755),
        ("tmp", 0o1777),
        ("proc", 0o555),
        ("bin", 0o755),
    ] {
        root.add(name, Inode::folder(mode))?;
    }
    let dev = lookup(root, "/dev", true)?;
    for (name, device) in [
        ("null", Device::Null),
        ("zero", Device::Zero),
        ("full", Device::Full),
        ("random", Device::Random),
        ("urandom", Device::Random),
        ("console", Device::Console),
        ("tty", Device::Console),
    ] {
        dev.add(name, Inode::device(device))?;
    }
    dev.add("shm", Inode::folder(0o1777))?;
    let mut at = root.clone();
    for name in ["sys", "kernel", "debug"] {
        let folder = Inode::folder(0o755);
        at.add(name, folder.clone())?;
        at = folder;
    }
    at.add("fault_around_bytes", Inode::device(Device::FaultAround))
}

/// Unpacks an initramfs into the tree.
pub(crate) fn unpack(archive: &[u8]) -> core::result::Result<(), String> {
    for entry in cpio::entries(archive) {
        let entry = entry.map_err(|error| error.to_string())?;
        if entry.name.is_empty() || entry.name == "." {
            continue;
        }
        add_entry(&entry).map_err(|errno| {
            let what = if errno == ENOMEM {
                "does not fit into memory"
            } else {
                "cannot be made"
            };
            alloc::format!("initramfs: {} {what} (errno {errno})", entry.name)
        })?;
    }
    Ok(())
}

fn add_entry(entry: &cpio::Entry<'_>) -> Result<()> {
    let (folder, name) = lookup_parent(root(), entry.name)?;
    let inode = match entry.mode & S_IFMT {
        S_IFDIR => Inode::folder(entry.mode),
        S_IFLNK => Inode::link(core::str::from_utf8(entry.data).map_err(|_| EINVAL)?),
        S_IFREG => {
            let inode = Inode::regular(entry.mode)?;
            if let Some(mapping) = inode.mapping() {
                fill(mapping, entry.data)?;
            }
            inode
        }
        _ => return Ok(()),
    };
    match folder.add(name, inode) {
        Err(EEXIST) if entry.mode & S_IFMT == S_IFDIR => Ok(()),
        result => result,
    }
}

/// Makes `data` the content of an empty file.
fn fill(mapping: &MappingRef<'static>, data: &[u8]) -> Result<()> {
    let cache = system().cache();
    let ram = crate::paging::ram();
    for (index, chunk) in data.chunks(PAGE_SIZE as usize).enumerate() {
        let whole = chunk.len() == PAGE_SIZE as usize;
        let frame = mapping
            .get_for_write(cache, index as u64, whole)
            .map_err(|_| ENOMEM)?;
        ram.write_bytes(PhysAddr::new(frame.addr().as_u64()), chunk);
        mapping.mark_dirty(cache, index as u64);
        cache.put_page(frame);
    }
    mapping.set_size(data.len() as u64);
    Ok(())
}

/// The folder that holds the last name of a path, and that name.
pub(crate) fn lookup_parent<'p>(
    start: &Arc<Inode>,
    path: &'p str,
) -> Result<(Arc<Inode>, &'p str)> {
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() {
        return Err(if path.is_empty() { ENOENT } else { EEXIST });
    }
    let (folder, name) = match trimmed.rfind('/') {
        Some(at) => (&trimmed[..=at], &trimmed[at + 1..]),
        None => ("", trimmed),
    };
    let folder = if folder.is_empty() {
        start.clone()
    } else {
        lookup(start, folder, true)?
    };
    Ok((folder, name))
}

/// The inode at a path, from `start` unless it begins with a slash.
pub(crate) fn lookup(start: &Arc<Inode>, path: &str, follow: bool) -> Result<Arc<Inode>> {
    if path.is_empty() {
        return Err(ENOENT);
    }
    let mut links = 0;
    walk(start, path, follow, &mut links)
}

fn walk(start: &Arc<Inode>, path: &str, follow: bool, links: &mut u32) -> Result<Arc<Inode>> {
    let mut at = if path.starts_with('/') {
        root().clone()
    } else {
        start.clone()
    };
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    for (n, name) in names.iter().enumerate() {
        let Node::Folder(entries) = &at.node else {
            return Err(ENOTDIR);
        };
        let next = match *name {
            "." => at.clone(),
            ".." => at.parent.lock().upgrade().unwrap_or_else(|| at.clone()),
            name => entries.lock().get(name).cloned().ok_or(ENOENT)?,
        };
        let last = n + 1 == names.len() && !path.ends_with('/');
        at = match &next.node {
            Node::Link(target) if follow || !last => {
                *links += 1;
                if *links > MAX_LINKS {
                    return Err(ELOOP);
                }
                walk(&at, target, true, links)?
            }
            _ => next,
        };
    }
    if path.ends_with('/') && !matches!(at.node, Node::Folder(_)) {
        return Err(ENOTDIR);
    }
    Ok(at)
}
