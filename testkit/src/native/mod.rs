//! Scenarios on the kernel below this process, by real system calls.
//!
//! ```text
//!   controller ──pipe──▶ process 0 ──fork──▶ process 1 …     one pair of pipes for each, made
//!       ▲  └──pipe──▶ process 1        files: a directory     before the first fork
//!       └──pipe── replies
//! ```
//!
//! The controller reads the text and allocates; the workers touch nothing but their stacks, so that
//! their break and their areas are the scenario's alone. One command is 7 words, one reply 4.
//!
//! Faulting accesses are made by three functions in assembly; the signal handler knows their address
//! range and resumes behind them, as the kernel's own exception table does for `copy_from_user`.
//!
//! The same program runs natively, where it is the oracle, and as an ordinary guest under `um`.

mod controller;
mod probe;
mod worker;

pub use controller::Native;
