//! Memory of any size, and the global allocator on it.

use crate::boot;
use crate::ram::Random;
use std::alloc::{GlobalAlloc, Layout};
use std::collections::BTreeMap;
use std::ptr::NonNull;
use vellum_machine::VmItem;
use vellum_slab::{KernelHeap, Kmalloc, ZERO_SIZE_PTR};
use vellum_types::GfpFlags;

const KERNEL: GfpFlags = GfpFlags::KERNEL;

fn bytes(memory: NonNull<u8>, len: usize) -> &'static mut [u8] {
    // SAFETY: live, this long, and used by this test alone.
    unsafe { NonNull::slice_from_raw_parts(memory, len).as_mut() }
}

fn free(kmalloc: &Kmalloc<'_>, memory: NonNull<u8>) {
    // SAFETY: live or a test of misuse; not used again.
    unsafe { kmalloc.free(memory) };
}

#[test]
fn each_size_gets_its_class() {
    let (ram, _, slab) = boot(4096);
    let kmalloc = Kmalloc::boot(slab).unwrap();
    slab.shrink();
    let own = ram.used_pages();
    for (size, usable) in [
        (1, 8),
        (9, 16),
        (65, 96),
        (97, 128),
        (129, 192),
        (193, 256),
        (4097, 8192),
        (8192, 8192),
        (8193, 16384),
        (131_073, 262_144),
    ] {
        let memory = kmalloc.alloc(size, KERNEL).unwrap();
        assert_eq!(kmalloc.usable_size(memory), usable, "{size}");
        let align = (1usize << usable.trailing_zeros()).min(4096);
        assert_eq!(memory.as_ptr().addr() % align, 0);
        bytes(memory, usable).fill(1);
        free(kmalloc, memory);
    }
    let dma = kmalloc.alloc(100, KERNEL | GfpFlags::DMA).unwrap();
    let reclaimable = kmalloc.alloc(100, KERNEL | GfpFlags::RECLAIMABLE).unwrap();
    let active = |name| {
        slab.slabinfo()
            .find(|i| i.name == name)
            .unwrap()
            .active_objs
    };
    assert_eq!(
        [
            active("dma-kmalloc-128"),
            active("kmalloc-rcl-128"),
            active("kmalloc-128")
        ],
        [1, 1, 0]
    );
    free(kmalloc, dma);
    free(kmalloc, reclaimable);
    slab.shrink();
    assert_eq!(ram.used_pages(), own);
}

#[test]
fn nothing_and_too_much() {
    let (_, _, slab) = boot(512);
    let kmalloc = Kmalloc::boot(slab).unwrap();
    assert_eq!(kmalloc.alloc(0, KERNEL), Some(ZERO_SIZE_PTR));
    assert_eq!(kmalloc.usable_size(ZERO_SIZE_PTR), 0);
    free(kmalloc, ZERO_SIZE_PTR);
    assert_eq!(kmalloc.alloc((4 << 20) + 1, KERNEL), None);
    assert_eq!(kmalloc.alloc(usize::MAX, KERNEL), None);
    assert_eq!(kmalloc.alloc_array(usize::MAX / 2, 3, KERNEL), None);
    let zeroed = kmalloc.alloc_array(3, 100, KERNEL).unwrap();
    assert!(bytes(zeroed, 300).iter().all(|b| *b == 0));
    bytes(zeroed, 300).fill(7);
    // SAFETY: live; only the result is used.
    let grown = unsafe { kmalloc.realloc(zeroed, 1000, KERNEL) }.unwrap();
    assert!(bytes(grown, 300).iter().all(|b| *b == 7));
    // SAFETY: as above.
    let same = unsafe { kmalloc.realloc(grown, 700, KERNEL) }.unwrap();
    assert_eq!(same, grown);
    // SAFETY: as above.
    let gone = unsafe { kmalloc.realloc(same, 0, KERNEL) };
    assert_eq!(gone, Some(ZERO_SIZE_PTR));
}

#[test]
#[should_panic(expected = "which kmalloc did not give out")]
fn a_foreign_free_is_caught() {
    let (_, _, slab) = boot(512);
    free(Kmalloc::boot(slab).unwrap(), NonNull::from(&mut 0u8));
}

#[test]
#[should_panic(expected = "which kmalloc did not give out")]
fn a_double_free_of_pages_is_caught() {
    let (_, _, slab) = boot(512);
    let kmalloc = Kmalloc::boot(slab).unwrap();
    let memory = kmalloc.alloc(20_000, KERNEL).unwrap();
    free(kmalloc, memory);
    free(kmalloc, memory);
}

