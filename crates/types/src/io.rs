//! Failures of devices.

/// A transfer failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoError {
    /// Why, as a positive Linux errno: 5 is EIO, 28 is ENOSPC.
    pub errno: i32,
}

impl IoError {
    /// The device failed.
    pub const EIO: Self = Self { errno: 5 };
    /// The device is full.
    pub const ENOSPC: Self = Self { errno: 28 };
    /// What was read is not what was written.
    pub const EBADMSG: Self = Self { errno: 74 };
}

impl core::fmt::Display for IoError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "I/O error {}", self.errno)
    }
}

impl core::error::Error for IoError {}
