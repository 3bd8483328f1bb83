//! Other CPUs: which there are, waking them, and flushing what they remember of page tables.
//!
//! A CPU in the kernel reaches a program's memory through the tables in RAM, never through its own
//! translations of the program's addresses. So a flush need not interrupt it: it is enough that it
//! flushes before a program runs there again. Only a CPU that runs a program of the space is
//! interrupted, and waited for until it has entered the kernel:
//!
//! ```text
//!   who changes tables                      another CPU in the same space
//!   note_flush: cpu.flush = true            in_user = true ── flush? ──▶ in_user = false, flush, again
//!   wait: in_user? ─▶ send an interrupt     (entry) in_user = false
//!         spin until !in_user
//! ```
//! Both sides write, then read what the other writes, with SeqCst: one of them sees the other. No
//! lock that a waiting CPU holds can keep the other from entering the kernel, so nothing deadlocks.

use crate::cpu::{self, Cpu, MAX_CPUS};
use crate::serial::kprintln;
use crate::sync::Lock;
use crate::task::Task;
use crate::trap::VECTOR_KICK;
use crate::{apic, clock, init, paging, sched, x86};
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering, fence};
use vellum_bare::acpi;
use vellum_bare::pvh::NodeMemory;
use vellum_types::{NodeId, PhysAddr, SpaceId};

/// More than one CPU is up: until then nothing here has anything to do.
static MANY: AtomicBool = AtomicBool::new(false);

/// The page at which other CPUs begin; below 1 MiB, where no frame is used.
const TRAMPOLINE: u64 = 0x8000;
/// How long a CPU may take to come up.
const START_NS: u64 = 2_000_000_000;
const INIT: u32 = 0x4500;
const STARTUP: u32 = 0x4600;

/// What ACPI says.
#[derive(Default)]
pub(crate) struct Firmware {
    /// Numbers of the local APICs.
    apics: Vec<u8>,
    pub(crate) memory: Vec<NodeMemory>,
    cpu_nodes: Vec<(u8, NodeId)>,
    pub(crate) distances: Vec<u8>,
}

/// A table of the firmware's, if the direct map shows it and it is whole.
fn table(at: u64, len: usize) -> Option<Vec<u8>> {
    paging::ram().try_ptr(PhysAddr::new(at), len as u64)?;
    let mut bytes = vec![0; len];
    paging::ram().read_bytes(PhysAddr::new(at), &mut bytes);
    Some(bytes)
}

/// Reads ACPI's tables from the root pointer on. What is missing or broken is as if it were not
/// there: one CPU, one node.
pub(crate) fn read_tables(rsdp: u64) -> Firmware {
    let mut firmware = Firmware::default();
    let find = || {
        let (root, width) = acpi::root(&table(rsdp, 36)?)?;
        let (_, len) = acpi::header(&table(root, acpi::HEADER_BYTES)?)?;
        Some(acpi::addresses(&table(root, len)?, width))
    };
    let addresses = if rsdp == 0 { None } else { find() };
    for at in addresses.unwrap_or_default() {
        let whole = || {
            let (name, len) = acpi::header(&table(at, acpi::HEADER_BYTES)?)?;
            let bytes = table(at, len)?;
            acpi::table(&bytes).then_some((name, bytes))
        };
        match whole() {
            Some((name, bytes)) if name == *b"APIC" => firmware.apics = acpi::madt_cpus(&bytes),
            Some((name, bytes)) if name == *b"SRAT" => {
                (firmware.memory, firmware.cpu_nodes) = acpi::srat(&bytes);
            }
            Some((name, bytes)) if name == *b"SLIT" => firmware.distances = bytes,
            _ => {}
        }
    }
    firmware
}

/// How many CPUs will be used.
pub(crate) fn choose_cpus(firmware: &Firmware) -> u16 {
    let asked = init::option("cpus").and_then(|text| text.parse().ok());
    let there = firmware.apics.len().clamp(1, MAX_CPUS);
    there.min(asked.unwrap_or(MAX_CPUS)).max(1) as u16
}

fn set_node(firmware: &Firmware, cpu: &Cpu, apic: u32) {
    let node = firmware
        .cpu_nodes
        .iter()
        .find(|(id, _)| u32::from(*id) == apic);
    cpu.node.store(
        node.map_or(0, |(_, node)| u32::from(node.0)),
        Ordering::Relaxed,
    );
}

unsafe extern "C" {
    static trampoline_start: u8;
    static trampoline_end: u8;
    static trampoline_root: u8;
    static trampoline_stack: u8;
    static trampoline_kernel: u8;
    static trampoline_number: u8;
    static boot_pml4: u8;
}

/// Writes a word that the trampoline reads, by its symbol in the original.
fn poke(symbol: *const u8, value: u64) {
    let offset = symbol as u64 - (&raw const trampoline_start) as u64;
    let at = PhysAddr::new(TRAMPOLINE + offset);
    paging::ram().write_bytes(at, &value.to_le_bytes());
}

