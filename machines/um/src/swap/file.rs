//! A swap area in a file of the host.

use super::SwapOpenError;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;
#[cfg(test)]
use std::path::PathBuf;
use vellum_machine::DirectMap;
use vellum_swap::header::{self, HEADER_BYTES, HeaderError, SwapHeader};
use vellum_swap::{SwapDevice, WriteError};
use vellum_types::{IoError, PAGE_SIZE, Pfn, SwapEntry};

/// Pages of the smallest area that Linux takes: mkswap(8) refuses less.
const LEAST_PAGES: u64 = 10;

// File systems whose files are memory: swapping to them frees nothing.
const TMPFS: i64 = 0x0102_1994;
const RAMFS: i64 = 0x8584_58f6;

/// A file of slots; slot 0 is the header.
#[derive(Debug)]
pub(crate) struct FileSwap {
    file: File,
    name: String,
    slots: u32,
    bad: Vec<u32>,
    /// It has a name, and so a header that says whether it is in use.
    header: Option<Box<[u8; HEADER_BYTES]>>,
    was_dirty: bool,
}

fn failure(what: impl Into<String>, why: impl Into<String>) -> SwapOpenError {
    SwapOpenError {
        what: what.into(),
        why: why.into(),
    }
}

/// One line for an error of the host.
fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EROFS) => "the file system is read-only".to_owned(),
        Some(libc::EACCES | libc::EPERM) => "no permission to write to it".to_owned(),
        Some(libc::ENOSPC | libc::EDQUOT) => "the disk has no room for it".to_owned(),
        Some(libc::EFBIG) => "larger than a file may be".to_owned(),
        Some(libc::ENOENT) => "no such file; say file:PATH:SIZE to make one".to_owned(),
        Some(libc::EISDIR) => "is a directory".to_owned(),
        Some(libc::ETXTBSY) => "is being executed".to_owned(),
        _ => error.to_string(),
    }
}