#[test]
fn memory_of_random_sizes_is_disjoint_and_all_comes_back() {
    let (ram, stat, slab) = boot(8192);
    let kmalloc = Kmalloc::boot(slab).unwrap();
    slab.shrink();
    let own = ram.used_pages();
    let mut random = Random(0xfeed);
    let mut live = BTreeMap::<usize, (NonNull<u8>, usize, u8)>::new();
    for step in 0..300_000u32 {
        let grow = if step / 4000 % 2 == 0 { 7 } else { 3 };
        if random.below(10) < grow && live.len() < 3000 {
            let shift = random.below(if live.len() < 500 { 15 } else { 10 });
            let size = 1 + random.below(2 << shift) as usize;
            let align = 1usize << random.below(13);
            let layout = Layout::from_size_align(size, align).unwrap();
            let Some(memory) = kmalloc.alloc_layout(layout, KERNEL) else {
                continue;
            };
            let start = memory.as_ptr().addr();
            assert_eq!(start % align, 0);
            assert!(kmalloc.usable_size(memory) >= size);
            if let Some((before, (_, len, _))) = live.range(..=start).next_back() {
                assert!(before + len <= start, "overlap");
            }
            if let Some((after, _)) = live.range(start..).next() {
                assert!(start + size <= *after, "overlap");
            }
            let fill = (start >> 3) as u8;
            bytes(memory, size).fill(fill);
            live.insert(start, (memory, size, fill));
        } else if let Some((at, _)) = live
            .range(
                random.below(1 << 25) as usize
                    + live.first_key_value().map_or(0, |(first, _)| *first)..,
            )
            .next()
            .or(live.first_key_value())
        {
            let at = *at;
            let (memory, size, fill) = live.remove(&at).unwrap();
            assert!(bytes(memory, size).iter().all(|b| *b == fill));
            free(kmalloc, memory);
        }
        if step % 5000 == 0 {
            slab.validate().unwrap();
        }
    }
    for (memory, size, fill) in live.into_values() {
        assert!(bytes(memory, size).iter().all(|b| *b == fill));
        free(kmalloc, memory);
    }
    slab.shrink();
    slab.validate().unwrap();
    assert_eq!(ram.used_pages(), own);
    assert_eq!(stat.item(VmItem::NrSlabReclaimable), 0);
}

#[test]
fn each_failed_page_is_a_null() {
    let (ram, _, slab) = boot(1024);
    let kmalloc = Kmalloc::boot(slab).unwrap();
    slab.shrink();
    let own = ram.used_pages();
    for n in 0.. {
        ram.fail_after(n);
        let mut live = Vec::new();
        let mut failed = 0;
        for size in (1..13).map(|shift| (1usize << shift) + 1).cycle().take(200) {
            match kmalloc.alloc(size, KERNEL) {
                Some(memory) => live.push(memory),
                None => failed += 1,
            }
        }
        slab.validate().unwrap();
        live.into_iter().for_each(|memory| free(kmalloc, memory));
        ram.fail_after(i64::MAX);
        slab.shrink();
        assert_eq!(ram.used_pages(), own);
        if failed == 0 {
            assert!(n > 20);
            break;
        }
    }
}

#[test]
fn the_heap_serves_layouts() {
    let (ram, _, slab) = boot(4096);
    let heap = KernelHeap::new();
    let layout = |size, align| Layout::from_size_align(size, align).unwrap();
    // SAFETY: not of size zero.
    assert!(unsafe { heap.alloc(layout(8, 8)) }.is_null());
    assert!(heap.init(Kmalloc::boot(slab).unwrap()));
    assert!(!heap.init(Kmalloc::boot(slab).unwrap()), "once");
    slab.shrink();
    let own = ram.used_pages();
    for (size, align) in [(1, 1), (24, 16), (80, 32), (100, 4096), (5000, 2048)] {
        let first = layout(size, align);
        // SAFETY: not of size zero.
        let memory = unsafe { heap.alloc_zeroed(first) };
        assert_eq!(memory.addr() % align, 0);
        let all = bytes(NonNull::new(memory).unwrap(), size);
        assert!(all.iter().all(|b| *b == 0));
        all.fill(9);
        // SAFETY: live, of this layout, and the new size is not zero.
        let memory = unsafe { heap.realloc(memory, first, size * 5) };
        assert_eq!(memory.addr() % align, 0);
        let all = bytes(NonNull::new(memory).unwrap(), size);
        assert!(all.iter().all(|b| *b == 9));
        // SAFETY: live, of this layout.
        unsafe { heap.dealloc(memory, layout(size * 5, align)) };
    }
    // SAFETY: not of size zero.
    assert!(unsafe { heap.alloc(layout(8, 8 << 20)) }.is_null());
    slab.shrink();
    assert_eq!(ram.used_pages(), own);
}
