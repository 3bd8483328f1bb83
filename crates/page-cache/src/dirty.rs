//! How much may be dirty, and which file is written first. Linux: `balance_dirty_pages`,
//! `fs/fs-writeback.c`.

use crate::{MappingRef, PageCache};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use vellum_machine::VmItem;
use vellum_types::Pfn;

/// `vm.dirty_background_ratio`, `vm.dirty_ratio` and `vm.dirty_expire_centisecs`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirtyLimits {
    /// Per cent of the memory that could be dirty: from here on, write in the background.
    pub background_ratio: u8,
    /// Per cent of the memory that could be dirty: from here on, programs write for themselves.
    pub ratio: u8,
    /// Milliseconds after which a dirty file is written in any case.
    pub expire_ms: u32,
}

impl Default for DirtyLimits {
    fn default() -> Self {
        Self {
            background_ratio: 10,
            ratio: 20,
            expire_ms: 30_000,
        }
    }
}

/// Whether dirty pages should be written, and by whom.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Wanted {
    /// Not now.
    No,
    /// When somebody has time for it.
    Background,
    /// Before the program that made them goes on.
    Now,
}

/// The limits, and the clocks of dirty files.
#[derive(Debug)]
pub(crate) struct DirtyState {
    background_ratio: AtomicU32,
    ratio: AtomicU32,
    expire_ms: AtomicU32,
    now_ms: AtomicU64,
    /// Counts files that became dirty: their order.
    last_ticket: AtomicU64,
}

impl DirtyState {
    pub(crate) fn new() -> Self {
        let limits = DirtyLimits::default();
        Self {
            background_ratio: AtomicU32::new(limits.background_ratio.into()),
            ratio: AtomicU32::new(limits.ratio.into()),
            expire_ms: AtomicU32::new(limits.expire_ms),
            now_ms: AtomicU64::new(0),
            last_ticket: AtomicU64::new(0),
        }
    }
}

/// When a file became dirty.
#[derive(Debug)]
pub(crate) struct Dirtied {
    ticket: AtomicU64,
    at_ms: AtomicU64,
}

impl Dirtied {
    pub(crate) const fn new() -> Self {
        Self {
            ticket: AtomicU64::new(0),
            at_ms: AtomicU64::new(0),
        }
    }
}

// All atomics here are Relaxed: tuning knobs, and times that only choose an order.
impl<'m> PageCache<'m> {
    /// The limits in force.
    pub fn dirty_limits(&self) -> DirtyLimits {
        DirtyLimits {
            background_ratio: self.dirty.background_ratio.load(Ordering::Relaxed) as u8,
            ratio: self.dirty.ratio.load(Ordering::Relaxed) as u8,
            expire_ms: self.dirty.expire_ms.load(Ordering::Relaxed),
        }
    }

    /// Sets the limits; ratios above 100 count as 100.
    pub fn set_dirty_limits(&self, limits: DirtyLimits) {
        let cap = |ratio: u8| u32::from(ratio.min(100));
        self.dirty
            .background_ratio
            .store(cap(limits.background_ratio), Ordering::Relaxed);
        self.dirty.ratio.store(cap(limits.ratio), Ordering::Relaxed);
        self.dirty
            .expire_ms
            .store(limits.expire_ms, Ordering::Relaxed);
    }

    /// Pages at which writing begins in the background, and by programs: the ratios of the memory that
    /// is free or caches files now. Shared memory is none of it. Linux's `global_dirty_limits`.
    pub fn dirty_thresholds(&self) -> (u64, u64) {
        let item = |item| self.vmstat.item(item);
        let files = item(VmItem::NrFilePages).saturating_sub(item(VmItem::NrShmem));
        let dirtyable = item(VmItem::NrFreePages) + files;
        let of = |ratio: &AtomicU32| dirtyable * u64::from(ratio.load(Ordering::Relaxed)) / 100;
        let limit = of(&self.dirty.ratio);
        let background = of(&self.dirty.background_ratio);
        let background = if background >= limit {
            limit / 2
        } else {
            background
        };
        (background, limit)
    }

