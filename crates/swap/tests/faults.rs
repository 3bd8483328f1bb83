//! What devices that fail, areas that end and headers that lie do.

mod common;

use common::{Disk, PAGE, Rig};
use std::sync::atomic::Ordering;
use vellum_machine::VmEvent;
use vellum_page::PageFlags;
use vellum_swap::header::{self, HEADER_BYTES, HeaderError, MAX_BAD_PAGES, SwapHeader};
use vellum_swap::{IoError, SwapEntry, SwapError, SwapInError, SwapOn};

fn on(priority: i16) -> SwapOn<'static> {
    SwapOn {
        priority: Some(priority),
        bad: &[],
    }
}

#[test]
fn a_page_comes_back_with_its_bytes_and_its_shadow() {
    let rig = Rig::new(128);
    rig.swap.swapon(Disk::new("plain", 64), on(0)).unwrap();
    let pfn = rig.anon(1 << 40);
    let entry = rig.swap_out(pfn, Some(0xdead_beef));
    assert_eq!(rig.swap.lookup(entry), None);
    let back = rig.swap.swapin(entry, &mut || rig.alloc()).unwrap();
    assert_eq!((back.read, back.shadow), (true, Some(0xdead_beef)));
    rig.expect(back.pfn, 1 << 40);
    assert!(rig.swap.is_sole(entry));
    let again = rig.swap.swapin(entry, &mut || unreachable!()).unwrap();
    assert_eq!(
        (again.pfn, again.read, again.shadow),
        (back.pfn, false, None)
    );
    assert!(!rig.swap.is_sole(entry), "another reference");
    rig.swap.put_page(again.pfn);
    rig.swap.dup(entry).unwrap();
    assert!(!rig.swap.is_sole(entry), "another table entry");
    rig.swap.free(entry);
    assert!(
        !rig.swap.try_to_free_swap(back.pfn),
        "a table entry is left"
    );
    rig.swap.free(entry);
    assert!(rig.swap.try_to_free_swap(back.pfn));
    assert!(rig.flags(back.pfn).contains(PageFlags::DIRTY));
    assert_eq!(rig.swap.entry_of(back.pfn), None);
    assert_eq!(rig.swap.free_slots(), 63);
    assert_eq!(
        rig.swap.swapin(entry, &mut || unreachable!()),
        Err(SwapInError::Gone)
    );
}

#[test]
fn a_write_error_retires_the_slot_and_keeps_the_page() {
    let rig = Rig::new(128);
    let disk = Disk::new("plain", 8);
    rig.swap.swapon(disk, on(0)).unwrap();
    disk.bad_writes.lock().unwrap().push(1);
    let pfn = rig.anon(1 << 40);
    let entry = rig.swap.add_to_swap(pfn).unwrap();
    assert_eq!(entry.slot(), 1);
    rig.swap.dup(entry).unwrap();
    assert_eq!(rig.write(pfn), Err(IoError::EIO));
    assert!(rig.flags(pfn).contains(PageFlags::DIRTY));
    assert!(!rig.flags(pfn).contains(PageFlags::WRITEBACK));
    assert!(
        !rig.swap.remove_for_reclaim(pfn, None),
        "it is nowhere else"
    );
    rig.expect(pfn, 1 << 40);
    // Its owner faults it back in and is alone with it again.
    let back = rig.swap.swapin(entry, &mut || unreachable!()).unwrap();
    rig.swap.free(entry);
    assert!(rig.swap.try_to_free_swap(back.pfn));
    rig.swap.put_page(back.pfn);
    assert_eq!(rig.swap.free_slots(), 6, "slot 1 is not given out again");
    for slot in 2..8 {
        let entry = rig.swap.add_to_swap(rig.anon(3)).unwrap();
        assert_eq!(entry.slot(), slot);
    }
    assert_eq!(rig.swap.add_to_swap(pfn), None);
    assert_eq!(rig.memmap.page(pfn).refcount(), 1);
    rig.swap.validate().unwrap();
    let mut retired = 0;
    rig.swap.areas(&mut |info, _| retired += info.retired);
    assert_eq!(retired, 1);
}

#[test]
fn one_bad_slot_does_not_spoil_its_neighbours_in_the_same_write() {
    let rig = Rig::new(128);
    let disk = Disk::new("plain", 64);
    rig.swap.swapon(disk, on(0)).unwrap();
    disk.bad_writes.lock().unwrap().extend([3, 5]);
    let pages: Vec<_> = (0..8).map(|i| rig.anon(i << 33)).collect();
    for pfn in &pages {
        rig.swap.add_to_swap(*pfn).unwrap();
    }
    let mut results = Vec::new();
    rig.swap.write(&pages, &mut |pfn, result| {
        results.push((pfn, result.is_ok()))
    });
    let expected = [true, true, false, true, false, true, true, true];
    let expected: Vec<_> = pages.iter().copied().zip(expected).collect();
    assert_eq!(results, expected);
    assert_eq!(*disk.writes.lock().unwrap(), [(1, 8), (4, 5), (6, 3)]);
    for (pfn, good) in expected {
        assert_eq!(rig.flags(pfn).contains(PageFlags::DIRTY), !good);
        assert!(!rig.flags(pfn).contains(PageFlags::WRITEBACK));
    }
    assert_eq!(rig.vmstat.events(VmEvent::PSwpOut), 6);
}

