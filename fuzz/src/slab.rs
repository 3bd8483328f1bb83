//! Object caches and kmalloc, with and without debugging aids, beside a map of live bytes.

use crate::input::Input;
use crate::machine::{Host, one_cpu};
use std::alloc::Layout;
use std::collections::BTreeMap;
use std::ptr::NonNull;
use vellum_page_alloc::PageAllocator;
use vellum_slab::{CacheFlags, Kmalloc, KmemCache, SlabAllocator};
use vellum_types::GfpFlags;

struct Object {
    memory: NonNull<u8>,
    size: usize,
    fill: u8,
    /// Which cache; None for kmalloc.
    cache: Option<usize>,
}

struct Model<'m> {
    pages: &'m PageAllocator<'m>,
    slab: &'m SlabAllocator<'m>,
    kmalloc: &'m Kmalloc<'m>,
    caches: Vec<&'m KmemCache<'m>>,
    /// By address.
    live: BTreeMap<usize, Object>,
}

/// Allocates and frees objects of up to six caches and of kmalloc; page allocations fail at times.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let host = Host::new(16 << 20, 19 << 20);
    let pages = host.boot();
    let slab = SlabAllocator::boot(pages, &host.vmstat, one_cpu()).expect("memory");
    let kmalloc = Kmalloc::boot(slab).expect("memory");
    let mut model = Model {
        pages,
        slab,
        kmalloc,
        caches: Vec::new(),
        live: BTreeMap::new(),
    };
    for name in ["a", "b", "c", "d"] {
        model.create(&mut input, name);
    }
    slab.shrink();
    let mut steps = 0;
    while !input.is_empty() {
        model.step(&mut input);
        steps += 1;
        if steps % 64 == 0 {
            slab.validate().expect("valid");
        }
    }
    model.end();
}

impl Model<'_> {
    fn create(&mut self, input: &mut Input<'_>, name: &'static str) {
        let size = 1 + input.below(4000) as usize;
        let align = 1 << input.below(8);
        let layout = Layout::from_size_align(size, align).expect("small");
        let bits = input.byte();
        let all = [
            CacheFlags::POISON,
            CacheFlags::RED_ZONE,
            CacheFlags::STORE_USER,
            CacheFlags::CONSISTENCY_CHECKS,
            CacheFlags::HWCACHE_ALIGN,
            CacheFlags::TYPESAFE,
            CacheFlags::RECLAIM_ACCOUNT,
        ];
        let set = all.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1);
        let flags = set.fold(CacheFlags::empty(), |flags, (_, one)| flags | *one);
        let cache = self.slab.create_cache(name, layout, flags).expect("memory");
        self.caches.push(cache);
    }

    fn insert(&mut self, memory: NonNull<u8>, size: usize, align: usize, cache: Option<usize>) {
        let start = memory.as_ptr().addr();
        assert_eq!(start % align, 0, "not aligned");
        let end_of = |object: &Object| object.memory.as_ptr().addr() + object.size;
        if let Some((_, below)) = self.live.range(..=start).next_back() {
            assert!(end_of(below) <= start, "overlaps the object below");
        }
        if let Some((above, _)) = self.live.range(start..).next() {
            assert!(start + size <= *above, "overlaps the object above");
        }
        let fill = (start >> 3) as u8;
        // SAFETY: just allocated with this size.
        unsafe { memory.write_bytes(fill, size) };
        let object = Object {
            memory,
            size,
            fill,
            cache,
        };
        self.live.insert(start, object);
    }

    fn remove(&mut self, start: usize) {
        let Some(object) = self.live.remove(&start) else {
            return;
        };
        let bytes = NonNull::slice_from_raw_parts(object.memory, object.size);
        // SAFETY: live, and every byte was written.
        let bytes = unsafe { bytes.as_ref() };
        assert!(bytes.iter().all(|byte| *byte == object.fill), "changed");
        match object.cache {
            // SAFETY: live, of this cache, and not used again.
            Some(cache) => unsafe { self.caches[cache].free(object.memory) },
            // SAFETY: live, of kmalloc, and not used again.
            None => unsafe { self.kmalloc.free(object.memory) },
        }
    }

    /// Some live object.
    fn pick(&self, input: &mut Input<'_>) -> Option<usize> {
        let at = input.below(self.live.len().max(1) as u64) as usize;
        self.live.keys().nth(at).copied()
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(10) {
            0..=2 => {
                let which = input.below(self.caches.len() as u64) as usize;
                let many = 1 + input.below(24);
                let layout = self.caches[which].layout();
                for _ in 0..many {
                    let Some(memory) = self.caches[which].alloc() else {
                        break;
                    };
                    self.insert(memory, layout.size(), layout.align(), Some(which));
                }
            }
            3 | 4 => {
                let magnitude = 3 + input.below(14);
                let size = input.below(1 << magnitude) as usize;
                let gfp = match input.below(4) {
                    0 => GfpFlags::KERNEL | GfpFlags::RECLAIMABLE,
                    1 => GfpFlags::KERNEL | GfpFlags::ZERO,
                    _ => GfpFlags::KERNEL,
                };
                if let Some(memory) = self.kmalloc.alloc(size, gfp) {
                    if size == 0 {
                        // SAFETY: nothing was given out.
                        unsafe { self.kmalloc.free(memory) };
                        return;
                    }
                    assert!(self.kmalloc.usable_size(memory) >= size);
                    let align = if size.is_power_of_two() {
                        size.clamp(8, 4096)
                    } else {
                        8
                    };
                    self.insert(memory, size, align, None);
                }
            }
            5..=7 => {
                for _ in 0..=input.below(24) {
                    if let Some(start) = self.pick(input) {
                        self.remove(start);
                    }
                }
            }
            8 => {
                self.slab.shrink();
                self.slab.validate().expect("valid");
            }
            _ => {
                let n = input.below(9);
                self.pages.fail_after((n < 8).then_some(n));
            }
        }
    }

    fn end(&mut self) {
        self.pages.fail_after(None);
        while let Some(start) = self.live.keys().next().copied() {
            self.remove(start);
        }
        for cache in core::mem::take(&mut self.caches) {
            cache.shrink();
            assert_eq!(cache.info().active_objs, 0);
            self.slab.destroy_cache(cache).expect("no object is left");
        }
        self.slab.shrink();
        self.slab.validate().expect("valid");
        for cache in self.kmalloc.caches() {
            // Its own tables are in one object.
            assert!(cache.info().active_objs <= 1, "{}", cache.name());
        }
        self.pages.drain_local();
        self.pages.validate().expect("valid");
    }
}
