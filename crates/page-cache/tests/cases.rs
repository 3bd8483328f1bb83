//! One behaviour at a time.

mod common;

use common::{PAGE, Rig, pattern};
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use vellum_machine::{Trace, TraceEvent, TraceSink, VmEvent, VmItem};
use vellum_page::PageSource;
use vellum_page_cache::{CacheError, IoError, MappingRef, Readahead};
use vellum_types::{FileId, PAGE_SIZE, Pfn};

const FILE: FileId = FileId(0x1_0000_0007);

fn rig_with(pages: u32, content: Vec<u8>) -> (Rig, MappingRef<'static>) {
    let rig = Rig::new(pages);
    rig.store.set(FILE, content);
    let mapping = rig.cache.mapping(FILE).unwrap();
    (rig, mapping)
}

fn read_all(rig: &Rig, mapping: &MappingRef<'static>, offset: u64, len: u64) -> Vec<u8> {
    let mut all = Vec::new();
    let n = mapping
        .read(&rig.cache, offset, len, &mut |phys, len| {
            all.extend(rig.bytes(phys, len));
            true
        })
        .unwrap();
    assert_eq!(n, all.len() as u64);
    all
}

fn no_unmap(_: u64, _: u64) {}
fn no_clean(_: u64, _: Pfn) {}

/// A table entry appears.
fn map(rig: &Rig, mapping: &MappingRef<'static>, index: u64) -> Pfn {
    let (pfn, _) = mapping
        .read_page(&rig.cache, index, Readahead::Normal)
        .unwrap();
    rig.frames.memmap().page(pfn).map();
    pfn
}

fn unmap(rig: &Rig, pfn: Pfn) {
    rig.frames.memmap().page(pfn).unmap();
    rig.cache.put_page(pfn);
}

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
    let n = mapping.writeback(&rig.cache, 0, u64::MAX, &mut |index, _| cleaned.push(index));
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
fn truncation_unmaps_drops_and_zeroes_the_tail() {
    let content = pattern(10 * PAGE);
    let (rig, mapping) = rig_with(64, content.clone());
    let mapped = map(&rig, &mapping, 5);
    mapping.mark_dirty(&rig.cache, 5);
    let cut = 3 * PAGE + 50;
    rig.store.with(FILE, |bytes| bytes.truncate(cut));
    let mut ranges = Vec::new();
    mapping.truncate(&rig.cache, cut as u64, &mut |first, last| {
        assert!(mapping.any_mapped_in(first, last));
        unmap(&rig, mapped);
        ranges.push((first, last));
    });
    assert_eq!(ranges, [(4, u64::MAX)]);
    assert_eq!(
        (mapping.size(), mapping.nr_pages(), mapping.nr_dirty()),
        (cut as u64, 4, 0)
    );
    let tail = mapping.find_get(3).unwrap();
    assert_eq!(rig.bytes(tail.addr(), 50), content[3 * PAGE..cut]);
    assert!(
        rig.bytes(tail.addr() + 50, PAGE_SIZE - 50)
            .iter()
            .all(|b| *b == 0)
    );
    // What a mapping stores past the end must not come back when the file grows.
    rig.ram.write_bytes(tail.addr() + 60, b"ghost");
    rig.cache.put_page(tail);
    rig.store.with(FILE, |bytes| bytes.resize(6 * PAGE, 0));
    mapping.truncate(&rig.cache, 6 * PAGE_SIZE, &mut no_unmap);
    assert_eq!(read_all(&rig, &mapping, 0, u64::MAX), rig.store.get(FILE));
    assert_eq!(rig.vmstat.events(VmEvent::PgInvalidate), 6);
    drop(mapping);
    rig.finish();
}

#[test]
fn a_page_held_over_truncation_lives_until_it_is_put() {
    let content = pattern(4 * PAGE);
    let (rig, mapping) = rig_with(64, content.clone());
    let (held, _) = mapping.read_page(&rig.cache, 2, Readahead::Normal).unwrap();
    mapping.truncate(&rig.cache, 0, &mut no_unmap);
    assert_eq!((mapping.nr_pages(), rig.frames.used()), (0, 1));
    assert_eq!(rig.frames.memmap().page(held).owner(), 0);
    assert_eq!(
        rig.bytes(held.addr(), PAGE_SIZE),
        content[2 * PAGE..3 * PAGE]
    );
    rig.cache.put_page(held);
    assert_eq!(rig.frames.used(), 0);
    drop(mapping);
    rig.finish();
}

