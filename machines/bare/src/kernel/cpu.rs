//! One CPU: its segments, its vectors, and what belongs to it alone.

use crate::task::Task;
use crate::x86;
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use vellum_machine::CpuLocal;
use vellum_types::{CpuId, NodeId};

pub(crate) const MAX_CPUS: usize = 16;
pub(crate) const KERNEL_CODE: u16 = 0x10;
pub(crate) const KERNEL_DATA: u16 = 0x18;
pub(crate) const USER_DATA: u16 = 0x2b;
pub(crate) const USER_CODE: u16 = 0x33;

/// Bytes of a stack of the interrupt stack table.
const IST_BYTES: usize = 8192;

/// What a CPU reaches through GS. `entry.s` knows the first three words.
#[repr(C)]
pub(crate) struct Cpu {
    this: AtomicU64,
    /// Where the processor and `entry.s` begin a frame: the top of the current task's stack.
    stack_top: AtomicU64,
    user_stack: AtomicU64,
    pub(crate) current: AtomicPtr<Task>,
    pub(crate) id: AtomicU32,
    pub(crate) apic: AtomicU32,
    pub(crate) node: AtomicU32,
    /// The address space whose table CR3 holds; 0 for the kernel's own.
    pub(crate) space: AtomicU32,
    /// A program runs here, or is about to: a flush must interrupt it.
    pub(crate) in_user: AtomicBool,
    /// Somebody changed tables that this CPU may have cached: flush before a program runs.
    pub(crate) flush: AtomicBool,
    /// The time slice is over.
    pub(crate) resched: AtomicBool,
    pub(crate) idle: AtomicBool,
    pub(crate) online: AtomicBool,
    pub(crate) ticks: AtomicU64,
}

impl Cpu {
    const fn new() -> Self {
        Self {
            this: AtomicU64::new(0),
            stack_top: AtomicU64::new(0),
            user_stack: AtomicU64::new(0),
            current: AtomicPtr::new(core::ptr::null_mut()),
            id: AtomicU32::new(0),
            apic: AtomicU32::new(0),
            node: AtomicU32::new(0),
            space: AtomicU32::new(0),
            in_user: AtomicBool::new(false),
            flush: AtomicBool::new(false),
            resched: AtomicBool::new(false),
            idle: AtomicBool::new(false),
            online: AtomicBool::new(false),
            ticks: AtomicU64::new(0),
        }
    }
}

static CPUS: [Cpu; MAX_CPUS] = [const { Cpu::new() }; MAX_CPUS];

/// A CPU by number.
pub(crate) fn cpu(id: usize) -> &'static Cpu {
    &CPUS[id]
}

/// All CPUs that are up.
pub(crate) fn online() -> impl Iterator<Item = &'static Cpu> {
    // Acquire: what the CPU set up before is visible.
    CPUS.iter().filter(|cpu| cpu.online.load(Ordering::Acquire))
}

/// This CPU.
#[inline]
pub(crate) fn this() -> &'static Cpu {
    let this: *const Cpu;
    // SAFETY: in the kernel GS points to this CPU's record, whose first word is its own address.
    unsafe {
        asm!("mov {}, gs:0", out(reg) this, options(nostack, preserves_flags, readonly));
    }
    // SAFETY: an element of CPUS.
    unsafe { &*this }
}

/// The core's idea of which CPU this is.
pub(crate) struct Here;

// SAFETY: the kernel is never preempted and no interrupt handler enters the core, so a flow stays
// on its CPU until it sleeps, which nobody does while pinned.
unsafe impl CpuLocal for Here {
    #[inline]
    fn pin(&self) -> CpuId {
        CpuId(this().id.load(Ordering::Relaxed) as u16)
    }

    #[inline]
    fn unpin(&self, _: CpuId) {}

    fn node_of(&self, id: CpuId) -> NodeId {
        NodeId(cpu(usize::from(id.0)).node.load(Ordering::Relaxed) as u8)
    }
}

/// The task-state segment: where stacks are.
#[repr(C, packed(4))]
struct Tss {
    reserved: u32,
    rsp: [u64; 3],
    reserved2: u64,
    ist: [u64; 7],
    reserved3: [u16; 5],
    io_map: u16,
}

#[repr(C, align(16))]
struct Segments {
    gdt: [u64; 10],
    tss: Tss,
}

#[repr(C, align(16))]
struct IstStacks([[u8; IST_BYTES]; 3]);

struct PerCpuTables {
    segments: Segments,
    stacks: IstStacks,
}

static mut TABLES: [PerCpuTables; MAX_CPUS] = [const {
    PerCpuTables {
        segments: Segments {
            gdt: [0; 10],
            tss: Tss {
                reserved: 0,
                rsp: [0; 3],
                reserved2: 0,
                ist: [0; 7],
                reserved3: [0; 5],
                io_map: 104,
            },
        },
        stacks: IstStacks([[0; IST_BYTES]; 3]),
    }
}; MAX_CPUS];

#[repr(C, align(16))]
struct Idt([[u64; 2]; 256]);

static mut IDT: Idt = Idt([[0; 2]; 256]);

#[repr(C, packed)]
struct TablePointer {
    limit: u16,
    base: u64,
}

unsafe extern "C" {
    /// entry.s: 256 entries of 16 bytes.
    static vectors: u8;
    fn syscall_entry();
}

