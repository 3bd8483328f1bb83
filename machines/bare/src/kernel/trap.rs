//! Interrupts, exceptions and faults.

use crate::serial::kprintln;
use crate::{apic, clock, cpu, sched, signal, smp, swap, sys, task, x86};
use core::sync::atomic::Ordering;
use vellum_system::{FaultInfo, FaultOutcome};
use vellum_types::{Access, VirtAddr};

/// What `entry.s` saves of a program, lowest address first.
#[repr(C)]
#[derive(Clone)]
pub(crate) struct TrapFrame {
    pub(crate) fx: [u8; 512],
    pub(crate) r15: u64,
    pub(crate) r14: u64,
    pub(crate) r13: u64,
    pub(crate) r12: u64,
    pub(crate) rbp: u64,
    pub(crate) rbx: u64,
    pub(crate) r11: u64,
    pub(crate) r10: u64,
    pub(crate) r9: u64,
    pub(crate) r8: u64,
    pub(crate) rax: u64,
    pub(crate) rcx: u64,
    pub(crate) rdx: u64,
    pub(crate) rsi: u64,
    pub(crate) rdi: u64,
    /// The vector, or the number of the system call.
    pub(crate) number: u64,
    pub(crate) error: u64,
    pub(crate) rip: u64,
    pub(crate) cs: u64,
    pub(crate) rflags: u64,
    pub(crate) rsp: u64,
    pub(crate) ss: u64,
}

pub(crate) const FRAME_BYTES: u64 = size_of::<TrapFrame>() as u64;
const _: () = assert!(FRAME_BYTES == 688 && FRAME_BYTES.is_multiple_of(16));

pub(crate) const VECTOR_TIMER: u64 = 0x40;
pub(crate) const VECTOR_KICK: u64 = 0x41;
pub(crate) const VECTOR_SPURIOUS: u64 = 0xff;

const PAGE_FAULT: u64 = 14;

/// Nothing else is to be done: the program goes on.
pub(crate) const DONE: u32 = 0;
/// Signals, the time slice or a flush come first.
pub(crate) const LEAVE: u32 = 1;
/// All of the program's state is needed for what it asks.
pub(crate) const ALL: u32 = 2;

/// From ring 3, all but system calls.
#[unsafe(no_mangle)]
extern "C" fn trap_handler(frame: &mut TrapFrame) -> u32 {
    smp::entered();
    if frame.number != PAGE_FAULT {
        return ALL;
    }
    page_fault(frame);
    may_go_on_with_memory()
}

/// What `trap_handler` left, with the whole frame.
#[unsafe(no_mangle)]
extern "C" fn trap_slow(frame: &mut TrapFrame, what: u32) {
    if what == ALL {
        other(frame);
    }
    return_to_user(frame);
}

/// DONE if nothing keeps the program from going on.
#[inline]
pub(crate) fn may_go_on() -> u32 {
    let cpu = cpu::this();
    let waits = task::current().has_signal() || cpu.resched.load(Ordering::Relaxed);
    if waits || !smp::may_leave() {
        LEAVE
    } else {
        DONE
    }
}

/// [`may_go_on`] after what may have taken memory.
#[inline]
pub(crate) fn may_go_on_with_memory() -> u32 {
    if swap::wanted() { LEAVE } else { may_go_on() }
}

#[inline]
fn page_fault(frame: &TrapFrame) {
    let address = x86::read_cr2();
    let access = if frame.error & 16 != 0 {
        Access::Exec
    } else if frame.error & 2 != 0 {
        Access::Write
    } else {
        Access::Read
    };
    let info = FaultInfo {
        addr: VirtAddr::new(address),
        access,
        sp: None,
    };
    let task = task::current();
    let Some(mm) = task.mm() else {
        panic!("a program without memory faulted at {address:#x}");
    };
    match crate::machine::system().fault(mm, info) {
        FaultOutcome::Minor => task.minor.fetch_add(1, Ordering::Relaxed),
        FaultOutcome::Major => task.major.fetch_add(1, Ordering::Relaxed),
        FaultOutcome::Segv(code) => {
            signal::force(task, signal::SIGSEGV, code as i32, address);
            0
        }
        FaultOutcome::Bus => {
            signal::force(task, signal::SIGBUS, 2, address);
            0
        }
        FaultOutcome::Oom => {
            sys::process::kill_for_memory(task);
            0
        }
    };
}

