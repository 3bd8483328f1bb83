//! Swap areas: slots, the swap cache and swap I/O.
#![no_std]
#![warn(missing_docs)]
