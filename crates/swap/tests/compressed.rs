//! Compressed memory, and what stands in front of a device.

mod common;

use common::{Disk, Lz4, PAGE, Rig, Rng, page_of, streams};
use std::sync::atomic::Ordering;
use vellum_machine::VmEvent;
use vellum_page::PageSource;
use vellum_swap::{
    Checked, Compressor, Corrupt, IoError, SameFilled, Swap, SwapDevice, SwapInError, SwapOn, Zram,
    Zswap,
};

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// A page of each kind: one word all over, text, noise.
fn any_fill(rng: &mut Rng) -> u64 {
    match rng.below(4) {
        0 => rng.below(1 << 16),
        1 => rng.next() | 1 << 63,
        _ => rng.next() >> 8 | 1 << 20,
    }
}

/// Random writes, reads and discards on a device, against the fills they must give back.
fn exercise(rig: &Rig, device: &dyn SwapDevice, seed: u64, steps: u32, check: &dyn Fn()) {
    let mut rng = Rng(seed);
    let slots = u64::from(device.nr_slots());
    let mut model = vec![None; slots as usize];
    let frames: Vec<_> = (0..8).map(|_| rig.alloc().unwrap()).collect();
    let mut full = 0;
    for step in 0..steps {
        let slot = 1 + rng.below(slots - 1);
        match rng.below(8) {
            0..3 => {
                let n = (1 + rng.below(8)).min(slots - slot) as usize;
                let fills: Vec<_> = (0..n).map(|_| any_fill(&mut rng)).collect();
                for (fill, pfn) in fills.iter().zip(&frames) {
                    rig.fill(*pfn, *fill);
                }
                let done = match device.write(slot as u32, &frames[..n], rig.ram) {
                    Ok(()) => n,
                    Err(failure) => {
                        assert_eq!(failure.error, IoError::ENOSPC);
                        full += 1;
                        failure.done
                    }
                };
                for i in 0..n {
                    model[slot as usize + i] = None;
                }
                for (i, fill) in fills[..done].iter().enumerate() {
                    model[slot as usize + i] = Some(*fill);
                }
                for i in done..n {
                    device.discard(slot as u32 + i as u32);
                }
            }
            3..6 => {
                if let Some(fill) = model[slot as usize] {
                    device.read(slot as u32, frames[0], rig.ram).unwrap();
                    rig.expect(frames[0], fill);
                }
            }
            _ => {
                device.discard(slot as u32);
                model[slot as usize] = None;
            }
        }
        if step % 1024 == 0 {
            check();
        }
    }
    check();
    assert!(full > 0, "the limit was never felt");
    for slot in 1..slots as u32 {
        device.discard(slot);
    }
    check();
    for pfn in frames {
        rig.frames.free_pages(pfn);
    }
}

#[test]
fn compressed_memory_agrees_with_a_map_and_forgets_everything_in_the_end() {
    let rig = Rig::new(600);
    let before = rig.frames.used();
    let zram = Zram::new(rig.frames, &Lz4, streams(), 300, 120 * PAGE as u64).unwrap();
    let empty = rig.frames.used();
    exercise(&rig, &zram, 4, 30_000, &|| {
        zram.validate().unwrap();
        assert!(zram.stat().mem_used_total <= 120 * PAGE as u64);
    });
    assert_eq!(zram.stat().pages, 0);
    assert_eq!(rig.frames.used(), empty, "an empty device has no frames");
    drop(zram);
    assert_eq!(rig.frames.used(), before);
}

#[test]
fn compressed_memory_agrees_when_every_nth_allocation_fails() {
    for every in [2, 3, 10] {
        let rig = Rig::new(600);
        let zram = Zram::new(rig.frames, &Lz4, streams(), 200, 1 << 30).unwrap();
        let pages: Vec<_> = (0..8).map(|_| rig.alloc().unwrap()).collect();
        for pfn in pages {
            rig.frames.free_pages(pfn);
        }
        let used = rig.frames.used();
        let mut rng = Rng(every);
        let frame = rig.alloc().unwrap();
        rig.frames.fail_every(every);
        let mut failed = 0;
        for _ in 0..5000 {
            let slot = 1 + rng.below(199) as u32;
            let fill = any_fill(&mut rng);
            rig.fill(frame, fill);
            match zram.write(slot, &[frame], rig.ram) {
                Ok(()) => {
                    zram.read(slot, frame, rig.ram).unwrap();
                    rig.expect(frame, fill);
                }
                Err(failure) => {
                    failed += 1;
                    assert_eq!((failure.done, failure.error), (0, IoError::ENOSPC));
                    assert!(zram.read(slot, frame, rig.ram).is_err());
                }
            }
        }
        assert!(failed > 100);
        zram.validate().unwrap();
        for slot in 1..200 {
            zram.discard(slot);
        }
        rig.frames.free_pages(frame);
        assert_eq!(rig.frames.used(), used);
    }
}

