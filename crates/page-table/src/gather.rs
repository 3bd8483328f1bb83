//! From unmapped to free, by way of the TLB.

use vellum_machine::{Machine, Trace, TraceEvent};
use vellum_page::PageSource;
use vellum_types::{PAGE_SIZE, Pfn, SpaceId, VirtAddr, VirtRange};

/// Ranges that are remembered apart. Beyond that, one range covers all: flushing too much is slow,
/// never wrong.
const RANGES: usize = 8;
/// Frames that wait for one flush.
const FRAMES: usize = 128;

/// Frames that were unmapped from one address space, and the addresses that must be flushed before
/// they may be free. Linux's `mmu_gather`.
///
/// ```text
///   entry cleared ──remove──▶ pending ──flush──▶ flush_tlb_range, flush_wait ──▶ put, free if last
/// ```
///
/// # Invariants
/// Each pending frame was reachable only through addresses in `ranges` (or `all` is set).
/// Dropping it flushes.
pub struct TlbGather<'a, M: Machine> {
    machine: &'a M,
    source: &'a dyn PageSource,
    space: SpaceId,
    trace: Trace<'a>,
    all: bool,
    nr_ranges: u8,
    nr_frames: u8,
    ranges: [Option<VirtRange>; RANGES],
    frames: [Pfn; FRAMES],
}

const _: () = assert!(FRAMES <= u8::MAX as usize);

impl<'a, M: Machine> TlbGather<'a, M> {
    /// Nothing pending. With [`SpaceId::KERNEL`], a flush is one of all kernel translations.
    pub fn new(
        machine: &'a M,
        source: &'a dyn PageSource,
        space: SpaceId,
        trace: Trace<'a>,
    ) -> Self {
        Self {
            machine,
            source,
            space,
            trace,
            all: false,
            nr_ranges: 0,
            nr_frames: 0,
            ranges: [None; RANGES],
            frames: [Pfn::NONE; FRAMES],
        }
    }

    /// The entry of `va` was cleared. The reference that it held on `frame` is dropped after the
    /// flush. Linux's `tlb_remove_page`.
    #[inline]
    pub fn remove(&mut self, va: VirtAddr, frame: Pfn) {
        if let Some(range) = VirtRange::from_len(va.page_down(), PAGE_SIZE) {
            self.note_flush(range);
        }
        self.remove_frame(frame);
    }

    /// The link of a table was cleared that translated `range`. The table's frame is freed after the
    /// flush. Linux's `tlb_remove_table`. Also right for a huge entry with one reference.
    pub fn remove_table(&mut self, range: VirtRange, frame: Pfn) {
        self.note_flush(range);
        self.remove_frame(frame);
    }

    /// Entries in `range` were cleared or changed, and their frames stay as they are.
    #[inline]
    pub fn note_flush(&mut self, range: VirtRange) {
        let count = usize::from(self.nr_ranges);
        // Callers go through addresses in order: mostly this is the page behind the last range.
        if let Some(Some(last)) = self.ranges.get_mut(count.wrapping_sub(1))
            && last.end() == range.start()
            && let Some(longer) = VirtRange::new(last.start(), range.end())
        {
            *last = longer;
            return;
        }
        self.note_elsewhere(range);
    }

    fn note_elsewhere(&mut self, range: VirtRange) {
        if self.all {
            return;
        }
        let count = usize::from(self.nr_ranges);
        // The newest first: callers go through addresses in order.
        for slot in self.ranges[..count].iter_mut().rev() {
            if let Some(have) = slot
                && let Some(both) = union_if_touching(*have, range)
            {
                *slot = Some(both);
                return;
            }
        }
        if count < RANGES {
            self.ranges[count] = Some(range);
            self.nr_ranges += 1;
            return;
        }
        let cover = self
            .ranges
            .iter()
            .flatten()
            .fold(range, |a, b| cover(a, *b));
        self.ranges = [None; RANGES];
        self.ranges[0] = Some(cover);
        self.nr_ranges = 1;
    }

    /// The next flush drops all translations of the space.
    pub fn note_flush_all(&mut self) {
        self.all = true;
        self.nr_ranges = 0;
        self.ranges = [None; RANGES];
    }

    /// `frame` waits for a flush whose addresses are already noted.
    #[inline]
    pub(crate) fn remove_frame(&mut self, frame: Pfn) {
        self.frames[usize::from(self.nr_frames)] = frame;
        self.nr_frames += 1;
        if usize::from(self.nr_frames) == FRAMES {
            self.flush();
        }
    }

    /// How many frames wait.
    pub fn pending_frames(&self) -> usize {
        usize::from(self.nr_frames)
    }

    /// Flushes what is noted, waits until that is in force everywhere, then drops the references on
    /// the pending frames and frees those that were the last.
    pub fn flush(&mut self) {
        if self.all || self.nr_ranges > 0 {
            self.flush_translations();
        }
        self.all = false;
        self.nr_ranges = 0;
        let frames = usize::from(core::mem::take(&mut self.nr_frames));
        let memmap = self.source.memmap();
        for frame in &self.frames[..frames] {
            if memmap.page(*frame).put() {
                self.source.free_pages(*frame);
            }
        }
    }
}

impl<M: Machine> TlbGather<'_, M> {
    fn flush_translations(&mut self) {
        let space = self.space;
        let everything = VirtRange::new(VirtAddr::ZERO, VirtAddr::new(u64::MAX));
        if space == SpaceId::KERNEL {
            // Seldom: tables of the kernel half come and go at boot and where huge entries are made.
            self.ranges = [None; RANGES];
            if let Some(range) = everything {
                self.machine.flush_tlb_kernel_range(range);
            }
            return;
        }
        if self.all {
            self.machine.flush_tlb_mm(space);
            if let Some(range) = everything {
                self.trace.emit(TraceEvent::TlbFlush { space, range });
            }
        }
        for slot in &mut self.ranges[..usize::from(self.nr_ranges)] {
            if let Some(range) = slot.take() {
                self.machine.flush_tlb_range(space, range);
                self.trace.emit(TraceEvent::TlbFlush { space, range });
            }
        }
        self.machine.flush_wait(space);
    }
}

impl<M: Machine> Drop for TlbGather<'_, M> {
    fn drop(&mut self) {
        self.flush();
    }
}

fn cover(a: VirtRange, b: VirtRange) -> VirtRange {
    VirtRange::new(a.start().min(b.start()), a.end().max(b.end())).unwrap_or(a)
}

fn union_if_touching(a: VirtRange, b: VirtRange) -> Option<VirtRange> {
    (a.start() <= b.end() && b.start() <= a.end()).then(|| cover(a, b))
}
