//! `Swap`: all areas.

use crate::area::Area;
use crate::array::FrameArray;
use crate::order::Order;
use crate::readahead::SwapReadahead;
use crate::word::SlotWord;
use crate::{AreaInfo, SwapDevice, SwapError, SwapOn, UsedSlot};
use core::sync::atomic::{AtomicU64, Ordering};
use vellum_machine::{DirectMap, LockRank, SpinGuard, SpinLock, VmStat};
use vellum_page::{Memmap, Page, PageSource};
use vellum_types::{OutOfMemory, Pfn, SwapEntry};

const AREAS: usize = SwapEntry::AREAS as usize;

/// The swap areas of a system, and the swap cache.
pub struct Swap<'m> {
    pub(crate) source: &'m dyn PageSource,
    pub(crate) ram: DirectMap<'m>,
    pub(crate) vmstat: &'m VmStat,
    memmap: Memmap<'m>,
    areas: [SpinLock<Option<Area<'m>>>; AREAS],
    order: SpinLock<Order>,
    /// Of each frame, the entry that it is cached for. Written under the area's lock.
    entries: FrameArray<'m, u32>,
    /// The first of these.
    first_frame: Pfn,
    pub(crate) readahead: SwapReadahead,
    /// Free slots of areas that give out slots. Relaxed: an estimate for policy.
    free: AtomicU64,
    /// Usable slots of all areas that are not being switched off, for [`Swap::is_half_full`].
    usable: AtomicU64,
}

impl<'m> Swap<'m> {
    /// No areas yet. Takes 4 bytes for each frame of RAM from `source`, from which also the tables of
    /// areas come, and to which frames go whose last user is the swap cache.
    ///
    /// # Errors
    /// No memory for that.
    pub fn new(source: &'m dyn PageSource, vmstat: &'m VmStat) -> Result<Self, OutOfMemory> {
        let memmap = source.memmap();
        Ok(Self {
            source,
            ram: source.ram(),
            vmstat,
            memmap,
            areas: core::array::from_fn(|_| SpinLock::new(LockRank::Swap, None)),
            order: SpinLock::new(LockRank::Swap, Order::new()),
            first_frame: memmap.span().start(),
            entries: FrameArray::new(source, memmap.span().len())?,
            readahead: SwapReadahead::new(),
            free: AtomicU64::new(0),
            usable: AtomicU64::new(0),
        })
    }

    /// Puts `device` into use; returns the number of the area. Swap-outs may use it from now on.
    /// Linux's swapon(2) after the header was read.
    ///
    /// # Errors
    /// It has no usable slot, or there is no memory for its tables (8 bytes a slot), or no number.
    pub fn swapon(&self, device: &'m dyn SwapDevice, how: SwapOn<'_>) -> Result<u8, SwapError> {
        let priority = match how.priority {
            Some(priority) => priority,
            None => self.order.lock().auto_priority(),
        };
        let mut new = Some(Area::new(self.source, device, priority, how.bad)?);
        let usable = new.as_ref().map_or(0, |area| area.usable);
        for (number, place) in (0..SwapEntry::AREAS).zip(&self.areas) {
            let mut place = place.lock();
            if place.is_none() {
                *place = new.take();
                drop(place);
                self.usable.fetch_add(u64::from(usable), Ordering::Relaxed);
                self.add_free(u64::from(usable));
                self.order.lock().insert(priority, number);
                return Ok(number);
            }
        }
        Err(SwapError::TooManyAreas)
    }

    /// First half of swapoff(2): no new slots are given out. The caller then brings back what
    /// [`Swap::next_used`] shows, and calls [`Swap::swapoff_end`], or gives up by
    /// [`Swap::swapoff_cancel`].
    ///
    /// # Errors
    /// No such area, or it is being switched off already.
    pub fn swapoff_begin(&self, area: u8) -> Result<AreaInfo, SwapError> {
        let info = self.set_draining(area, true)?;
        self.order.lock().remove(area);
        self.usable
            .fetch_sub(u64::from(info.usable), Ordering::Relaxed);
        self.sub_free(u64::from(info.usable - info.used));
        Ok(info)
    }

    /// Uses an area again that was to be switched off.
    ///
    /// # Errors
    /// No such area, or it is not being switched off.
    pub fn swapoff_cancel(&self, area: u8) -> Result<(), SwapError> {
        let info = self.set_draining(area, false)?;
        self.usable
            .fetch_add(u64::from(info.usable), Ordering::Relaxed);
        self.add_free(u64::from(info.usable - info.used));
        self.order.lock().insert(info.priority, area);
        Ok(())
    }

    fn set_draining(&self, number: u8, draining: bool) -> Result<AreaInfo, SwapError> {
        let mut area = self.area(number).ok_or(SwapError::NoArea)?;
        let area = area.as_mut().ok_or(SwapError::NoArea)?;
        if area.draining == draining {
            return Err(SwapError::NoArea);
        }
        area.draining = draining;
        Ok(area.info(number))
    }