#[test]
fn objects_are_packed_tightly() {
    let rig = Rig::new(2000);
    let zram = Zram::new(rig.frames, &Lz4, streams(), 1000, 1 << 30).unwrap();
    let pfn = rig.alloc().unwrap();
    for slot in 1..1000 {
        rig.fill(pfn, u64::from(slot) << 40);
        zram.write(slot, &[pfn], rig.ram).unwrap();
    }
    let stat = zram.stat();
    assert_eq!((stat.pages, stat.same_pages, stat.huge_pages), (999, 0, 0));
    let waste = stat.mem_used_total - stat.compr_data_size;
    assert!(waste * 10 < stat.mem_used_total, "{stat:?}");
}

#[test]
fn a_page_of_one_word_takes_no_memory_and_no_io() {
    let rig = Rig::new(200);
    let zram = Zram::new(rig.frames, &Lz4, streams(), 100, 1 << 20).unwrap();
    let disk = Disk::new("plain", 100);
    let same = SameFilled::new(rig.frames, disk).unwrap();
    let pfn = rig.alloc().unwrap();
    let used = rig.frames.used();
    for device in [&zram as &dyn SwapDevice, &same] {
        for word in [0, u64::MAX, 0x5555_5555_5555_5555, 0x0123_4567_89ab_cdef] {
            rig.ram
                .write_bytes(pfn.addr(), &word.to_ne_bytes().repeat(PAGE / 8));
            device.write(5, &[pfn], rig.ram).unwrap();
            rig.ram.fill_pages(pfn, 1, 0x33);
            device.read(5, pfn, rig.ram).unwrap();
            let mut page = vec![0; PAGE];
            rig.ram.read_bytes(pfn.addr(), &mut page);
            assert_eq!(page, word.to_ne_bytes().repeat(PAGE / 8));
        }
    }
    assert_eq!(zram.stat().same_pages, 1);
    assert_eq!(rig.frames.used(), used);
    assert_eq!(same.saved(), 4);
    assert!(disk.writes.lock().unwrap().is_empty());
    // What is not the same goes to the device, in runs around what is.
    let fills = [1 << 40, 2 << 40, 7, 3 << 40, 8, 9, 4 << 40];
    let frames: Vec<_> = fills.iter().map(|fill| rig.anon(*fill)).collect();
    same.write(5, &frames, rig.ram).unwrap();
    assert_eq!(*disk.writes.lock().unwrap(), [(5, 2), (8, 1), (11, 1)]);
    for (slot, fill) in (5..).zip(fills) {
        same.read(slot, pfn, rig.ram).unwrap();
        rig.expect(pfn, fill);
    }
    disk.bad_writes.lock().unwrap().push(8);
    let failure = same.write(5, &frames, rig.ram).unwrap_err();
    assert_eq!((failure.done, failure.error), (3, IoError::EIO));
}

#[test]
fn what_does_not_fit_in_memory_moves_to_the_disk_oldest_first() {
    let rig = Rig::new(600);
    let before = rig.frames.used();
    let disk = Disk::new("discards", 400);
    let zswap = Zswap::new(
        rig.frames,
        rig.vmstat,
        &Lz4,
        streams(),
        disk,
        20 * PAGE as u64,
    )
    .unwrap();
    let pfn = rig.alloc().unwrap();
    for slot in 1..400 {
        rig.fill(pfn, u64::from(slot) << 40);
        zswap.write(slot, &[pfn], rig.ram).unwrap();
    }
    zswap.validate().unwrap();
    let moved = zswap.written_back();
    assert!(moved > 100 && moved < 399, "{moved}");
    assert_eq!(rig.vmstat.events(VmEvent::ZswpWb), moved);
    assert!(disk.holds(1) && !disk.holds(399), "the oldest are moved");
    for slot in 1..400 {
        zswap.read(slot, pfn, rig.ram).unwrap();
        rig.expect(pfn, u64::from(slot) << 40);
    }
    // Some were written past the memory, when all that was moved made no room of their size.
    let reads = disk.reads.load(Ordering::Relaxed);
    assert!(reads >= moved && reads < moved + 40, "{reads} {moved}");
    assert_eq!(rig.vmstat.events(VmEvent::ZswpIn), 399 - reads);
    // Noise goes past the memory.
    rig.fill(pfn, u64::MAX);
    zswap.write(399, &[pfn], rig.ram).unwrap();
    assert!(disk.holds(399));
    for slot in 1..400 {
        zswap.discard(slot);
    }
    assert!(!disk.holds(1) && !disk.holds(399));
    assert_eq!(zswap.stat().mem_used_total, 0);
    rig.frames.free_pages(pfn);
    drop(zswap);
    assert_eq!(rig.frames.used(), before);
}