/// Brings the other CPUs up.
pub(crate) fn start_others(firmware: &Firmware, nr_cpus: u16) {
    let own = apic::id();
    cpu::this().apic.store(own, Ordering::Relaxed);
    set_node(firmware, cpu::this(), own);
    if nr_cpus == 1 {
        return;
    }
    let start = &raw const trampoline_start;
    let len = (&raw const trampoline_end) as usize - start as usize;
    // SAFETY: the trampoline's bytes, part of the image, never written.
    let code = unsafe { core::slice::from_raw_parts(start, len) };
    paging::ram().write_bytes(PhysAddr::new(TRAMPOLINE), code);
    // boot.s's table also maps the first GiB where it is, which the way into long mode needs.
    poke(&raw const trampoline_root, (&raw const boot_pml4) as u64);
    poke(&raw const trampoline_kernel, paging::kernel_root());
    let others = firmware
        .apics
        .iter()
        .map(|apic| u32::from(*apic))
        .filter(|apic| *apic != own);
    for (number, apic) in (1..usize::from(nr_cpus)).zip(others) {
        let Some(stack) = paging::new_stack() else {
            init::refuse("no memory for the stack of another CPU");
        };
        poke(&raw const trampoline_stack, stack - 64);
        poke(&raw const trampoline_number, number as u64);
        set_node(firmware, cpu::cpu(number), apic);
        *STACK.lock() = (apic, stack);
        apic::send(apic, INIT);
        wait_ns(1_000_000);
        apic::send(apic, STARTUP | (TRAMPOLINE >> 12) as u32);
        let begun = clock::now_ns();
        while !cpu::cpu(number).online.load(Ordering::Acquire) {
            if clock::now_ns() - begun > START_NS {
                kprintln!("vellum: CPU {number} does not start");
                break;
            }
            core::hint::spin_loop();
        }
    }
    MANY.store(true, Ordering::SeqCst);
}

fn wait_ns(ns: u64) {
    let begun = clock::now_ns();
    while clock::now_ns() - begun < ns {
        core::hint::spin_loop();
    }
}

/// APIC number and stack of the CPU that is coming up.
static STACK: Lock<(u32, u64)> = Lock::new((0, 0));

/// Where the trampoline ends, on the new CPU's own stack.
#[unsafe(no_mangle)]
extern "C" fn other_start(number: u64) -> ! {
    let (apic, stack) = *STACK.lock();
    cpu::set_up(number as usize, apic);
    clock::set_up_net();
    sched::set_up(stack);
    apic::enable();
    // Release: whoever sees this CPU sees what it set up.
    cpu::this().online.store(true, Ordering::Release);
    while !MANY.load(Ordering::Acquire) {
        core::hint::spin_loop();
    }
    apic::start_timer();
    sched::idle()
}

/// From a program into the kernel.
#[inline]
pub(crate) fn entered() {
    if MANY.load(Ordering::Relaxed) {
        // Release: what this CPU did as the program is over.
        cpu::this().in_user.store(false, Ordering::Release);
    }
}

/// True if the program may go on; false after a flush, when all must be looked at again.
#[inline]
pub(crate) fn may_leave() -> bool {
    if !MANY.load(Ordering::Relaxed) {
        return true;
    }
    let cpu = cpu::this();
    cpu.in_user.store(true, Ordering::SeqCst);
    if !cpu.flush.load(Ordering::SeqCst) {
        return true;
    }
    cpu.in_user.store(false, Ordering::Release);
    cpu.flush.store(false, Ordering::SeqCst);
    // SAFETY: the same table again.
    unsafe { x86::write_cr3(x86::read_cr3()) };
    false
}

fn others() -> impl Iterator<Item = &'static Cpu> {
    let me = cpu::this();
    cpu::online().filter(move |cpu| !core::ptr::eq(*cpu, me))
}

/// Other CPUs that run in `space` must flush before a program goes on there.
#[inline]
pub(crate) fn note_flush(space: SpaceId) {
    if MANY.load(Ordering::Relaxed) {
        // The change of the tables is visible before it is looked who runs in the space: a CPU that is
        // not seen here loads its CR3 later, and sees the change.
        fence(Ordering::SeqCst);
        for cpu in others().filter(|cpu| cpu.space.load(Ordering::SeqCst) == space.0) {
            cpu.flush.store(true, Ordering::SeqCst);
        }
    }
}

/// Returns when no program runs on with an old translation of `space`.
#[inline]
pub(crate) fn wait_for_flush(space: SpaceId) {
    if MANY.load(Ordering::Relaxed) {
        interrupt_programs(space);
    }
}

fn must_wait(cpu: &Cpu, space: SpaceId) -> bool {
    cpu.flush.load(Ordering::SeqCst)
        && cpu.in_user.load(Ordering::SeqCst)
        && cpu.space.load(Ordering::SeqCst) == space.0
}

fn interrupt_programs(space: SpaceId) {
    for cpu in others().filter(|cpu| must_wait(cpu, space)) {
        apic::send(cpu.apic.load(Ordering::Relaxed), VECTOR_KICK as u32);
    }
    for cpu in others() {
        while must_wait(cpu, space) {
            core::hint::spin_loop();
        }
    }
}

/// Makes the CPU on which `task` runs look at its signals.
pub(crate) fn kick(task: &Task) {
    if MANY.load(Ordering::Relaxed) {
        let runs = |cpu: &&Cpu| core::ptr::eq(cpu.current.load(Ordering::Relaxed), task);
        for cpu in others().filter(runs) {
            apic::send(cpu.apic.load(Ordering::Relaxed), VECTOR_KICK as u32);
        }
    }
}

/// There is work: a CPU that has none may take it.
pub(crate) fn wake_idle() {
    if MANY.load(Ordering::Relaxed) {
        let idle = others().find(|cpu| cpu.idle.swap(false, Ordering::SeqCst));
        if let Some(cpu) = idle {
            apic::send(cpu.apic.load(Ordering::Relaxed), VECTOR_KICK as u32);
        }
    }
}
