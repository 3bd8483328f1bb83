//! The only code of ours that runs inside a guest: one page, at a fixed address in every space.
//!
//! ```text
//!   STUB_BASE     ELF header | ENTRY BATCH SERVICE, strings | PARK
//!   MAILBOX_BASE  slot 0 | slot 1 | ...      the same memory file in every space
//! ```
//!
//! * ENTRY is where the host's execve of the stub begins: it maps the mailbox and parks.
//! * BATCH runs the calls in the slot at `r15` and parks.
//! * SERVICE is the life of a service process: run batches of the slot at `r15`, sleep in between.
//! * PARK makes a system call that the filter hands to the supervisor, outside of the window from
//!   which calls run freely. No signal is involved, so the guest's dispositions stay untouched.
//!
//! The code uses no stack and keeps its state in r12 to r15, rbx and rbp.

mod image;
pub(crate) mod mailbox;

pub(crate) use image::{Image, Paths, proc_path};
use std::ops::Range;

/// First byte of the stub's page.
pub(crate) const STUB_BASE: u64 = 0x7ff0_0000_0000;
/// First byte of the mailbox.
pub(crate) const MAILBOX_BASE: u64 = STUB_BASE + 0x1_0000;
/// Bytes of the mailbox, for all slots together.
pub(crate) const MAILBOX_LEN: u64 = 64 << 20;
/// The addresses that the guest's own mappings must leave alone.
pub(crate) const RESERVED: Range<u64> = STUB_BASE..MAILBOX_BASE + MAILBOX_LEN;
/// The window from which system calls run without a stop.
pub(crate) const FREE_WINDOW: Range<u64> = STUB_BASE + CODE_OFFSET..STUB_BASE + PARK_OFFSET;
/// Number of the call that PARK makes; Linux has none such.
pub(crate) const PARK_CALL: u64 = 4095;

const CODE_OFFSET: u64 = 0x100;
const PARK_OFFSET: u64 = 0xc00;
