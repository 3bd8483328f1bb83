//! Reverse mapping: from a page to the table entries that may map it.
#![no_std]
#![warn(missing_docs)]