#[test]
fn a_device_without_room_keeps_its_slots() {
    let rig = Rig::new(128);
    let (small, large) = (Disk::new("plain", 8), Disk::new("plain", 8));
    rig.swap.swapon(small, on(9)).unwrap();
    rig.swap.swapon(large, on(1)).unwrap();
    let pfn = rig.anon(1 << 40);
    let entry = rig.swap.add_to_swap(pfn).unwrap();
    assert_eq!(entry.area(), 0);
    small.full.store(true, Ordering::Relaxed);
    assert_eq!(rig.write(pfn), Err(IoError::ENOSPC));
    assert!(rig.flags(pfn).contains(PageFlags::DIRTY));
    let other = rig.swap.add_to_swap(rig.anon(5)).unwrap();
    assert_eq!(other.area(), 1, "the next area is tried");
    small.full.store(false, Ordering::Relaxed);
    assert_eq!(rig.write(pfn), Ok(()), "the slot is as good as before");
    assert!(rig.swap.try_to_free_swap(pfn));
    assert_eq!(rig.swap.free_slots(), 7 + 6);
}

#[test]
fn a_read_error_names_the_slot_and_loses_nothing_else() {
    let rig = Rig::new(128);
    let disk = Disk::new("plain", 64);
    rig.swap.swapon(disk, on(0)).unwrap();
    let used = rig.frames.used();
    let entry = rig.swap_out(rig.anon(1 << 40), None);
    disk.bad_reads.lock().unwrap().push(entry.slot());
    let failed = Err(SwapInError::Io {
        entry,
        error: IoError::EIO,
    });
    assert_eq!(rig.swap.swapin(entry, &mut || rig.alloc()), failed);
    assert_eq!(rig.swap.count(entry), 1);
    assert_eq!(rig.frames.used(), used);
    disk.bad_reads.lock().unwrap().clear();
    let back = rig.swap.swapin(entry, &mut || rig.alloc()).unwrap();
    rig.expect(back.pfn, 1 << 40);
    rig.swap.validate().unwrap();
}

#[test]
fn swapoff_is_refused_while_content_would_be_lost() {
    let rig = Rig::new(256);
    let disk = Disk::new("plain", 600);
    let used = rig.frames.used();
    let area = rig.swap.swapon(disk, on(0)).unwrap();
    let entry = rig.swap_out(rig.anon(1 << 40), None);
    assert!(rig.swap.swapoff_end(area).is_err(), "not begun");
    rig.swap.swapoff_begin(area).unwrap();
    assert!(rig.swap.swapoff_begin(area).is_err(), "begun already");
    assert_eq!(rig.swap.free_slots(), 0);
    let busy = rig.swap.swapoff_end(area).err();
    assert_eq!(busy, Some(SwapError::Busy { used: 1 }));
    assert_eq!(rig.swap.add_to_swap(rig.anon(2)), None, "draining");
    rig.swap.swapoff_cancel(area).unwrap();
    assert_eq!(rig.swap.free_slots(), 598);
    rig.swap.swapoff_begin(area).unwrap();
    let found = rig.swap.next_used(area, 0).unwrap();
    assert_eq!((found.entry, found.count, found.cached), (entry, 1, false));
    assert_eq!(rig.swap.next_used(area, entry.slot() + 1), None);
    rig.swap.free(entry);
    rig.swap.swapoff_end(area).unwrap();
    assert_eq!(rig.swap.next_used(area, 0), None);
    assert_eq!(rig.frames.used(), used + 1, "the tables are back");
}

#[test]
fn areas_that_cannot_be_used_are_refused() {
    let rig = Rig::new(256);
    let used = rig.frames.used();
    let on_with = |slots, bad| {
        let priority = None;
        rig.swap
            .swapon(Disk::new("plain", slots), SwapOn { priority, bad })
    };
    assert_eq!(on_with(0, &[]), Err(SwapError::TooSmall));
    assert_eq!(on_with(1, &[]), Err(SwapError::TooSmall));
    assert_eq!(on_with(3, &[1, 2]), Err(SwapError::TooSmall));
    assert_eq!(on_with(3, &[3]), Err(SwapError::BadSlot(3)));
    assert_eq!(on_with(1 << 26, &[]), Err(SwapError::OutOfMemory));
    assert_eq!(rig.frames.used(), used);
    for area in 0..SwapEntry::AREAS {
        assert_eq!(on_with(2, &[]), Ok(area));
    }
    assert_eq!(on_with(2, &[]), Err(SwapError::TooManyAreas));
}

