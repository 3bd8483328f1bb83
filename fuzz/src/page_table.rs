//! Page tables of each format beside a map from address to entry.

use crate::input::Input;
use crate::machine::Host;
use std::collections::BTreeMap;
use vellum_machine::{Trace, VmItem};
use vellum_page_table::{
    Format, MapHugeError, Mapped, PageTable, Pte, PteFlags, TlbGather, X86_64FiveLevel,
    X86_64FourLevel, X86Pae, X86TwoLevel,
};
use vellum_types::{PAGE_SIZE, Pfn, SpaceId, VirtAddr, VirtRange};

const SPACE: SpaceId = SpaceId(3);

/// Start address to entry and level.
type Model = BTreeMap<u64, (Pte, u8)>;

/// Maps, walks, splits and unmaps small and huge pages; page allocations fail at times.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.below(4) {
        0 => history::<X86TwoLevel>(input),
        1 => history::<X86Pae>(input),
        2 => history::<X86_64FourLevel>(input),
        _ => history::<X86_64FiveLevel>(input),
    }
}

fn find<F: Format>(model: &Model, va: u64) -> Option<(u64, Pte, u8)> {
    let (start, (pte, level)) = model.range(..=va).next_back()?;
    (va - start < F::span(*level)).then_some((*start, *pte, *level))
}

fn split<F: Format>(model: &mut Model, start: u64) {
    let Some((pte, level)) = model.remove(&start) else {
        return;
    };
    let span = F::span(level - 1);
    let pte = if level == 1 {
        pte.without(PteFlags::HUGE)
    } else {
        pte
    };
    for at in 0..F::span(level) / span {
        let pfn = pte.pfn() + (at * span / PAGE_SIZE) as u32;
        model.insert(start + at * span, (Pte::new(pfn, pte.flags()), level - 1));
    }
}

/// Addresses that meet often: a few pages in a few tables of each level.
fn address<F: Format>(input: &mut Input<'_>) -> VirtAddr {
    let mut va = input.below(40) * PAGE_SIZE;
    let mut choice = input.byte();
    for level in 1..F::LEVELS {
        let choices = [0, 1, F::entries(level) - 1];
        va += choices[usize::from(choice % 3)] * F::span(level);
        choice /= 3;
    }
    VirtAddr::new(va)
}

fn entry<F: Format>(input: &mut Input<'_>) -> Pte {
    let pfn = Pfn::new(input.below(1 << 20) as u32);
    let bits = PteFlags::from_bits_truncate(input.below(1 << 12));
    let nx = if F::HAS_NX && input.one_in(2) {
        PteFlags::NX
    } else {
        PteFlags::empty()
    };
    Pte::new(
        pfn,
        bits.difference(PteFlags::HUGE) | PteFlags::PRESENT | nx,
    )
}

fn history<F: Format>(mut input: Input<'_>) {
    let host = Host::new(16 << 20, 17 << 20);
    let pages = host.boot();
    let free = pages.nr_free_pages();
    let mut table = PageTable::<F>::new(pages, &host.vmstat, SPACE.0).expect("memory");
    let mut model = Model::new();
    while !input.is_empty() {
        let what = input.below(8);
        let va = address::<F>(&mut input);
        let found = find::<F>(&model, va.as_u64());
        assert_eq!(table.walk(va), found.map(|(_, pte, level)| (pte, level)));
        match what {
            0..=2 => map(&mut table, &mut model, &mut input, va),
            3 => {
                if let Some(leaf) = table.leaf(va) {
                    leaf.set(va, Pte::NONE);
                    model.remove(&va.as_u64());
                }
            }
            4 => map_huge(&mut table, &mut model, &mut input, va),
            5 => {
                let huge = found.filter(|found| found.2 > 0);
                if let Ok(done) = table.split_huge(va) {
                    assert_eq!(done, huge.is_some());
                    if let Some((start, ..)) = huge {
                        split::<F>(&mut model, start);
                    }
                }
            }
            6 => {
                let mut gather = TlbGather::new(&host, pages, SPACE, Trace::OFF);
                let huge = found.filter(|found| found.2 > 0);
                assert_eq!(table.unmap_huge(va, &mut gather), huge.map(|f| (f.1, f.2)));
                if let Some((start, ..)) = huge {
                    model.remove(&start);
                }
            }
            _ => {
                let n = input.below(9);
                pages.fail_after((n < 6).then_some(n));
            }
        }
        let tables = table.nr_tables();
        assert_eq!(host.vmstat.item(VmItem::NrPageTablePages), tables);
        assert_eq!(free - pages.nr_free_pages(), tables);
    }
    same(&table, &model);
    let mut gather = TlbGather::new(&host, pages, SPACE, Trace::OFF);
    table.destroy(&mut gather);
    drop(gather);
    drop(table);
    assert_eq!(pages.nr_free_pages(), free);
}

fn map<F: Format>(
    table: &mut PageTable<'_, F>,
    model: &mut Model,
    input: &mut Input<'_>,
    va: VirtAddr,
) {
    let pte = entry::<F>(input);
    let Ok(leaf) = table.leaf_or_alloc(va) else {
        // Huge entries on the way may have been split, which changes no translation.
        resplit(table, model, va);
        return;
    };
    while let Some((start, _, 1..)) = find::<F>(model, va.as_u64()) {
        split::<F>(model, start);
    }
    assert!(leaf.covers(va));
    let old = leaf.replace(va, pte);
    let before = model.insert(va.as_u64(), (pte, 0));
    assert_eq!(old, before.map_or(Pte::NONE, |(pte, _)| pte));
}

/// Splits the model where the table is split.
fn resplit<F: Format>(table: &PageTable<'_, F>, model: &mut Model, va: VirtAddr) {
    while let Some((start, _, level)) = find::<F>(model, va.as_u64())
        && table.walk(va).is_some_and(|(_, now)| now < level)
    {
        split::<F>(model, start);
    }
}

fn map_huge<F: Format>(
    table: &mut PageTable<'_, F>,
    model: &mut Model,
    input: &mut Input<'_>,
    va: VirtAddr,
) {
    let level = 1 + input.below(u64::from(F::MAX_HUGE_LEVEL)) as u8;
    let start = va.align_down(F::span(level));
    let pte = entry::<F>(input);
    let first = pte.pfn().addr().align_down(F::span(level));
    let pte = Pte::new(Pfn::containing(first).expect("aligned"), pte.flags());
    match table.map_huge(start, pte, level) {
        Ok(()) => {
            let end = start.as_u64() + F::span(level);
            assert!(model.range(start.as_u64()..end).next().is_none());
            assert!(find::<F>(model, start.as_u64()).is_none());
            model.insert(start.as_u64(), (pte.with(PteFlags::HUGE), level));
        }
        Err(error) => assert!(matches!(
            error,
            MapHugeError::Occupied | MapHugeError::OutOfMemory
        )),
    }
}

fn same<F: Format>(table: &PageTable<'_, F>, model: &Model) {
    table.validate().expect("valid");
    let all = VirtRange::new(VirtAddr::ZERO, VirtAddr::new(u64::MAX)).expect("not empty");
    let mut found = Model::new();
    for mapped in table.entries(all) {
        match mapped {
            Mapped::Leaf(leaf, part) => {
                found.extend(leaf.iter(part).map(|(va, pte)| (va.as_u64(), (pte, 0))));
            }
            Mapped::Huge(range, pte, level) => {
                assert_eq!(range.len(), F::span(level));
                found.insert(range.start().as_u64(), (pte, level));
            }
        }
    }
    assert!(found == *model, "{}: table and model differ", F::NAME);
}