fn is_memory(file: &File) -> io::Result<bool> {
    let mut stat = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the buffer holds a struct statfs.
    if unsafe { libc::fstatfs(file.as_raw_fd(), stat.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fstatfs succeeded and filled it.
    let kind = unsafe { stat.assume_init() }.f_type;
    Ok(kind == TMPFS || kind == RAMFS)
}

/// Gives the file all its blocks, so that no write fails for lack of them.
fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    // SAFETY: takes no pointer.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, bytes as libc::off_t) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

fn slots_of(bytes: u64) -> Option<u32> {
    let pages = bytes / PAGE_SIZE;
    (pages >= LEAST_PAGES).then(|| pages.min(SwapEntry::SLOTS.into()) as u32)
}

const TOO_SMALL: &str = "too small; the least is 40K";

impl FileSwap {
    /// A file without a name, in the first of the usual folders that is on a disk.
    pub(crate) fn temporary(bytes: u64) -> Result<Self, SwapOpenError> {
        let what = || "area".to_owned();
        let slots = slots_of(bytes).ok_or_else(|| failure(what(), TOO_SMALL))?;
        let mut why = "no folder for temporary files".to_owned();
        let folders = [std::env::temp_dir(), "/var/tmp".into(), "/tmp".into()];
        for folder in folders {
            match Self::nameless(&folder, u64::from(slots) * PAGE_SIZE) {
                Ok(file) => {
                    return Ok(Self {
                        file,
                        name: format!("{} (temporary)", folder.display()),
                        slots,
                        bad: Vec::new(),
                        header: None,
                        was_dirty: false,
                    });
                }
                Err(error) => why = format!("{}: {}", folder.display(), reason(&error)),
            }
        }
        Err(failure(what(), why))
    }

    fn nameless(folder: &Path, bytes: u64) -> io::Result<File> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_TMPFILE)
            .mode(0o600)
            .open(folder)?;
        if is_memory(&file)? {
            let why = "is memory (tmpfs): swapping to it would free nothing";
            return Err(io::Error::other(why));
        }
        reserve(&file, bytes)?;
        Ok(file)
    }

    /// A file or block device with a name. With `bytes` it is made so large and gets a header.
    pub(crate) fn open(path: &Path, bytes: Option<u64>) -> Result<Self, SwapOpenError> {
        let existed = path.symlink_metadata().is_ok();
        Self::open_or_make(path, bytes).inspect_err(|_| {
            if !existed {
                // Made just now, and of no use.
                let _ = std::fs::remove_file(path);
            }
        })
    }

    fn open_or_make(path: &Path, bytes: Option<u64>) -> Result<Self, SwapOpenError> {
        let what = path.display().to_string();
        let fail = |error: io::Error| failure(what.clone(), reason(&error));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(bytes.is_some())
            .mode(0o600)
            .open(path)
            .map_err(fail)?;
        // SAFETY: takes no pointer.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            return Err(failure(what, "already in use"));
        }
        let kind = file.metadata().map_err(fail)?.file_type();
        if kind.is_block_device() {
            Self::refuse_used_device(path).map_err(fail)?;
        } else if !kind.is_file() {
            return Err(failure(what, "neither a file nor a block device"));
        }
        if is_memory(&file).map_err(fail)? && !kind.is_block_device() {
            let why = "on tmpfs, which is memory: swapping to it would free nothing";
            return Err(failure(what, why));
        }
        if let Some(bytes) = bytes {
            let slots = slots_of(bytes).ok_or_else(|| failure(what.clone(), TOO_SMALL))?;
            if kind.is_file() {
                let bytes = u64::from(slots) * PAGE_SIZE;
                reserve(&file, bytes).map_err(fail)?;
                file.set_len(bytes).map_err(fail)?;
            }
            Self::format(&file, slots).map_err(|error| failure(what.clone(), error))?;
        }
        Self::with_header(file, what)
    }

    /// Linux opens a device that it swaps to or has mounted for itself alone.
    fn refuse_used_device(path: &Path) -> io::Result<()> {
        let exclusive = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_EXCL)
            .open(path);
        match exclusive {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                Err(io::Error::other("already in use"))
            }
            other => other.map(drop),
        }
    }

    /// Writes the header of an empty area. Who asks for a size wants a new one.
    fn format(file: &File, slots: u32) -> Result<(), String> {
        let mut page = [0; HEADER_BYTES];
        file.read_exact_at(&mut page, 0)
            .map_err(|error| reason(&error))?;
        if let Err(HeaderError::Hibernated) = SwapHeader::parse(&page, u64::MAX) {
            return Err(HeaderError::Hibernated.to_string());
        }
        let was_dirty = SwapHeader::parse(&page, u64::MAX).is_ok_and(|header| header.dirty);
        page = [0; HEADER_BYTES];
        SwapHeader {
            last_page: slots - 1,
            nr_bad: 0,
            uuid: [0; 16],
            label: *b"vellum\0\0\0\0\0\0\0\0\0\0",
            dirty: was_dirty,
        }
        .write(&mut page, &[])
        .map_err(|error| error.to_string())?;
        file.write_all_at(&page, 0).map_err(|error| reason(&error))
    }

    fn with_header(file: File, what: String) -> Result<Self, SwapOpenError> {
        let fail = |error: io::Error| failure(what.clone(), reason(&error));
        let bytes = io::Seek::seek(&mut &file, io::SeekFrom::End(0)).map_err(fail)?;
        let mut page = Box::new([0; HEADER_BYTES]);
        if bytes < LEAST_PAGES * PAGE_SIZE {
            return Err(failure(what, TOO_SMALL));
        }
        file.read_exact_at(&mut *page, 0).map_err(fail)?;
        let header = SwapHeader::parse(&page, bytes / PAGE_SIZE).map_err(|error| {
            let hint = match error {
                HeaderError::Signature => "; run mkswap on it, or give a size",
                _ => "",
            };
            failure(what.clone(), format!("{error}{hint}"))
        })?;
        let bad = header::bad_pages(&page).collect();
        if file.metadata().map_err(fail)?.is_file() {
            reserve(&file, (u64::from(header.last_page) + 1) * PAGE_SIZE).map_err(fail)?;
        }
        header::set_dirty(&mut page, true);
        file.write_all_at(&*page, 0).map_err(fail)?;
        file.sync_data().map_err(fail)?;
        Ok(Self {
            file,
            name: what,
            slots: header.last_page.saturating_add(1).min(SwapEntry::SLOTS),
            bad,
            header: Some(page),
            was_dirty: header.dirty,
        })
    }

    /// Slots that its header says are bad.
    pub(crate) fn bad(&self) -> &[u32] {
        &self.bad
    }

    /// Whoever used it before was killed. What it held is of no use to anybody.
    pub(crate) fn was_dirty(&self) -> bool {
        self.was_dirty
    }
}

impl Drop for FileSwap {
    fn drop(&mut self) {
        if let Some(page) = &mut self.header {
            header::set_dirty(page, false);
            // If this fails the header says that the area is in use, which is harmless.
            let _ = self.file.write_all_at(&**page, 0);
        }
    }
}

fn io_error(error: &io::Error) -> IoError {
    error
        .raw_os_error()
        .map_or(IoError::EIO, |errno| IoError { errno })
}

impl SwapDevice for FileSwap {
    fn name(&self) -> &str {
        &self.name
    }

    fn nr_slots(&self) -> u32 {
        self.slots
    }

