//! The local APIC: the timer, and calls from CPU to CPU.

use crate::sync::Once;
use crate::trap::{VECTOR_SPURIOUS, VECTOR_TIMER};
use crate::{paging, x86};

/// Interrupts of the timer in a second.
pub(crate) const HZ: u64 = 250;
/// QEMU's APIC counts nanoseconds.
const COUNT: u32 = (1_000_000_000 / HZ) as u32;

const ID: u64 = 0x20;
const END: u64 = 0xb0;
const SPURIOUS: u64 = 0xf0;
const COMMAND_LOW: u64 = 0x300;
const COMMAND_HIGH: u64 = 0x310;
const TIMER: u64 = 0x320;
const INITIAL_COUNT: u64 = 0x380;
const DIVIDE: u64 = 0x3e0;
const PERIODIC: u32 = 1 << 17;

static REGISTERS: Once<u64> = Once::new();

fn read(register: u64) -> u32 {
    let at = (*REGISTERS.get() + register) as *const u32;
    // SAFETY: the APIC's registers, mapped uncached.
    unsafe { at.read_volatile() }
}

fn write(register: u64, value: u32) {
    let at = (*REGISTERS.get() + register) as *mut u32;
    // SAFETY: as for read.
    unsafe { at.write_volatile(value) }
}

/// Masks the old interrupt controllers, whose vectors would look like exceptions, and maps the APIC.
pub(crate) fn set_up() {
    x86::outb(0x21, 0xff);
    x86::outb(0xa1, 0xff);
    // SAFETY: every x86-64 has it.
    let base = unsafe { x86::rdmsr(x86::APIC_BASE) } & 0xf_ffff_f000;
    REGISTERS.set(paging::map_device(base, 4096));
}

/// Turns this CPU's APIC on.
pub(crate) fn enable() {
    write(SPURIOUS, 0x100 | VECTOR_SPURIOUS as u32);
}

/// Starts this CPU's timer.
pub(crate) fn start_timer() {
    write(DIVIDE, 0b1011);
    write(TIMER, PERIODIC | VECTOR_TIMER as u32);
    write(INITIAL_COUNT, COUNT);
}

/// This CPU's number.
pub(crate) fn id() -> u32 {
    read(ID) >> 24
}

pub(crate) fn end_of_interrupt() {
    write(END, 0);
}

/// Sends an interrupt: `command` is the low half of the command register.
pub(crate) fn send(apic: u32, command: u32) {
    write(COMMAND_HIGH, apic << 24);
    write(COMMAND_LOW, command);
    while read(COMMAND_LOW) & 1 << 12 != 0 {
        core::hint::spin_loop();
    }
}
