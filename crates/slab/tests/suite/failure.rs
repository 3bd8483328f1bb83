//! Each page allocation fails in turn.

use crate::boot;
use std::alloc::Layout;
use vellum_machine::{Cpus, VmItem, VmStat};
use vellum_object::ObjectSource;
use vellum_slab::{CacheFlags, LiveObjects, SlabAllocator};

#[test]
fn boot_without_pages_fails() {
    let ram = crate::ram::HostRam::new(64);
    let stat: &'static VmStat = Box::leak(Box::new(VmStat::new()));
    for pages in 0.. {
        ram.fail_after(pages);
        // SAFETY: one thread.
        let cpus = unsafe { Cpus::single() };
        if SlabAllocator::boot(ram, stat, cpus).is_ok() {
            assert_eq!(pages, 2);
            return;
        }
        assert_eq!(ram.used_pages(), 0);
    }
}

#[test]
fn each_failed_page_changes_nothing() {
    let (ram, stat, slab) = boot(512);
    let own = ram.used_pages() as u64 - stat.item(VmItem::NrSlabUnreclaimable);
    let layouts = [(24, 8), (300, 4), (900, 8), (9000, 8)];
    for n in 0.. {
        ram.fail_after(n);
        let mut failures = 0;
        let mut caches = Vec::new();
        for (size, align) in layouts {
            let layout = Layout::from_size_align(size, align).unwrap();
            match slab.create_cache("failing", layout, CacheFlags::POISON) {
                Ok(cache) => caches.push(cache),
                Err(_) => failures += 1,
            }
        }
        let mut objects = Vec::new();
        for _ in 0..200 {
            for (i, cache) in caches.iter().enumerate() {
                if i < 3 || objects.len() < 40 {
                    let before = cache.info();
                    match cache.alloc_object() {
                        Some(object) => objects.push((*cache, object)),
                        None => {
                            failures += 1;
                            assert_eq!(cache.info(), before);
                        }
                    }
                }
            }
        }
        slab.validate().unwrap();
        for (cache, object) in objects {
            // SAFETY: just allocated and not used again.
            unsafe { cache.free_object(object) };
        }
        slab.shrink();
        for cache in caches {
            slab.destroy_cache(cache).unwrap();
            assert_eq!(cache.alloc_object(), None, "a destroyed cache refuses");
        }
        slab.validate().unwrap();
        let descriptors = stat.item(VmItem::NrSlabUnreclaimable);
        assert_eq!(ram.used_pages() as u64, own + descriptors);
        if failures == 0 {
            assert!(n > 20);
            break;
        }
    }
    // Destroyed caches were used again: four descriptors after all rounds, and two of boot's.
    assert_eq!(slab.slabinfo().last().unwrap().active_objs, 6);
}

#[test]
fn destroy_refuses_live_objects() {
    let (_, _, slab) = boot(64);
    let cache = slab
        .create_cache("busy", Layout::new::<u64>(), CacheFlags::empty())
        .unwrap();
    let object = cache.alloc_object().unwrap();
    assert_eq!(slab.destroy_cache(cache), Err(LiveObjects { count: 1 }));
    // SAFETY: allocated above and not used again.
    unsafe { cache.free_object(object) };
    assert_eq!(slab.destroy_cache(cache), Ok(()));
    assert_eq!(slab.caches().count(), 2);
    let last = slab.caches().last().unwrap();
    assert!(
        slab.destroy_cache(last).is_err(),
        "the cache of caches stays"
    );
}
