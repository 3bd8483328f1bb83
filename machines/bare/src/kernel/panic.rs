//! The end, when something is wrong: what, where, and the state of memory.

use crate::machine::try_system;
use crate::serial::{self, kprintln};
use crate::{paging, power};
use core::fmt::Write;
use core::sync::atomic::{AtomicBool, Ordering};

static PANICKED: AtomicBool = AtomicBool::new(false);

/// Code addresses shown at most.
const FRAMES: usize = 24;

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    if PANICKED.swap(true, Ordering::AcqRel) {
        // Once more while reporting, or on another CPU: the first report must do.
        power::off(power::PANIC);
    }
    kprintln!("\nkernel panic: {}", info.message());
    if let Some(place) = info.location() {
        kprintln!("  at {}:{}", place.file(), place.line());
    }
    backtrace();
    if let Some(system) = try_system() {
        kprintln!("memory:");
        // The console cannot fail.
        let _ = vellum_system::proc::meminfo(system, &mut serial::Console);
        let _ = vellum_system::proc::buddyinfo(system, &mut serial::Console);
    }
    serial::report("panic\n");
    power::off(power::PANIC);
}

/// Prints what looks like return addresses on this stack. The starter adds names.
fn backtrace() {
    let here = 0u64;
    let mut at = (&raw const here) as u64 & !7;
    let mut shown = 0;
    let end = (at & !0x7fff) + 0x8000;
    let _ = write!(serial::Console, "backtrace:");
    while at < end && shown < FRAMES {
        if paging::is_stack_hole(at) {
            break;
        }
        // SAFETY: within the stack that this function runs on: stacks of tasks are 32 KiB, aligned,
        // and the boot stack is larger and followed by the image's other data.
        let word = unsafe { core::ptr::read_volatile(at as *const u64) };
        if paging::is_text(word) {
            let _ = write!(serial::Console, " {word:#x}");
            shown += 1;
        }
        at += 8;
    }
    kprintln!("");
}

// What the prebuilt libraries refer to for unwinding, which this kernel does not do.

/// Never called: panics abort.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {
    power::off(power::PANIC);
}

/// Never called: panics abort.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    power::off(power::PANIC);
}