#[test]
fn a_hole_reads_as_zero() {
    for (offset, len) in [
        (100, 50),
        (0, PAGE),
        (100, PAGE),
        (100, 3 * PAGE),
        (PAGE, 2 * PAGE),
        (7, 0),
    ] {
        let mut content = pattern(5 * PAGE);
        let (rig, mapping) = rig_with(64, content.clone());
        read_all(&rig, &mapping, 0, u64::MAX);
        content[offset..offset + len].fill(0);
        rig.store.set(FILE, content.clone());
        mapping.punch(&rig.cache, offset as u64, len as u64, &mut no_unmap);
        assert_eq!(
            read_all(&rig, &mapping, 0, u64::MAX),
            content,
            "hole {offset}+{len}"
        );
        drop(mapping);
        rig.finish();
    }
}

#[test]
fn invalidation_drops_idle_pages_and_rereads_mapped_ones_in_place() {
    let (rig, mapping) = rig_with(128, pattern(30 * PAGE));
    let mapped: Vec<_> = [3, 4, 20].iter().map(|i| map(&rig, &mapping, *i)).collect();
    let dirty = mapping.get_for_write(&rig.cache, 7, false).unwrap();
    mapping.mark_dirty(&rig.cache, 7);
    rig.cache.put_page(dirty);
    let changed: Vec<u8> = pattern(30 * PAGE).iter().map(|b| !b).collect();
    rig.store.set(FILE, changed.clone());
    rig.store.reads.lock().unwrap().clear();
    mapping.invalidate(&rig.cache, &mut no_unmap).unwrap();
    assert_eq!(*rig.store.reads.lock().unwrap(), [(3, 2), (20, 1)]);
    assert_eq!((mapping.nr_pages(), mapping.nr_dirty()), (4, 1));
    for (pfn, index) in mapped.into_iter().zip([3, 4, 20]) {
        assert_eq!(
            rig.bytes(pfn.addr(), PAGE_SIZE),
            changed[index * PAGE..][..PAGE]
        );
        unmap(&rig, pfn);
    }
    // A shorter file: what lies past its end goes, mapped or not, once nothing here is dirty.
    mapping.start_writeback(&rig.cache, 0, u64::MAX, &mut no_clean);
    rig.store.with(FILE, |bytes| bytes.truncate(PAGE));
    mapping.invalidate(&rig.cache, &mut no_unmap).unwrap();
    assert_eq!((mapping.nr_pages(), mapping.size()), (0, PAGE_SIZE));
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
fn shrink_takes_unused_pages_first() {
    let (rig, mapping) = rig_with(256, pattern(40 * PAGE));
    let (used, _) = mapping.read_page(&rig.cache, 0, Readahead::Normal).unwrap();
    let mapped = map(&rig, &mapping, 1);
    rig.cache.put_page(mapping.find_get(0).unwrap());
    let dirty = mapping.get_for_write(&rig.cache, 2, false).unwrap();
    mapping.mark_dirty(&rig.cache, 2);
    rig.cache.put_page(dirty);
    rig.cache.put_page(used);
    assert_eq!(rig.cache.shrink(36), 36);
    assert!(
        mapping
            .find_get(0)
            .map(|pfn| rig.cache.put_page(pfn))
            .is_some()
    );
    assert_eq!(rig.cache.shrink(u64::MAX), 2);
    assert_eq!(mapping.nr_pages(), 2);
    unmap(&rig, mapped);
    rig.cache.validate().unwrap();
    drop(mapping);
    rig.finish();
}

#[derive(Default)]
struct Log(Mutex<Vec<TraceEvent>>);

impl TraceSink for Log {
    fn event(&self, event: &TraceEvent) {
        self.0.lock().unwrap().push(*event);
    }
}

#[test]
fn pages_that_come_and_go_are_traced() {
    let log: &'static Log = Box::leak(Box::default());
    let rig = Rig::traced(64, Trace::new(log, u32::MAX));
    rig.store.set(FILE, pattern(10));
    let mapping = rig.cache.mapping(FILE).unwrap();
    let (pfn, _) = mapping.read_page(&rig.cache, 0, Readahead::Normal).unwrap();
    rig.cache.put_page(pfn);
    mapping.truncate(&rig.cache, 0, &mut no_unmap);
    let (file, index) = (FILE, 0);
    assert_eq!(
        *log.0.lock().unwrap(),
        [
            TraceEvent::MmFilemapAddToPageCache { file, index, pfn },
            TraceEvent::MmFilemapDeleteFromPageCache { file, index, pfn },
        ]
    );
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
