//! What the kernel can say of itself without a program: `selftest` on the command line.

use crate::machine::system;
use crate::serial::{self, kprintln};
use crate::{power, x86};
use alloc::vec::Vec;
use vellum_page::{AllocRequest, PageSource};
use vellum_types::Order;

type Outcome = Result<(), &'static str>;

type Test = (&'static str, fn() -> Outcome);

const TESTS: [Test; 4] = [
    ("heap", heap),
    ("blocks", blocks),
    ("spaces", spaces),
    ("clock", clock_runs),
];

/// Runs the tests, prints the memory, and ends the machine.
pub(crate) fn run() -> ! {
    match crate::init::option("selftest") {
        Some("panic") => panic!("a panic was asked for"),
        Some("overflow") => {
            kprintln!("depth {}", overflow(0));
        }
        Some("fault") => {
            // SAFETY: none; the fault is what was asked for.
            unsafe { core::ptr::write_volatile(0x1234_5678 as *mut u8, 1) };
        }
        Some("text") => {
            let text = run as *const () as *mut u8;
            // SAFETY: none; code cannot be written, which is what is tested.
            unsafe { core::ptr::write_volatile(text, 0xcc) };
        }
        Some("hang") => loop {
            core::hint::spin_loop();
        },
        _ => {}
    }
    let mut failed = 0;
    for (name, test) in TESTS {
        match test() {
            Ok(()) => kprintln!("selftest {name}: ok"),
            Err(why) => {
                failed += 1;
                kprintln!("selftest {name}: FAILED: {why}");
            }
        }
    }
    // The console cannot fail.
    let _ = vellum_system::proc::meminfo(system(), &mut serial::Console);
    let _ = vellum_system::proc::zoneinfo(system(), &mut serial::Console);
    serial::report(&alloc::format!("exit {failed}\n"));
    power::off(power::DONE);
}

/// Small and large pieces keep what was written, and come back.
fn heap() -> Outcome {
    let free = system().pages().nr_free_pages();
    for round in 0..4u64 {
        let mut pieces: Vec<Vec<u64>> = Vec::new();
        for n in 1..200u64 {
            pieces.push((0..n * 7 % 3000 + 1).map(|word| word ^ n ^ round).collect());
        }
        for (n, piece) in (1u64..).zip(&pieces) {
            if piece
                .iter()
                .zip(0..)
                .any(|(have, word)| *have != word ^ n ^ round)
            {
                return Err("a piece changed");
            }
        }
    }
    system().slab().validate()?;
    system().slab().shrink();
    if free.abs_diff(system().pages().nr_free_pages()) > 64 {
        return Err("pages are missing");
    }
    Ok(())
}

/// Blocks of all orders are taken, and coalesce again.
fn blocks() -> Outcome {
    let pages = system().pages();
    let mut taken = Vec::with_capacity(128);
    pages.drain_local();
    let free = pages.nr_free_pages();
    for order in Order::all() {
        for _ in 0..4 {
            taken.extend(pages.alloc_pages(AllocRequest::kernel(order)));
        }
    }
    taken.into_iter().for_each(|frame| pages.free_pages(frame));
    pages.drain_local();
    if pages.nr_free_pages() != free {
        return Err("pages are missing");
    }
    pages.validate()
}

/// An address space is made, copied, used and taken apart.
fn spaces() -> Outcome {
    let mm = system().mm_create().map_err(|_| "mm_create")?;
    let request = vellum_system::MmapRequest {
        addr: 0x10_0000,
        len: 1 << 20,
        prot: 3,
        flags: 0x32,
        file: None,
        offset: 0,
    };
    let at = system().mmap(&mm, request).map_err(|_| "mmap")?;
    let at = vellum_types::VirtAddr::new(at);
    system()
        .copy_to_user(&mm, at, &[7; 10_000])
        .map_err(|_| "copy_to_user")?;
    let child = system().mm_fork(&mm).map_err(|_| "fork")?;
    system()
        .copy_to_user(&child, at, &[8; 10])
        .map_err(|_| "copy_to_user")?;
    let mut byte = [0; 2];
    system()
        .copy_from_user(&mm, at, &mut byte)
        .map_err(|_| "copy_from_user")?;
    system().validate_all()?;
    system().mm_put(child);
    system().mm_put(mm);
    if byte == [7, 7] {
        Ok(())
    } else {
        Err("the child wrote to its parent")
    }
}

/// Time goes on.
fn clock_runs() -> Outcome {
    let before = x86::rdtsc();
    if x86::rdtsc() >= before {
        Ok(())
    } else {
        Err("time runs backwards")
    }
}

#[inline(never)]
fn overflow(depth: u64) -> u64 {
    let room = [depth; 64];
    if core::hint::black_box(&room)[0] == u64::MAX {
        return 0;
    }
    overflow(depth + 1) + core::hint::black_box(&room)[1]
}
