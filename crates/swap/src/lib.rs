//! Swap areas: slots, the swap cache and swap I/O.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod area;
mod array;
mod cache;
mod cluster;
mod device;
mod error;
pub mod header;
mod io;
mod order;
mod readahead;
mod slots;
mod swap;
mod validate;
mod word;

pub use area::{AreaInfo, SwapOn, UsedSlot};
pub use device::{SwapDevice, WriteError};
pub use error::{SwapError, SwapInError, TooManyReferences};
pub use io::SwappedIn;
pub use readahead::SwapReadahead;
pub use swap::Swap;
pub use vellum_types::{IoError, SwapEntry};
