//! Random operations of several processes, and the map that they must equal.

mod common;

use common::{Disk, Lz4, PAGE, Rig, Rng, streams};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use vellum_machine::{VmEvent, VmItem};
use vellum_page::{PageFlags, PageSource};
use vellum_swap::{Checked, SameFilled, SwapDevice, SwapEntry, SwapInError, SwapOn, Zram, Zswap};
use vellum_types::Pfn;

/// What a table has for a page.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Pte {
    Present(Pfn),
    Swap(SwapEntry),
}

/// A page of a process: what its table says, and what must be read there.
struct Mapped {
    pte: Pte,
    fill: u64,
}

struct World {
    rig: Rig,
    rng: Rng,
    disks: Vec<&'static Disk>,
    pages: BTreeMap<u64, Mapped>,
    next: u64,
    /// Content that the disk cannot give back any more.
    lost: u64,
    base: usize,
}

impl World {
    fn new(seed: u64, ram: u32, disks: &[u32]) -> Self {
        let rig = Rig::new(ram);
        let names = ["plain", "discards", "plain", "discards"];
        let disks: Vec<_> = disks
            .iter()
            .zip(names)
            .map(|(slots, name)| Disk::new(name, *slots))
            .collect();
        let base = rig.frames.used();
        for (i, disk) in disks.iter().enumerate() {
            let priority = [None, Some(5), Some(5), Some(1)][i];
            let bad = if i == 1 { &[7][..] } else { &[] };
            rig.swap.swapon(*disk, SwapOn { priority, bad }).unwrap();
        }
        Self::with(rig, seed, base, disks)
    }

    fn with(rig: Rig, seed: u64, base: usize, disks: Vec<&'static Disk>) -> Self {
        Self {
            rig,
            rng: Rng(seed),
            disks,
            pages: BTreeMap::new(),
            next: 0,
            lost: 0,
            base,
        }
    }

    fn pick(&mut self) -> Option<u64> {
        if self.pages.is_empty() {
            return None;
        }
        let start = self.rng.below(self.next);
        (start..self.next)
            .chain(0..start)
            .find(|at| self.pages.contains_key(at))
    }

    fn insert(&mut self, mapped: Mapped) {
        self.pages.insert(self.next, mapped);
        self.next += 1;
        if self.next > 4000 {
            // Numbers begin again from 0, so that picking stays quick.
            let old = std::mem::take(&mut self.pages);
            self.next = 0;
            for (_, mapped) in old {
                self.pages.insert(self.next, mapped);
                self.next += 1;
            }
        }
    }

    fn touch_new(&mut self) {
        // Noise, text, or one word all over: see page_of.
        let fill = self.rng.next() >> [0, 8, 52][self.rng.below(3) as usize];
        if self.pages.len() > 1500 {
            return;
        }
        if let Ok(pfn) = self.rig.alloc() {
            let page = self.rig.memmap.page(pfn);
            page.set_state(vellum_page::PageState::Anon);
            page.set_flags(PageFlags::UPTODATE);
            page.map();
            self.rig.fill(pfn, fill);
            self.insert(Mapped {
                pte: Pte::Present(pfn),
                fill,
            });
        }
    }