    /// Whether dirty pages should be written. To be asked where an operation that may have made pages
    /// dirty holds no lock any more; the answer to `Background` and `Now` is
    /// [`PageCache::flush_some`]. Brings the two counters of thresholds up to date.
    pub fn writeback_wanted(&self) -> Wanted {
        let dirty = self.vmstat.item(VmItem::NrDirty);
        // What most calls find.
        if dirty == 0 {
            return Wanted::No;
        }
        let (background, limit) = self.dirty_thresholds();
        self.vmstat
            .set(VmItem::NrDirtyBackgroundThreshold, background);
        self.vmstat.set(VmItem::NrDirtyThreshold, limit);
        if dirty + self.vmstat.item(VmItem::NrWriteback) > limit {
            Wanted::Now
        } else if dirty > background {
            Wanted::Background
        } else {
            Wanted::No
        }
    }

    /// Pages to write so that nothing is wanted any more: down to the background threshold, at least
    /// one cluster of them.
    pub fn flush_target(&self) -> u64 {
        let (background, _) = self.dirty_thresholds();
        let dirty = self.vmstat.item(VmItem::NrDirty);
        dirty.saturating_sub(background).max(64)
    }

    /// Writes about `target` dirty pages, those of the file first that has been dirty longest; a file
    /// that is not clean after its turn goes to the end. Returns pages written: fewer if there are not
    /// so many, or they are being written already, or the store fails. An error is told to the file's
    /// openers. No lock is held by the caller, nor while `clean` runs, which is as for
    /// [`Mapping::writeback`](crate::Mapping::writeback).
    pub fn flush_some(
        &self,
        target: u64,
        clean: &mut dyn FnMut(&MappingRef<'m>, u64, &[Pfn]),
    ) -> u64 {
        self.flush(target, u64::MAX, clean)
    }

    /// Writes the files that have been dirty for longer than [`DirtyLimits::expire_ms`] at `now_ms`, by
    /// any clock that never goes back: what Linux's flusher does every five seconds. `now_ms` is also
    /// the time at which files become dirty from now on.
    pub fn flush_expired(
        &self,
        now_ms: u64,
        clean: &mut dyn FnMut(&MappingRef<'m>, u64, &[Pfn]),
    ) -> u64 {
        self.dirty.now_ms.fetch_max(now_ms, Ordering::Relaxed);
        let expire = u64::from(self.dirty.expire_ms.load(Ordering::Relaxed));
        match now_ms.checked_sub(expire) {
            Some(until) => self.flush(u64::MAX, until, clean),
            None => 0,
        }
    }

    fn flush(
        &self,
        target: u64,
        until_ms: u64,
        clean: &mut dyn FnMut(&MappingRef<'m>, u64, &[Pfn]),
    ) -> u64 {
        let mut written = 0;
        // Each file has one turn: those after this ticket had theirs.
        let end = self.dirty.last_ticket.load(Ordering::Relaxed);
        let mut after = 0;
        while written < target
            && let Some((ticket, mapping)) = self.oldest_dirty(after, end, until_ms)
        {
            after = ticket;
            let clean = &mut |index, run: &[Pfn]| clean(&mapping, index, run);
            written += mapping.write_some(self, target - written, clean);
            if mapping.nr_dirty() == 0 {
                self.forget_dirty(&mapping);
            } else {
                self.stamp(&mapping);
            }
        }
        written
    }

    /// The file that has been dirty longest, of those with a ticket in `after + 1 ..= end` that became
    /// dirty at `until_ms` or before. Looks at each dirty file.
    fn oldest_dirty(&self, after: u64, end: u64, until_ms: u64) -> Option<(u64, MappingRef<'m>)> {
        let mut oldest: Option<(u64, MappingRef<'m>)> = None;
        self.for_each_dirty(&mut |mapping| {
            let ticket = mapping.dirtied.ticket.load(Ordering::Relaxed);
            let fits = ticket > after
                && ticket <= end
                && mapping.dirtied.at_ms.load(Ordering::Relaxed) <= until_ms;
            if fits && oldest.as_ref().is_none_or(|(best, _)| ticket < *best) {
                oldest = Some((ticket, mapping.clone()));
            }
        });
        oldest
    }

    /// A file became dirty, or had its turn.
    pub(crate) fn stamp(&self, mapping: &crate::Mapping<'m>) {
        let ticket = self.dirty.last_ticket.fetch_add(1, Ordering::Relaxed) + 1;
        let now = self.dirty.now_ms.load(Ordering::Relaxed);
        mapping.dirtied.at_ms.store(now, Ordering::Relaxed);
        mapping.dirtied.ticket.store(ticket, Ordering::Relaxed);
    }
}
