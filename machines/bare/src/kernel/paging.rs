//! The kernel's half of all address spaces.
//!
//! ```text
//!   0xffff888000000000  direct map: RAM, 1 GiB or 2 MiB pages, never executable
//!   0xfffff80000000000  stacks with a hole below each, and devices
//!   0xffffffff80000000  the image: text read-only, constants read-only, data not executable
//! ```
//! Three entries of the top table, filled at boot and never changed, so copying them once makes a
//! new address space share everything that is mapped there later.

use crate::sync::{Lock, Once};
use crate::x86;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};
use vellum_machine::DirectMap;
use vellum_page::{AllocRequest, PageSource};
use vellum_types::{Order, PAGE_SIZE, Pfn, PhysAddr, PhysRange};

pub(crate) const DIRECT: u64 = 0xffff_8880_0000_0000;
const KERNEL_VMA: u64 = 0xffff_ffff_8000_0000;
const STACKS: u64 = 0xffff_f800_0000_0000;
const DEVICES: u64 = 0xffff_f840_0000_0000;

const PRESENT: u64 = 1;
const WRITE: u64 = 2;
const NO_CACHE: u64 = 0x18;
const USED: u64 = 0x60;
const LARGE: u64 = 0x80;
const GLOBAL: u64 = 0x100;
const NO_EXEC: u64 = 1 << 63;
const LINK: u64 = PRESENT | WRITE | USED;
const DATA: u64 = PRESENT | WRITE | USED | GLOBAL | NO_EXEC;

/// Pages of a kernel stack, and of the hole below it.
const STACK_PAGES: u64 = 8;

unsafe extern "C" {
    static image_start: u8;
    static text_start: u8;
    static text_end: u8;
    static rodata_end: u8;
    static image_end: u8;
    static boot_stack_hole: u8;
}

/// Address of a symbol of the linker script.
macro_rules! symbol {
    ($name:ident) => {
        // The address is all there is to such a symbol.
        (&raw const $name) as u64
    };
}

/// Where the image lies in RAM, page tables of the boot included.
pub(crate) fn image() -> PhysRange {
    let (start, end) = (symbol!(image_start), symbol!(image_end) - KERNEL_VMA);
    PhysRange::new(PhysAddr::new(start), PhysAddr::new(end))
        .unwrap_or_else(|| panic!("an empty image"))
}

/// True for an address of the kernel's code.
pub(crate) fn is_text(address: u64) -> bool {
    (symbol!(text_start)..symbol!(text_end)).contains(&address)
}

/// Tables for what is mapped before there are frames to be had.
const POOL_TABLES: usize = 96;

#[repr(C, align(4096))]
struct Pool([[u64; 512]; POOL_TABLES]);

static POOL: Lock<Pool> = Lock::new(Pool([[0; 512]; POOL_TABLES]));
static POOL_USED: AtomicUsize = AtomicUsize::new(0);

/// The kernel's own top table, physical; user address spaces copy its upper half.
static ROOT: Once<u64> = Once::new();
static RAM: Once<DirectMap<'static>> = Once::new();

/// Held while tables change.
static CHANGE: Lock<()> = Lock::new(());

fn table_at(physical: u64) -> &'static [core::sync::atomic::AtomicU64; 512] {
    let at = (DIRECT + physical) as *const [core::sync::atomic::AtomicU64; 512];
    // SAFETY: tables lie in RAM that the direct map shows (the first GiB from the start, which holds
    // the pool), are aligned, and are touched by atomics only.
    unsafe { &*at }
}

fn new_table() -> u64 {
    let used = POOL_USED.load(Ordering::Relaxed);
    if used < POOL_TABLES {
        POOL_USED.store(used + 1, Ordering::Relaxed);
        let pool = POOL.lock();
        return (&raw const pool.0[used]) as u64 - KERNEL_VMA;
    }
    let request = AllocRequest::kernel_zeroed(Order::ZERO);
    match crate::machine::try_system().map(|system| system.pages().alloc_pages(request)) {
        Some(Ok(frame)) => frame.addr().as_u64(),
        _ => panic!("no frame for a table of the kernel"),
    }
}

/// Maps a page of 4 KiB (`level` 0), 2 MiB (1) or 1 GiB (2).
fn map(root: u64, address: u64, physical: u64, level: u32, flags: u64) {
    let mut table = table_at(root);
    let mut at = 3;
    while at > level {
        let entry = &table[(address >> (12 + 9 * at)) as usize & 511];
        let mut value = entry.load(Ordering::Relaxed);
        if value == 0 {
            value = new_table() | LINK;
            entry.store(value, Ordering::Release);
        }
        table = table_at(value & 0x000f_ffff_ffff_f000);
        at -= 1;
    }
    let large = if level > 0 { LARGE } else { 0 };
    table[(address >> (12 + 9 * level)) as usize & 511]
        .store(physical | flags | large, Ordering::Release);
}

/// Removes a page of 4 KiB; returns its frame.
fn unmap(root: u64, address: u64) -> u64 {
    let mut table = table_at(root);
    for at in (1..4).rev() {
        let value = table[(address >> (12 + 9 * at)) as usize & 511].load(Ordering::Relaxed);
        assert!(value & PRESENT != 0, "unmapping what is not mapped");
        table = table_at(value & 0x000f_ffff_ffff_f000);
    }
    let old = table[(address >> 12) as usize & 511].swap(0, Ordering::AcqRel);
    x86::invlpg(address);
    old & 0x000f_ffff_ffff_f000
}

