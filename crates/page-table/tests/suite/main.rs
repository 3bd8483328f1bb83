//! The tests of the page tables: bits, model, gather.

mod codec;
mod gather;
mod kernel_half;
mod machine;
mod model;
mod ram;
