//! From the store into the cache.

mod common;

use common::{PAGE, Rng, pattern, read_all, rig_with};
use std::sync::atomic::Ordering;
use vellum_machine::VmEvent;
use vellum_page_cache::{CacheError, Readahead};
use vellum_types::{FileId, PAGE_SIZE};

#[test]
fn a_small_file_comes_in_by_one_read_into_contiguous_frames() {
    let content = pattern(40 * PAGE + 100);
    let (rig, mapping) = rig_with(512, content.clone());
    let (pfn, major) = mapping
        .read_page(&rig.cache, 17, Readahead::Normal)
        .unwrap();
    assert!(major);
    assert_eq!(*rig.store.reads.lock().unwrap(), [(0, 41)]);
    let mut frames = Vec::new();
    mapping.find_get_range(0, u64::MAX, &mut |_, pfn| frames.push(pfn));
    assert_eq!(frames.len(), 41);
    assert!(frames.windows(2).all(|w| w[1] - w[0] == 1));
    assert_eq!(frames[17], pfn);
    for frame in frames {
        rig.cache.put_page(frame);
    }
    rig.cache.put_page(pfn);
    assert_eq!(read_all(&rig, &mapping, 5, u64::MAX), content[5..]);
    assert_eq!(rig.store.reads.lock().unwrap().len(), 1);
    // The rest of the last page is zero, not junk.
    let last = mapping.find_get(40).unwrap();
    assert!(
        rig.bytes(last.addr() + 100, PAGE_SIZE - 100)
            .iter()
            .all(|b| *b == 0)
    );
    rig.cache.put_page(last);
    assert_eq!(rig.vmstat.events(VmEvent::PgPgIn), 161);
    assert_eq!(rig.frames.used(), 41);
    rig.cache.validate().unwrap();
    drop(mapping);
    rig.finish();
}

#[test]
fn a_stream_reads_growing_windows() {
    let content = pattern(1000 * PAGE);
    let (rig, mapping) = rig_with(8192, content.clone());
    for at in (0..content.len() as u64).step_by(PAGE) {
        let got = read_all(&rig, &mapping, at, PAGE_SIZE);
        assert_eq!(got, content[at as usize..][..PAGE]);
    }
    let reads = rig.store.reads.lock().unwrap().clone();
    assert_eq!(
        reads,
        [
            (0, 32),
            (32, 64),
            (96, 128),
            (224, 256),
            (480, 512),
            (992, 8)
        ]
    );
    drop(mapping);
    rig.finish();
}

#[test]
fn will_need_reads_what_is_missing_and_nothing_else() {
    let (rig, mapping) = rig_with(2048, pattern(300 * PAGE));
    let (pfn, _) = mapping
        .read_page(&rig.cache, 20, Readahead::Random)
        .unwrap();
    rig.cache.put_page(pfn);
    rig.store.reads.lock().unwrap().clear();
    assert_eq!(mapping.will_need(&rig.cache, 10, 29), Ok(()));
    assert_eq!(*rig.store.reads.lock().unwrap(), [(10, 10), (21, 9)]);
    assert_eq!(mapping.nr_pages(), 20);
    assert_eq!(mapping.will_need(&rig.cache, 290, u64::MAX), Ok(()));
    assert_eq!(mapping.nr_pages(), 30);
    drop(mapping);
    rig.finish();
}

#[test]
fn two_readers_of_one_file_both_get_long_windows() {
    let (rig, mapping) = rig_with(8192, pattern(1024 * PAGE));
    for step in 0..500u64 {
        for start in [0, 512] {
            let (pfn, _) = mapping
                .read_page(&rig.cache, start + step, Readahead::Normal)
                .unwrap();
            rig.cache.put_page(pfn);
        }
    }
    let reads = rig.store.reads.lock().unwrap().len();
    assert!(reads <= 10, "{reads} requests for two streams of 500 pages");
    drop(mapping);
    rig.finish();
}

#[test]
fn readahead_takes_at_most_a_quarter_of_free_memory() {
    let (rig, mapping) = rig_with(64, pattern(200 * PAGE));
    let (pfn, _) = mapping.read_page(&rig.cache, 0, Readahead::Normal).unwrap();
    rig.cache.put_page(pfn);
    assert_eq!(mapping.nr_pages(), 16);
    let (pfn, major) = mapping
        .read_page(&rig.cache, 199, Readahead::Random)
        .unwrap();
    assert!(major);
    rig.cache.put_page(pfn);
    assert_eq!(mapping.nr_pages(), 17);
    drop(mapping);
    rig.finish();
}

#[test]
fn fragmented_memory_still_gives_one_read() {
    let content = pattern(48 * PAGE);
    let (rig, mapping) = rig_with(512, content.clone());
    rig.frames.max_order.store(2, Ordering::Relaxed);
    assert_eq!(read_all(&rig, &mapping, 0, u64::MAX), content);
    assert_eq!(*rig.store.reads.lock().unwrap(), [(0, 48)]);
    drop(mapping);
    rig.finish();
}

