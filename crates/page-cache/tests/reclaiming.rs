//! Pages that reclaim takes, what remains of them, and shared memory in swap.

mod common;

use common::{FILE, PAGE, Rig, map, no_clean, no_unmap, pattern, read_all, rig_with, unmap};
use std::sync::atomic::Ordering;
use vellum_machine::{VmEvent, VmItem};
use vellum_page::{PageFlags, PageSource, PageState};
use vellum_page_cache::{CacheError, IoError, Readahead};
use vellum_types::{FileId, PAGE_SIZE, Pfn, SwapEntry};

/// Reads a page and takes it by reclaim, if that works.
fn reclaim(
    rig: &Rig,
    mapping: &vellum_page_cache::MappingRef<'static>,
    index: u64,
    shadow: u32,
) -> bool {
    let Some(pfn) = mapping.find_get(index) else {
        return false;
    };
    let page = rig.frames.memmap().page(pfn);
    assert!(page.try_lock());
    let gone = mapping.remove_for_reclaim(&rig.cache, pfn, Some(shadow));
    page.unlock();
    if gone {
        assert_eq!((page.refcount(), page.owner()), (0, 0));
        rig.frames.free_pages(pfn);
    } else {
        rig.cache.put_page(pfn);
    }
    gone
}

#[test]
fn a_shadow_stays_where_the_page_was_and_is_handed_back() {
    let content = pattern(200 * PAGE);
    let (rig, mapping) = rig_with(2048, content.clone());
    assert_eq!(read_all(&rig, &mapping, 0, u64::MAX), content);
    for index in 0..200 {
        assert!(reclaim(&rig, &mapping, index, index as u32 * 4 + 1));
        rig.cache.validate().unwrap();
    }
    assert_eq!((mapping.nr_pages(), mapping.nr_shadows()), (0, 200));
    assert_eq!(rig.frames.used(), 0);
    assert_eq!(rig.vmstat.item(VmItem::WorkingsetNodes), 4);
    // Neighbours come back with their shadows, too.
    assert_eq!(
        read_all(&rig, &mapping, 70 * PAGE_SIZE, 10),
        content[70 * PAGE..][..10]
    );
    let came = rig.frames.refaults.lock().unwrap().clone();
    assert_eq!(came.len() as u64, mapping.nr_pages());
    for (pfn, shadow) in came {
        let page = rig.frames.memmap().page(Pfn::new(pfn));
        assert_eq!(shadow, page.index() as u32 * 4 + 1);
    }
    rig.cache.validate().unwrap();
    mapping.truncate(&rig.cache, 0, &mut no_unmap);
    assert_eq!((mapping.nr_shadows(), rig.nodes.live()), (0, 0));
    drop(mapping);
    rig.finish();
}

#[test]
fn reclaim_takes_only_what_nobody_needs() {
    let (rig, mapping) = rig_with(256, pattern(8 * PAGE));
    read_all(&rig, &mapping, 0, u64::MAX);
    let mapped = map(&rig, &mapping, 1);
    let held = mapping.find_get(2).unwrap();
    assert!(mapping.mark_dirty(&rig.cache, 3));
    for index in [1, 2, 3] {
        assert!(!reclaim(&rig, &mapping, index, 1), "page {index}");
    }
    let page = rig.frames.memmap().page(held);
    assert_eq!(page.refcount(), 2, "a refusal leaves the count as it was");
    unmap(&rig, mapped);
    rig.cache.put_page(held);
    mapping
        .writeback(&rig.cache, 0, u64::MAX, &mut no_clean)
        .unwrap();
    for index in [1, 2, 3] {
        assert!(reclaim(&rig, &mapping, index, 1));
    }
    // A page that left its file is nobody's to take.
    let held = mapping.find_get(4).unwrap();
    assert!(rig.cache.mapping_of(held).is_some_and(|m| m.file() == FILE));
    mapping.truncate(&rig.cache, 0, &mut no_unmap);
    assert!(rig.cache.mapping_of(held).is_none());
    assert!(!mapping.remove_for_reclaim(&rig.cache, held, None));
    rig.cache.put_page(held);
    drop(mapping);
    rig.finish();
}

#[test]
fn nodes_of_shadows_are_bounded_and_can_be_freed() {
    // 512 frames allow 64 nodes that hold nothing but shadows.
    let (rig, mapping) = rig_with(512, Vec::new());
    rig.store
        .with(FILE, |bytes| bytes.resize(200 * 64 * PAGE, 1));
    mapping.truncate(&rig.cache, 200 * 64 * PAGE_SIZE, &mut no_unmap);
    let limit = rig.cache.shadow_node_limit();
    assert_eq!(limit, 64);
    for leaf in 0..200 {
        let (pfn, _) = mapping
            .read_page(&rig.cache, leaf * 64 + leaf % 64, Readahead::Random)
            .unwrap();
        rig.cache.put_page(pfn);
        assert!(reclaim(&rig, &mapping, leaf * 64 + leaf % 64, 5));
    }
    rig.cache.validate().unwrap();
    assert_eq!(rig.vmstat.item(VmItem::WorkingsetNodes), limit);
    let before = rig.nodes.live();
    assert_eq!(rig.cache.shrink_shadows(10), 10);
    rig.cache.validate().unwrap();
    assert!(rig.nodes.live() <= before - 10);
    assert_eq!(rig.cache.shrink_shadows(1000), limit - 10);
    assert_eq!((mapping.nr_shadows(), rig.nodes.live()), (0, 0));
    assert_eq!(rig.vmstat.events(VmEvent::WorkingsetNodeReclaim), limit);
    drop(mapping);
    rig.finish();
}

