//! Swap-in and swap-out.

use crate::word::Kind;
use crate::{Swap, SwapDevice, SwapInError};
use vellum_machine::VmEvent;
use vellum_page::{AllocRequest, PageFlags, PageState};
use vellum_types::{GfpFlags, IoError, Order, OutOfMemory, Pfn, SwapEntry};

/// The most pages of one write, Linux's `SWAP_CLUSTER_MAX`.
const WRITE_MAX: usize = 32;

/// A page that was brought back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SwappedIn {
    /// The frame, UPTODATE, in the swap cache, with a reference for the caller.
    pub pfn: Pfn,
    /// It was read from the device just now: a major fault, and nobody has put it on a list yet.
    pub read: bool,
    /// What was left at its eviction, if it was read just now.
    pub shadow: Option<u32>,
}

/// How an attempt to put a frame into the cache went.
enum Entered<'m> {
    New {
        device: &'m dyn SwapDevice,
        shadow: Option<u32>,
    },
    /// Another page is there, or the entry is not in use.
    Not,
}

impl<'m> Swap<'m> {
    /// The page of `entry`: from the cache, or read into a frame that `alloc` gives (state Allocated,
    /// refcount 1), which becomes Anon and SWAPBACKED. No lock may be held. Linux's `swapin_readahead`
    /// without the readahead.
    ///
    /// The caller then takes the lock of his table, and uses the page only if his entry is still
    /// `entry` and [`Swap::entry_of`] says so of the page too.
    ///
    /// # Errors
    /// See [`SwapInError`]. If the device failed, the slot and its count are as before.
    #[inline]
    pub fn swapin(
        &self,
        entry: SwapEntry,
        alloc: &mut dyn FnMut() -> Result<Pfn, OutOfMemory>,
    ) -> Result<SwappedIn, SwapInError> {
        if let Some(pfn) = self.lookup(entry) {
            return self.found(pfn);
        }
        if !self
            .with_slot(entry, |area, slot| area.word(slot).count() != 0)
            .unwrap_or(false)
        {
            return Err(SwapInError::Gone);
        }
        let pfn = alloc()?;
        match self.enter(entry, pfn, false) {
            Entered::New { device, shadow } => {
                self.fill(entry, pfn, device)
                    .map_err(|error| SwapInError::Io { entry, error })?;
                Ok(SwappedIn {
                    pfn,
                    read: true,
                    shadow,
                })
            }
            Entered::Not => {
                self.source.free_pages(pfn);
                match self.lookup(entry) {
                    Some(pfn) => self.found(pfn),
                    None => Err(SwapInError::Gone),
                }
            }
        }
    }

    /// A page that was in the cache already.
    fn found(&self, pfn: Pfn) -> Result<SwappedIn, SwapInError> {
        if self.page(pfn).flags().contains(PageFlags::UPTODATE) {
            return Ok(SwappedIn {
                pfn,
                read: false,
                shadow: None,
            });
        }
        self.put_page(pfn);
        Err(SwapInError::Busy)
    }

    /// Reads neighbours of `entry` that may be wanted soon, into frames that are to be had without
    /// effort. Each page read is handed to `each` with its shadow, and a reference that is `each`'s to
    /// give back by [`Swap::put_page`]. Returns how many were read; a failure ends it silently. No lock
    /// may be held. Linux's `swap_cluster_readahead`.
    pub fn readahead(&self, entry: SwapEntry, each: &mut dyn FnMut(Pfn, Option<u32>)) -> u32 {
        let nr_slots = self
            .with_slot(entry, |area, _| area.words.len())
            .unwrap_or(0);
        let request = AllocRequest {
            order: Order::ZERO,
            gfp: GfpFlags::HIGHUSER_MOVABLE | GfpFlags::NORETRY | GfpFlags::NOWARN,
        };
        let mut read = 0;
        for slot in self.readahead.window(entry.slot(), nr_slots) {
            let Some(near) = SwapEntry::new(entry.area(), slot).filter(|near| *near != entry)
            else {
                continue;
            };
            if !self
                .with_slot(near, |area, slot| worth_reading(area.word(slot)))
                .unwrap_or(false)
            {
                continue;
            }
            let Ok(pfn) = self.source.alloc_pages(request) else {
                break;
            };
            let Entered::New { device, shadow } = self.enter(near, pfn, true) else {
                self.source.free_pages(pfn);
                continue;
            };
            if self.fill(near, pfn, device).is_err() {
                break;
            }
            self.vmstat.count(VmEvent::SwapRa);
            each(pfn, shadow);
            read += 1;
        }
        read
    }

    /// How readahead is tuned.
    pub fn readahead_control(&self) -> &crate::SwapReadahead {
        &self.readahead
    }

