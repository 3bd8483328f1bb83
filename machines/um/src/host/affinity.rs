//! CPU masks of host threads.

/// One bit per CPU.
#[derive(Clone, Copy)]
pub struct CpuMask(pub libc::cpu_set_t);