    /// Second half of swapoff(2): gives the device and the memory of the tables back.
    ///
    /// # Errors
    /// Slots are in use, so that content would be lost: nothing changes. Or no such area, or
    /// [`Swap::swapoff_begin`] was not called.
    pub fn swapoff_end(&self, number: u8) -> Result<&'m dyn SwapDevice, SwapError> {
        let mut place = self.area(number).ok_or(SwapError::NoArea)?;
        match place.as_ref() {
            Some(area) if !area.draining => Err(SwapError::NoArea),
            Some(area) if area.used != 0 => Err(SwapError::Busy { used: area.used }),
            _ => {
                let area = place.take().ok_or(SwapError::NoArea)?;
                // The tables are freed without the lock.
                drop(place);
                Ok(area.device)
            }
        }
    }

    /// The first slot of the area, from slot `from` on, that is in use: what swapoff has to bring
    /// back. Linux's `find_next_to_unuse`. Looks at up to 4096 slots at a time under the lock.
    pub fn next_used(&self, area: u8, from: u32) -> Option<UsedSlot> {
        let mut from = from;
        loop {
            let place = self.area(area)?;
            let words = place.as_ref()?;
            let end = words.words.len();
            if from >= end {
                return None;
            }
            let stop = from.saturating_add(4096).min(end);
            if let Some((slot, word)) = words.next_used(from, stop) {
                return Some(UsedSlot {
                    entry: SwapEntry::new(area, slot)?,
                    count: word.count(),
                    cached: word.cached().is_some(),
                });
            }
            from = stop;
        }
    }

    /// The areas in use: `/proc/swaps`.
    pub fn areas(&self, each: &mut dyn FnMut(AreaInfo, &'m dyn SwapDevice)) {
        for number in 0..SwapEntry::AREAS {
            let found = self
                .area(number)
                .and_then(|area| area.as_ref().map(|area| (area.info(number), area.device)));
            if let Some((info, device)) = found {
                each(info, device);
            }
        }
    }

    /// Free slots; 0 if anonymous pages cannot go out. Linux's `get_nr_swap_pages`. Does not ask the
    /// devices whether they have room.
    #[inline]
    pub fn free_slots(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    /// True if more than half of all slots are in use, so that one that is held only to save a later
    /// write had better be freed. Linux's `vm_swap_full`.
    #[inline]
    pub fn is_half_full(&self) -> bool {
        self.free_slots() * 2 < self.usable.load(Ordering::Relaxed)
    }

    /// Takes a slot and makes `word` its word.
    #[inline]
    pub(crate) fn take_slot(&self, word: SlotWord) -> Option<SwapEntry> {
        let mut tried = 0;
        loop {
            let number = self.order.lock().candidate(tried)?;
            let taken = self
                .area(number)
                .and_then(|mut area| area.as_mut().and_then(|area| area.take(word)));
            if let Some((slot, first)) = taken {
                self.sub_free(1);
                if first {
                    self.order.lock().next_turn();
                }
                return SwapEntry::new(number, slot);
            }
            tried += 1;
        }
    }

    /// Gives up a slot whose word is Releasing.
    #[inline]
    pub(crate) fn release(&self, entry: SwapEntry) {
        let Some(mut place) = self.area(entry.area()) else {
            return;
        };
        if let Some(area) = place.as_mut() {
            self.give_back(area, entry.slot());
        }
    }

    #[inline]
    pub(crate) fn give_back(&self, area: &mut Area<'m>, slot: u32) {
        let good = area.give_back(slot);
        match (area.draining, good) {
            (true, _) => {}
            (false, true) => self.add_free(1),
            (false, false) => {
                self.usable.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// The place of an area, locked; `None` if the number is none.
    #[inline]
    pub(crate) fn area(&self, number: u8) -> Option<SpinGuard<'_, Option<Area<'m>>>> {
        self.areas.get(usize::from(number)).map(SpinLock::lock)
    }

    /// Runs `f` on the area of an entry; `None` if there is no such slot.
    #[inline]
    pub(crate) fn with_slot<R>(
        &self,
        entry: SwapEntry,
        f: impl FnOnce(&mut Area<'m>, u32) -> R,
    ) -> Option<R> {
        let mut place = self.area(entry.area())?;
        let area = place.as_mut()?;
        (entry.slot() < area.words.len()).then(|| f(area, entry.slot()))
    }

    #[inline]
    pub(crate) fn page(&self, pfn: Pfn) -> &'m Page {
        self.memmap.page(pfn)
    }

    #[inline]
    pub(crate) fn side(&self, pfn: Pfn) -> SwapEntry {
        SwapEntry::from_raw(self.entries.get(pfn - self.first_frame))
    }

    #[inline]
    pub(crate) fn set_side(&self, pfn: Pfn, entry: SwapEntry) {
        self.entries.set(pfn - self.first_frame, entry.raw());
    }

    pub(crate) fn frames(&self) -> impl Iterator<Item = Pfn> + use<> {
        let span = self.memmap.span();
        (0..span.len()).map(move |i| span.start() + i)
    }

    fn add_free(&self, n: u64) {
        self.free.fetch_add(n, Ordering::Relaxed);
    }

    fn sub_free(&self, n: u64) {
        self.free.fetch_sub(n, Ordering::Relaxed);
    }
}

impl core::fmt::Debug for Swap<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut list = f.debug_list();
        self.areas(&mut |info, _| {
            list.entry(&info);
        });
        list.finish()
    }
}