#[test]
fn memory_in_front_of_a_full_disk_agrees_with_a_map() {
    let rig = Rig::new(900);
    // The device behind is small memory itself, so that both become full.
    let small = leak(Zram::new(rig.frames, &Lz4, streams(), 300, 60 * PAGE as u64).unwrap());
    let zswap = Zswap::new(
        rig.frames,
        rig.vmstat,
        &Lz4,
        streams(),
        small,
        30 * PAGE as u64,
    )
    .unwrap();
    exercise(&rig, &zswap, 77, 30_000, &|| {
        zswap.validate().unwrap();
        small.validate().unwrap();
    });
    assert!(zswap.written_back() > 100);
    assert_eq!((zswap.stat().pages, small.stat().pages), (0, 0));
}

#[test]
fn a_disk_that_fails_behind_compressed_memory_loses_nothing_that_was_accepted() {
    let rig = Rig::new(600);
    let disk = Disk::new("plain", 300);
    disk.fail_every.store(3, Ordering::Relaxed);
    let zswap = Zswap::new(
        rig.frames,
        rig.vmstat,
        &Lz4,
        streams(),
        disk,
        20 * PAGE as u64,
    )
    .unwrap();
    let pfn = rig.alloc().unwrap();
    let mut accepted = Vec::new();
    for slot in 1..300 {
        rig.fill(pfn, u64::from(slot) << 40);
        if zswap.write(slot, &[pfn], rig.ram).is_ok() {
            accepted.push(slot);
        }
    }
    zswap.validate().unwrap();
    disk.fail_every.store(0, Ordering::Relaxed);
    assert!(accepted.len() > 100);
    for slot in accepted {
        zswap.read(slot, pfn, rig.ram).unwrap();
        rig.expect(pfn, u64::from(slot) << 40);
    }
}

#[test]
fn a_flipped_bit_is_found_and_its_slot_named() {
    let rig = Rig::new(200);
    let disk = Disk::new("plain", 64);
    let checked = leak(Checked::new(rig.frames, disk).unwrap());
    let how = SwapOn::default();
    rig.swap.swapon(checked, how).unwrap();
    let entries: Vec<_> = (1..9)
        .map(|i| rig.swap_out(rig.anon(i << 40), None))
        .collect();
    disk.flip(entries[4].slot(), 1234);
    for (i, entry) in (1..9).zip(&entries) {
        let back = rig.swap.swapin(*entry, &mut || rig.alloc());
        if i == 5 {
            let (entry, error) = (*entry, IoError::EBADMSG);
            assert_eq!(back, Err(SwapInError::Io { entry, error }));
            continue;
        }
        rig.expect(back.unwrap().pfn, i << 40);
    }
    assert_eq!(checked.damaged(), Some(entries[4].slot()));
}

#[test]
fn damaged_compressed_pages_are_errors() {
    struct Liar;
    impl Compressor for Liar {
        fn name(&self) -> &str {
            "liar"
        }
        fn compress(&self, _: &[u8], out: &mut [u8]) -> Option<usize> {
            Some(out.len().min(100))
        }
        fn decompress(&self, _: &[u8], _: &mut [u8]) -> Result<(), Corrupt> {
            Err(Corrupt)
        }
    }
    let rig = Rig::new(100);
    let zram = Zram::new(rig.frames, &Liar, streams(), 10, 1 << 20).unwrap();
    let pfn = rig.anon(1 << 40);
    zram.write(3, &[pfn], rig.ram).unwrap();
    assert_eq!(zram.read(3, pfn, rig.ram), Err(IoError::EBADMSG));
    assert_eq!(
        zram.read(4, pfn, rig.ram),
        Err(IoError::EIO),
        "never written"
    );
    assert_eq!(page_of(3).len(), PAGE);
}

#[test]
fn devices_free_their_memory_when_they_cannot_be_made() {
    let rig = Rig::new(200);
    let used = rig.frames.used();
    let disk = Disk::new("plain", 2000);
    for budget in 0..12 {
        rig.frames.budget.store(budget, Ordering::Relaxed);
        drop(Zram::new(rig.frames, &Lz4, streams(), 2000, 1 << 20));
        rig.frames.budget.store(budget, Ordering::Relaxed);
        drop(Zswap::new(
            rig.frames,
            rig.vmstat,
            &Lz4,
            streams(),
            disk,
            1 << 20,
        ));
        rig.frames.budget.store(budget, Ordering::Relaxed);
        drop(SameFilled::new(rig.frames, disk));
        rig.frames.budget.store(budget, Ordering::Relaxed);
        drop(Checked::new(rig.frames, disk));
        rig.frames.budget.store(budget, Ordering::Relaxed);
        drop(Swap::new(rig.frames, rig.vmstat));
        assert_eq!(rig.frames.used(), used, "{budget}");
    }
}
