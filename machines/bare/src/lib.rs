//! A kernel around the core: real page tables, real interrupts, unmodified static Linux programs.
//!
//! Layer 9. The kernel exists to carry the memory management, so it is as small as it can be while
//! programs still find a Linux under them. `cargo xtask boot -- PROGRAM ARGS` builds it, packs the
//! program into an initramfs, boots both in QEMU and ends with the program's exit status.
//!
//! ```text
//!   QEMU ─ PVH ─▶ boot.s ─▶ tables, GDT, IDT ─▶ System::boot(BareMachine, RamStore)
//!                                                     │
//!   ring 3   program          ── syscall, #PF ─▶      ▼
//!   ring 0   entry.s ─▶ sys/* ─▶ tasks, files ─▶  MmContext: fault, mmap, fork …
//!                                                     │ writes entries
//!            CR3 = Mm::root ◀────────── hardware walks them
//! ```
//!
//! This library holds what can be tested on a host: readers of what the firmware and the boot
//! loader hand over ([`pvh`], [`cpio`], [`acpi`]), of programs ([`elf`]), and the layout of a
//! program's first stack ([`stack`]), and what makes pages small for swap ([`lz4`]). The kernel itself is the program `vellum-kernel` beside it,
//! built with feature `kernel`; `docs/BARE.md` describes it.
//!
//! # Invariants
//! * The kernel runs with interrupts off and is never preempted; programs and the idle loop are.
//! * The kernel reaches a program's memory only through the core (`copy_from_user` and its like),
//!   which walks the tables; a page fault in kernel mode is therefore always a bug, and fatal.
//! * All address spaces share the kernel's half: three entries of the top table, made at boot.
//!
//! # Failure
//! Every reader here takes any bytes and answers with an error that says what is wrong in one line.
//!
//! # What this does not do
//! Dynamic programs, sockets, disks, swap, users and permissions.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

extern crate alloc;

pub mod acpi;
mod bytes;
pub mod cpio;
pub mod elf;
pub mod lz4;
pub mod pvh;
pub mod stack;
