//! From the boot loader's hand to the first program.

use crate::machine::{self, BareMachine};
use crate::paging::DIRECT;
use crate::serial::kprintln;
use crate::sync::Once;
use crate::{
    apic, clock, cpu, fs, heap, init, paging, random, sched, self_test, serial, smp, swap, x86,
};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use vellum_bare::pvh::{self, NodeMemory, StartInfo};
use vellum_machine::MemoryKind;
use vellum_system::{BackingStore, IoError, System, SystemConfig};
use vellum_types::{FileId, Order, Pfn, PhysAddr, PhysRange};

/// Bytes of the first GiB, before the direct map is the kernel's own.
fn boot_bytes(physical: u64, bytes: u64) -> &'static [u8] {
    let at = (DIRECT + physical) as *const u8;
    // SAFETY: boot.s maps the first GiB there; the boot loader's data is not written any more.
    unsafe { core::slice::from_raw_parts(at, bytes as usize) }
}

fn text(physical: u64) -> String {
    let bytes = boot_bytes(physical, 4096);
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// There is nothing behind the files of this kernel: they live in the page cache, or in swap, as those
/// of Linux's tmpfs.
struct NoStore;

impl BackingStore for NoStore {
    fn read(
        &self,
        _: FileId,
        _: u64,
        _: &[Pfn],
        _: vellum_machine::DirectMap<'_>,
    ) -> Result<u64, IoError> {
        // Never written anywhere, so new pages are all zero.
        Ok(0)
    }
    fn write(
        &self,
        _: FileId,
        _: u64,
        _: &[Pfn],
        _: u64,
        _: vellum_machine::DirectMap<'_>,
    ) -> Result<(), IoError> {
        Err(IoError { errno: 5 })
    }
    fn swap_backed(&self, _: FileId) -> bool {
        true
    }
    fn sync(&self, _: FileId) -> Result<(), IoError> {
        Ok(())
    }
    fn size(&self, _: FileId) -> u64 {
        0
    }
    fn name(&self, _: FileId, out: &mut dyn core::fmt::Write) -> core::fmt::Result {
        out.write_str("/")
    }
    fn dev_ino(&self, file: FileId) -> (u32, u32, u64) {
        (0, 2, file.0)
    }
    fn release(&self, _: FileId) {}
}

static STORE: NoStore = NoStore;

/// Where boot.s jumps to.
#[unsafe(no_mangle)]
extern "C" fn kernel_start(info: u32) -> ! {
    serial::set_up();
    let Some(info) = StartInfo::read(boot_bytes(u64::from(info), pvh::START_INFO_BYTES)) else {
        init::refuse("the boot loader gave no start_info of PVH");
    };
    if info.command_line != 0 {
        init::set_command_line(text(info.command_line));
    }
    let map_bytes = u64::from(info.memory_map_lines) * pvh::MEMMAP_ENTRY_BYTES;
    let map = boot_bytes(info.memory_map, map_bytes).to_vec();
    let initramfs = match info.modules {
        0 => None,
        _ => pvh::module(boot_bytes(info.module_list, pvh::MODULE_BYTES)),
    };
    let end = ram_end(&map);
    paging::set_up(end);
    cpu::fill_idt();
    cpu::set_up(0, 0);
    cpu::this().online.store(true, Ordering::Release);
    apic::set_up();
    clock::set_up();
    clock::set_up_net();
    random::seed(x86::rdtsc());
    let firmware = smp::read_tables(info.rsdp);
    let mut reserved = vec![paging::image()];
    reserved.extend(
        initramfs.and_then(|(at, len)| PhysRange::from_len(PhysAddr::new(at & !4095), len + 4096)),
    );
    let nr_cpus = smp::choose_cpus(&firmware);
    boot_system(
        &map,
        &reserved,
        &firmware.memory,
        firmware.distances.clone(),
        nr_cpus,
    );
    if let Err(error) = heap::set_up() {
        init::refuse(&alloc::format!("the kernel's heap: {error}"));
    }
    if fs::mount_root().is_err() {
        init::refuse("no memory for the file system");
    }
    let Some(stack) = paging::new_stack() else {
        init::refuse("no memory for the first stack");
    };
    let rest = Rest {
        initramfs,
        firmware,
        nr_cpus,
        stack,
    };
    REST.set(rest);
    // SAFETY: the new stack is mapped and empty; nothing on this one is needed any more.
    unsafe {
        core::arch::asm!("mov rsp, {}", "xor ebp, ebp", "call {}", "ud2",
            in(reg) stack, sym go_on, options(noreturn))
    }
}

/// What is known when the boot goes on, on a stack with a hole below it.
struct Rest {
    initramfs: Option<(u64, u64)>,
    firmware: smp::Firmware,
    nr_cpus: u16,
    stack: u64,
}

static REST: Once<Rest> = Once::new();

extern "C" fn go_on() -> ! {
    let Rest {
        initramfs,
        firmware,
        nr_cpus,
        stack,
    } = REST.get();
    sched::set_up(*stack);
    if let Some((at, len)) = *initramfs {
        read_initramfs(at, len);
    }
    smp::start_others(firmware, *nr_cpus);
    swap::set_up(*nr_cpus);
    if init::option("selftest").is_some() {
        self_test::run();
    }
    init::start();
    apic::enable();
    apic::start_timer();
    sched::idle()
}

fn read_initramfs(at: u64, len: u64) {
    let start = (DIRECT + at) as *const u8;
    // SAFETY: the direct map shows it, it is reserved, and nobody writes it.
    let archive = unsafe { core::slice::from_raw_parts(start, len as usize) };
    if let Err(error) = fs::unpack(archive) {
        init::refuse(&error);
    }
}

/// One past the last byte of RAM, rounded up so that the firmware's tables at its end are seen.
fn ram_end(map: &[u8]) -> u64 {
    let usable = pvh::regions(map, &[], &[]);
    let end = usable
        .iter()
        .map(|region| region.range.end().as_u64())
        .max()
        .unwrap_or(0);
    end.next_multiple_of(1 << 21).max(1 << 21)
}

fn boot_system(
    map: &[u8],
    reserved: &[PhysRange],
    nodes: &[NodeMemory],
    distances: Vec<u8>,
    nr_cpus: u16,
) {
    let regions = pvh::regions(map, reserved, nodes);
    let number = |key, default| {
        init::option(key)
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let usable: u64 = regions
        .iter()
        .filter(|region| region.kind == MemoryKind::Usable)
        .map(|region| region.range.len())
        .sum();
    let machine = machine::set_machine(BareMachine {
        regions,
        distances,
        nr_cpus,
        fault_around_pages: 16.into(),
        anon_order_max: Order::new(number("anon_order", 0u32).min(9) as u8).unwrap_or(Order::ZERO),
    });
    let config = SystemConfig::default();
    let policy = init::option("policy").map_or(Ok(config.policy), str::parse);
    let config = match policy {
        Ok(policy) => SystemConfig { policy, ..config },
        Err(error) => init::refuse(&alloc::format!("policy=: {error}")),
    };
    match System::boot(machine, &STORE, config) {
        Ok(system) => machine::set_system(system),
        Err(error) => init::refuse(&alloc::format!("{error} ({usable} bytes are usable)")),
    }
    if init::verbose() {
        kprintln!("vellum: {usable} bytes of RAM, {nr_cpus} CPUs");
    }
}
