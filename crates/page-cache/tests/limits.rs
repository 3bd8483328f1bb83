//! How much may be dirty, who is written first, and who is told of errors.

mod common;

use common::{FILE, PAGE, no_clean, pattern, rig_with};
use std::sync::atomic::Ordering;
use vellum_machine::{VmEvent, VmItem};
use vellum_page_cache::{DirtyLimits, IoError, MappingRef, Wanted};
use vellum_types::{FileId, PAGE_SIZE};

fn dirty(rig: &common::Rig, mapping: &MappingRef<'static>, first: u64, count: u64) {
    for index in first..first + count {
        let pfn = mapping.get_for_write(&rig.cache, index, true).unwrap();
        mapping.mark_dirty(&rig.cache, index);
        rig.cache.put_page(pfn);
    }
}

#[test]
fn writing_is_wanted_in_the_background_and_then_at_once() {
    // A thousand frames: 100 dirty pages and 200 are the marks.
    let (rig, mapping) = rig_with(1000, pattern(400 * PAGE));
    assert_eq!(rig.cache.dirty_thresholds(), (100, 200));
    for (pages, wanted) in [
        (100, Wanted::No),
        (101, Wanted::Background),
        (200, Wanted::Background),
        (201, Wanted::Now),
    ] {
        dirty(&rig, &mapping, 0, pages);
        assert_eq!(rig.cache.writeback_wanted(), wanted, "{pages} pages");
    }
    assert_eq!(rig.vmstat.item(VmItem::NrDirtyThreshold), 200);
    assert_eq!(rig.vmstat.item(VmItem::NrDirtyBackgroundThreshold), 100);
    assert_eq!(rig.vmstat.events(VmEvent::NrDirtied), 201);
    let target = rig.cache.flush_target();
    assert_eq!(target, 101);
    let written = rig.cache.flush_some(target, &mut |_, _, _| {});
    assert!((target..target + 64).contains(&written));
    assert_eq!(rig.cache.writeback_wanted(), Wanted::No);
    rig.cache.set_dirty_limits(DirtyLimits {
        background_ratio: 50,
        ratio: 2,
        expire_ms: 0,
    });
    assert_eq!(
        rig.cache.dirty_thresholds(),
        (10, 20),
        "background comes first"
    );
    // Shared memory is not to be written, and is not memory that could be dirty.
    let shared = rig.cache.mapping(FileId(1 << 63)).unwrap();
    let before = rig.vmstat.item(VmItem::NrDirty);
    dirty(&rig, &shared, 0, 500);
    assert_eq!(rig.vmstat.item(VmItem::NrDirty), before);
    assert_eq!(rig.cache.dirty_thresholds(), (5, 10));
    drop((mapping, shared));
    rig.finish();
}

#[test]
fn the_file_that_has_been_dirty_longest_is_written_first_and_all_have_their_turn() {
    let (rig, mapping) = rig_with(1000, Vec::new());
    let mut files = vec![mapping];
    for id in 1..4 {
        rig.store.set(FileId(id), Vec::new());
        files.push(rig.cache.mapping(FileId(id)).unwrap());
    }
    let mut order = vec![2, 0, 3, 1];
    for &which in &order {
        dirty(&rig, &files[which], 0, 100);
        files[which].extend_size(100 * PAGE_SIZE);
    }
    let mut seen = Vec::new();
    let mut flush = |target| {
        rig.cache.flush_some(target, &mut |mapping, _, _| {
            seen.push(
                files
                    .iter()
                    .position(|f| f.file() == mapping.file())
                    .unwrap(),
            );
        })
    };
    // A part of the first; it goes to the end, and goes on there where it stopped.
    assert_eq!(flush(64), 64);
    assert_eq!(flush(300), 300);
    assert_eq!(flush(1000), 36);
    assert_eq!(flush(1000), 0);
    order = vec![2, 0, 0, 3, 3, 1, 1, 2];
    assert_eq!(seen, order);
    rig.cache.validate().unwrap();
    assert_eq!(rig.vmstat.events(VmEvent::NrWritten), 400);
    drop(files);
    rig.finish();
}

#[test]
fn files_that_were_dirty_too_long_are_written_in_any_case() {
    let (rig, mapping) = rig_with(1000, pattern(10 * PAGE));
    rig.store.set(FileId(1), pattern(10 * PAGE));
    let later = rig.cache.mapping(FileId(1)).unwrap();
    let flush = |now| rig.cache.flush_expired(now, &mut |_, _, _| {});
    assert_eq!(flush(1_000), 0);
    dirty(&rig, &mapping, 0, 3);
    assert_eq!(flush(20_000), 0);
    dirty(&rig, &later, 0, 2);
    // Dirty anew does not make it younger.
    dirty(&rig, &mapping, 5, 1);
    assert_eq!(flush(30_999), 0);
    assert_eq!(flush(31_000), 4);
    assert_eq!(flush(50_000), 2);
    drop((mapping, later));
    rig.finish();
}

#[test]
fn a_file_that_cannot_be_written_does_not_hold_up_the_others() {
    let (rig, mapping) = rig_with(1000, pattern(10 * PAGE));
    rig.store.set(FileId(1), pattern(10 * PAGE));
    let other = rig.cache.mapping(FileId(1)).unwrap();
    dirty(&rig, &mapping, 0, 5);
    dirty(&rig, &other, 0, 5);
    rig.store.fail_writes.store(1, Ordering::Relaxed);
    assert_eq!(rig.cache.flush_some(100, &mut |_, _, _| {}), 5);
    assert_eq!((mapping.nr_dirty(), other.nr_dirty()), (5, 0));
    rig.cache.validate().unwrap();
    drop((mapping, other));
    rig.finish();
}

#[test]
fn each_opener_is_told_of_a_write_error_once() {
    let (rig, mapping) = rig_with(100, pattern(10 * PAGE));
    let mut openers = [mapping.sample_error(), mapping.sample_error()];
    dirty(&rig, &mapping, 0, 5);
    rig.store.fail_writes.store(1, Ordering::Relaxed);
    rig.cache.flush_some(100, &mut |_, _, _| {});
    for opener in &mut openers {
        let mut fsync = || mapping.writeback_since(&rig.cache, 0, u64::MAX, opener, &mut no_clean);
        assert_eq!(fsync(), Err(IoError { errno: 28 }));
        assert_eq!(fsync(), Ok(0));
    }
    // Who is no opener has an account of his own.
    assert_eq!(mapping.check_error(), Err(IoError { errno: 28 }));
    assert_eq!(mapping.check_error(), Ok(()));
    let mut new = mapping.sample_error();
    assert_eq!(mapping.check_error_since(&mut new), Ok(()));
    assert_eq!(rig.store.get(FILE).len(), 10 * PAGE);
    drop(mapping);
    rig.finish();
}
