//! Every format against a map from address to entry.

use crate::machine::Recorder;
use crate::ram::{HostRam, Random};
use std::collections::BTreeMap;
use vellum_machine::{Trace, VmItem, VmStat};
use vellum_page::PageSource;
use vellum_page_table::{
    Format, MapHugeError, Mapped, PageTable, Pte, PteFlags, TlbGather, X86_64FiveLevel,
    X86_64FourLevel, X86Pae, X86TwoLevel,
};
use vellum_types::{OutOfMemory, PAGE_SIZE, Pfn, SpaceId, VirtAddr, VirtRange};

const SPACE: SpaceId = SpaceId(3);

/// What is mapped: start address to entry and level.
type Model = BTreeMap<u64, (Pte, u8)>;

fn find<F: Format>(model: &Model, va: u64) -> Option<(u64, Pte, u8)> {
    let (start, (pte, level)) = model.range(..=va).next_back()?;
    (va - start < F::span(*level)).then_some((*start, *pte, *level))
}

fn split<F: Format>(model: &mut Model, start: u64) {
    let (pte, level) = model.remove(&start).unwrap();
    let span = F::span(level - 1);
    let pte = if level == 1 {
        pte.without(PteFlags::HUGE)
    } else {
        pte
    };
    for i in 0..F::span(level) / span {
        let pfn = pte.pfn() + (i * span / PAGE_SIZE) as u32;
        model.insert(start + i * span, (Pte::new(pfn, pte.flags()), level - 1));
    }
}

/// Addresses that meet often: a few pages in a few tables of each level.
fn address<F: Format>(random: &mut Random) -> VirtAddr {
    let mut va = random.below(40) * PAGE_SIZE;
    for level in 1..F::LEVELS {
        let choices = [0, 1, F::entries(level) - 1];
        va += choices[random.below(3) as usize] * F::span(level);
    }
    VirtAddr::new(va)
}

fn entry<F: Format>(random: &mut Random) -> Pte {
    let pfn = Pfn::new(random.below(1 << 20) as u32);
    let flags = PteFlags::from_bits_truncate(random.below(1 << 12)).difference(PteFlags::HUGE)
        | PteFlags::PRESENT;
    let nx = if F::HAS_NX && random.below(2) == 0 {
        PteFlags::NX
    } else {
        PteFlags::empty()
    };
    Pte::new(pfn, flags | nx)
}

fn check_same<F: Format>(table: &PageTable<'_, F>, model: &Model) {
    table.validate().unwrap();
    let all = VirtRange::new(VirtAddr::ZERO, VirtAddr::new(u64::MAX)).unwrap();
    let mut found = Model::new();
    for mapped in table.entries(all) {
        match mapped {
            Mapped::Leaf(leaf, part) => {
                for (va, pte) in leaf.iter(part) {
                    found.insert(va.as_u64(), (pte, 0));
                }
            }
            Mapped::Huge(range, pte, level) => {
                assert_eq!(range.len(), F::span(level));
                found.insert(range.start().as_u64(), (pte, level));
            }
        }
    }
    assert!(found == *model, "{}: table and model differ", F::NAME);
}

