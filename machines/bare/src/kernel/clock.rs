//! Time: the TSC, measured once against the PIT, and the date from the CMOS clock.

use crate::x86::{inb, outb, rdtsc};
use core::sync::atomic::{AtomicU64, Ordering};

/// Nanoseconds per tick, times 2^32.
static SCALE: AtomicU64 = AtomicU64::new(1 << 32);
static START: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds since 1970 at the start.
static EPOCH: AtomicU64 = AtomicU64::new(0);

const PIT_HZ: u64 = 1_193_182;
/// Ticks of the PIT that are measured: 5 ms.
const PIT_TICKS: u64 = PIT_HZ / 200;

/// Measures the TSC and reads the date.
pub(crate) fn set_up() {
    // Channel 2, gate on, speaker off, mode 0: its output rises when the count is over.
    outb(0x61, inb(0x61) & !3 | 1);
    outb(0x43, 0xb0);
    outb(0x42, PIT_TICKS as u8);
    outb(0x42, (PIT_TICKS >> 8) as u8);
    let start = rdtsc();
    while inb(0x61) & 0x20 == 0 {}
    let ticks = (rdtsc() - start).max(1);
    let ns = PIT_TICKS * 1_000_000_000 / PIT_HZ;
    let mut scale = ((u128::from(ns) << 32) / u128::from(ticks)) as u64;
    // QEMU's instruction counter ticks once a nanosecond; the PIT is too coarse to say so exactly.
    if scale.abs_diff(1 << 32) < 1 << 26 {
        scale = 1 << 32;
    }
    SCALE.store(scale, Ordering::Relaxed);
    START.store(start, Ordering::Relaxed);
    EPOCH.store(cmos_seconds() * 1_000_000_000, Ordering::Relaxed);
}

/// Nanoseconds since the start.
pub(crate) fn now_ns() -> u64 {
    let ticks = rdtsc().wrapping_sub(START.load(Ordering::Relaxed));
    ((u128::from(ticks) * u128::from(SCALE.load(Ordering::Relaxed))) >> 32) as u64
}

/// Nanoseconds since 1970.
pub(crate) fn wall_ns() -> u64 {
    EPOCH.load(Ordering::Relaxed) + now_ns()
}

fn cmos(register: u8) -> u64 {
    outb(0x70, register);
    let value = inb(0x71);
    u64::from(value >> 4) * 10 + u64::from(value & 15)
}

/// Seconds since 1970; QEMU's clock counts in BCD and 24 hours.
fn cmos_seconds() -> u64 {
    outb(0x70, 0x0a);
    while inb(0x71) & 0x80 != 0 {}
    let (year, month, day) = (2000 + cmos(9), cmos(8), cmos(7));
    let (hour, minute, second) = (cmos(4), cmos(2), cmos(0));
    // Days since 1970-01-01, counting years from March.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    ((days * 24 + hour) * 60 + minute) * 60 + second
}

unsafe extern "C" {
    /// mem.s counts here.
    static rep_iterations: AtomicU64;
}

/// Ticks that programs do not see, in net counting.
static HIDDEN: AtomicU64 = AtomicU64::new(0);

/// Instructions of the way in and out of an emulated RDTSC that the emulation does not see itself.
const WAY: u64 = 167;

/// With `net` on the command line, RDTSC in programs traps, and counts each string instruction of the
/// kernel as none instead of one for each iteration; what the trap costs is left out. For
/// benchmarks under QEMU's instruction counter, where zeroing a page would hide everything else.
pub(crate) fn set_up_net() {
    if crate::init::option("net").is_some() {
        // SAFETY: TSD only makes RDTSC fault in ring 3.
        unsafe { crate::x86::write_cr4(crate::x86::read_cr4() | 4) };
    }
}

fn iterations() -> u64 {
    // SAFETY: a word of the image; mem.s adds to it, and a lost count does not matter.
    unsafe { rep_iterations.load(Ordering::Relaxed) }
}

/// If a program executed RDTSC where only the kernel may: answers it.
#[inline(never)]
pub(crate) fn emulate_rdtsc(frame: &mut crate::trap::TrapFrame) -> bool {
    let (start, reps) = (rdtsc(), iterations());
    let mut code = [0; 2];
    if crate::sys::user::get(frame.rip, &mut code).is_err() || code != [0x0f, 0x31] {
        return false;
    }
    let hidden = HIDDEN.load(Ordering::Relaxed);
    let value = start.wrapping_sub(hidden).wrapping_sub(reps);
    frame.rax = value & 0xffff_ffff;
    frame.rdx = value >> 32;
    frame.rip += 2;
    let own = rdtsc()
        .wrapping_sub(start)
        .wrapping_sub(iterations().wrapping_sub(reps));
    HIDDEN.store(
        hidden.wrapping_add(own).wrapping_add(WAY),
        Ordering::Relaxed,
    );
    true
}
