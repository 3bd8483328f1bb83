//! The serial ports: the first is the console of kernel and program, the second, if there is one,
//! tells the starter how it ended.

use crate::sync::Lock;
use crate::x86::{inb, outb};
use core::fmt::{self, Write};

const COM1: u16 = 0x3f8;
const COM2: u16 = 0x2f8;

static CONSOLE: Lock<()> = Lock::new(());

/// 115200 baud, 8 bits, no parity; no interrupts.
pub(crate) fn set_up() {
    for port in [COM1, COM2] {
        outb(port + 1, 0);
        outb(port + 3, 0x80);
        outb(port, 1);
        outb(port + 1, 0);
        outb(port + 3, 3);
        outb(port + 2, 1);
        outb(port + 4, 3);
    }
}

fn put(port: u16, byte: u8) {
    // A port that is not there reads as ones.
    for _ in 0..100_000 {
        if inb(port + 5) & 0x20 != 0 {
            break;
        }
    }
    outb(port, byte);
}

/// Writes bytes to the console.
pub(crate) fn write(bytes: &[u8]) {
    let _guard = CONSOLE.lock();
    bytes.iter().for_each(|&byte| put(COM1, byte));
}

/// A byte that somebody typed.
pub(crate) fn read() -> Option<u8> {
    (inb(COM1 + 5) & 1 != 0).then(|| inb(COM1))
}

/// Tells the starter how it ended.
pub(crate) fn report(text: &str) {
    text.bytes().for_each(|byte| put(COM2, byte));
}

/// For messages of the kernel. Does not lock, so that a panic is heard in any case.
pub(crate) struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                put(COM1, b'\r');
            }
            put(COM1, byte);
        }
        Ok(())
    }
}

/// Writes a line to the console.
macro_rules! kprintln {
    ($($argument:tt)*) => {{
        use core::fmt::Write as _;
        // The console cannot fail.
        let _ = writeln!($crate::serial::Console, $($argument)*);
    }};
}
pub(crate) use kprintln;