#[test]
fn cached_pages_inside_a_window_are_skipped() {
    let content = pattern(40 * PAGE);
    let (rig, mapping) = rig_with(512, content.clone());
    for index in [10, 11, 30] {
        let pfn = mapping.get_for_write(&rig.cache, index, false).unwrap();
        rig.cache.put_page(pfn);
    }
    rig.store.reads.lock().unwrap().clear();
    assert_eq!(read_all(&rig, &mapping, 0, u64::MAX), content);
    assert_eq!(
        *rig.store.reads.lock().unwrap(),
        [(0, 10), (12, 18), (31, 9)]
    );
    drop(mapping);
    rig.finish();
}

#[test]
fn an_error_beside_the_page_is_silent_and_on_the_page_is_reported() {
    let (rig, mapping) = rig_with(512, pattern(40 * PAGE));
    *rig.store.bad_page.lock().unwrap() = Some(5);
    let error = mapping
        .read_page(&rig.cache, 5, Readahead::Normal)
        .unwrap_err();
    assert_eq!(error, CacheError::Io(5));
    let (pfn, major) = mapping.read_page(&rig.cache, 6, Readahead::Normal).unwrap();
    assert!(major);
    rig.cache.put_page(pfn);
    assert_eq!(mapping.nr_pages(), 1);
    // A read delivers what it can before it fails.
    let mut got = 0;
    let n = mapping.read(&rig.cache, 0, 40 * PAGE_SIZE, &mut |_, len| {
        got += len;
        true
    });
    assert_eq!(n, Ok(5 * PAGE_SIZE));
    assert_eq!(got, 5 * PAGE_SIZE);
    drop(mapping);
    rig.finish();
}

#[test]
fn the_end_of_the_file_is_respected() {
    let (rig, mapping) = rig_with(64, pattern(PAGE + 1));
    let page = |index| mapping.read_page(&rig.cache, index, Readahead::Normal);
    assert_eq!(page(2), Err(CacheError::BeyondEof));
    assert_eq!(page(u64::MAX), Err(CacheError::BeyondEof));
    assert_eq!(read_all(&rig, &mapping, PAGE_SIZE + 1, 10), []);
    assert_eq!(read_all(&rig, &mapping, PAGE_SIZE, 10).len(), 1);
    let too_far = mapping.get_for_write(&rig.cache, u64::MAX / PAGE_SIZE, true);
    assert_eq!(too_far, Err(CacheError::BeyondEof));
    drop(mapping);
    rig.finish();
}

#[test]
fn out_of_memory_is_a_value_everywhere() {
    let (rig, mapping) = rig_with(64, pattern(20 * PAGE));
    rig.frames.fail_every(1);
    let error = mapping
        .read_page(&rig.cache, 3, Readahead::Normal)
        .unwrap_err();
    assert_eq!(error, CacheError::OutOfMemory);
    assert_eq!(
        mapping.get_for_write(&rig.cache, 3, true),
        Err(CacheError::OutOfMemory)
    );
    assert_eq!(
        mapping.read(&rig.cache, 0, 9, &mut |_, _| true),
        Err(CacheError::OutOfMemory)
    );
    rig.frames.fail_every(0);
    rig.nodes.fail_after(0);
    let error = mapping
        .read_page(&rig.cache, 3, Readahead::Normal)
        .unwrap_err();
    assert_eq!(error, CacheError::OutOfMemory);
    rig.nodes.fail_after(i64::MAX);
    rig.table_nodes.fail_after(0);
    assert!(rig.cache.mapping(FileId(u64::MAX)).is_err());
    rig.table_nodes.fail_after(1);
    let _ = rig.cache.mapping(FileId(77));
    rig.table_nodes.fail_after(i64::MAX);
    rig.mappings.fail_after(0);
    assert!(rig.cache.mapping(FileId(78)).is_err());
    rig.mappings.fail_after(i64::MAX);
    rig.cache.validate().unwrap();
    drop(mapping);
    rig.finish();
}

#[test]
fn what_the_store_has_past_the_size_is_not_seen() {
    let (rig, mapping) = rig_with(64, vec![0xff; 3 * PAGE]);
    mapping.set_size(PAGE_SIZE + 10);
    let (pfn, _) = mapping.read_page(&rig.cache, 1, Readahead::Normal).unwrap();
    let bytes = rig.bytes(pfn.addr(), PAGE_SIZE);
    assert!(bytes[..10].iter().all(|b| *b == 0xff) && bytes[10..].iter().all(|b| *b == 0));
    assert_eq!(mapping.nr_pages(), 2);
    rig.cache.put_page(pfn);
    drop(mapping);
    rig.finish();
}

#[test]
fn racing_readers_see_the_file_and_leak_nothing() {
    let content = pattern(150 * PAGE);
    let (rig, mapping) = rig_with(1024, content.clone());
    std::thread::scope(|scope| {
        for seed in 1..=4 {
            let (rig, mapping, content) = (&rig, &mapping, &content);
            scope.spawn(move || {
                let mut rng = Rng(seed * 7919);
                for round in 0..2000 {
                    let index = rng.below(150);
                    let (pfn, _) = mapping
                        .read_page(&rig.cache, index, Readahead::Normal)
                        .unwrap();
                    let want = &content[index as usize * PAGE..][..64];
                    assert_eq!(rig.bytes(pfn.addr(), 64), want);
                    rig.cache.put_page(pfn);
                    if round % 8 == 0 {
                        rig.cache.shrink(60);
                    }
                }
            });
        }
    });
    rig.cache.validate().unwrap();
    drop(mapping);
    rig.finish();
}