    fn read(&self, slot: u32, frame: Pfn, ram: DirectMap<'_>) -> Result<(), IoError> {
        let mut bytes = [0; PAGE_SIZE as usize];
        self.file
            .read_exact_at(&mut bytes, u64::from(slot) * PAGE_SIZE)
            .map_err(|error| io_error(&error))?;
        ram.write_bytes(frame.addr(), &bytes);
        Ok(())
    }

    fn write(&self, slot: u32, frames: &[Pfn], ram: DirectMap<'_>) -> Result<(), WriteError> {
        // One request for all: they are neighbours in the file.
        let mut bytes = vec![0; frames.len() * PAGE_SIZE as usize];
        for (page, frame) in bytes.chunks_exact_mut(PAGE_SIZE as usize).zip(frames) {
            ram.read_bytes(frame.addr(), page);
        }
        self.file
            .write_all_at(&bytes, u64::from(slot) * PAGE_SIZE)
            .map_err(|error| WriteError::first(io_error(&error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::ram;

    /// A path that goes with the test, in a folder on a disk; `None` if there is none.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Option<Self> {
            let folder = [std::env::temp_dir(), "/var/tmp".into()]
                .into_iter()
                .find(|f| File::open(f).and_then(|f| is_memory(&f)).is_ok_and(|m| !m))?;
            let path = folder.join(format!("vellum-swap-{name}-{}", std::process::id()));
            Some(Self(path))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn refused(path: &Path, bytes: Option<u64>) -> String {
        FileSwap::open(path, bytes).expect_err("refused").why
    }

    const SIZE: Option<u64> = Some(1 << 20);

    #[test]
    fn pages_come_back() {
        let Some(at) = Scratch::new("pages") else {
            return eprintln!("skipped: no folder on a disk");
        };
        let ram = ram(8);
        let area = FileSwap::open(&at.0, SIZE).expect("usable");
        assert_eq!((area.nr_slots(), area.was_dirty()), (256, false));
        for n in 0..3u8 {
            ram.write_bytes(Pfn::new(n.into()).addr(), &[n + 1; 4096]);
        }
        let frames: Vec<Pfn> = (0..3).map(Pfn::new).collect();
        assert_eq!(area.write(7, &frames, ram), Ok(()));
        let mut byte = [0];
        for n in 0..3u8 {
            assert_eq!(area.read(7 + u32::from(n), Pfn::new(5), ram), Ok(()));
            ram.read_bytes(Pfn::new(5).addr() + 4095, &mut byte);
            assert_eq!(byte, [n + 1]);
        }
        assert!(area.read(256, Pfn::new(5), ram).is_err(), "past the end");
    }

    #[test]
    fn an_area_in_use_says_so_and_one_that_was_killed_too() {
        let Some(at) = Scratch::new("use") else {
            return eprintln!("skipped: no folder on a disk");
        };
        let area = FileSwap::open(&at.0, SIZE).expect("usable");
        assert_eq!(refused(&at.0, None), "already in use");
        drop(area);
        let area = FileSwap::open(&at.0, None).expect("it has a header now");
        assert!(!area.was_dirty(), "the first one ended in good order");
        let Ok(killed) = std::fs::read(&at.0) else {
            panic!("readable")
        };
        drop(area);
        std::fs::write(&at.0, killed).expect("writable");
        let area = FileSwap::open(&at.0, None).expect("usable all the same");
        assert!(area.was_dirty());
        drop(area);
        assert!(!FileSwap::open(&at.0, None).expect("usable").was_dirty());
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_a_reason() {
        let Some(at) = Scratch::new("refused") else {
            return eprintln!("skipped: no folder on a disk");
        };
        assert!(refused(&at.0, None).contains("no such file"));
        assert!(refused(&at.0, Some(4096)).contains("too small"));
        assert!(FileSwap::temporary(4096).is_err());
        std::fs::write(&at.0, vec![0; 1 << 20]).expect("writable");
        assert!(refused(&at.0, None).contains("no swap signature"));
        let mut page = vec![0; 1 << 20];
        page[4086..4096].copy_from_slice(b"S1SUSPEND\0");
        std::fs::write(&at.0, &page).expect("writable");
        assert!(refused(&at.0, SIZE).contains("hibernated"));
        assert!(refused(Path::new("/"), None).contains("directory"));
        assert!(refused(Path::new("/dev/null"), None).contains("neither"));
        assert!(refused(&at.0, Some(1 << 60)).len() < 80);
        let memory = Path::new("/dev/shm");
        if File::open(memory)
            .and_then(|f| is_memory(&f))
            .is_ok_and(|m| m)
        {
            let path = memory.join(format!("vellum-swap-{}", std::process::id()));
            let why = refused(&path, SIZE);
            assert!(why.contains("tmpfs"), "{why}");
            assert!(!path.exists(), "nothing is left behind");
        }
    }
}
