//! Random operations against files that are plain vectors.

mod common;
mod world;

use common::{PAGE, Rig, Rng};
use vellum_page_cache::{CacheError, Readahead};
use vellum_types::{FileId, PAGE_SIZE};
use world::World;

#[test]
fn agrees_with_a_plain_file() {
    let mut world = World::new(0x5eed_0006, 1024, false);
    for _ in 0..300_000 {
        world.step();
    }
    assert_eq!(world.finish(), 0, "memory was plenty");
}

#[test]
fn agrees_with_a_plain_file_in_little_memory() {
    let mut world = World::new(6, 60, false);
    for _ in 0..30_000 {
        world.step();
    }
    assert!(world.finish() > 0);
}

#[test]
fn survives_every_nth_allocation_failing() {
    for n in 1..=12 {
        let mut world = World::new(1000 + n, 300, true);
        world.rig.frames.fail_every(n);
        for _ in 0..3_000 {
            world.step();
        }
        assert!(world.finish() > 0);
    }
}

#[test]
fn survives_tree_nodes_running_out() {
    let mut world = World::new(4242, 300, true);
    for _ in 0..20_000 {
        let n = if world.rng.below(3) == 0 {
            i64::MAX
        } else {
            world.rng.below(3) as i64
        };
        world.rig.nodes.fail_after(n);
        world.step();
    }
    assert!(world.finish() > 0);
}

/// Shared memory under random stores, reclaim and truncation, against plain pages.
fn shared_memory_agrees_with_plain_pages(seed: u64, ram: u32, fail_every: u64, steps: u32) -> u64 {
    const PAGES: u64 = 150;
    let rig = Rig::new(ram);
    let mut rng = Rng(seed);
    let mapping = rig.cache.mapping(FileId(1 << 63 | 9)).unwrap();
    mapping.set_size(PAGES * PAGE_SIZE);
    let mut plain = vec![0u8; PAGES as usize];
    let mut short = 0;
    rig.frames.fail_every(fail_every);
    for _ in 0..steps {
        let index = rng.below(PAGES);
        match rng.below(20) {
            0..8 => {
                let write = rng.below(2) == 0;
                let result = loop {
                    let result = if write {
                        mapping.get_for_write(&rig.cache, index, rng.below(2) == 0)
                    } else {
                        let page = mapping.read_page(&rig.cache, index, Readahead::Normal);
                        page.map(|(pfn, _)| pfn)
                    };
                    match result {
                        Err(CacheError::Swapped(entry)) if rig.swap.read_in(entry) => {}
                        other => break other,
                    }
                };
                let Ok(pfn) = result else {
                    short += 1;
                    continue;
                };
                let fill = &mut plain[index as usize];
                assert_eq!(rig.bytes(pfn.addr(), PAGE_SIZE), [*fill; PAGE]);
                if write {
                    *fill = rng.next() as u8;
                    rig.ram.write_bytes(pfn.addr(), &[*fill; PAGE]);
                    assert!(mapping.mark_dirty(&rig.cache, index));
                }
                rig.cache.put_page(pfn);
            }
            8..14 => {
                // Reclaim, of pages in a row.
                for index in index..PAGES.min(index + 6) {
                    let Some(pfn) = mapping.find_get(index) else {
                        continue;
                    };
                    if rng.below(3) == 0 {
                        rig.swap.begin_out(&rig, &mapping, pfn);
                    } else {
                        rig.swap.write_out(&rig, &mapping, pfn);
                    }
                    rig.cache.put_page(pfn);
                }
            }
            14..16 => rig.swap.drop_cached(),
            16 => {
                let len = rng.below(8);
                mapping.punch(
                    &rig.cache,
                    index * PAGE_SIZE,
                    len * PAGE_SIZE,
                    &mut |_, _| {},
                );
                let end = (index + len).min(PAGES) as usize;
                plain[index as usize..end].fill(0);
            }
            17 => {
                let size = rng.below(PAGES);
                mapping.truncate(&rig.cache, size * PAGE_SIZE, &mut |_, _| {});
                mapping.truncate(&rig.cache, PAGES * PAGE_SIZE, &mut |_, _| {});
                plain[size as usize..].fill(0);
            }
            _ => {
                rig.cache.shrink(rng.below(10));
                rig.cache.validate().unwrap();
            }
        }
    }
    rig.frames.fail_every(0);
    drop(mapping);
    rig.finish();
    short
}

#[test]
fn shared_memory_and_its_swap_agree_with_plain_pages() {
    assert_eq!(
        shared_memory_agrees_with_plain_pages(1, 1024, 0, 100_000),
        0
    );
}

#[test]
fn shared_memory_in_swap_survives_every_nth_allocation_failing() {
    for n in 1..=10 {
        assert!(shared_memory_agrees_with_plain_pages(n + 5, 200, n, 5_000) > 0);
    }
}