fn run<F: Format>(seed: u64, operations: u32) {
    let ram = HostRam::new(8192);
    let stat: &'static VmStat = Box::leak(Box::new(VmStat::new()));
    let machine = Recorder::new(ram);
    let mut table = PageTable::<F>::new(ram, stat, SPACE.0).unwrap();
    let mut model = Model::new();
    let mut random = Random(seed);
    for step in 0..operations {
        let va = address::<F>(&mut random);
        let raw = va.as_u64();
        match random.below(100) {
            0..40 => {
                while let Some((start, _, 1..)) = find::<F>(&model, raw) {
                    split::<F>(&mut model, start);
                }
                let pte = entry::<F>(&mut random);
                let leaf = table.leaf_or_alloc(va).unwrap();
                assert!(leaf.covers(va));
                let old = leaf.replace(va, pte);
                assert_eq!(
                    old,
                    model
                        .insert(raw, (pte, 0))
                        .map_or(Pte::NONE, |(pte, _)| pte)
                );
            }
            40..60 => {
                let found = find::<F>(&model, raw);
                assert_eq!(table.walk(va), found.map(|(_, pte, level)| (pte, level)));
                assert_eq!(
                    table.leaf(va).map(|leaf| leaf.get(va)).unwrap_or(Pte::NONE),
                    found.filter(|f| f.2 == 0).map_or(Pte::NONE, |f| f.1)
                );
            }
            60..75 => {
                if let Some(leaf) = table.leaf(va) {
                    leaf.set(va, Pte::NONE);
                    model.remove(&raw);
                }
            }
            75..80 => {
                let level = 1 + random.below(u64::from(F::MAX_HUGE_LEVEL)) as u8;
                let start = va.align_down(F::span(level));
                let pte = entry::<F>(&mut random);
                let pfn = Pfn::containing(pte.pfn().addr().align_down(F::span(level))).unwrap();
                let pte = Pte::new(pfn, pte.flags());
                match table.map_huge(start, pte, level) {
                    Ok(()) => {
                        let end = start.as_u64() + F::span(level);
                        assert!(model.range(start.as_u64()..end).next().is_none());
                        assert!(find::<F>(&model, start.as_u64()).is_none());
                        model.insert(start.as_u64(), (pte.with(PteFlags::HUGE), level));
                    }
                    Err(error) => assert_eq!(error, MapHugeError::Occupied),
                }
            }
            80..84 => {
                let found = find::<F>(&model, raw).filter(|(_, _, level)| *level > 0);
                assert_eq!(table.split_huge(va), Ok(found.is_some()));
                if let Some((start, ..)) = found {
                    split::<F>(&mut model, start);
                }
            }
            84..90 => {
                let mut gather = TlbGather::new(&machine, ram, SPACE, Trace::OFF);
                let found = find::<F>(&model, raw).filter(|(_, _, level)| *level > 0);
                assert_eq!(table.unmap_huge(va, &mut gather), found.map(|f| (f.1, f.2)));
                if let Some((start, ..)) = found {
                    model.remove(&start);
                }
            }
            90..98 => clear_range(&mut table, &mut model, va, &mut random, &machine, ram),
            _ if step % 64 == 0 => check_same(&table, &model),
            _ => table.validate().unwrap(),
        }
        assert_eq!(stat.item(VmItem::NrPageTablePages), table.nr_tables());
        assert_eq!(ram.used_pages() as u64, table.nr_tables());
        machine.take();
    }
    check_same(&table, &model);
    let mut gather = TlbGather::new(&machine, ram, SPACE, Trace::OFF);
    // A space without areas needs its root alone; table frames left then would be leaks.
    let root = table.root();
    let keep = model.clone();
    empty(&mut table, &mut model, &mut gather);
    assert_eq!((table.nr_tables(), table.root()), (1, root));
    for (va, (pte, level)) in keep.iter().take(2000) {
        let va = VirtAddr::new(*va);
        match level {
            0 => table.leaf_or_alloc(va).unwrap().set(va, *pte),
            _ => table.map_huge(va, *pte, *level).unwrap(),
        }
    }
    table.destroy(&mut gather);
    table.destroy(&mut gather);
    drop(gather);
    assert_eq!(table.walk(VirtAddr::ZERO), None);
    assert_eq!((table.nr_tables(), ram.used_pages()), (0, 0));
    table.validate().unwrap();
}

/// Unmaps all and frees all tables but the root.
fn empty<F: Format>(
    table: &mut PageTable<'_, F>,
    model: &mut Model,
    gather: &mut TlbGather<'_, Recorder<'_>>,
) {
    for (va, (_, level)) in core::mem::take(model) {
        let va = VirtAddr::new(va);
        if level == 0 {
            table.leaf(va).unwrap().set(va, Pte::NONE);
        } else {
            table.unmap_huge(va, gather).unwrap();
        }
    }
    let all = VirtRange::new(VirtAddr::ZERO, VirtAddr::new(u64::MAX)).unwrap();
    table.free_tables(all, all.start(), all.end(), gather);
    table.validate().unwrap();
}

/// What munmap does: entries cleared, then tables freed up to the neighbours.
fn clear_range<F: Format>(
    table: &mut PageTable<'_, F>,
    model: &mut Model,
    va: VirtAddr,
    random: &mut Random,
    machine: &Recorder<'_>,
    ram: &HostRam,
) {
    let len = F::span(random.below(u64::from(F::LEVELS)) as u8) + random.below(20) * PAGE_SIZE;
    let range = VirtRange::from_len(va, len).unwrap();
    let mut gather = TlbGather::new(machine, ram, SPACE, Trace::OFF);
    for (leaf, part) in table.leaves(range) {
        for (va, _) in leaf.iter(part) {
            leaf.set(va, Pte::NONE);
        }
        gather.note_flush(part);
    }
    let keys: Vec<u64> = model
        .range(range.start().as_u64()..range.end().as_u64())
        .filter(|(_, (_, level))| *level == 0)
        .map(|(va, _)| *va)
        .collect();
    for key in keys {
        model.remove(&key);
    }
    let floor = model
        .range(..range.start().as_u64())
        .next_back()
        .map_or(0, |(va, (_, level))| va + F::span(*level));
    let ceiling = model
        .range(range.end().as_u64()..)
        .next()
        .map_or(u64::MAX, |(va, _)| *va);
    table.free_tables(
        range,
        VirtAddr::new(floor),
        VirtAddr::new(ceiling),
        &mut gather,
    );
}

#[test]
fn two_level_is_the_model() {
    run::<X86TwoLevel>(1, 100_000);
}
#[test]
fn pae_is_the_model() {
    run::<X86Pae>(2, 100_000);
}
#[test]
fn four_level_is_the_model() {
    run::<X86_64FourLevel>(3, 100_000);
}
#[test]
fn five_level_is_the_model() {
    run::<X86_64FiveLevel>(4, 100_000);
}

