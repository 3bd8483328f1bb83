//! Random operations against the set of live objects.

use crate::boot;
use crate::ram::Random;
use std::alloc::Layout;
use std::collections::BTreeMap;
use std::ptr::NonNull;
use vellum_machine::VmItem;
use vellum_object::ObjectSource;
use vellum_page::PageSource;
use vellum_slab::{CacheFlags, KmemCache};

/// Start address to object, its cache and the byte it is filled with.
type Model = BTreeMap<usize, (NonNull<u8>, usize, u8)>;

fn caches() -> Vec<(&'static str, usize, usize, CacheFlags)> {
    let none = CacheFlags::empty();
    let debug = CacheFlags::POISON | CacheFlags::RED_ZONE;
    vec![
        ("tiny", 1, 1, none),
        ("size-8", 8, 8, none),
        ("odd", 51, 1, none),
        ("line", 40, 8, CacheFlags::HWCACHE_ALIGN),
        ("small-line", 20, 4, CacheFlags::HWCACHE_ALIGN),
        ("size-192", 192, 64, none),
        ("size-512", 512, 512, none),
        ("wasteful", 1500, 4, none),
        ("page", 4096, 4096, none),
        ("huge", 20_000, 16, none),
        ("largest", 32_768, 8, none),
        ("debug", 72, 8, debug),
        ("debug-odd", 13, 1, debug | CacheFlags::HWCACHE_ALIGN),
        ("debug-large", 700, 128, debug),
    ]
}

fn insert(model: &mut Model, sources: &[&KmemCache<'_>], which: usize, object: NonNull<u8>) {
    let layout = sources[which].layout();
    let start = object.as_ptr() as usize;
    assert_eq!(start % layout.align(), 0, "{}", sources[which].name());
    if let Some((before, (_, cache, _))) = model.range(..=start).next_back() {
        assert!(
            before + sources[*cache].layout().size() <= start,
            "objects overlap"
        );
    }
    if let Some((after, _)) = model.range(start..).next() {
        assert!(start + layout.size() <= *after, "objects overlap");
    }
    let fill = (start >> 3) as u8 ^ which as u8;
    // SAFETY: just allocated with this size.
    unsafe { object.write_bytes(fill, layout.size()) };
    model.insert(start, (object, which, fill));
}

fn remove(model: &mut Model, sources: &[&KmemCache<'_>], start: usize) {
    let (object, which, fill) = model.remove(&start).unwrap();
    let size = sources[which].layout().size();
    let bytes = NonNull::slice_from_raw_parts(object, size);
    // SAFETY: live, and every byte was written.
    let bytes = unsafe { bytes.as_ref() };
    assert!(bytes.iter().all(|byte| *byte == fill), "content changed");
    // SAFETY: live, and not used again.
    unsafe { sources[which].free_object(object) };
}

#[test]
fn caches_are_sets_of_objects() {
    let (ram, stat, slab) = boot(4096);
    let base = ram.used_pages() as u64 - stat.item(VmItem::NrSlabUnreclaimable);
    let sources: Vec<&KmemCache<'_>> = caches()
        .into_iter()
        .map(|(name, size, align, flags)| {
            let layout = Layout::from_size_align(size, align).unwrap();
            slab.create_cache(name, layout, flags).unwrap()
        })
        .collect();
    let mut model = Model::new();
    let mut random = Random(0x5eed);
    let mut live = vec![0u64; sources.len()];
    for step in 0..400_000u32 {
        // Waves: mostly growing, then mostly shrinking, so that slabs fill and empty.
        let growing = step / 5000 % 2 == 0;
        if random.below(10) < if growing { 7 } else { 3 } {
            // Large objects seldom.
            let which = random.below(sources.len() as u64) as usize;
            if sources[which].layout().size() > 1000 && live[which] > 20 {
                continue;
            }
            if let Some(object) = sources[which].alloc_object() {
                insert(&mut model, &sources, which, object);
                live[which] += 1;
            }
        } else if !model.is_empty() {
            let near = random.below(1 << 24) as usize
                + ram.ram().ptr(ram.ram().span().start(), 1).as_ptr() as usize;
            let start = *model.range(near..).chain(model.range(..)).next().unwrap().0;
            live[model[&start].1] -= 1;
            remove(&mut model, &sources, start);
        }
        if step % 2000 == 0 {
            slab.validate().unwrap();
            for (cache, live) in sources.iter().zip(&live) {
                assert_eq!(cache.info().active_objs, *live);
            }
            let pages: u64 = slab
                .slabinfo()
                .map(|i| i.num_slabs * u64::from(i.pages_per_slab))
                .sum();
            assert_eq!(stat.item(VmItem::NrSlabUnreclaimable), pages);
            if step % 10_000 == 0 {
                slab.shrink();
            }
        }
    }
    let starts: Vec<usize> = model.keys().copied().collect();
    for start in starts {
        remove(&mut model, &sources, start);
    }
    for (i, cache) in sources.iter().enumerate() {
        cache.shrink();
        assert_eq!(cache.info().num_slabs, 0);
        if i % 2 == 0 {
            slab.destroy_cache(cache).unwrap();
        }
    }
    slab.shrink();
    slab.validate().unwrap();
    // What remains is the descriptors.
    let own: u64 = slab
        .slabinfo()
        .map(|i| i.num_slabs * u64::from(i.pages_per_slab))
        .sum();
    assert_eq!(ram.used_pages() as u64, base + own);
    assert_eq!(stat.item(VmItem::NrSlabUnreclaimable), own);
}

#[test]
fn slabs_waste_an_eighth_at_most_where_possible() {
    let (_, _, slab) = boot(4096);
    for size in (8..4096).step_by(8) {
        let layout = Layout::from_size_align(size, 8).unwrap();
        let info = slab
            .create_cache("waste", layout, CacheFlags::empty())
            .unwrap()
            .info();
        let bytes = u64::from(info.pages_per_slab) * 4096;
        let used = u64::from(info.objs_per_slab) * u64::from(info.obj_size);
        assert!(info.obj_size as usize == size);
        // The list takes two bytes an object.
        let list = if size < 512 {
            u64::from(info.objs_per_slab) * 2 + 8
        } else {
            0
        };
        assert!(
            (bytes - used - list.min(bytes - used)) * 8 <= bytes,
            "{info}"
        );
    }
    let full = |size| {
        let layout = Layout::from_size_align(size, size).unwrap();
        let info = slab
            .create_cache("power", layout, CacheFlags::empty())
            .unwrap()
            .info();
        u64::from(info.objs_per_slab) * size as u64 == u64::from(info.pages_per_slab) * 4096
    };
    assert!(
        [512, 1024, 2048, 4096].into_iter().all(full),
        "powers of two waste nothing"
    );
}