#[test]
fn tables_are_made_of_single_frames_when_memory_is_in_pieces() {
    let rig = Rig::new(256);
    let used = rig.frames.used();
    rig.frames.max_order.store(0, Ordering::Relaxed);
    let area = rig.swap.swapon(Disk::new("plain", 5000), on(0)).unwrap();
    let mut entries = Vec::new();
    for i in 0..150 {
        if i % 3 == 0 {
            entries.push((i, rig.swap_out(rig.anon(i << 32), None)));
        } else {
            rig.swap.free(rig.swap_out(rig.anon(i), None));
        }
    }
    rig.swap.validate().unwrap();
    for (i, entry) in entries {
        let back = rig.swap.swapin(entry, &mut || rig.alloc()).unwrap();
        rig.expect(back.pfn, i << 32);
        rig.swap.free(entry);
        rig.swap.put_page(back.pfn);
    }
    rig.swap.swapoff_begin(area).unwrap();
    rig.swap.swapoff_end(area).unwrap();
    assert_eq!(rig.frames.used(), used);
    // Whichever allocation of a swapon fails, nothing is left behind.
    for budget in 0..20 {
        rig.frames.budget.store(budget, Ordering::Relaxed);
        if let Ok(area) = rig.swap.swapon(Disk::new("plain", 5000), on(0)) {
            assert!(budget > 10, "{budget}");
            rig.swap.swapoff_begin(area).unwrap();
            rig.swap.swapoff_end(area).unwrap();
        }
        assert_eq!(rig.frames.used(), used, "{budget}");
    }
}

fn header(last_page: u32) -> SwapHeader {
    SwapHeader {
        last_page,
        nr_bad: 0,
        uuid: *b"0123456789abcdef",
        label: *b"swap\0\0\0\0\0\0\0\0\0\0\0\0",
        dirty: false,
    }
}

#[test]
fn a_header_comes_back_as_it_was_written() {
    let mut page = [0x77u8; HEADER_BYTES];
    header(99).write(&mut page, &[4, 8]).unwrap();
    let read = SwapHeader::parse(&page, 100).unwrap();
    assert_eq!(
        read,
        SwapHeader {
            nr_bad: 2,
            ..header(99)
        }
    );
    assert_eq!(header::bad_pages(&page).collect::<Vec<_>>(), [4, 8]);
    assert_eq!(page.len(), PAGE);
    header::set_dirty(&mut page, true);
    assert!(
        SwapHeader::parse(&page, 100).unwrap().dirty,
        "was not put out of use"
    );
    header::set_dirty(&mut page, false);
    assert!(!SwapHeader::parse(&page, 100).unwrap().dirty);
}

#[test]
fn a_header_that_mkswap_wrote_is_read() {
    // As `mkswap -L test` of util-linux writes it: all zero but these.
    let mut page = [0u8; HEADER_BYTES];
    page[1024] = 1;
    page[1028..1032].copy_from_slice(&255u32.to_le_bytes());
    page[1052..1056].copy_from_slice(b"test");
    page[4086..].copy_from_slice(b"SWAPSPACE2");
    let read = SwapHeader::parse(&page, 256).unwrap();
    assert_eq!((read.last_page, read.nr_bad, read.dirty), (255, 0, false));
    assert!(read.label.starts_with(b"test\0"));
}

#[test]
fn headers_that_lie_are_refused() {
    let check = |change: &dyn Fn(&mut [u8; HEADER_BYTES]), pages, error| {
        let mut page = [0u8; HEADER_BYTES];
        header(99).write(&mut page, &[4, 8]).unwrap();
        change(&mut page);
        assert_eq!(SwapHeader::parse(&page, pages), Err(error));
    };
    let set = |at: usize, value: u32| {
        move |page: &mut [u8; HEADER_BYTES]| page[at..at + 4].copy_from_slice(&value.to_le_bytes())
    };
    check(&|page| page[4086] = b's', 100, HeaderError::Signature);
    check(
        &|page| page[4086..].copy_from_slice(b"S1SUSPEND\0"),
        100,
        HeaderError::Hibernated,
    );
    check(&set(1024, 2), 100, HeaderError::Version(2));
    check(&set(1024, 1 << 24), 100, HeaderError::ByteOrder);
    check(&set(1028, 0), 100, HeaderError::Empty);
    let (need, have) = (100, 99);
    check(&|_| (), 99, HeaderError::TooSmall { need, have });
    let most = MAX_BAD_PAGES as u32;
    check(&set(1032, most + 1), 100, HeaderError::BadCount(most + 1));
    check(&set(1032, 99), 100, HeaderError::BadCount(99));
    check(&set(1536, 0), 100, HeaderError::BadPage(0));
    check(&set(1540, 100), 100, HeaderError::BadPage(100));
    let mut page = [0u8; HEADER_BYTES];
    assert_eq!(header(0).write(&mut page, &[]), Err(HeaderError::Empty));
    let missing = header(9).write(&mut page, &[10]);
    assert_eq!(missing, Err(HeaderError::BadPage(10)));
    let many = vec![1; MAX_BAD_PAGES + 1];
    assert!(header(9999).write(&mut page, &many).is_err());
    assert!(page.iter().all(|byte| *byte == 0), "nothing was written");
}
