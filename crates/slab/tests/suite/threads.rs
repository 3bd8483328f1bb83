//! Several CPUs on one cache.

use crate::ram::{HostRam, Random};
use crate::{be_cpu, cpus};
use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::mpsc;
use vellum_machine::VmStat;
use vellum_slab::{CacheFlags, KmemCache, SlabAllocator};

/// An object on its way to another thread.
struct Parcel(NonNull<u8>);
// SAFETY: whoever has the parcel owns the object.
unsafe impl Send for Parcel {}

fn boot(nr: u16, nodes: bool) -> (&'static HostRam, &'static SlabAllocator<'static>) {
    be_cpu(0);
    let ram = HostRam::new(2048);
    let stat: &'static VmStat = Box::leak(Box::new(VmStat::new()));
    (
        ram,
        SlabAllocator::boot(ram, stat, cpus(nr, nodes)).unwrap(),
    )
}

fn fill(object: NonNull<u8>, len: usize, with: u8) {
    // SAFETY: just allocated with this size.
    unsafe { object.write_bytes(with, len) };
}

fn check(object: NonNull<u8>, len: usize, with: u8) {
    // SAFETY: live, and every byte was written.
    let bytes = unsafe { NonNull::slice_from_raw_parts(object, len).as_ref() };
    assert!(bytes.iter().all(|b| *b == with), "somebody else wrote here");
}

fn free(cache: &KmemCache<'_>, object: NonNull<u8>) {
    // SAFETY: live, and not used again.
    unsafe { cache.free(object) };
}

/// All CPUs stop, the books are balanced, and every page comes back.
fn settle(ram: &HostRam, slab: &'static SlabAllocator<'static>, own: usize, nr: u16) {
    slab.validate().unwrap();
    for info in slab
        .slabinfo()
        .filter(|info| !info.name.starts_with("kmem_"))
    {
        assert_eq!(info.active_objs, 0, "{info}");
    }
    for cpu in 0..nr {
        // SAFETY: the threads have ended.
        unsafe { slab.drain_stopped(vellum_types::CpuId(cpu)) };
    }
    slab.shrink();
    slab.validate().unwrap();
    assert_eq!(ram.used_pages(), own);
}

#[test]
fn four_cpus_share_a_cache() {
    for nodes in [false, true] {
        let (ram, slab) = boot(4, nodes);
        let layout = Layout::new::<[u64; 24]>();
        let cache = slab
            .create_cache("shared", layout, CacheFlags::empty())
            .unwrap();
        let own = ram.used_pages();
        // Objects that one CPU takes and another frees.
        let bazaar = &Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for cpu in 0..4u16 {
                scope.spawn(move || {
                    be_cpu(cpu);
                    let mut random = Random(u64::from(cpu) * 77 + 1);
                    let mut mine = Vec::new();
                    for step in 0..200_000 {
                        // In waves, so that sheaves run full and empty.
                        let grow = if step / 500 % 2 == 0 { 7 } else { 3 };
                        if random.below(10) < grow && mine.len() < 400 {
                            let object = cache.alloc().unwrap();
                            fill(object, layout.size(), cpu as u8);
                            mine.push((object, cpu as u8));
                        } else if !mine.is_empty() {
                            let at = random.below(mine.len() as u64) as usize;
                            let (object, by) = mine.swap_remove(at);
                            check(object, layout.size(), by);
                            if random.below(4) == 0 {
                                let mut bazaar = bazaar.lock().unwrap();
                                bazaar.push((Parcel(object), by));
                                let at = random.below(bazaar.len() as u64) as usize;
                                let (parcel, by) = bazaar.swap_remove(at);
                                mine.push((parcel.0, by));
                            } else {
                                free(cache, object);
                            }
                        }
                        if step % 20_000 == 0 {
                            cache.shrink();
                            cache.validate().unwrap();
                        }
                    }
                    for (object, by) in mine {
                        check(object, layout.size(), by);
                        free(cache, object);
                    }
                });
            }
        });
        assert!(bazaar.lock().unwrap().is_empty());
        settle(ram, slab, own, 4);
        slab.destroy_cache(cache).unwrap();
    }
}

#[test]
fn what_one_cpu_makes_another_may_free() {
    let (ram, slab) = boot(2, false);
    let layout = Layout::new::<[u64; 8]>();
    let cache = slab
        .create_cache("stream", layout, CacheFlags::empty())
        .unwrap();
    let own = ram.used_pages();
    let (send, receive) = mpsc::sync_channel::<Parcel>(256);
    let most = &Mutex::new(0);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            be_cpu(0);
            for n in 0..300_000u32 {
                let object = cache.alloc().unwrap();
                fill(object, layout.size(), n as u8);
                send.send(Parcel(object)).unwrap();
            }
        });
        scope.spawn(move || {
            be_cpu(1);
            for (n, parcel) in receive.iter().enumerate() {
                check(parcel.0, layout.size(), n as u8);
                free(cache, parcel.0);
                if n % 1000 == 0 {
                    let mut most = most.lock().unwrap();
                    *most = cache.info().num_objs.max(*most);
                }
            }
        });
    });
    // 256 on their way, two sheaves a CPU, a barn, a slab or two: the consumer's do not pile up.
    assert!(*most.lock().unwrap() < 1000, "{most:?}");
    settle(ram, slab, own, 2);
}

#[test]
fn a_request_reaches_a_cpu_that_frees_or_allocates() {
    let (_, slab) = boot(2, false);
    let cache = slab
        .create_cache("asked", Layout::new::<u64>(), CacheFlags::empty())
        .unwrap();
    be_cpu(1);
    let objects: Vec<_> = (0..8).map(|_| cache.alloc().unwrap()).collect();
    objects.iter().skip(1).for_each(|o| free(cache, *o));
    let cached = cache.info().cached_objs;
    assert!(cached >= 7);
    be_cpu(0);
    cache.shrink();
    assert_eq!(cache.info().cached_objs, cached, "they are CPU 1's");
    be_cpu(1);
    free(cache, objects[0]);
    assert!(
        cache.info().cached_objs <= 1,
        "given back, but for the last"
    );
    assert_eq!(cache.info().active_objs, 0);
    be_cpu(0);
    cache.shrink();
    be_cpu(1);
    cache.drain_local();
    cache.shrink();
    assert_eq!((cache.info().cached_objs, cache.info().num_slabs), (0, 0));
}

#[test]
fn a_destroyed_cache_ends_when_its_cpus_come_by() {
    let (ram, slab) = boot(2, false);
    let cache = slab
        .create_cache("ending", Layout::new::<u64>(), CacheFlags::empty())
        .unwrap();
    let own = ram.used_pages();
    be_cpu(1);
    let object = cache.alloc().unwrap();
    be_cpu(0);
    assert!(slab.destroy_cache(cache).is_err());
    be_cpu(1);
    free(cache, object);
    be_cpu(0);
    slab.destroy_cache(cache).unwrap();
    assert_eq!(cache.alloc(), None);
    be_cpu(1);
    cache.drain_local();
    slab.shrink();
    assert_eq!(cache.info().num_slabs, 0);
    settle(ram, slab, own, 2);
}