#[cold]
fn other(frame: &mut TrapFrame) {
    let task = task::current();
    let answered = frame.number == 13 && clock::emulate_rdtsc(frame);
    // SI_KERNEL, FPE_INTDIV, TRAP_BRKPT and their like. Source: sigaction(2).
    match frame.number {
        0 => signal::force(task, signal::SIGFPE, 1, frame.rip),
        1 => signal::force(task, signal::SIGTRAP, 2, frame.rip),
        3 => signal::force(task, signal::SIGTRAP, 0x80, frame.rip),
        4 | 5 | 10..=13 if !answered => signal::force(task, signal::SIGSEGV, 0x80, 0),
        6 => signal::force(task, signal::SIGILL, 2, frame.rip),
        16 | 19 => signal::force(task, signal::SIGFPE, 7, frame.rip),
        17 => signal::force(task, signal::SIGBUS, 1, 0),
        VECTOR_TIMER | VECTOR_KICK | VECTOR_SPURIOUS => interrupt(frame.number),
        2 | 8 | 18 => fatal(frame),
        _ => {}
    }
}

fn interrupt(vector: u64) {
    match vector {
        VECTOR_TIMER => {
            apic::end_of_interrupt();
            sched::tick();
        }
        VECTOR_KICK => apic::end_of_interrupt(),
        _ => {}
    }
}

/// In kernel mode: an interrupt of the idle loop, or a bug.
#[unsafe(no_mangle)]
extern "C" fn kernel_trap(frame: &mut TrapFrame) {
    match frame.number {
        VECTOR_TIMER | VECTOR_KICK | VECTOR_SPURIOUS => interrupt(frame.number),
        _ => fatal(frame),
    }
}

const NAMES: [&str; 20] = [
    "divide error",
    "debug",
    "NMI",
    "breakpoint",
    "overflow",
    "bound",
    "invalid opcode",
    "no device",
    "double fault",
    "coprocessor",
    "invalid TSS",
    "no segment",
    "stack fault",
    "general protection",
    "page fault",
    "reserved",
    "x87 error",
    "alignment",
    "machine check",
    "SIMD error",
];

#[cold]
fn fatal(frame: &TrapFrame) -> ! {
    let name = NAMES.get(frame.number as usize).unwrap_or(&"interrupt");
    let address = x86::read_cr2();
    kprintln!(
        "{name} (vector {}, error {:#x}) at rip {:#x}, rsp {:#x}, cr2 {address:#x}",
        frame.number,
        frame.error,
        frame.rip,
        frame.rsp
    );
    kprintln!(
        "  rax {:#x} rbx {:#x} rcx {:#x} rdx {:#x} rsi {:#x} rdi {:#x} rbp {:#x} cr3 {:#x}",
        frame.rax,
        frame.rbx,
        frame.rcx,
        frame.rdx,
        frame.rsi,
        frame.rdi,
        frame.rbp,
        x86::read_cr3()
    );
    if matches!(frame.number, 8 | PAGE_FAULT) && crate::paging::is_stack_hole(address) {
        panic!("kernel stack overflow");
    }
    panic!("{name} in the kernel at {:#x}", frame.rip);
}

/// The last work before a program goes on: memory for the next allocations, signals, the time slice,
/// flushes.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn return_to_user(frame: &mut TrapFrame) {
    smp::entered();
    if swap::wanted() {
        swap::relieve();
    }
    loop {
        let cpu = cpu::this();
        if cpu.resched.load(Ordering::Relaxed) {
            cpu.resched.store(false, Ordering::Relaxed);
            sched::yield_now();
        }
        let task = task::current();
        if task.has_signal() {
            signal::deliver(task, frame);
        }
        if smp::may_leave() {
            return;
        }
    }
}
