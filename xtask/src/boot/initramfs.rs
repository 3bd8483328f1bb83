//! An archive for the kernel: cpio in the "newc" format.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const FILE: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;
const LINK: u32 = 0o120_000;

/// An archive that grows.
#[derive(Default)]
pub(crate) struct Initramfs {
    bytes: Vec<u8>,
    folders: HashSet<String>,
}

impl Initramfs {
    fn entry(&mut self, name: &str, mode: u32, data: &[u8]) {
        let size = data.len() as u32;
        let fields = [
            1,
            mode,
            0,
            0,
            1,
            0,
            size,
            0,
            0,
            0,
            0,
            name.len() as u32 + 1,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// The folders above `name`, each once.
    fn folders(&mut self, name: &str) {
        for (at, _) in name.match_indices('/') {
            let folder = &name[..at];
            if !folder.is_empty() && self.folders.insert(folder.to_string()) {
                self.entry(folder, FOLDER | 0o755, &[]);
            }
        }
    }

    /// Adds a file of the host.
    pub(crate) fn add_file(&mut self, name: &str, path: &Path) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let data = std::fs::read(path).map_err(failed)?;
        let mode = std::fs::metadata(path)
            .map_err(failed)?
            .permissions()
            .mode();
        let name = name.trim_start_matches('/');
        self.folders(name);
        self.entry(name, FILE | mode & 0o7777, &data);
        Ok(())
    }

    /// Adds a file, or a folder with all that is in it.
    pub(crate) fn add(&mut self, name: &str, path: &Path) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let kind = std::fs::symlink_metadata(path).map_err(failed)?.file_type();
        if kind.is_symlink() && !path.exists() {
            let target = std::fs::read_link(path).map_err(failed)?;
            let name = name.trim_start_matches('/');
            self.folders(name);
            self.entry(name, LINK | 0o777, target.as_os_str().as_encoded_bytes());
            return Ok(());
        }
        if !path.is_dir() {
            return self.add_file(name, path);
        }
        let mut names: Vec<_> = std::fs::read_dir(path)
            .map_err(failed)?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        for inner in names {
            self.add(&format!("{name}/{inner}"), &path.join(&inner))?;
        }
        Ok(())
    }

    /// Adds a file of these bytes.
    pub(crate) fn add_bytes(&mut self, name: &str, mode: u32, data: &[u8]) {
        self.folders(name);
        self.entry(name, FILE | mode, data);
    }

    /// Adds a file of strings, each with a NUL behind it.
    pub(crate) fn add_strings(&mut self, name: &str, strings: &[String]) {
        let data: Vec<u8> = strings
            .iter()
            .flat_map(|text| text.bytes().chain([0]))
            .collect();
        self.add_bytes(name, 0o644, &data);
    }

    /// The archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_before_what_is_in_them_and_once() {
        let mut archive = Initramfs::default();
        archive.add_bytes("a/b/c", 0o755, b"x");
        archive.add_bytes("a/b/d", 0o755, b"y");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("070701").count(), 5);
        assert!(bytes.len().is_multiple_of(4));
    }
}
