//! The initramfs: a cpio archive in the "newc" format. Source: cpio(5),
//! `Documentation/driver-api/early-userspace/buffer-format.rst` of Linux.
//!
//! Eighty lines that read one archive format are less than any crate's interface to it.

use core::fmt;

/// A file, folder or link of an archive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// Path without a leading slash.
    pub name: &'a str,
    /// `st_mode`.
    pub mode: u32,
    /// The bytes; of a symbolic link, where it points.
    pub data: &'a [u8],
}

/// The archive is broken here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpioError {
    /// Byte of the archive.
    pub at: usize,
    /// What is wrong.
    pub what: &'static str,
}

impl fmt::Display for CpioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "initramfs: {} at byte {}", self.what, self.at)
    }
}

/// The entries of an archive, up to its trailer.
pub struct Entries<'a> {
    archive: &'a [u8],
    at: usize,
    done: bool,
}

/// Reads `archive` entry by entry.
pub const fn entries(archive: &[u8]) -> Entries<'_> {
    Entries {
        archive,
        at: 0,
        done: false,
    }
}

const HEADER: usize = 110;

impl<'a> Entries<'a> {
    fn field(&self, index: usize) -> Result<usize, CpioError> {
        let at = self.at + 6 + index * 8;
        self.archive
            .get(at..at + 8)
            .and_then(|digits| core::str::from_utf8(digits).ok())
            .and_then(|digits| usize::from_str_radix(digits, 16).ok())
            .ok_or(self.error("a header with a bad number"))
    }

    fn error(&self, what: &'static str) -> CpioError {
        CpioError { at: self.at, what }
    }

    fn read(&mut self) -> Result<Option<Entry<'a>>, CpioError> {
        match self.archive.get(self.at..self.at + 6) {
            Some(b"070701" | b"070702") => {}
            Some(_) => return Err(self.error("no header of the newc format")),
            None => return Err(self.error("the end before the trailer")),
        }
        let (mode, size, name_size) = (self.field(1)?, self.field(6)?, self.field(11)?);
        let name_at = self.at + HEADER;
        let data_at = (name_at + name_size).next_multiple_of(4);
        let cut = self.error("an entry that is cut short");
        let name = self
            .archive
            .get(name_at..name_at + name_size.saturating_sub(1))
            .ok_or(cut)?;
        let data = self.archive.get(data_at..data_at + size).ok_or(cut)?;
        let name =
            core::str::from_utf8(name).map_err(|_| self.error("a name that is not UTF-8"))?;
        self.at = (data_at + size).next_multiple_of(4);
        if name == "TRAILER!!!" {
            return Ok(None);
        }
        let name = name.trim_start_matches("./").trim_start_matches('/');
        Ok(Some(Entry {
            name,
            mode: mode as u32,
            data,
        }))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, CpioError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let result = self.read().transpose();
        self.done = !matches!(result, Some(Ok(_)));
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec::Vec;

    fn entry(out: &mut Vec<u8>, name: &str, mode: u32, data: &[u8]) {
        let fields = [
            1,
            mode,
            0,
            0,
            1,
            0,
            data.len() as u32,
            0,
            0,
            0,
            0,
            name.len() as u32 + 1,
            0,
        ];
        out.extend_from_slice(b"070701");
        for field in fields {
            out.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(4), 0);
    }

    #[test]
    fn files_come_in_order() {
        let mut archive = Vec::new();
        entry(&mut archive, "bin", 0o040755, b"");
        entry(&mut archive, "./bin/a", 0o100755, b"hello");
        entry(&mut archive, "TRAILER!!!", 0, b"");
        let read: Vec<_> = entries(&archive).map(Result::unwrap).collect();
        assert_eq!(read.len(), 2);
        assert_eq!((read[1].name, read[1].data), ("bin/a", &b"hello"[..]));
    }

    #[test]
    fn every_cut_is_an_error_and_no_panic() {
        let mut archive = Vec::new();
        entry(&mut archive, "a", 0o100755, b"hello");
        entry(&mut archive, "TRAILER!!!", 0, b"");
        for len in 0..archive.len() - 4 {
            assert!(
                entries(&archive[..len]).any(|entry| entry.is_err()),
                "{len}"
            );
        }
    }
}