#[test]
fn a_victim_is_written_with_its_dirty_neighbours() {
    let (rig, mapping) = rig_with(512, pattern(100 * PAGE));
    for index in (10..30).chain(40..50) {
        let pfn = mapping.get_for_write(&rig.cache, index, false).unwrap();
        mapping.mark_dirty(&rig.cache, index);
        rig.cache.put_page(pfn);
    }
    let locked = mapping.find_get(25).unwrap();
    assert!(rig.frames.memmap().page(locked).try_lock());
    let victim = mapping.find_get(15).unwrap();
    assert!(rig.frames.memmap().page(victim).try_lock());
    rig.store.fail_writes.store(1, Ordering::Relaxed);
    let mut seen = mapping.sample_error();
    let around =
        |clean: &mut dyn FnMut(u64, &[Pfn])| mapping.writeback_around(&rig.cache, victim, clean);
    assert_eq!(around(&mut no_clean), Err(IoError { errno: 28 }));
    assert_eq!(mapping.nr_dirty(), 30, "nothing is lost");
    rig.cache.validate().unwrap();
    let mut cleaned = Vec::new();
    let cache = &rig.cache;
    let written = around(&mut |first, run: &[Pfn]| {
        cleaned.push((first, run.len()));
        assert_eq!(rig.vmstat.item(VmItem::NrWriteback), 15);
        // Another reclaimer, and another flusher: the pages are taken.
        assert_eq!(
            mapping.writeback_around(cache, run[0], &mut no_clean),
            Ok(0)
        );
        mapping.mark_dirty(cache, 12);
        assert_eq!(mapping.start_writeback(cache, 0, 20, &mut no_clean), 0);
    });
    assert_eq!(
        (written, cleaned),
        (Ok(15), vec![(10, 15)]),
        "up to the locked page"
    );
    assert_eq!(
        *rig.store.writes.lock().unwrap().last().unwrap(),
        (10 * PAGE_SIZE, 15 * PAGE_SIZE)
    );
    assert_eq!(mapping.nr_dirty(), 16);
    assert_eq!(rig.vmstat.item(VmItem::NrWriteback), 0);
    assert_eq!(rig.vmstat.events(VmEvent::NrWritten), 15);
    for pfn in [locked, victim] {
        rig.frames.memmap().page(pfn).unlock();
        rig.cache.put_page(pfn);
    }
    assert_eq!(
        mapping.check_error_since(&mut seen),
        Err(IoError { errno: 28 })
    );
    assert_eq!(mapping.check_error_since(&mut seen), Ok(()));
    drop(mapping);
    rig.finish();
}

#[test]
fn shared_memory_goes_to_swap_and_comes_back() {
    let rig = Rig::new(256);
    let file = FileId(1 << 63 | 5);
    let mapping = rig.cache.mapping(file).unwrap();
    assert!(mapping.swap_backed());
    mapping.set_size(20 * PAGE_SIZE);
    for index in 0..4u64 {
        let pfn = mapping.get_for_write(&rig.cache, index, true).unwrap();
        rig.ram.write_bytes(pfn.addr(), &[index as u8 + 1; PAGE]);
        mapping.mark_dirty(&rig.cache, index);
        rig.cache.put_page(pfn);
    }
    assert_eq!(
        (mapping.nr_dirty(), rig.vmstat.item(VmItem::NrDirty)),
        (0, 0)
    );
    assert_eq!(rig.vmstat.item(VmItem::NrShmem), 4);
    assert_eq!(rig.cache.shrink(100), 0, "it is nowhere else");
    let swap = rig.swap;
    let out = |index: u64| -> Option<SwapEntry> {
        let pfn = mapping.find_get(index).unwrap();
        let entry = swap.write_out(&rig, &mapping, pfn);
        rig.cache.put_page(pfn);
        entry
    };
    let mapped = map(&rig, &mapping, 3);
    assert_eq!(out(3), None, "a mapped page stays");
    unmap(&rig, mapped);
    let first = out(1).unwrap();
    let second = out(2).unwrap();
    assert_eq!((mapping.nr_pages(), mapping.nr_swapped()), (2, 2));
    rig.cache.validate().unwrap();
    assert_eq!(mapping.find_get(1), None);
    // Both are in no cache: whoever wants one is told where it is.
    for read in [true, false] {
        let result = if read {
            mapping
                .read_page(&rig.cache, 1, Readahead::Normal)
                .map(|(pfn, _)| pfn)
        } else {
            mapping.get_for_write(&rig.cache, 1, true)
        };
        assert_eq!(result, Err(CacheError::Swapped(first)));
    }
    // Reading beside it does not take the place of what is in swap.
    let (pfn, _) = mapping.read_page(&rig.cache, 7, Readahead::Normal).unwrap();
    rig.cache.put_page(pfn);
    assert_eq!(mapping.nr_swapped(), 2);
    assert!(swap.read_in(first));
    let (pfn, _) = mapping.read_page(&rig.cache, 1, Readahead::Normal).unwrap();
    let page = rig.frames.memmap().page(pfn);
    assert_eq!(rig.bytes(pfn.addr(), PAGE_SIZE), [2; PAGE]);
    assert_eq!(
        (page.state(), page.owner(), page.index()),
        (PageState::File, mapping.id(), 1)
    );
    assert!(
        page.flags()
            .contains(PageFlags::DIRTY | PageFlags::SWAPBACKED)
    );
    rig.cache.put_page(pfn);
    rig.cache.validate().unwrap();
    let mut left = Vec::new();
    mapping.for_each_swapped(0, u64::MAX, &mut |index, entry| left.push((index, entry)));
    assert_eq!(left, [(2, second)]);
    mapping.punch(&rig.cache, 0, 20 * PAGE_SIZE, &mut no_unmap);
    assert_eq!(swap.live(), 0, "truncation frees slots");
    drop(mapping);
    rig.finish();
}
