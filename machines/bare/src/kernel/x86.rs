//! Instructions that Rust has no names for.

use core::arch::asm;

/// Model-specific registers.
pub(crate) const EFER: u32 = 0xc000_0080;
pub(crate) const STAR: u32 = 0xc000_0081;
pub(crate) const LSTAR: u32 = 0xc000_0082;
pub(crate) const SFMASK: u32 = 0xc000_0084;
pub(crate) const FS_BASE: u32 = 0xc000_0100;
pub(crate) const GS_BASE: u32 = 0xc000_0101;
pub(crate) const KERNEL_GS_BASE: u32 = 0xc000_0102;
pub(crate) const APIC_BASE: u32 = 0x1b;

#[inline]
pub(crate) fn outb(port: u16, value: u8) {
    // SAFETY: ring 0; the ports used here belong to devices that do no DMA.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack)) }
}

#[inline]
pub(crate) fn outw(port: u16, value: u16) {
    // SAFETY: as for outb.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack)) }
}

#[inline]
pub(crate) fn outl(port: u16, value: u32) {
    // SAFETY: as for outb.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack)) }
}

#[inline]
pub(crate) fn inb(port: u16) -> u8 {
    let value: u8;
    // SAFETY: as for outb.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack)) }
    value
}

/// # Safety
/// The register exists, and the value keeps memory and control flow as Rust expects them.
#[inline]
pub(crate) unsafe fn wrmsr(register: u32, value: u64) {
    // SAFETY: by this function's contract.
    unsafe {
        asm!("wrmsr", in("ecx") register, in("eax") value as u32, in("edx") (value >> 32) as u32,
             options(nostack))
    }
}

/// # Safety
/// The register exists.
#[inline]
pub(crate) unsafe fn rdmsr(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: by this function's contract.
    unsafe {
        asm!("rdmsr", in("ecx") register, out("eax") low, out("edx") high,
             options(nomem, nostack))
    }
    u64::from(high) << 32 | u64::from(low)
}

#[inline]
pub(crate) fn rdtsc() -> u64 {
    // SAFETY: every x86-64 has it, and ring 0 may always use it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[inline]
pub(crate) fn read_cr2() -> u64 {
    let value: u64;
    // SAFETY: reading has no effect.
    unsafe { asm!("mov {}, cr2", out(reg) value, options(nomem, nostack)) }
    value
}

#[inline]
pub(crate) fn read_cr3() -> u64 {
    let value: u64;
    // SAFETY: reading has no effect.
    unsafe { asm!("mov {}, cr3", out(reg) value, options(nomem, nostack)) }
    value
}

/// # Safety
/// The table maps the kernel as it is.
#[inline]
pub(crate) unsafe fn write_cr3(value: u64) {
    // SAFETY: by this function's contract.
    unsafe { asm!("mov cr3, {}", in(reg) value, options(nostack)) }
}

#[inline]
pub(crate) fn read_cr4() -> u64 {
    let value: u64;
    // SAFETY: reading has no effect.
    unsafe { asm!("mov {}, cr4", out(reg) value, options(nomem, nostack)) }
    value
}

/// # Safety
/// The bits do not take away what the kernel runs on.
pub(crate) unsafe fn write_cr4(value: u64) {
    // SAFETY: by this function's contract.
    unsafe { asm!("mov cr4, {}", in(reg) value, options(nostack)) }
}

#[inline]
pub(crate) fn invlpg(address: u64) {
    // SAFETY: dropping a translation is always allowed.
    unsafe { asm!("invlpg [{}]", in(reg) address, options(nostack)) }
}

/// Lets interrupts in, waits for one, and keeps them out again.
#[inline]
pub(crate) fn wait_for_interrupt() {
    // SAFETY: the handler returns here; it may use any register that a call may, and the bytes below
    // the stack pointer that a leaf function may use are stepped over.
    unsafe {
        asm!(
            "sub rsp, 128",
            "sti",
            "hlt",
            "cli",
            "add rsp, 128",
            clobber_abi("C")
        );
    }
}

/// Stops this CPU.
pub(crate) fn halt() -> ! {
    loop {
        // SAFETY: nothing runs here any more.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) }
    }
}

/// Leaf 7, register EBX: SMEP is bit 7, SMAP bit 20.
pub(crate) fn cpuid(leaf: u32, sub: u32) -> [u32; 4] {
    let r = core::arch::x86_64::__cpuid_count(leaf, sub);
    [r.eax, r.ebx, r.ecx, r.edx]
}
