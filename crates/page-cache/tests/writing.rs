//! From the cache to the store, and the table of mappings.

mod common;

use common::{FILE, PAGE, no_clean, pattern, read_all, rig_with};
use std::sync::atomic::Ordering;
use vellum_machine::{VmEvent, VmItem};
use vellum_page::PageSource;
use vellum_page_cache::IoError;
use vellum_types::{FileId, PAGE_SIZE};

#[test]
fn dirty_pages_are_written_once_in_clusters_and_not_past_the_end() {
    let (rig, mapping) = rig_with(512, vec![0; 10]);
    let content = pattern(100 * PAGE + 7);
    for index in 0..=100u64 {
        let pfn = mapping.get_for_write(&rig.cache, index, true).unwrap();
        let bytes = &content[index as usize * PAGE..];
        rig.ram
            .write_bytes(pfn.addr(), &bytes[..bytes.len().min(PAGE)]);
        assert!(mapping.mark_dirty(&rig.cache, index));
        rig.cache.put_page(pfn);
    }
    mapping.extend_size(content.len() as u64);
    assert_eq!(mapping.nr_dirty(), 101);
    assert_eq!(rig.vmstat.item(VmItem::NrDirty), 101);
    let mut cleaned = Vec::new();
    let n = mapping.writeback(&rig.cache, 0, u64::MAX, &mut |index, run| {
        cleaned.extend(index..index + run.len() as u64);
    });
    assert_eq!(n, Ok(101));
    assert_eq!(cleaned, (0..=100).collect::<Vec<_>>());
    assert_eq!(
        *rig.store.writes.lock().unwrap(),
        [(0, 64 * PAGE_SIZE), (64 * PAGE_SIZE, 36 * PAGE_SIZE + 7)]
    );
    assert_eq!(rig.store.get(FILE), content);
    assert_eq!((mapping.nr_dirty(), mapping.nr_pages()), (0, 101));
    assert_eq!(
        mapping.start_writeback(&rig.cache, 0, u64::MAX, &mut no_clean),
        0
    );
    assert!(rig.vmstat.events(VmEvent::PgPgOut) >= 401);
    drop(mapping);
    rig.finish();
}

#[test]
fn a_write_error_is_reported_once_and_the_pages_stay_dirty() {
    let content = pattern(20 * PAGE);
    let (rig, mapping) = rig_with(512, content.clone());
    for index in [1, 2, 9] {
        let pfn = mapping.get_for_write(&rig.cache, index, false).unwrap();
        rig.ram.write_bytes(pfn.addr(), b"new");
        mapping.mark_dirty(&rig.cache, index);
        rig.cache.put_page(pfn);
    }
    rig.store.fail_writes.store(1, Ordering::Relaxed);
    // The cluster of 1 and 2 fails, 9 is still written.
    assert_eq!(
        mapping.start_writeback(&rig.cache, 0, u64::MAX, &mut no_clean),
        1
    );
    assert_eq!(mapping.nr_dirty(), 2);
    assert_eq!(mapping.check_error(), Err(IoError { errno: 28 }));
    assert_eq!(mapping.check_error(), Ok(()));
    mapping.validate().unwrap();
    assert_eq!(
        mapping.writeback(&rig.cache, 0, u64::MAX, &mut no_clean),
        Ok(2)
    );
    let now = rig.store.get(FILE);
    for index in [1, 2, 9] {
        assert_eq!(&now[index * PAGE..][..3], b"new");
        assert_eq!(
            now[index * PAGE + 3..][..PAGE - 3],
            content[index * PAGE + 3..][..PAGE - 3]
        );
    }
    drop(mapping);
    rig.finish();
}

#[test]
fn a_store_after_clean_makes_the_page_dirty_anew() {
    let (rig, mapping) = rig_with(64, pattern(4 * PAGE));
    let pfn = mapping.get_for_write(&rig.cache, 1, false).unwrap();
    mapping.mark_dirty(&rig.cache, 1);
    let cache = &rig.cache;
    let n = mapping.start_writeback(cache, 0, u64::MAX, &mut |index, _| {
        // A fault on the protected page, on another CPU.
        mapping.mark_dirty(cache, index);
    });
    assert_eq!((n, mapping.nr_dirty()), (1, 1));
    rig.cache.put_page(pfn);
    drop(mapping);
    rig.finish();
}

