//! What can go wrong besides a full memory.

use core::fmt;
use vellum_types::{IoError, OutOfMemory, SwapEntry};

/// Why swapon or swapoff was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SwapError {
    /// All areas are in use.
    TooManyAreas,
    /// No usable slot: EINVAL.
    TooSmall,
    /// The list of bad slots names one that does not exist: EINVAL.
    BadSlot(u32),
    /// No memory for the area's tables.
    OutOfMemory,
    /// No such area: EINVAL.
    NoArea,
    /// There is memory above the direct map, where a device cannot read or write: EINVAL.
    HighMemory,
    /// Slots are in use; their content would be lost: EBUSY.
    Busy {
        /// How many.
        used: u32,
    },
}

impl From<OutOfMemory> for SwapError {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

impl fmt::Display for SwapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyAreas => f.write_str("too many swap areas"),
            Self::TooSmall => f.write_str("swap area without a usable slot"),
            Self::BadSlot(slot) => write!(f, "bad slot {slot} is beyond the swap area"),
            Self::HighMemory => f.write_str("swap needs all memory in the direct map"),
            Self::OutOfMemory => f.write_str("out of memory"),
            Self::NoArea => f.write_str("no such swap area"),
            Self::Busy { used } => write!(f, "{used} slots of the swap area are in use"),
        }
    }
}

impl core::error::Error for SwapError {}

/// Why a page could not be brought back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SwapInError {
    /// No frame for it.
    OutOfMemory,
    /// Somebody else is reading it at this moment: let others run, then look again.
    Busy,
    /// Nobody refers to the entry any more: the table entry that it came from has changed.
    Gone,
    /// The device failed: SIGBUS for those who touch the page.
    Io {
        /// The slot that cannot be read.
        entry: SwapEntry,
        /// Why.
        error: IoError,
    },
}

impl From<OutOfMemory> for SwapInError {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

impl fmt::Display for SwapInError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory => f.write_str("out of memory"),
            Self::Busy => f.write_str("page is being read"),
            Self::Gone => f.write_str("entry is not in use"),
            Self::Io { entry, error } => write!(f, "{entry:?} cannot be read: {error}"),
        }
    }
}

impl core::error::Error for SwapInError {}

/// A slot has as many references as its count can say. Fork fails with ENOMEM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooManyReferences;

impl fmt::Display for TooManyReferences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too many references to a swap slot")
    }
}

impl core::error::Error for TooManyReferences {}
