//! CPU masks of host threads.

use super::check;
use std::io;

/// One bit per CPU.
#[derive(Clone, Copy)]
pub(crate) struct CpuMask(libc::cpu_set_t);

impl CpuMask {
    /// No CPU.
    pub(crate) fn empty() -> Self {
        // SAFETY: cpu_set_t is an array of integers; all zero is its empty value.
        Self(unsafe { std::mem::zeroed() })
    }

    /// The mask of thread `tid`, 0 for the calling one.
    pub(crate) fn of(tid: i32) -> io::Result<Self> {
        let mut mask = Self::empty();
        // SAFETY: the buffer is a cpu_set_t of the length given.
        check(unsafe { libc::sched_getaffinity(tid, size_of_val(&mask.0), &mut mask.0) }.into())?;
        Ok(mask)
    }

    /// One CPU.
    pub(crate) fn single(cpu: usize) -> Self {
        let mut mask = Self::empty();
        // SAFETY: CPU_SET ignores numbers beyond the set.
        unsafe { libc::CPU_SET(cpu, &mut mask.0) };
        mask
    }

    /// Applies the mask to thread `tid`, 0 for the calling one.
    pub(crate) fn apply(&self, tid: i32) -> io::Result<()> {
        // SAFETY: the buffer is a cpu_set_t of the length given.
        check(unsafe { libc::sched_setaffinity(tid, size_of_val(&self.0), &self.0) }.into())?;
        Ok(())
    }

    /// How many CPUs.
    pub(crate) fn count(&self) -> usize {
        // SAFETY: reads the set only.
        unsafe { libc::CPU_COUNT(&self.0) as usize }
    }

    /// The CPUs in both masks.
    pub(crate) fn and(&self, other: &Self) -> Self {
        let mut mask = Self::empty();
        for cpu in 0..libc::CPU_SETSIZE as usize {
            if self.has(cpu) && other.has(cpu) {
                // SAFETY: `cpu` is below CPU_SETSIZE.
                unsafe { libc::CPU_SET(cpu, &mut mask.0) };
            }
        }
        mask
    }

    /// Is this CPU in it?
    pub(crate) fn has(&self, cpu: usize) -> bool {
        // SAFETY: reads the set only; the caller's number is checked by CPU_ISSET.
        cpu < libc::CPU_SETSIZE as usize && unsafe { libc::CPU_ISSET(cpu, &self.0) }
    }

    /// The bytes as sched_getaffinity(2) gives them.
    pub(crate) fn to_bytes(self) -> [u8; 128] {
        let mut bytes = [0; 128];
        for cpu in (0..1024).filter(|c| self.has(*c)) {
            bytes[cpu / 8] |= 1 << (cpu % 8);
        }
        bytes
    }

    /// The inverse of [`CpuMask::to_bytes`]; missing bytes are zero.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let mut mask = Self::empty();
        for cpu in 0..(bytes.len() * 8).min(libc::CPU_SETSIZE as usize) {
            if bytes[cpu / 8] & (1 << (cpu % 8)) != 0 {
                // SAFETY: `cpu` is below CPU_SETSIZE.
                unsafe { libc::CPU_SET(cpu, &mut mask.0) };
            }
        }
        mask
    }
}