#[test]
fn write_through_refreshes_only_what_is_cached() {
    let mut content = pattern(6 * PAGE);
    let (rig, mapping) = rig_with(64, content.clone());
    for index in [1, 3] {
        let pfn = mapping.get_for_write(&rig.cache, index, false).unwrap();
        rig.cache.put_page(pfn);
    }
    let (offset, len) = (PAGE + 10, 3 * PAGE);
    content[offset..offset + len].fill(0xee);
    rig.store.set(FILE, content.clone());
    let mut touched = Vec::new();
    mapping.store_bytes(&rig.cache, offset as u64, len as u64, &mut |at, phys, n| {
        rig.ram
            .write_bytes(phys, &content[offset + at as usize..][..n as usize]);
        touched.push((at, n));
    });
    assert_eq!(
        touched,
        [(0, PAGE_SIZE - 10), (2 * PAGE_SIZE - 10, PAGE_SIZE)]
    );
    assert_eq!((mapping.nr_pages(), mapping.nr_dirty()), (2, 0));
    assert_eq!(read_all(&rig, &mapping, 0, u64::MAX), content);
    drop(mapping);
    rig.finish();
}

#[test]
fn mappings_have_two_names_and_end_only_when_nobody_needs_them() {
    let (rig, mapping) = rig_with(64, pattern(2 * PAGE));
    let id = mapping.id();
    assert_ne!(id, 0);
    assert_eq!(rig.cache.find(FILE).map(|m| m.id()), Some(id));
    assert_eq!(rig.cache.find_by_id(id).map(|m| m.file()), Some(FILE));
    assert!(rig.cache.find(FileId(1)).is_none());
    let pfn = mapping.get_for_write(&rig.cache, 0, false).unwrap();
    assert_eq!(rig.frames.memmap().page(pfn).owner(), id);
    mapping.mark_dirty(&rig.cache, 0);
    rig.cache.put_page(pfn);
    assert!(!rig.cache.drop_mapping(FILE), "held");
    assert_eq!(rig.cache.users(&mapping), 1);
    drop(mapping);
    rig.cache.for_each_mapping(&mut |m| {
        assert_eq!(m.start_writeback(&rig.cache, 0, u64::MAX, &mut no_clean), 1);
    });
    assert!(rig.cache.drop_mapping(FILE));
    assert!(rig.cache.drop_mapping(FILE), "gone is gone");
    assert_eq!(*rig.store.released.lock().unwrap(), [FILE.0]);
    assert_eq!(rig.frames.used(), 0);
    assert_ne!(
        rig.cache.mapping(FILE).unwrap().id(),
        id,
        "ids are never used twice"
    );
    rig.finish();
}

#[test]
fn a_page_for_writing_is_zero_or_what_the_store_has() {
    let content = pattern(2 * PAGE);
    let (rig, mapping) = rig_with(64, content.clone());
    let past = mapping.get_for_write(&rig.cache, 5, false).unwrap();
    let whole = mapping.get_for_write(&rig.cache, 0, true).unwrap();
    let part = mapping.get_for_write(&rig.cache, 1, false).unwrap();
    assert!(rig.bytes(past.addr(), PAGE_SIZE).iter().all(|b| *b == 0));
    assert!(rig.bytes(whole.addr(), PAGE_SIZE).iter().all(|b| *b == 0));
    assert_eq!(rig.bytes(part.addr(), PAGE_SIZE), content[PAGE..]);
    assert!(!mapping.discard(&rig.cache, 0), "we hold it");
    for pfn in [past, whole, part] {
        rig.cache.put_page(pfn);
    }
    // Nothing was written after all: the store's bytes are back.
    assert!(mapping.discard(&rig.cache, 0) && mapping.discard(&rig.cache, 5));
    assert_eq!(read_all(&rig, &mapping, 0, u64::MAX), content);
    drop(mapping);
    rig.finish();
}
