//! What the flags and the description of a cache change.

use crate::ram::HostRam;
use crate::{be_cpu, boot, cpus};
use std::alloc::Layout;
use std::collections::BTreeSet;
use std::ptr::NonNull;
use vellum_machine::{Cpus, VmItem, VmStat};
use vellum_page::{PageSource, PageState};
use vellum_slab::{CacheFlags, CacheSpec, KmemCache, SlabAllocator, SlabDebug};
use vellum_types::{GfpFlags, Pfn};

const MADE: u64 = 0x5eed_5eed;

/// # Safety
/// There is memory for a word.
unsafe fn construct(object: NonNull<u8>) {
    // SAFETY: the layout is that of a word.
    unsafe { object.cast::<u64>().write(MADE) };
}

fn free(cache: &KmemCache<'_>, object: NonNull<u8>) {
    // SAFETY: live, and not used again.
    unsafe { cache.free(object) };
}

#[test]
fn objects_stay_constructed() {
    let (_, _, slab) = boot(256);
    let spec = CacheSpec {
        name: "constructed",
        layout: Layout::new::<u64>(),
        flags: CacheFlags::POISON | CacheFlags::RED_ZONE,
        ctor: Some(construct),
    };
    for flags in [CacheFlags::empty(), spec.flags] {
        let cache = slab.create(CacheSpec { flags, ..spec }).unwrap();
        for round in 0..3 {
            let objects: Vec<_> = (0..1000).map(|_| cache.alloc().unwrap()).collect();
            for object in objects {
                // SAFETY: constructed, and given back in that state.
                assert_eq!(unsafe { object.cast::<u64>().read() }, MADE, "{round}");
                free(cache, object);
            }
            slab.shrink();
        }
    }
}

#[derive(Debug)]
struct Inode {
    made: u64,
    users: u32,
}

impl Default for Inode {
    fn default() -> Self {
        Self {
            made: MADE,
            users: 0,
        }
    }
}

#[test]
fn typed_objects_stay_constructed_without_unsafe_code() {
    let (_, _, slab) = boot(256);
    let inodes = slab
        .constructed::<Inode>("inode", CacheFlags::RECLAIM_ACCOUNT)
        .unwrap();
    let mut first = inodes.alloc().unwrap();
    first.users += 1;
    assert_eq!((first.made, first.users), (MADE, 1));
    drop(first);
    // The last one freed comes first, as it was left.
    assert_eq!(inodes.alloc().unwrap().users, 1);
    let many: Vec<_> = (0..500).map(|_| inodes.alloc().unwrap()).collect();
    assert!(many.iter().all(|inode| inode.made == MADE));
    drop(many);
    assert_eq!(inodes.cache().info().active_objs, 0);
}

#[test]
fn pages_of_a_type_safe_cache_wait_for_the_grace_point() {
    let (ram, _, slab) = boot(256);
    let cache = slab
        .create_cache("lookups", Layout::new::<u64>(), CacheFlags::TYPESAFE)
        .unwrap();
    let own = ram.used_pages();
    let objects: Vec<_> = (0..2000).map(|_| cache.alloc().unwrap()).collect();
    let stale = objects[700];
    objects.into_iter().for_each(|object| free(cache, object));
    cache.shrink();
    let deferred = cache.info().deferred_slabs;
    assert!(deferred > 2);
    let page = Pfn::containing(ram.ram().phys_of(stale).unwrap()).unwrap();
    let is_slab = || matches!(ram.page(page).state(), PageState::Slab | PageState::Tail);
    assert!(is_slab(), "a stale pointer leads into the cache");
    slab.validate().unwrap();
    // They are used again before new pages are.
    let before = ram.used_pages();
    let object = cache.alloc().unwrap();
    assert_eq!(cache.info().deferred_slabs, deferred - 1);
    free(cache, object);
    assert!(ram.used_pages() <= before + 1, "a sheaf's slab at most");
    slab.shrink();
    // SAFETY: `stale` is not followed.
    assert!(unsafe { slab.quiesce() } > 0);
    assert!(!is_slab());
    assert_eq!(ram.used_pages(), own);
}

#[test]
fn colours_move_the_first_object() {
    let (_, _, slab) = boot(2048);
    let layout = Layout::from_size_align(700, 64).unwrap();
    let cache = slab
        .create_cache("coloured", layout, CacheFlags::HWCACHE_ALIGN)
        .unwrap();
    let colours = cache.info().colours;
    assert!(colours > 1);
    let bytes = cache.info().pages_per_slab as usize * 4096;
    let mut firsts = BTreeSet::new();
    let objects: Vec<_> = (0..400).map(|_| cache.alloc().unwrap()).collect();
    let mut slabs = BTreeSet::new();
    for object in &objects {
        let at = object.as_ptr().addr();
        assert_eq!(at % 64, 0);
        // The first object seen of a slab is the lowest of a batch, which starts with a new slab.
        if slabs.insert(at / bytes) {
            firsts.insert(at % bytes);
        }
    }
    assert!(firsts.len() > 1, "{firsts:?}");
    slab.validate().unwrap();
    objects.into_iter().for_each(|object| free(cache, object));
}