    /// Reclaim of the page behind a present entry, as far as the dice want it.
    fn reclaim(&mut self) {
        let Some(at) = self.pick() else { return };
        let Pte::Present(pfn) = self.pages[&at].pte else {
            return;
        };
        let swap = self.rig.swap;
        let page = self.rig.memmap.page(pfn);
        page.get();
        let entry = match swap.entry_of(pfn) {
            Some(entry) => entry,
            None => match swap.add_to_swap(pfn) {
                Some(entry) => entry,
                None => return swap.put_page(pfn),
            },
        };
        let all = self.rng.below(8) != 0;
        for mapped in self.pages.values_mut() {
            if mapped.pte == Pte::Present(pfn) {
                swap.dup(entry).unwrap();
                mapped.pte = Pte::Swap(entry);
                page.unmap();
                assert!(!page.put());
                if !all {
                    break;
                }
            }
        }
        if page.mapcount() == 0 && self.rng.below(8) != 0 {
            let dirty = page.flags().contains(PageFlags::DIRTY);
            let result = if dirty { self.rig.write(pfn) } else { Ok(()) };
            let still = page.flags().contains(PageFlags::DIRTY);
            assert_eq!(result.is_err(), still, "{result:?}");
            if self.rng.below(4) != 0 {
                let shadow = self.rng.next() as u32;
                if swap.remove_for_reclaim(pfn, Some(shadow)) {
                    assert!(!still);
                    self.rig.frames.free_pages(pfn);
                    return;
                }
                assert!(still || page.refcount() > 2);
            }
        }
        swap.put_page(pfn);
    }

    /// A fault on a page, perhaps a write.
    fn fault(&mut self, write: bool) {
        let Some(at) = self.pick() else { return };
        let swap = self.rig.swap;
        let rig = &self.rig;
        let mapped = self.pages.get_mut(&at).unwrap();
        if let Pte::Swap(entry) = mapped.pte {
            match swap.swapin(entry, &mut || rig.alloc()) {
                Ok(found) => {
                    rig.expect(found.pfn, mapped.fill);
                    let page = rig.memmap.page(found.pfn);
                    assert_eq!(swap.entry_of(found.pfn), Some(entry));
                    let sole = swap.is_sole(entry);
                    page.map();
                    mapped.pte = Pte::Present(found.pfn);
                    swap.free(entry);
                    if sole {
                        assert!(swap.try_to_free_swap(found.pfn));
                        assert_eq!(page.refcount(), 1);
                    }
                }
                Err(SwapInError::OutOfMemory) => return,
                Err(SwapInError::Io { entry: e, .. }) => {
                    assert_eq!(e, entry);
                    if self.rng.below(4) == 0 {
                        // SIGBUS ended the owner.
                        swap.free(entry);
                        self.pages.remove(&at);
                        self.lost += 1;
                    }
                    return;
                }
                Err(error) => panic!("{entry:?}: {error}"),
            }
        }
        let mapped = self.pages.get_mut(&at).unwrap();
        let Pte::Present(pfn) = mapped.pte else {
            return;
        };
        rig.expect(pfn, mapped.fill);
        if !write {
            return;
        }
        let page = rig.memmap.page(pfn);
        let others = swap.entry_of(pfn).map_or(0, |entry| swap.count(entry));
        let cached = u32::from(swap.entry_of(pfn).is_some());
        let fill = self.rng.next() >> 8;
        if page.mapcount() == 1 && others == 0 && page.refcount() == 1 + cached {
            // The sole owner writes in place; a clean copy on disk is stale from now on.
            mapped.fill = fill;
            rig.fill(pfn, fill);
            page.set_flags(PageFlags::DIRTY);
            return;
        }
        let Ok(copy) = rig.alloc() else { return };
        mapped.fill = fill;
        rig.memmap
            .page(copy)
            .set_state(vellum_page::PageState::Anon);
        rig.memmap.page(copy).set_flags(PageFlags::UPTODATE);
        rig.memmap.page(copy).map();
        rig.fill(copy, mapped.fill);
        mapped.pte = Pte::Present(copy);
        page.unmap();
        swap.put_page(pfn);
    }

    fn fork(&mut self) {
        let Some(at) = self.pick() else { return };
        if self.pages.len() > 1500 {
            return;
        }
        let Mapped { pte, fill } = self.pages[&at];
        match pte {
            Pte::Present(pfn) => {
                self.rig.memmap.page(pfn).get();
                self.rig.memmap.page(pfn).map();
            }
            Pte::Swap(entry) => self.rig.swap.dup(entry).unwrap(),
        }
        self.insert(Mapped { pte, fill });
    }

