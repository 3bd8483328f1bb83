//! The kernel. `docs/BARE.md` says how it is run; the library beside it has the overview.
#![no_std]
#![no_main]
#![allow(unreachable_pub, reason = "a program has no users")]

extern crate alloc;

mod apic;
mod clock;
mod cpu;
mod exec;
mod fs;
mod heap;
mod init;
mod machine;
mod paging;
mod panic;
mod power;
mod random;
mod sched;
mod self_test;
mod serial;
mod signal;
mod smp;
mod start;
mod swap;
mod sync;
mod sys;
mod task;
mod trap;
mod wait;
mod x86;

core::arch::global_asm!(include_str!("boot.s"), options(att_syntax));
core::arch::global_asm!(include_str!("entry.s"), options(att_syntax));
core::arch::global_asm!(include_str!("mem.s"), options(att_syntax));
core::arch::global_asm!(include_str!("trampoline.s"), options(att_syntax));
