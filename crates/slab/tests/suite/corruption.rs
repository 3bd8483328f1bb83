//! Misuse is caught and named.

use crate::boot;
use std::alloc::Layout;
use std::ptr::NonNull;
use vellum_object::ObjectSource;
use vellum_page::PageSource;
use vellum_slab::{CacheFlags, KmemCache};
use vellum_types::Pfn;

fn cache(size: usize, flags: CacheFlags) -> &'static KmemCache<'static> {
    let (_, _, slab) = boot(64);
    slab.create_cache("victim", Layout::from_size_align(size, 8).unwrap(), flags)
        .unwrap()
}

fn free(cache: &KmemCache<'_>, object: NonNull<u8>) {
    // SAFETY: in a test of misuse the cache must notice; nobody else uses the memory.
    unsafe { cache.free_object(object) };
}

fn write(object: NonNull<u8>, offset: isize, value: u8) {
    // SAFETY: stays inside the slab, which is mapped for the whole test.
    let byte = unsafe { object.offset(offset) };
    // SAFETY: as above; nobody else uses the memory.
    unsafe { byte.write(value) };
}

#[test]
#[should_panic(expected = "slab cache victim: double free")]
fn double_free_is_caught() {
    let cache = cache(64, CacheFlags::empty());
    let (_keep, object) = (cache.alloc_object(), cache.alloc_object().unwrap());
    free(cache, object);
    free(cache, object);
}

#[test]
#[should_panic(expected = "slab cache victim: double free")]
fn a_late_double_free_is_caught_at_once_with_checks() {
    let cache = cache(64, CacheFlags::CONSISTENCY_CHECKS);
    let objects = [0; 3].map(|_| cache.alloc_object().unwrap());
    free(cache, objects[0]);
    free(cache, objects[1]);
    free(cache, objects[0]);
}

#[test]
#[should_panic(expected = "slab cache victim: double free")]
fn double_free_of_a_large_object_is_caught() {
    let cache = cache(2048, CacheFlags::empty());
    let (_keep, object) = (cache.alloc_object(), cache.alloc_object().unwrap());
    free(cache, object);
    free(cache, object);
}

#[test]
#[should_panic(expected = "no object of it")]
fn foreign_free_is_caught() {
    let (_, _, slab) = boot(64);
    let layout = Layout::new::<u64>();
    let [a, b] = ["a", "b"].map(|name| {
        slab.create_cache(name, layout, CacheFlags::empty())
            .unwrap()
    });
    free(a, b.alloc_object().unwrap());
}

#[test]
#[should_panic(expected = "no object of it")]
fn a_pointer_into_an_object_is_caught() {
    let cache = cache(64, CacheFlags::CONSISTENCY_CHECKS);
    let object = cache.alloc_object().unwrap();
    // SAFETY: inside the object.
    free(cache, unsafe { object.add(8) });
}

#[test]
#[should_panic(expected = "no object of it")]
fn without_checks_a_pointer_into_an_object_is_caught_on_its_way_to_the_slab() {
    let cache = cache(64, CacheFlags::empty());
    let object = cache.alloc_object().unwrap();
    // SAFETY: inside the object.
    free(cache, unsafe { object.add(8) });
    cache.shrink();
}

#[test]
#[should_panic(expected = "double free")]
fn without_checks_a_late_double_free_is_caught_on_its_way_to_the_slab() {
    let cache = cache(64, CacheFlags::empty());
    let objects = [0; 3].map(|_| cache.alloc_object().unwrap());
    free(cache, objects[0]);
    free(cache, objects[1]);
    free(cache, objects[0]);
    cache.shrink();
}

#[test]
fn reports_name_the_object_and_both_call_sites() {
    let cache = cache(64, CacheFlags::STORE_USER);
    let allocated = line!() + 1;
    let object = cache.alloc().unwrap();
    let freed = line!() + 2;
    // SAFETY: live.
    unsafe { cache.free(object) };
    let again = std::panic::AssertUnwindSafe(|| free(cache, object));
    let panic = std::panic::catch_unwind(again).unwrap_err();
    let text = panic.downcast_ref::<String>().unwrap();
    let file = file!();
    for part in [
        "slab cache victim: double free".to_string(),
        format!("object {object:p}"),
        format!("last allocated at {file}:{allocated}:"),
        format!("last freed at {file}:{freed}:"),
    ] {
        assert!(text.contains(&part), "{part} is not in: {text}");
    }
}

#[test]
#[should_panic(expected = "written beyond its end")]
fn the_first_byte_behind_an_odd_object_is_guarded() {
    let cache = cache(13, CacheFlags::RED_ZONE);
    let object = cache.alloc_object().unwrap();
    write(object, 13, 0);
    free(cache, object);
}

#[test]
#[should_panic(expected = "no object of it")]
fn a_pointer_outside_ram_is_caught() {
    free(cache(64, CacheFlags::empty()), NonNull::from(&mut 0u8));
}

#[test]
#[should_panic(expected = "written after it was freed")]
fn use_after_free_is_caught() {
    let cache = cache(64, CacheFlags::POISON);
    let object = cache.alloc_object().unwrap();
    free(cache, object);
    write(object, 17, 0);
    assert_eq!(
        cache.alloc_object(),
        Some(object),
        "the last freed comes first"
    );
}

#[test]
#[should_panic(expected = "written beyond its end")]
fn overrun_is_caught() {
    let cache = cache(64, CacheFlags::RED_ZONE);
    let object = cache.alloc_object().unwrap();
    write(object, 64, 0);
    free(cache, object);
}

#[test]
#[should_panic(expected = "written before its start")]
fn underrun_is_caught() {
    let cache = cache(64, CacheFlags::RED_ZONE);
    let object = cache.alloc_object().unwrap();
    write(object, -1, 0);
    free(cache, object);
}

#[test]
fn validate_sees_what_is_broken() {
    let (ram, _, slab) = boot(64);
    let cache = slab
        .create_cache(
            "victim",
            Layout::new::<u64>(),
            CacheFlags::CONSISTENCY_CHECKS,
        )
        .unwrap();
    let (first, _second) = (cache.alloc_object().unwrap(), cache.alloc_object());
    free(cache, first);
    cache.validate().unwrap();
    let phys = ram.ram().phys_of(first).unwrap();
    let page = ram.page(Pfn::containing(phys).unwrap());
    let (owner, index) = (page.owner(), page.index());
    page.set_owner(owner + 1);
    assert!(cache.validate().is_err(), "a foreign slab");
    page.set_owner(owner);
    page.set_index(index | 0xffff);
    assert!(cache.validate().is_err(), "a lost free object");
    page.set_index(index + (1 << 16));
    assert!(cache.validate().is_err(), "a wrong count");
    page.set_index(index);
    page.set_prev(Pfn::ZERO);
    assert!(cache.validate().is_err(), "a link that does not lead back");
    page.set_prev(Pfn::NONE);
    slab.validate().unwrap();
}
