//! Program files: who may run them, and what they say of themselves.

use super::elf::{self, HEADER, PROGRAM_HEADER};
use super::image::Object;
use super::{fd, files};
use crate::engine::Engine;
use crate::facade::MappingRef;
use std::os::fd::OwnedFd;

type Result<T> = core::result::Result<T, i32>;

/// User and group ids: real, effective.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ids {
    pub(super) user: [u64; 2],
    pub(super) group: [u64; 2],
}

impl Ids {
    /// Looks files up with the effective ones for a while.
    pub(super) fn assume(&self) -> fd::AsUser {
        fd::AsUser::new(self.user[1] as u32, self.group[1] as u32)
    }
}

/// The ids of a thread.
pub(super) fn ids(tid: i32) -> Result<Ids> {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).map_err(|_| libc::ESRCH)?;
    let line = |key: &str| {
        let mut numbers = status
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .unwrap_or("")
            .split_whitespace()
            .map(|number| number.parse().unwrap_or(0));
        [numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)]
    };
    Ok(Ids {
        user: line("Uid:"),
        group: line("Gid:"),
    })
}

/// A file that may be executed, for reading through the page cache.
pub(super) fn executable<'m>(
    engine: &Engine<'m>,
    file: &OwnedFd,
    ids: Ids,
) -> Result<MappingRef<'m>> {
    let stat = fd::stat(file)?;
    if !stat.is_regular() || fd::is_noexec(file)? {
        return Err(libc::EACCES);
    }
    {
        let _as_user = ids.assume();
        fd::may_execute(file)?;
    }
    let readable = fd::reopen(file, libc::O_RDONLY)?;
    files::mapping(
        engine,
        &files::Regular::new(std::rc::Rc::new(readable), stat, libc::O_RDONLY),
        false,
    )
}

pub(super) fn read<'m>(
    engine: &Engine<'m>,
    mapping: &MappingRef<'m>,
    offset: u64,
    len: usize,
) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let got = engine
        .sys
        .kernel_read(mapping, offset, &mut bytes)
        .map_err(|e| e.errno())?;
    bytes.truncate(got);
    Ok(bytes)
}

/// Reads the headers of an ELF file.
pub(super) fn object<'m>(engine: &Engine<'m>, mapping: MappingRef<'m>) -> Result<Object<'m>> {
    let header = elf::header(&read(engine, &mapping, 0, HEADER)?)?;
    let len = usize::from(header.count) * PROGRAM_HEADER;
    let segments = elf::segments(&header, &read(engine, &mapping, header.table, len)?)?;
    Ok(Object {
        mapping,
        header,
        segments,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_ourselves() {
        // SAFETY: takes no pointer.
        let uid = u64::from(unsafe { libc::getuid() });
        assert_eq!(ids(std::process::id() as i32).unwrap().user[0], uid);
    }
}