/// Fills the table of vectors. Once, before any CPU loads it.
pub(crate) fn fill_idt() {
    let first = (&raw const vectors) as u64;
    for vector in 0..256u64 {
        let entry = first + vector * 16;
        // #DF, NMI and #MC may come with a bad stack pointer. #PF uses the stack that it finds: of
        // the kernel's stack only its own faults come there, and those are fatal.
        let ist: u64 = match vector {
            8 => 1,
            2 => 2,
            18 => 3,
            _ => 0,
        };
        let level: u64 = if vector == 3 { 3 } else { 0 };
        let low = (entry & 0xffff)
            | u64::from(KERNEL_CODE) << 16
            | ist << 32
            | (0x8e | level << 5) << 40
            | (entry >> 16 & 0xffff) << 48;
        // SAFETY: boot runs on one CPU, and no CPU has loaded the table yet.
        unsafe { IDT.0[vector as usize] = [low, entry >> 32] };
    }
}

fn tables_of(id: usize) -> *mut PerCpuTables {
    assert!(id < MAX_CPUS, "no such CPU");
    (&raw mut TABLES).cast::<PerCpuTables>().wrapping_add(id)
}

/// Gives this CPU its segments, vectors, stacks and system-call entry. `id` is its number.
pub(crate) fn set_up(id: usize, apic: u32) {
    let record = &CPUS[id];
    record
        .this
        .store((&raw const *record) as u64, Ordering::Relaxed);
    record.id.store(id as u32, Ordering::Relaxed);
    record.apic.store(apic, Ordering::Relaxed);
    // SAFETY: each CPU touches its own element, once, here; later only `set_stack` does.
    let tables = unsafe { &mut *tables_of(id) };
    for n in 0..3 {
        let top = (&raw const tables.stacks.0[n]) as u64 + IST_BYTES as u64;
        tables.segments.tss.ist[n] = top;
    }
    let tss = (&raw const tables.segments.tss) as u64;
    tables.segments.gdt = [
        0,
        0,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x00cf_fb00_0000_ffff,
        0x00cf_f300_0000_ffff,
        0x00af_fb00_0000_ffff,
        0,
        103 | (tss & 0xff_ffff) << 16 | 0x89 << 40 | (tss >> 24 & 0xff) << 56,
        tss >> 32,
    ];
    let gdt = TablePointer {
        limit: 79,
        base: (&raw const tables.segments.gdt) as u64,
    };
    let idt = TablePointer {
        limit: 4095,
        base: (&raw const IDT) as u64,
    };
    // SAFETY: the tables are complete, live forever, and give code and data the rights they have.
    unsafe {
        asm!(
            "lgdt [{gdt}]",
            "push {code}",
            "lea {t}, [rip + 2f]",
            "push {t}",
            "retfq",
            "2:",
            "mov ds, {data:x}", "mov es, {data:x}", "mov ss, {data:x}",
            "mov fs, {zero:x}", "mov gs, {zero:x}",
            "lidt [{idt}]",
            "ltr {tss:x}",
            gdt = in(reg) &gdt, idt = in(reg) &idt, t = out(reg) _,
            code = in(reg) u64::from(KERNEL_CODE),
            data = in(reg) u64::from(KERNEL_DATA),
            zero = in(reg) 0u64, tss = in(reg) 0x40u64,
        );
    }
    let entry = syscall_entry as *const () as u64;
    // SAFETY: GS points to this CPU's record from here on; the entry does what SYSCALL needs.
    unsafe { x86::wrmsr(x86::GS_BASE, (&raw const *record) as u64) };
    // SAFETY: the program's GS, which it sets by arch_prctl.
    unsafe { x86::wrmsr(x86::KERNEL_GS_BASE, 0) };
    // SAFETY: kernel 0x10 and 0x18, program 0x33 and 0x2b.
    unsafe { x86::wrmsr(x86::STAR, 0x23 << 48 | u64::from(KERNEL_CODE) << 32) };
    // SAFETY: as above.
    unsafe { x86::wrmsr(x86::LSTAR, entry) };
    // SAFETY: interrupts, traps, direction, I/O level, nesting and alignment checks off.
    unsafe { x86::wrmsr(x86::SFMASK, 0x4_7700) };
    // SAFETY: every x86-64 has it.
    let efer = unsafe { x86::rdmsr(x86::EFER) };
    // SAFETY: long mode and no-execute stay on.
    unsafe { x86::wrmsr(x86::EFER, efer | 1) };
    let features = x86::cpuid(7, 0)[1];
    let mut cr4 = x86::read_cr4();
    if features & 1 << 7 != 0 {
        cr4 |= 1 << 20; // SMEP
    }
    if features & 1 << 20 != 0 {
        cr4 |= 1 << 21; // SMAP
    }
    // SAFETY: the kernel neither runs nor touches pages of programs.
    unsafe { x86::write_cr4(cr4) };
}

/// Where the next entry from a program begins its frame.
pub(crate) fn set_stack(top: u64) {
    let cpu = this();
    cpu.stack_top.store(top, Ordering::Relaxed);
    let id = cpu.id.load(Ordering::Relaxed) as usize;
    let tables = tables_of(id);
    // SAFETY: an element of TABLES.
    let slot = unsafe { &raw mut (*tables).segments.tss.rsp };
    // SAFETY: this CPU's own; the processor reads it at the next entry.
    unsafe { slot.cast::<u64>().write_unaligned(top) };
}
