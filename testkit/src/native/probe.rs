//! Accesses that may fault, and the handler that survives them.

use std::arch::global_asm;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

// Each returns 0, or 1 by way of vellum_probe_fault. None has a frame when it can fault, but for the
// return address that `call` pushes, which the handler drops.
global_asm!(
    ".globl vellum_probe_copy",
    "vellum_probe_copy:",
    "mov rcx, rdx",
    "rep movsb",
    "xor eax, eax",
    "ret",
    ".globl vellum_probe_fill",
    "vellum_probe_fill:",
    "mov rcx, rdx",
    "mov eax, esi",
    "rep stosb",
    "xor eax, eax",
    "ret",
    ".globl vellum_probe_exec",
    "vellum_probe_exec:",
    "call rdi",
    "xor eax, eax",
    "ret",
    ".globl vellum_probe_fault",
    "vellum_probe_fault:",
    "mov eax, 1",
    "ret",
);

unsafe extern "C" {
    fn vellum_probe_copy(to: *mut u8, from: *const u8, len: usize) -> u32;
    fn vellum_probe_fill(to: *mut u8, byte: u32, len: usize) -> u32;
    fn vellum_probe_exec(target: *const u8) -> u32;
    fn vellum_probe_fault() -> u32;
}

static SIGNAL: AtomicI32 = AtomicI32::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);
static ADDRESS: AtomicU64 = AtomicU64::new(0);
/// The target of a call in progress: a fault with this instruction pointer is the fetch.
static EXEC_TARGET: AtomicU64 = AtomicU64::new(0);

/// What a handler saw.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caught {
    pub(super) number: i32,
    pub(super) code: i32,
    pub(super) addr: u64,
}

/// Installs the handler for SIGSEGV and SIGBUS.
pub(super) fn install() {
    // SAFETY: all-zero is a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: the action is initialised and its handler is async-signal-safe.
        unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) };
    }
}

extern "C" fn handler(number: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo, which lives until we return.
    let info = unsafe { &*info };
    let code = info.si_code;
    // SAFETY: SIGSEGV and SIGBUS carry an address.
    let addr = unsafe { info.si_addr() } as u64;
    SIGNAL.store(number, Ordering::Relaxed);
    CODE.store(code, Ordering::Relaxed);
    ADDRESS.store(addr, Ordering::Relaxed);
    // SAFETY: with SA_SIGINFO the third argument is a ucontext, ours alone until we return.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let rip = registers[libc::REG_RIP as usize] as u64;
    let start = vellum_probe_copy as *const () as u64;
    let end = vellum_probe_fault as *const () as u64;
    if (start..end).contains(&rip) {
        registers[libc::REG_RIP as usize] = end as i64;
    } else if rip == EXEC_TARGET.load(Ordering::Relaxed) && rip != 0 {
        registers[libc::REG_RIP as usize] = end as i64;
        registers[libc::REG_RSP as usize] += 8;
    } else {
        // A fault of our own: die by it when the instruction is run again.
        // SAFETY: the default action is valid for any signal.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
}

fn outcome(faulted: u32) -> Result<(), Caught> {
    if faulted == 0 {
        return Ok(());
    }
    Err(Caught {
        number: SIGNAL.load(Ordering::Relaxed),
        code: CODE.load(Ordering::Relaxed),
        addr: ADDRESS.load(Ordering::Relaxed),
    })
}

/// Loads `out.len()` bytes from any address.
pub(super) fn load(from: u64, out: &mut [u8]) -> Result<(), Caught> {
    // SAFETY: the target is a live buffer of this length, the source may fault, which the handler
    // turns into a result.
    outcome(unsafe { vellum_probe_copy(out.as_mut_ptr(), from as *const u8, out.len()) })
}

/// Stores `len` times `byte` from any address on. The scenario answers for what it overwrites.
pub(super) fn fill(to: u64, byte: u8, len: u64) -> Result<(), Caught> {
    // SAFETY: scenarios store only to what they mapped; anything else faults, as above.
    outcome(unsafe { vellum_probe_fill(to as *mut u8, u32::from(byte), len as usize) })
}

/// Calls any address.
pub(super) fn exec(target: u64) -> Result<(), Caught> {
    EXEC_TARGET.store(target, Ordering::Relaxed);
    // SAFETY: the scenario put a `ret` there, or the fetch faults.
    let faulted = unsafe { vellum_probe_exec(target as *const u8) };
    EXEC_TARGET.store(0, Ordering::Relaxed);
    outcome(faulted)
}
