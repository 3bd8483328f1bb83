//! Swap areas of the machine: files of the host, and compressed memory.

mod compress;
mod file;

pub(crate) use compress::Lz4;
pub(crate) use file::FileSwap;

use std::path::PathBuf;

/// A swap area that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwapSpec {
    /// Where its pages go.
    pub kind: SwapKind,
    /// Areas of higher priority are filled first; `None` as swapon(8) without `-p`.
    pub priority: Option<i16>,
}

/// Where the pages of a swap area go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SwapKind {
    /// A file of so many bytes that has no name and goes with the machine.
    Temporary {
        /// Bytes.
        bytes: u64,
    },
    /// A file or block device.
    File {
        /// Which.
        path: PathBuf,
        /// Make it so large, and write a header; without it there must be one.
        bytes: Option<u64>,
    },
    /// Compressed memory of the machine itself, for so many bytes of pages.
    Zram {
        /// Bytes, before compression.
        bytes: u64,
    },
}

/// Why a swap area cannot be used.
#[derive(Debug)]
pub struct SwapOpenError {
    /// The path, or what was asked for.
    pub what: String,
    /// One line.
    pub why: String,
}

impl std::fmt::Display for SwapOpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "swap {}: {}", self.what, self.why)
    }
}

impl std::error::Error for SwapOpenError {}
