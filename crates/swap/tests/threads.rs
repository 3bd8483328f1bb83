//! Several CPUs fault, write, fork, unmap and reclaim the same pages at once.

mod common;

use common::{Disk, Lz4, PAGE, Rig, Rng, streams};
use std::sync::{Mutex, MutexGuard};
use vellum_page::{PageFlags, PageSource, PageState};
use vellum_swap::{SwapDevice, SwapEntry, SwapInError, SwapOn, Zswap};
use vellum_types::Pfn;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Pte {
    None,
    Present(Pfn),
    Swap(SwapEntry),
}

/// A table entry under its lock, and what must be read there.
struct Slot {
    pte: Pte,
    fill: u64,
}

struct World {
    rig: Rig,
    table: Vec<Mutex<Slot>>,
}

impl World {
    fn lock(&self, i: usize) -> MutexGuard<'_, Slot> {
        self.table[i].lock().unwrap()
    }

    fn touch(&self, i: usize, fill: u64) {
        let mut slot = self.lock(i);
        if slot.pte != Pte::None {
            return;
        }
        let Ok(pfn) = self.rig.alloc() else { return };
        let page = self.rig.memmap.page(pfn);
        page.set_state(PageState::Anon);
        page.set_flags(PageFlags::UPTODATE);
        page.map();
        self.rig.fill(pfn, fill);
        *slot = Slot {
            pte: Pte::Present(pfn),
            fill,
        };
    }

    fn reclaim(&self, i: usize) {
        let swap = self.rig.swap;
        let mut slot = self.lock(i);
        let Pte::Present(pfn) = slot.pte else { return };
        let page = self.rig.memmap.page(pfn);
        if !page.try_lock() {
            return;
        }
        page.get();
        let entry = swap.entry_of(pfn).or_else(|| swap.add_to_swap(pfn));
        let Some(entry) = entry else {
            page.unlock();
            drop(slot);
            return swap.put_page(pfn);
        };
        swap.dup(entry).unwrap();
        slot.pte = Pte::Swap(entry);
        page.unmap();
        assert!(!page.put());
        drop(slot);
        if page.mapcount() == 0 {
            if page.flags().contains(PageFlags::DIRTY) {
                swap.write(&[pfn], &mut |_, _| {});
            }
            if swap.remove_for_reclaim(pfn, Some(i as u32)) {
                return self.rig.frames.free_pages(pfn);
            }
        }
        page.unlock();
        swap.put_page(pfn);
    }

    fn fault(&self, i: usize) {
        let swap = self.rig.swap;
        let pte = self.lock(i).pte;
        let Pte::Swap(entry) = pte else { return };
        let found = match swap.swapin(entry, &mut || self.rig.alloc()) {
            Ok(found) => found,
            Err(SwapInError::Io { error, .. }) => panic!("{entry:?}: {error}"),
            Err(_) => return,
        };
        let mut slot = self.lock(i);
        if slot.pte == pte && swap.entry_of(found.pfn) == Some(entry) {
            self.rig.expect(found.pfn, slot.fill);
            self.rig.memmap.page(found.pfn).map();
            slot.pte = Pte::Present(found.pfn);
            swap.free(entry);
        } else {
            drop(slot);
            swap.put_page(found.pfn);
        }
    }

    fn write(&self, i: usize, fill: u64) {
        let swap = self.rig.swap;
        let mut slot = self.lock(i);
        let Pte::Present(pfn) = slot.pte else { return };
        self.rig.expect(pfn, slot.fill);
        let page = self.rig.memmap.page(pfn);
        if !page.try_lock() {
            return;
        }
        let alone = swap.entry_of(pfn).is_none() || swap.try_to_free_swap(pfn);
        if alone && page.mapcount() == 1 {
            self.rig.fill(pfn, fill);
            page.set_flags(PageFlags::DIRTY);
            slot.fill = fill;
        }
        page.unlock();
    }

    /// A copy of entry `i` where `j` is none. Locks are taken in order.
    fn fork(&self, i: usize, j: usize) {
        if i >= j {
            return;
        }
        let from = self.lock(i);
        let mut to = self.lock(j);
        if to.pte != Pte::None {
            return;
        }
        match from.pte {
            Pte::None => return,
            Pte::Present(pfn) => {
                self.rig.memmap.page(pfn).get();
                self.rig.memmap.page(pfn).map();
            }
            Pte::Swap(entry) => self.rig.swap.dup(entry).unwrap(),
        }
        *to = Slot {
            pte: from.pte,
            fill: from.fill,
        };
    }

    fn unmap(&self, i: usize) {
        let mut slot = self.lock(i);
        match std::mem::replace(&mut slot.pte, Pte::None) {
            Pte::None => {}
            Pte::Present(pfn) => {
                self.rig.memmap.page(pfn).unmap();
                self.rig.swap.put_page(pfn);
            }
            Pte::Swap(entry) => self.rig.swap.free(entry),
        }
    }

    fn readahead(&self, i: usize) {
        let pte = self.lock(i).pte;
        if let Pte::Swap(entry) = pte {
            let swap = self.rig.swap;
            swap.readahead(entry, &mut |pfn, _| swap.put_page(pfn));
        }
    }

    fn run(&self, seed: u64, steps: u32) {
        let mut rng = Rng(seed);
        for _ in 0..steps {
            let i = rng.below(self.table.len() as u64) as usize;
            match rng.below(12) {
                0 => self.touch(i, rng.next() >> 8),
                1 => self.touch(i, rng.next() >> 56),
                2..6 => self.reclaim(i),
                6 | 7 => self.fault(i),
                8 => self.write(i, rng.next() >> 8),
                9 => self.fork(i, i + rng.below((self.table.len() - i) as u64) as usize),
                10 => self.unmap(i),
                _ => self.readahead(i),
            }
        }
    }
}

fn race(rig: Rig, device: &'static dyn SwapDevice, entries: usize, steps: u32) {
    let base = rig.frames.used();
    let area = rig.swap.swapon(device, SwapOn::default()).unwrap();
    let table = (0..entries)
        .map(|_| {
            Mutex::new(Slot {
                pte: Pte::None,
                fill: 0,
            })
        })
        .collect();
    let world = World { rig, table };
    std::thread::scope(|scope| {
        for seed in 1..=4 {
            let world = &world;
            scope.spawn(move || world.run(seed, steps));
        }
    });
    world.rig.swap.validate().unwrap();
    for i in 0..entries {
        world.unmap(i);
    }
    let swap = world.rig.swap;
    let info = swap.swapoff_begin(area).unwrap();
    assert_eq!(info.used, 0, "a page was left in the cache");
    swap.swapoff_end(area).unwrap();
    assert_eq!(world.rig.frames.used(), base);
}

#[test]
fn many_pages_on_a_disk() {
    race(Rig::new(800), Disk::new("discards", 500), 600, 40_000);
}

#[test]
fn few_pages_that_everybody_wants() {
    race(Rig::new(200), Disk::new("plain", 30), 6, 60_000);
}

#[test]
fn compressed_memory_that_moves_to_a_disk() {
    let rig = Rig::new(800);
    let disk = Disk::new("plain", 300);
    let zswap = Zswap::new(
        rig.frames,
        rig.vmstat,
        &Lz4,
        streams(),
        disk,
        12 * PAGE as u64,
    )
    .unwrap();
    let zswap: &'static Zswap<'static> = Box::leak(Box::new(zswap));
    race(rig, zswap, 250, 40_000);
    zswap.validate().unwrap();
    assert_eq!(zswap.stat().pages, 0);
    assert!(zswap.written_back() > 100);
}