fn nth_failure<F: Format>() {
    let ram = HostRam::new(4096);
    let stat: &'static VmStat = Box::leak(Box::new(VmStat::new()));
    let machine = Recorder::new(ram);
    for n in 0.. {
        ram.fail_after(n);
        let mut random = Random(11);
        let mut model = Model::new();
        let Ok(mut table) = PageTable::<F>::new(ram, stat, SPACE.0) else {
            assert_eq!((n, ram.used_pages()), (0, 0));
            continue;
        };
        let mut failed = false;
        for _ in 0..40 {
            let va = address::<F>(&mut random);
            let pte = entry::<F>(&mut random);
            let huge = random.below(4) == 0;
            let start = va.align_down(F::span(1));
            let pfn = Pfn::containing(pte.pfn().addr().align_down(F::span(1))).unwrap();
            let before = model.clone();
            let result = if huge {
                match table.map_huge(start, Pte::new(pfn, pte.flags()), 1) {
                    Ok(()) => {
                        let pte = Pte::new(pfn, pte.flags() | PteFlags::HUGE);
                        model.insert(start.as_u64(), (pte, 1));
                        Ok(())
                    }
                    Err(MapHugeError::OutOfMemory) => Err(OutOfMemory),
                    Err(_) => Ok(()),
                }
            } else {
                table.leaf_or_alloc(va).map(|leaf| {
                    while let Some((start, _, 1..)) = find::<F>(&model, va.as_u64()) {
                        split::<F>(&mut model, start);
                    }
                    leaf.set(va, pte);
                    model.insert(va.as_u64(), (pte, 0));
                })
            };
            if result.is_err() {
                failed = true;
                assert!(model == before);
            }
            check_same(&table, &model);
        }
        table.destroy(&mut TlbGather::new(&machine, ram, SPACE, Trace::OFF));
        assert_eq!(
            (ram.used_pages(), stat.item(VmItem::NrPageTablePages)),
            (0, 0)
        );
        if !failed {
            break;
        }
    }
}

#[test]
fn each_failed_allocation_leaves_a_valid_table() {
    nth_failure::<X86TwoLevel>();
    nth_failure::<X86Pae>();
    nth_failure::<X86_64FourLevel>();
    nth_failure::<X86_64FiveLevel>();
}

#[test]
fn a_dropped_new_table_gives_its_root_back() {
    let ram = HostRam::new(64);
    let stat: &'static VmStat = Box::leak(Box::new(VmStat::new()));
    drop(PageTable::<X86_64FourLevel>::new(ram, stat, 1).unwrap());
    assert_eq!(ram.used_pages(), 0);
}

#[test]
fn validate_sees_what_is_broken() {
    let ram = HostRam::new(64);
    let stat: &'static VmStat = Box::leak(Box::new(VmStat::new()));
    let machine = Recorder::new(ram);
    let mut table = PageTable::<X86_64FourLevel>::new(ram, stat, SPACE.0).unwrap();
    let leaf = table.leaf_or_alloc(VirtAddr::new(0x40_0000)).unwrap();
    let page = ram.page(leaf.frame());
    table.validate().unwrap();
    page.set_owner(99);
    assert!(table.validate().is_err(), "a foreign table");
    page.set_owner(SPACE.0);
    page.get();
    assert!(table.validate().is_err(), "a shared table");
    page.set_refcount(1);
    let raw = ram.ram().read_u64(table.root().addr());
    ram.ram().write_u64(table.root().addr(), 0);
    assert!(table.validate().is_err(), "a lost subtree");
    ram.ram().write_u64(table.root().addr(), raw & !2);
    assert!(table.validate().is_err(), "a link that forbids writing");
    ram.ram().write_u64(table.root().addr(), raw);
    table.validate().unwrap();
    table.destroy(&mut TlbGather::new(&machine, ram, SPACE, Trace::OFF));
}

#[test]
fn tables_that_neighbours_may_use_stay() {
    let ram = HostRam::new(64);
    let stat: &'static VmStat = Box::leak(Box::new(VmStat::new()));
    let machine = Recorder::new(ram);
    let mut table = PageTable::<X86_64FourLevel>::new(ram, stat, SPACE.0).unwrap();
    let mut gather = TlbGather::new(&machine, ram, SPACE, Trace::OFF);
    let at = |mib: u64| VirtAddr::new(mib << 20);
    // One leaf table for 2..4 MiB, of which 2.5..3 MiB was unmapped.
    table.leaf_or_alloc(at(2)).unwrap();
    let range = VirtRange::new(VirtAddr::new(5 << 19), at(3)).unwrap();
    let unbounded = VirtAddr::new(u64::MAX);
    table.free_tables(range, VirtAddr::new(5 << 19), unbounded, &mut gather);
    assert_eq!(table.nr_tables(), 4, "an area below may use the table");
    table.free_tables(range, VirtAddr::ZERO, VirtAddr::new(7 << 19), &mut gather);
    assert_eq!(table.nr_tables(), 4, "an area above may use the table");
    table.free_tables(range, at(2), at(4), &mut gather);
    assert_eq!(
        table.nr_tables(),
        3,
        "upper tables reach beyond the neighbours"
    );
    table.free_tables(range, VirtAddr::ZERO, unbounded, &mut gather);
    assert_eq!(table.nr_tables(), 1);
    table.validate().unwrap();
}
