//! What a fuzzer does with the core.
//!
//! Each module has one `run`: it reads the input as a history of operations, or as the thing to be
//! parsed, and compares the structure with a naive model. Any difference is a panic. Nothing here
//! knows the fuzzer: the programs in `fuzz_targets` hand its inputs over, and `cargo test` in this
//! folder runs the same functions on random ones and on those in `regressions`.
//!
//! ```text
//!   cargo xtask fuzz [TARGET] [--seconds N]
//!      │ coverage counters by -C passes=sancov-module, which stable compilers take
//!      ▼
//!   libFuzzer ──bytes──▶ run ──▶ operations ──▶ structure ┐
//!                                          └──▶ model     ┘ equal? validate()?
//! ```
//!
//! There is no sanitizer of addresses: that needs a nightly compiler. `cargo +nightly fuzz run
//! TARGET` adds it.
#![warn(missing_docs)]

pub mod buddy;
pub mod elf;
mod input;
mod machine;
pub mod memblock;
pub mod page_table;
pub mod radix;
pub mod slab;
pub mod swap_header;
pub mod vma;
pub mod vmalloc;

/// All targets, by name.
pub const TARGETS: [(&str, fn(&[u8])); 9] = [
    ("memblock", memblock::run),
    ("buddy", buddy::run),
    ("slab", slab::run),
    ("vmalloc", vmalloc::run),
    ("vma", vma::run),
    ("radix", radix::run),
    ("page_table", page_table::run),
    ("swap_header", swap_header::run),
    ("elf", elf::run),
];