    /// Puts a new frame, locked, not UPTODATE, into the cache: the first half of a read.
    #[inline]
    fn enter(&self, entry: SwapEntry, pfn: Pfn, ahead: bool) -> Entered<'m> {
        let page = self.page(pfn);
        self.with_slot(entry, |area, slot| {
            let word = area.word(slot);
            if !worth_reading(word) {
                return Entered::Not;
            }
            page.set_state(PageState::Anon);
            page.set_flags(PageFlags::LOCKED | PageFlags::SWAPCACHE | PageFlags::SWAPBACKED);
            page.get();
            let filled = word.with_page(pfn);
            area.set_word(slot, if ahead { filled.ahead() } else { filled });
            self.attach(entry, pfn);
            Entered::New {
                device: area.device,
                shadow: word.shadow(),
            }
        })
        .unwrap_or(Entered::Not)
    }

    /// Reads the frame: the second half. On failure it leaves the cache, and both references are gone.
    #[inline]
    fn fill(&self, entry: SwapEntry, pfn: Pfn, device: &'m dyn SwapDevice) -> Result<(), IoError> {
        let page = self.page(pfn);
        let result = device.read(entry.slot(), pfn, self.ram);
        match result {
            Ok(()) => {
                page.set_flags(PageFlags::UPTODATE);
                self.vmstat.count(VmEvent::PSwpIn);
            }
            Err(_) => {
                let after = self.with_slot(entry, |area, slot| {
                    self.detach(area, slot, pfn, None);
                    // Its last table entry may have gone meanwhile.
                    (area.word(slot).count() == 0).then(|| self.unuse(area, slot))
                });
                if let Some(after) = after.flatten() {
                    self.finish(entry, after);
                }
                let last = page.put();
                debug_assert!(!last, "our own reference is left");
            }
        }
        page.unlock();
        if result.is_err() {
            self.put_page(pfn);
        }
        result
    }

    /// Writes dirty pages of the cache to their slots, neighbours in one request, and reports each in
    /// turn. The caller holds a reference to each and its page lock, and nobody may write to them by
    /// a table entry. Linux's `swap_writepage`.
    ///
    /// A page that was written is clean. One that was not stays dirty, in memory and in the cache, and
    /// its slot is taken out of use as soon as it is free, unless the device was only full
    /// ([`IoError::ENOSPC`]).
    pub fn write(&self, pages: &[Pfn], done: &mut dyn FnMut(Pfn, Result<(), IoError>)) {
        let mut rest = pages;
        while let Some(&first) = rest.first() {
            let start = self.entry_of(first);
            let run = start.map_or(1, |start| {
                let neighbours = rest.iter().take(WRITE_MAX).zip(start.raw()..);
                neighbours
                    .take_while(|(pfn, raw)| self.side(**pfn).raw() == *raw)
                    .count()
                    .max(1)
            });
            let (run, tail) = rest.split_at(run);
            rest = tail;
            match start {
                Some(start) => self.write_run(start, run, done),
                None => done(first, Err(IoError::EIO)),
            }
        }
    }

    fn write_run(
        &self,
        start: SwapEntry,
        mut run: &[Pfn],
        done: &mut dyn FnMut(Pfn, Result<(), IoError>),
    ) {
        let mut slot = start.slot();
        // The pages' slots are in use, so the area stays.
        let device = self.with_slot(start, |area, _| area.device);
        while !run.is_empty() {
            for pfn in run {
                let page = self.page(*pfn);
                page.set_flags(PageFlags::WRITEBACK);
                page.clear_flags(PageFlags::DIRTY);
            }
            let result = match device {
                Some(device) => device.write(slot, run, self.ram),
                None => Err(crate::WriteError::first(IoError::EIO)),
            };
            let (good, failed) = match result {
                Ok(()) => (run.len(), None),
                Err(failure) => (failure.done.min(run.len() - 1), Some(failure.error)),
            };
            self.vmstat.count_many(VmEvent::PSwpOut, good as u64);
            for pfn in &run[..good] {
                self.page(*pfn).clear_flags(PageFlags::WRITEBACK);
                done(*pfn, Ok(()));
            }
            slot += good as u32;
            run = &run[good..];
            if let (Some(error), Some((&pfn, after))) = (failed, run.split_first()) {
                for pfn in run {
                    let page = self.page(*pfn);
                    page.set_flags(PageFlags::DIRTY);
                    page.clear_flags(PageFlags::WRITEBACK);
                }
                if error != IoError::ENOSPC {
                    self.retire(start.area(), slot);
                }
                done(pfn, Err(error));
                slot += 1;
                run = after;
            }
        }
    }

    /// The slot is bad from the moment it is free.
    fn retire(&self, area: u8, slot: u32) {
        let Some(entry) = SwapEntry::new(area, slot) else {
            return;
        };
        self.with_slot(entry, |area, slot| {
            let word = area.word(slot);
            if !word.is_retired() {
                area.set_word(slot, word.retired());
                area.retired += 1;
            }
        });
    }
}

/// True if the slot has a content that somebody needs and that is not in memory.
fn worth_reading(word: crate::word::SlotWord) -> bool {
    word.count() != 0 && matches!(word.kind(), Kind::Empty | Kind::Shadow)
}
