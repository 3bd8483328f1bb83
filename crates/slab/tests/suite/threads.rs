//! Several CPUs on one cache.

use crate::boot;
use crate::ram::Random;
use std::alloc::Layout;
use vellum_object::ObjectSource;
use vellum_slab::CacheFlags;

#[test]
fn four_cpus_share_a_cache() {
    let (ram, _, slab) = boot(512);
    let own = ram.used_pages();
    let layout = Layout::new::<[u64; 24]>();
    let cache = slab
        .create_cache("shared", layout, CacheFlags::empty())
        .unwrap();
    std::thread::scope(|scope| {
        for cpu in 1..=4u8 {
            scope.spawn(move || {
                let mut random = Random(u64::from(cpu) * 77);
                let mut mine = Vec::new();
                for _ in 0..20_000 {
                    if random.below(2) == 0 && mine.len() < 200 {
                        let object = cache.alloc_object().unwrap();
                        // SAFETY: just allocated with this size.
                        unsafe { object.write_bytes(cpu, layout.size()) };
                        mine.push(object);
                    } else if !mine.is_empty() {
                        let object = mine.swap_remove(random.below(mine.len() as u64) as usize);
                        // SAFETY: live, and its last byte was written.
                        let last = unsafe { object.add(layout.size() - 1) };
                        // SAFETY: as above.
                        assert_eq!(unsafe { last.read() }, cpu, "another CPU wrote here");
                        // SAFETY: live, and not used again.
                        unsafe { cache.free_object(object) };
                    }
                }
                for object in mine {
                    // SAFETY: live, and not used again.
                    unsafe { cache.free_object(object) };
                }
            });
        }
    });
    slab.validate().unwrap();
    slab.destroy_cache(cache).unwrap();
    let descriptors = slab.slabinfo().last().unwrap().pages_per_slab as usize;
    assert_eq!(ram.used_pages(), own + descriptors);
}