/// Builds the kernel's tables for RAM up to `end`, and runs on them from here on.
pub(crate) fn set_up(end: u64) {
    let root = new_table();
    let fine = symbol!(image_end)
        .wrapping_sub(KERNEL_VMA)
        .next_multiple_of(1 << 21);
    let (text, rodata) = (symbol!(text_start), symbol!(rodata_end));
    let shut = text - KERNEL_VMA..rodata - KERNEL_VMA;
    for page in (0..fine).step_by(PAGE_SIZE as usize) {
        // What cannot be written through the image cannot be written here either.
        let flags = if shut.contains(&page) {
            DATA & !WRITE
        } else {
            DATA
        };
        map(root, DIRECT + page, page, 0, flags);
    }
    let gigabytes = x86::cpuid(0x8000_0001, 0)[3] & 1 << 26 != 0;
    let mut at = fine;
    while at < end {
        let huge = gigabytes && at.is_multiple_of(1 << 30);
        map(root, DIRECT + at, at, if huge { 2 } else { 1 }, DATA);
        at += if huge { 1 << 30 } else { 1 << 21 };
    }
    let mut page = text;
    while page < symbol!(image_end) {
        let flags = if page < symbol!(text_end) {
            PRESENT | USED | GLOBAL
        } else if page < rodata {
            DATA & !WRITE
        } else {
            DATA
        };
        if page != symbol!(boot_stack_hole) {
            map(root, page, page - KERNEL_VMA, 0, flags);
        }
        page += PAGE_SIZE;
    }
    // The entry of the top table must exist before the first address space copies it.
    let empty = new_table();
    table_at(root)[(STACKS >> 39) as usize & 511].store(empty | LINK, Ordering::Release);
    ROOT.set(root);
    // SAFETY: the new tables map image, stack (in the image) and direct map as the old ones did.
    unsafe { x86::write_cr3(root) };
    let base = NonNull::new(DIRECT as *mut u8).unwrap_or_else(|| panic!("the direct map is not 0"));
    let span = PhysRange::from_len(PhysAddr::ZERO, end).unwrap_or_else(|| panic!("no RAM"));
    // SAFETY: mapped just now, for good; RAM is reached through this value only, but for the image,
    // which is reserved, and tables, which are atomics.
    RAM.set(unsafe { DirectMap::new(base, span) });
}

/// RAM.
#[inline]
pub(crate) fn ram() -> DirectMap<'static> {
    *RAM.get()
}

/// The kernel's own table, for CR3.
pub(crate) fn kernel_root() -> u64 {
    *ROOT.get()
}

/// Makes a new address space share the kernel's half.
pub(crate) fn share_kernel(root: Pfn) {
    let (ours, theirs) = (table_at(kernel_root()), table_at(root.addr().as_u64()));
    for at in [DIRECT, STACKS, KERNEL_VMA] {
        let slot = (at >> 39) as usize & 511;
        theirs[slot].store(ours[slot].load(Ordering::Relaxed), Ordering::Release);
    }
}

/// Maps a device's registers.
pub(crate) fn map_device(physical: u64, bytes: u64) -> u64 {
    let _guard = CHANGE.lock();
    let (start, end) = (physical & !4095, (physical + bytes).next_multiple_of(4096));
    for page in (start..end).step_by(PAGE_SIZE as usize) {
        map(kernel_root(), DEVICES + page, page, 0, DATA | NO_CACHE);
    }
    DEVICES + physical
}

static NEXT_STACK: AtomicUsize = AtomicUsize::new(0);

/// A new stack with a hole below it; returns its top, or `None` without memory.
pub(crate) fn new_stack() -> Option<u64> {
    let _guard = CHANGE.lock();
    let system = crate::machine::try_system()?;
    let number = NEXT_STACK.fetch_add(1, Ordering::Relaxed) as u64;
    let bottom = STACKS + (2 * number + 1) * STACK_PAGES * PAGE_SIZE;
    for page in 0..STACK_PAGES {
        match system
            .pages()
            .alloc_pages(AllocRequest::kernel(Order::ZERO))
        {
            Ok(frame) => {
                let at = bottom + page * PAGE_SIZE;
                map(kernel_root(), at, frame.addr().as_u64(), 0, DATA);
            }
            Err(_) => {
                for page in 0..page {
                    let frame = unmap(kernel_root(), bottom + page * PAGE_SIZE);
                    if let Some(frame) = Pfn::containing(PhysAddr::new(frame)) {
                        system.pages().free_pages(frame);
                    }
                }
                return None;
            }
        }
    }
    Some(bottom + STACK_PAGES * PAGE_SIZE)
}

/// True if `address` is in the hole below a kernel stack.
pub(crate) fn is_stack_hole(address: u64) -> bool {
    if address & !(PAGE_SIZE - 1) == symbol!(boot_stack_hole) {
        return true;
    }
    (STACKS..DEVICES).contains(&address)
        && ((address - STACKS) / (STACK_PAGES * PAGE_SIZE)).is_multiple_of(2)
}
