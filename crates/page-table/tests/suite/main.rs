//! The tests of the page tables: bits, model, gather.

mod codec;
mod gather;
mod machine;
mod model;
mod ram;
