//! Swap areas: slots, the swap cache and swap I/O.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod area;
mod array;
mod cache;
mod checked;
mod cluster;
mod device;
mod error;
pub mod header;
mod io;
mod order;
mod packed;
mod readahead;
mod same_filled;
mod slots;
mod swap;
mod validate;
mod word;
mod zpool;
mod zram;
mod zswap;

pub use area::{AreaInfo, SwapOn, UsedSlot};
pub use checked::Checked;
pub use device::{SwapDevice, WriteError};
pub use error::{SwapError, SwapInError, TooManyReferences};
pub use io::SwappedIn;
pub use packed::{COMPRESS_BUFFER, Compressor, Corrupt, PackedStat};
pub use readahead::SwapReadahead;
pub use same_filled::SameFilled;
pub use swap::Swap;
pub use vellum_types::{IoError, SwapEntry};
pub use zram::Zram;
pub use zswap::Zswap;
