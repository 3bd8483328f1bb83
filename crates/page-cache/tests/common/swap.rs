//! A swap area that is a map, for shared memory.

use super::{Frames, Rig};
use std::collections::BTreeMap;
use std::sync::Mutex;
use vellum_machine::DirectMap;
use vellum_page::{AllocRequest, Page, PageFlags, PageSource, PageState};
use vellum_page_cache::{Mapping, SwapSlots};
use vellum_types::{Order, PAGE_SIZE, Pfn, SwapEntry};

#[derive(Default)]
struct Slot {
    bytes: Vec<u8>,
    count: u32,
    cached: Option<Pfn>,
}

pub struct Swap {
    slots: Mutex<BTreeMap<u32, Slot>>,
    frames: &'static Frames,
    ram: DirectMap<'static>,
}

impl Swap {
    pub fn new(frames: &'static Frames, ram: DirectMap<'static>) -> Self {
        Self {
            slots: Mutex::default(),
            frames,
            ram,
        }
    }

    /// Slots in use.
    pub fn live(&self) -> usize {
        self.slots.lock().unwrap().len()
    }

    fn page(&self, pfn: Pfn) -> &Page {
        self.frames.memmap().page(pfn)
    }

    /// Sends a page out, whose caller has a reference, as reclaim does; `None` if the file refuses.
    pub fn write_out(&self, rig: &Rig, mapping: &Mapping<'static>, pfn: Pfn) -> Option<SwapEntry> {
        self.begin_out(rig, mapping, pfn).inspect(|entry| {
            self.end_out(*entry, pfn);
        })
    }

    /// As `write_out`, but the page stays in the swap cache.
    pub fn begin_out(&self, rig: &Rig, mapping: &Mapping<'static>, pfn: Pfn) -> Option<SwapEntry> {
        let entry = {
            let mut slots = self.slots.lock().unwrap();
            if slots.values().any(|slot| slot.cached == Some(pfn)) {
                return None;
            }
            let raw = slots.last_key_value().map_or(1, |(last, _)| last + 1);
            let slot = Slot {
                bytes: rig.bytes(pfn.addr(), PAGE_SIZE),
                count: 1,
                cached: Some(pfn),
            };
            slots.insert(raw, slot);
            SwapEntry::from_raw(raw)
        };
        self.page(pfn).get();
        self.page(pfn).set_flags(PageFlags::SWAPCACHE);
        if mapping.swap_out(&rig.cache, pfn, entry) {
            return Some(entry);
        }
        self.free(entry);
        self.try_to_free_swap(pfn);
        None
    }

    /// The write ended and reclaim drops the page from the swap cache.
    fn end_out(&self, entry: SwapEntry, pfn: Pfn) {
        let mut slots = self.slots.lock().unwrap();
        slots.get_mut(&entry.raw()).unwrap().cached = None;
        self.page(pfn)
            .clear_flags(PageFlags::SWAPCACHE | PageFlags::DIRTY);
        assert!(!self.page(pfn).put());
    }

    /// Drops every page from the swap cache that only it has.
    pub fn drop_cached(&self) {
        for slot in self.slots.lock().unwrap().values_mut() {
            if let Some(pfn) = slot.cached
                && self.page(pfn).freeze(1)
            {
                slot.cached = None;
                self.frames.free_pages(pfn);
            }
        }
    }

    /// Reads a slot into the swap cache. False without a frame.
    pub fn read_in(&self, entry: SwapEntry) -> bool {
        let mut slots = self.slots.lock().unwrap();
        let slot = slots.get_mut(&entry.raw()).expect("a slot in use");
        if slot.cached.is_some() {
            return true;
        }
        let Ok(pfn) = self
            .frames
            .alloc_pages(AllocRequest::user_movable(Order::ZERO))
        else {
            return false;
        };
        self.ram.write_bytes(pfn.addr(), &slot.bytes);
        self.page(pfn).set_state(PageState::Anon);
        self.page(pfn)
            .set_flags(PageFlags::UPTODATE | PageFlags::SWAPCACHE | PageFlags::SWAPBACKED);
        slot.cached = Some(pfn);
        true
    }
}

impl SwapSlots for Swap {
    fn lookup(&self, entry: SwapEntry) -> Option<Pfn> {
        let slots = self.slots.lock().unwrap();
        let pfn = slots.get(&entry.raw())?.cached?;
        self.page(pfn).get();
        Some(pfn)
    }
    fn free(&self, entry: SwapEntry) {
        let mut slots = self.slots.lock().unwrap();
        let slot = slots.get_mut(&entry.raw()).expect("a slot in use");
        slot.count = slot.count.checked_sub(1).expect("freed twice");
        let idle = slot.cached.is_none_or(|pfn| self.page(pfn).freeze(1));
        if slot.count == 0 && idle {
            let cached = slot.cached;
            slots.remove(&entry.raw());
            if let Some(pfn) = cached {
                self.frames.free_pages(pfn);
            }
        } else if idle && let Some(pfn) = slot.cached {
            self.page(pfn).unfreeze(1);
        }
    }
    fn try_to_free_swap(&self, pfn: Pfn) {
        let mut slots = self.slots.lock().unwrap();
        let unused = |slot: &Slot| slot.cached == Some(pfn) && slot.count == 0;
        let found = slots
            .iter()
            .find(|(_, slot)| unused(slot))
            .map(|(raw, _)| *raw);
        if let Some(raw) = found {
            slots.remove(&raw);
            self.page(pfn).clear_flags(PageFlags::SWAPCACHE);
            self.page(pfn).set_flags(PageFlags::DIRTY);
            assert!(!self.page(pfn).put());
        }
    }
    fn put_page(&self, pfn: Pfn) {
        let mut slots = self.slots.lock().unwrap();
        let found = slots.iter().find(|(_, slot)| slot.cached == Some(pfn));
        match found.map(|(raw, slot)| (*raw, slot.count)) {
            Some((raw, 0)) if self.page(pfn).freeze(2) => {
                slots.remove(&raw);
                self.frames.free_pages(pfn);
            }
            Some(_) => assert!(!self.page(pfn).put()),
            None => {
                if self.page(pfn).put() {
                    self.frames.free_pages(pfn);
                }
            }
        }
    }
}