    fn unmap(&mut self) {
        let Some(at) = self.pick() else { return };
        match self.pages.remove(&at).unwrap().pte {
            Pte::Present(pfn) => {
                self.rig.memmap.page(pfn).unmap();
                self.rig.swap.put_page(pfn);
            }
            Pte::Swap(entry) => self.rig.swap.free(entry),
        }
    }

    fn readahead(&mut self) {
        let Some(at) = self.pick() else { return };
        if let Pte::Swap(entry) = self.pages[&at].pte {
            let swap = self.rig.swap;
            swap.readahead(entry, &mut |pfn, _| {
                assert_ne!(swap.entry_of(pfn), Some(entry));
                swap.put_page(pfn);
            });
        }
    }

    fn step(&mut self) {
        match self.rng.below(16) {
            0..3 => self.touch_new(),
            3..8 => self.reclaim(),
            8..10 => self.fault(false),
            10..12 => self.fault(true),
            12 => self.fork(),
            13 | 14 => self.unmap(),
            _ => self.readahead(),
        }
    }

    /// Switches an area off as mm would, and on again.
    fn swapoff(&mut self, area: u8) {
        let swap = self.rig.swap;
        swap.swapoff_begin(area).unwrap();
        let mut from = 0;
        while let Some(used) = swap.next_used(area, from) {
            from = used.entry.slot();
            let rig = &self.rig;
            let Ok(found) = swap.swapin(used.entry, &mut || rig.alloc()) else {
                // Out of memory, or unreadable: nothing is lost.
                assert!(swap.swapoff_end(area).is_err());
                swap.swapoff_cancel(area).unwrap();
                return;
            };
            let page = rig.memmap.page(found.pfn);
            for mapped in self.pages.values_mut() {
                if mapped.pte == Pte::Swap(used.entry) {
                    page.get();
                    page.map();
                    mapped.pte = Pte::Present(found.pfn);
                    swap.free(used.entry);
                }
            }
            assert!(swap.try_to_free_swap(found.pfn));
            swap.put_page(found.pfn);
        }
        let device = swap.swapoff_end(area).unwrap();
        assert!(swap.swapoff_end(area).is_err());
        let priority = Some(5);
        let again = swap.swapon(
            device,
            SwapOn {
                priority,
                bad: &[9],
            },
        );
        match again {
            Ok(number) => assert_eq!(number, area),
            Err(vellum_swap::SwapError::OutOfMemory) => {
                self.rig.frames.fail_every(0);
                swap.swapon(
                    device,
                    SwapOn {
                        priority,
                        bad: &[9],
                    },
                )
                .unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn check(&self) {
        self.rig.swap.validate().unwrap();
        let mut counts = HashMap::new();
        let mut maps = HashMap::new();
        for mapped in self.pages.values() {
            match mapped.pte {
                Pte::Present(pfn) => *maps.entry(pfn).or_insert(0) += 1,
                Pte::Swap(entry) => *counts.entry(entry).or_insert(0) += 1,
            }
        }
        for (entry, count) in counts {
            assert_eq!(self.rig.swap.count(entry), count, "{entry:?}");
        }
        for (pfn, count) in maps {
            assert_eq!(self.rig.memmap.page(pfn).mapcount(), count);
        }
    }

    /// Ends all processes; everything must be back.
    fn finish(mut self) {
        for disk in &self.disks {
            disk.fail_every.store(0, Ordering::Relaxed);
        }
        self.rig.frames.fail_every(0);
        while !self.pages.is_empty() {
            self.unmap();
        }
        self.rig.swap.validate().unwrap();
        let mut areas = Vec::new();
        self.rig.swap.areas(&mut |info, _| areas.push(info.area));
        for area in areas {
            let info = self.rig.swap.swapoff_begin(area).unwrap();
            assert_eq!(info.used, 0, "slots are left");
            self.rig.swap.swapoff_end(area).unwrap();
        }
        assert_eq!(self.rig.frames.used(), self.base, "frames are left");
        assert_eq!(self.rig.vmstat.item(VmItem::NrSwapCached), 0);
        assert_eq!(self.rig.swap.free_slots(), 0);
    }
}

#[test]
fn agrees_with_a_map_on_several_areas() {
    let mut world = World::new(0x5eed_0004, 1400, &[400, 700, 300, 500]);
    for round in 0..400_000u32 {
        world.step();
        if round % 4096 == 0 {
            world.check();
        }
        if round % 50_000 == 49_999 {
            world.swapoff((round / 50_000 % 4) as u8);
        }
    }
    world.check();
    assert_eq!(world.lost, 0);
    let events = [
        VmEvent::PSwpIn,
        VmEvent::PSwpOut,
        VmEvent::SwapRa,
        VmEvent::SwapRaHit,
    ];
    for event in events {
        let n = world.rig.vmstat.events(event);
        assert!(n > 50, "{event:?}: {n}");
    }
    world.finish();
}

#[test]
fn agrees_when_every_nth_allocation_fails() {
    for every in [2, 3, 7, 50] {
        let mut world = World::new(every, 900, &[300, 300]);
        world.rig.frames.fail_every(every);
        for round in 0..15_000u32 {
            world.step();
            if round % 5000 == 4999 {
                world.swapoff((round / 5000 % 2) as u8);
                world.rig.frames.fail_every(every);
            }
        }
        world.check();
        world.finish();
    }
}

#[test]
fn agrees_when_devices_fail() {
    let mut world = World::new(99, 1200, &[3000, 3000, 3000]);
    for (disk, every) in world.disks.iter().zip([11, 30, 101]) {
        disk.fail_every.store(every, Ordering::Relaxed);
    }
    for round in 0..120_000u32 {
        world.step();
        if round % 4096 == 0 {
            world.check();
        }
    }
    world.check();
    assert!(world.lost > 10);
    let mut retired = 0;
    world.rig.swap.areas(&mut |info, _| retired += info.retired);
    assert!(retired > 100, "{retired}");
    world.finish();
}

#[test]
fn agrees_on_devices_in_front_of_each_other() {
    let rig = Rig::new(2200);
    let disk = Disk::new("discards", 900);
    let checked = Box::leak(Box::new(Checked::new(rig.frames, disk).unwrap()));
    let zswap = Zswap::new(
        rig.frames,
        rig.vmstat,
        &Lz4,
        streams(),
        checked,
        60 * PAGE as u64,
    )
    .unwrap();
    let zram = Zram::new(rig.frames, &Lz4, streams(), 900, 150 * PAGE as u64).unwrap();
    let (zswap, zram): (&Zswap<'_>, &Zram<'_>) =
        (Box::leak(Box::new(zswap)), Box::leak(Box::new(zram)));
    let plain = Disk::new("plain", 300);
    let same = Box::leak(Box::new(SameFilled::new(rig.frames, plain).unwrap()));
    let base = rig.frames.used();
    let devices: [&'static dyn SwapDevice; 3] = [zram, zswap, same];
    let priority = Some(7);
    for device in devices {
        rig.swap
            .swapon(device, SwapOn { priority, bad: &[] })
            .unwrap();
    }
    let mut world = World::with(rig, 12345, base, vec![disk, plain]);
    for round in 0..200_000u32 {
        world.step();
        if round % 8192 == 0 {
            world.check();
            zram.validate().unwrap();
            zswap.validate().unwrap();
        }
    }
    world.check();
    assert_eq!(checked.damaged(), None);
    for event in [VmEvent::ZswpIn, VmEvent::ZswpOut, VmEvent::ZswpWb] {
        let n = world.rig.vmstat.events(event);
        assert!(n > 50, "{event:?}: {n}");
    }
    assert!(zram.stat().pages > 0 && same.saved() > 0);
    world.finish();
}
