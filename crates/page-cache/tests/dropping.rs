//! Pages that go.

mod common;

use common::{FILE, PAGE, Rig, map, no_clean, no_unmap, pattern, read_all, rig_with, unmap};
use std::sync::Mutex;
use vellum_machine::{Trace, TraceEvent, TraceSink, VmEvent};
use vellum_page::PageSource;
use vellum_page_cache::Readahead;
use vellum_types::PAGE_SIZE;

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
fn shrink_takes_unused_pages_first() {
    let (rig, mapping) = rig_with(256, pattern(40 * PAGE));
    let (used, _) = mapping.read_page(&rig.cache, 0, Readahead::Normal).unwrap();
    let mapped = map(&rig, &mapping, 1);
    // Read again: a use, which a look is not.
    assert_eq!(mapping.read(&rig.cache, 0, 1, &mut |_, _| true), Ok(1));
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
