//! Unmodified Linux programs whose memory is served by the core.
//!
//! Layer 9, a machine: an ordinary process of a Linux host, the *supervisor*, runs dynamic programs
//! of that host under ptrace. RAM is a memory file. A program's address space on the host is only a
//! TLB: it holds what the core's page tables say, page by page, as far as it was needed so far.
//! Each page fault, each memory call and each frame is the core's; the host's kernel still runs the
//! tasks, the signals, the sockets and the files.
//!
//! ```text
//!   supervisor (one thread)                    host address space of a program
//!   ┌──────────────────────────────┐           ┌──────────────────────────────────┐
//!   │ System (core)   RAM, mapped ─┼── same ───┼─ code, heap, stack: frames of the│
//!   │    │ hooks        once       │  frames   │  memory file, mapped as needed   │
//!   │ UmMachine: record of what    │           │ vdso (the host's)                │
//!   │    is installed, queue       │  mailbox  │ stub page │ mailbox              │
//!   │    └──────── batch ──────────┼───────────┼──▶ service process: mmap, munmap │
//!   └──────────────────────────────┘           └──────────────────────────────────┘
//!        ▲ stops: SIGSEGV, seccomp, clone, exec, exit, signals
//! ```
//!
//! # The parts
//! * `ram`, `machine`, `space`, `tlb`: what implements [`Machine`](vellum_machine::Machine).
//! * `stub`: one page of code in every guest, and the mailbox through which it is told what to do.
//! * `supervisor`: the event loop; `fault`, `signal`, `fork`, `exec`, `exit`: what each event means;
//!   `inject`: host calls that only a guest's task can make; `pace`: which CPU everybody uses.
//! * `abi`: system calls about memory and files, program images, `/proc`.
//! * `swap`: swap areas in files of the host, and the compressor of compressed ones.
//! * `host`: ptrace, waitpid, seccomp and memory files as plain functions.
//!
//! # The life of a fault
//! SIGSEGV stop; the instruction is decoded, for ptrace does not say whether it wrote;
//! `System::fault`; the core calls `update_mmu_cache_range`; the change joins the space's queue;
//! before the task runs again, the space's service process carries out the queue in one batch. The
//! program never learns of the signal. If the core says that the access is wrong, it does: with the
//! code and address that Linux would give.
//!
//! # A system call
//! The seccomp filter lets calls without pointers run at once. All others stop: a memory call is
//! answered by the core; a call that reads or writes user memory runs on the host after its buffers
//! were faulted in and pinned, since the host's kernel cannot fault into the core.
//!
//! # Invariants
//! * The record of a space is exact but for pages whose host call failed, which are dropped from it;
//!   a host fault installs its page again, whatever the record says.
//! * Nothing of a space's queue is left when one of its tasks runs. A flush waits for the host if a
//!   task of the space runs at that moment; if none does, it is in force before one does.
//! * Pinned pages are neither evicted nor reclaimed, and neither fork nor migration gives them another
//!   frame.
//! * Between the core's copy of a space and the host's, no other fault of it is served.
//! * SIGSEGV is never blocked or ignored on the host; what the guest believes is kept here.
//! * All guests die with the supervisor.
//!
//! # Locks
//! None: one thread handles one event at a time, and the guest's tasks of that space are stopped or
//! inside the host's kernel, where their pages are pinned.
//!
//! # Failure
//! What keeps a program from starting is a [`RunError`]. When frames run short the core reclaims: pages
//! of files, and with swap those of programs. When that brings nothing more the largest process is
//! killed, as by Linux's OOM killer, and the fault is tried again. A host call that fails inside a
//! space loses translations only: they come back by faults. A service process that dies takes its
//! space with it.
//!
//! # What this does not do
//! No other architecture than x86-64, and no 32-bit programs. No ptrace inside (gdb, strace), no
//! io_uring, no shared memory of System V. A program that changes its user id can neither fork nor
//! exec after that: its children could not open the machine's RAM.
//!
//! Linux: `arch/um` (skas, stub pages) has the same shape; the hooks are those of `tlbflush.h`.
#![warn(missing_docs)]

#[allow(unreachable_pub)]
mod abi;
mod access;
mod engine;
mod exec;
mod exit;
mod facade;
mod fault;
mod fork;
mod held;
mod host;
mod ids;
mod inject;
mod launch;
mod machine;
mod pace;
mod ram;
mod run;
mod signal;
mod space;
mod stub;
mod supervisor;
mod swap;
mod task;
#[cfg(test)]
mod testing;
mod tlb;

pub use run::{Exit, HostWork, RunConfig, RunError, RunOutcome, SwapUse, run};
pub use swap::{SwapKind, SwapOpenError, SwapSpec};
