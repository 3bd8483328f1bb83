//! The end of the machine.

use crate::x86;

/// What isa-debug-exit is told; QEMU ends with twice that and one more.
pub(crate) const DONE: u32 = 0x10;
pub(crate) const PANIC: u32 = 0x3f;

/// Ends QEMU, by whichever device is there: the debug exit, ACPI, or a reset.
pub(crate) fn off(code: u32) -> ! {
    x86::outl(0xf4, code);
    x86::outw(0x604, 0x2000);
    x86::outb(0x64, 0xfe);
    x86::halt()
}