#[test]
fn reclaimable_pages_are_counted_apart() {
    let (_, stat, slab) = boot(256);
    let cache = slab
        .create_cache("inode", Layout::new::<u64>(), CacheFlags::RECLAIM_ACCOUNT)
        .unwrap();
    let object = cache.alloc().unwrap();
    assert!(stat.item(VmItem::NrSlabReclaimable) > 0);
    free(cache, object);
    cache.shrink();
    assert_eq!(stat.item(VmItem::NrSlabReclaimable), 0);
}

#[test]
#[should_panic(expected = "no memory for slab cache vital")]
fn a_cache_that_must_exist() {
    let (ram, _, slab) = boot(256);
    ram.fail_after(0);
    for _ in 0..100 {
        // Each name a cache of its own, until the first slab of descriptors is full.
        let name: &'static str = Box::leak(format!("vital-{}", slab.caches().count()).into());
        let made = slab.create_cache(name, Layout::new::<u64>(), CacheFlags::PANIC);
        assert!(made.is_ok());
    }
}

#[test]
fn bulk_is_all_or_nothing() {
    let (ram, _, slab) = boot(64);
    let layout = Layout::new::<[u64; 100]>();
    let cache = slab
        .create_cache("bulk", layout, CacheFlags::empty())
        .unwrap();
    let mut objects = [None; 100];
    assert!(cache.alloc_bulk(GfpFlags::KERNEL | GfpFlags::ZERO, &mut objects));
    let objects: Vec<_> = objects.into_iter().flatten().collect();
    assert_eq!(objects.len(), 100);
    assert_eq!(objects.iter().collect::<BTreeSet<_>>().len(), 100);
    for object in &objects {
        // SAFETY: live, zeroed, of this type.
        assert_eq!(unsafe { object.cast::<[u64; 100]>().read() }, [0; 100]);
    }
    // SAFETY: live, each once, and not used again.
    unsafe { cache.free_bulk(&objects) };
    assert_eq!(cache.info().active_objs, 0);
    let mut too_many = [None; 2000];
    assert!(!cache.alloc_bulk(GfpFlags::KERNEL, &mut too_many));
    assert!(too_many.iter().all(Option::is_none));
    assert_eq!(cache.info().active_objs, 0);
    slab.shrink();
    slab.validate().unwrap();
    assert!(ram.used_pages() < 10);
}

#[test]
fn the_boot_switch_reaches_the_caches_it_names() {
    let ram = HostRam::new(64);
    let stat: &'static VmStat = Box::leak(Box::new(VmStat::new()));
    let debug = SlabDebug::parse("ZP,vm_").unwrap();
    // SAFETY: one thread.
    let cpus = unsafe { Cpus::single() };
    let slab = SlabAllocator::boot_debug(ram, stat, cpus, debug).unwrap();
    let layout = Layout::new::<u64>();
    let [vm, other] =
        ["vm_area", "other"].map(|n| slab.create_cache(n, layout, CacheFlags::empty()).unwrap());
    assert_eq!(vm.flags(), CacheFlags::RED_ZONE | CacheFlags::POISON);
    assert_eq!(other.flags(), CacheFlags::empty());
    assert_eq!(vm.info().limit, 0, "no sheaves");
    assert_eq!(SlabDebug::parse("").unwrap().flags, CacheFlags::DEBUG);
    assert_eq!(SlabDebug::parse("-").unwrap(), SlabDebug::OFF);
    assert!(SlabDebug::parse("Q").is_err());
}

#[test]
fn sheaves_spare_the_page_allocator_and_the_locks() {
    be_cpu(0);
    let ram = HostRam::new(1024);
    let stat: &'static VmStat = Box::leak(Box::new(VmStat::new()));
    let slab = SlabAllocator::boot(ram, stat, cpus(2, false)).unwrap();
    let cache = slab
        .create_cache("wave", Layout::new::<[u64; 8]>(), CacheFlags::empty())
        .unwrap();
    let info = cache.info();
    let per_slab = u64::from(info.objs_per_slab);
    let objects: Vec<_> = (0..1000).map(|_| cache.alloc().unwrap()).collect();
    let slabs = cache.info().num_slabs;
    assert!(slabs <= 1000_u64.div_ceil(per_slab) + 1, "{slabs}");
    objects.into_iter().for_each(|object| free(cache, object));
    let info = cache.info();
    // Two sheaves of this CPU and those of the barn stay, and hold their slabs.
    assert!(info.cached_objs <= 30 * (2 + u64::from(info.sharedfactor)));
    assert_eq!(info.active_objs, 0);
}
