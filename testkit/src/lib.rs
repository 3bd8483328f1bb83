//! The scenario language: what programs see of memory, written once and run everywhere.
//!
//! Layer 0: it knows nothing of the core, so that the same text can judge both the core and Linux.
//!
//! ```text
//!   scenarios/*.scn ──parse──▶ Scenario ──run──▶ dyn Executor ── native: system calls of the kernel
//!                                                     │           below, natively or under `um`
//!                                                     └───────── sim: the software machine
//! ```
//!
//! # The language
//! One operation a line; `#` starts a comment. The first line names the first process, `proc a`;
//! others come from `a fork b`. A line begins with the process that acts:
//!
//! ```text
//! proc a
//! file create f 16K count            # page i (from 0) is filled with byte i + 1
//! a map p 16K rw shared file f 0     # p becomes the address
//! a write p+4K 0x55 4K               # address, byte, length (1 if absent)
//! a fork b
//! b expect p+4K 0x55 4K
//! b ! EINVAL unmap p+1 4K            # must fail with this error
//! a unmap p 16K
//! a segv read p maperr               # must raise SIGSEGV with SEGV_MAPERR, si_addr = p
//! ```
//!
//! Numbers are decimal or `0x`, with K, M, G, T; sums like `p+4K-1` may use the variables of the
//! process, which a child inherits.
//!
//! ```text
//! map VAR LEN PROT private|shared anon|file F OFF [rdonly] [at|fixed|noreplace ADDR]
//!                        [growsdown] [locked] [noreserve] [populate] [stack]
//! unmap ADDR LEN             protect ADDR LEN PROT          PROT: none, or letters of rwx
//! remap VAR OLD OLDLEN NEWLEN [maymove] [fixed ADDR] [dontunmap]
//! brk VAR [ADDR]             VAR becomes the break after the call
//! advise ADDR LEN NAME       sync ADDR LEN [sync] [async] [invalidate]
//! lock ADDR LEN [onfault]    unlock ADDR LEN      lockall FLAGS      unlockall
//! mincore ADDR LEN BITS      page 0 first
//! areas ADDR LEN COUNT       lines of /proc/self/maps that share a byte with the range
//! read ADDR [LEN]            write ADDR BYTE [LEN]          expect ADDR BYTE [LEN]
//! exec ADDR                  calls it: a return instruction, 0xc3, must be there
//! segv|bus read|write|exec ADDR [maperr|accerr]
//! pread|pwrite F OFF LEN ADDR [= COUNT]      into and from memory of the process
//! fexpect|fwrite F OFF BYTE [LEN]            through a buffer of the process's own
//! fork CHILD                 exit                           limit as|data|stack BYTES
//! same SUM SUM               let VAR SUM
//! file create F SIZE zero|count|BYTE    file truncate F SIZE    file size F SIZE
//! ```
//!
//! # How it is tested
//! Each scenario is first true on Linux, natively: `scenario-run scenarios/*.scn`. Then it must be
//! true on every machine of the core.
//!
//! # What this does not do
//! No loops, no conditions, no timing: a scenario is one fixed story.
#![warn(missing_docs)]

pub mod abi;
mod call;
mod expr;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod native;
mod parse;
mod record;
mod run;
mod scenario;
mod words;

pub use call::{
    COUNT_PATTERN, Call, Executor, MAX_FILES, MAX_PROCS, Op, READ_ONLY_FILE, Reply, pattern_byte,
};
pub use expr::{Expr, Vars};
pub use parse::ParseError;
pub use record::{proc_name, record};
pub use run::{Ending, Mismatch, Shortage, run};
pub use scenario::{Action, Scenario, Statement, Want};
