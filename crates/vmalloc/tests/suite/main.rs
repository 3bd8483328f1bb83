//! The tests of kernel mappings: model, failures, windows, the 32-bit profile.

mod failures;
mod highmem;
mod machine;
mod model;
mod stories;
mod threads;
