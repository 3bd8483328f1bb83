//! Where descriptors are, when memory has holes.

use crate::Page;
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering};
use vellum_machine::DirectMap;
use vellum_types::{Order, PAGE_SIZE, Pfn, PfnRange, PhysAddr};

/// The order of a pageblock, the unit in which mobility is tracked: 2 MiB. Linux's `pageblock_order`.
pub const PAGEBLOCK_ORDER: Order = match Order::new(9) {
    Some(order) => order,
    None => Order::MAX,
};

/// log2 of the frames of a section: 128 MiB. Linux's `PFN_SECTION_SHIFT` on x86-64.
const SECTION_SHIFT: u32 = 15;

/// Which pageblock of the machine holds a frame.
#[inline]
pub(crate) const fn block_number(pfn: Pfn) -> u32 {
    pfn.as_u32() >> PAGEBLOCK_ORDER.as_u8()
}

/// A word for each pageblock, whose content is the page allocator's. Linux's `pageblock_flags`.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Pageblock(pub AtomicU32);

/// A run of frames whose descriptors are an array.
///
/// # Invariants
/// While `online`, `start..end` frames have descriptors at `pages` and their pageblocks at `blocks`,
/// given up for the table's `'m`. Start, end and the pointers are written before the run is linked or
/// while it is offline, never otherwise.
#[derive(Debug, Default)]
pub struct Run {
    start: AtomicU32,
    end: AtomicU32,
    pages: AtomicPtr<Page>,
    blocks: AtomicPtr<Pageblock>,
    online: AtomicBool,
    /// The next run in ascending order, plus one; zero is none.
    next: AtomicU8,
}

impl Run {
    fn contains(&self, pfn: Pfn) -> bool {
        // Relaxed: the link through which the run was found, or `online`, orders.
        pfn.as_u32() >= self.start.load(Ordering::Relaxed)
            && pfn.as_u32() < self.end.load(Ordering::Relaxed)
    }

    fn range(&self) -> Option<PfnRange> {
        let start = Pfn::new(self.start.load(Ordering::Relaxed));
        PfnRange::new(start, Pfn::new(self.end.load(Ordering::Relaxed)))
    }
}

/// Why a run was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunError {
    /// All slots are in use.
    Full,
    /// It overlaps a run, or lies outside the directory.
    Misplaced,
}

/// All runs of descriptors, found by section.
///
/// ```text
///   memory      ├── run 0 ──┤   ├─ run 1 ─┤          ├────── run 2 ──────┤
///   sections  |      0      |      1      |     2     |     3     |     4     |
///   directory        0             0            –           2           2
///   from there a chain in ascending order:  run 0 → run 1 → run 2
/// ```
/// # Invariants
/// Runs do not overlap and begin and end in different blocks of the largest order. The directory
/// names the lowest run that touches a section.
#[derive(Debug)]
pub struct RunTable<'m> {
    runs: &'m [Run],
    directory: &'m [AtomicU8],
    first_section: u32,
    used: AtomicU32,
    frames: AtomicU64,
    /// The largest run when the first handle was made, plus one; zero before.
    main: AtomicU8,
    pages: PhantomData<&'m Page>,
}

const fn section_of(pfn: Pfn) -> u32 {
    pfn.as_u32() >> SECTION_SHIFT
}

fn pageblocks(range: PfnRange) -> u32 {
    let last = Pfn::new(range.end().as_u32() - 1);
    block_number(last) - block_number(range.start()) + 1
}

impl<'m> RunTable<'m> {
    /// The most runs of one table: the directory has a byte for each section.
    pub const MAX_RUNS: usize = 254;

    /// An empty table over fresh memory: so many runs at most, in the sections of `span`.
    ///
    /// # Panics
    /// If there are more than [`RunTable::MAX_RUNS`] runs, or fewer bytes than
    /// [`RunTable::sections`].
    pub fn new(runs: &'m [Run], directory: &'m [AtomicU8], span: PfnRange) -> Self {
        assert!(runs.len() <= Self::MAX_RUNS, "too many runs");
        assert!(directory.len() >= Self::sections(span), "a byte each");
        Self {
            runs,
            directory,
            first_section: section_of(span.start()),
            used: AtomicU32::new(0),
            frames: AtomicU64::new(0),
            main: AtomicU8::new(0),
            pages: PhantomData,
        }
    }

    /// Sections of 128 MiB that `span` touches.
    pub const fn sections(span: PfnRange) -> usize {
        let last = Pfn::new(span.end().as_u32() - 1);
        (section_of(last) - section_of(span.start()) + 1) as usize
    }

    /// Bytes for the descriptors and pageblocks of a run, in whole pages.
    pub fn bytes_for(range: PfnRange) -> u64 {
        let pages = u64::from(range.len()) * size_of::<Page>() as u64;
        let blocks = u64::from(pageblocks(range)) * size_of::<Pageblock>() as u64;
        (pages + blocks).next_multiple_of(PAGE_SIZE)
    }

    /// Gives the frames of `range` descriptors, all Reserved, and pageblocks, all zero, at `storage`.
    /// A run that was [taken out](RunTable::remove) before may come back.
    ///
    /// # Errors
    /// See [`RunError`]; nothing is changed then.
    ///
    /// # Safety
    /// `bytes_for(range)` bytes at `storage` belong to the caller, who gives them up for `'m`, or
    /// until the run is taken out. Nobody else changes the table meanwhile.
    ///
    /// # Panics
    /// If `storage` is not page aligned or not inside the direct map.
    pub unsafe fn add(
        &self,
        ram: DirectMap<'m>,
        storage: PhysAddr,
        range: PfnRange,
    ) -> Result<(), RunError> {
        assert!(storage.is_page_aligned());
        let slot = self.slot_for(range)?;
        let bytes = Self::bytes_for(range);
        let pages = ram.ptr(storage, bytes).cast::<Page>();
        // SAFETY: mapped, by `ptr`, and the caller's to give, by this function's contract.
        unsafe { pages.cast::<u8>().write_bytes(0, bytes as usize) };
        // SAFETY: `bytes` has room for the pageblocks behind the pages.
        let blocks = unsafe { pages.add(range.len() as usize) }.cast::<Pageblock>();
        let run = &self.runs[slot];
        run.start.store(range.start().as_u32(), Ordering::Relaxed);
        run.end.store(range.end().as_u32(), Ordering::Relaxed);
        run.pages.store(pages.as_ptr(), Ordering::Relaxed);
        run.blocks.store(blocks.as_ptr(), Ordering::Relaxed);
        // Release: who sees it online sees the descriptors zeroed and the words above.
        run.online.store(true, Ordering::Release);
        if slot == self.used.load(Ordering::Relaxed) as usize {
            self.link(slot, range);
            self.used.store(slot as u32 + 1, Ordering::Release);
        }
        self.frames
            .fetch_add(u64::from(range.len()), Ordering::Relaxed);
        Ok(())
    }

    /// Takes the descriptors of `range` out, which must have been added as one run. False if it was
    /// not, or if it was the largest at boot, which handles know by heart.
    ///
    /// Who still uses a descriptor of it looks at memory that belongs to somebody else.
    pub fn remove(&self, range: PfnRange) -> bool {
        let largest = self.largest().map(|(span, ..)| span);
        let Some(run) = self.online().find(|run| run.range() == Some(range)) else {
            return false;
        };
        if largest == Some(range) {
            return false;
        }
        run.online.store(false, Ordering::Release);
        self.frames
            .fetch_sub(u64::from(range.len()), Ordering::Relaxed);
        true
    }

    fn slot_for(&self, range: PfnRange) -> Result<usize, RunError> {
        let covered = section_of(range.start()) >= self.first_section
            && section_of(Pfn::new(range.end().as_u32() - 1)) - self.first_section
                < self.directory.len() as u32;
        let used = self.used.load(Ordering::Relaxed) as usize;
        let mut old = None;
        for (at, run) in self.runs[..used].iter().enumerate() {
            let Some(known) = run.range() else { continue };
            if known == range && !run.online.load(Ordering::Relaxed) {
                old = Some(at);
            } else if known.overlaps(&range) {
                return Err(RunError::Misplaced);
            }
        }
        match old {
            _ if !covered => Err(RunError::Misplaced),
            Some(at) => Ok(at),
            None if used < self.runs.len() => Ok(used),
            None => Err(RunError::Full),
        }
    }

    /// Puts a new run into the chain and the directory.
    fn link(&self, slot: usize, range: PfnRange) {
        let name = slot as u8 + 1;
        let used = self.used.load(Ordering::Relaxed) as usize;
        let start = |run: &Run| run.start.load(Ordering::Relaxed);
        let by_start = |at: &usize| start(&self.runs[*at]);
        let mine = range.start().as_u32();
        let before = (0..used)
            .filter(|at| by_start(at) < mine)
            .max_by_key(by_start);
        let behind = (0..used)
            .filter(|at| by_start(at) > mine)
            .min_by_key(by_start);
        let next = behind.map_or(0, |at| at as u8 + 1);
        self.runs[slot].next.store(next, Ordering::Relaxed);
        if let Some(at) = before {
            // Release here and below: who finds the run by its name sees what it is.
            self.runs[at].next.store(name, Ordering::Release);
        }
        let last = section_of(Pfn::new(range.end().as_u32() - 1));
        for section in section_of(range.start())..=last {
            let entry = &self.directory[(section - self.first_section) as usize];
            let first = entry.load(Ordering::Relaxed);
            if first == 0 || start(&self.runs[usize::from(first) - 1]) > mine {
                entry.store(name, Ordering::Release);
            }
        }
    }

    fn find(&self, pfn: Pfn) -> Option<&'m Run> {
        let section = section_of(pfn).checked_sub(self.first_section)?;
        let mut name = self
            .directory
            .get(section as usize)?
            .load(Ordering::Acquire);
        while let Some(at) = usize::from(name).checked_sub(1) {
            let run = &self.runs[at];
            if run.contains(pfn) {
                return run.online.load(Ordering::Acquire).then_some(run);
            }
            if pfn.as_u32() < run.start.load(Ordering::Relaxed) {
                return None;
            }
            name = run.next.load(Ordering::Acquire);
        }
        None
    }

    pub(crate) fn page(&self, pfn: Pfn) -> Option<&'m Page> {
        let run = self.find(pfn)?;
        let at = pfn.as_u32() - run.start.load(Ordering::Relaxed);
        let pages = NonNull::new(run.pages.load(Ordering::Relaxed))?;
        // SAFETY: the run is online and holds `pfn`: by its invariant that many pages are there.
        let page = unsafe { pages.add(at as usize) };
        // SAFETY: as above; it was zeroed, which is a valid Page, and all its fields are atomics.
        Some(unsafe { page.as_ref() })
    }

    pub(crate) fn pageblock(&self, pfn: Pfn) -> Option<&'m Pageblock> {
        let run = self.find(pfn)?;
        let start = Pfn::new(run.start.load(Ordering::Relaxed));
        let at = block_number(pfn) - block_number(start);
        let blocks = NonNull::new(run.blocks.load(Ordering::Relaxed))?;
        // SAFETY: as in `page`, for pageblocks.
        let block = unsafe { blocks.add(at as usize) };
        // SAFETY: as in `page`.
        Some(unsafe { block.as_ref() })
    }

    /// The whole run that holds `pfn`.
    pub(crate) fn run_around(&self, pfn: Pfn) -> Option<PfnRange> {
        self.find(pfn)?.range()
    }

    /// Runs in use, in order of their slots.
    fn online(&self) -> impl Iterator<Item = &'m Run> + Clone + use<'m> {
        let used = self.used.load(Ordering::Acquire) as usize;
        let runs = self.runs[..used].iter();
        runs.filter(|run| run.online.load(Ordering::Acquire))
    }

    /// Ascending.
    pub(crate) fn runs(&self) -> impl Iterator<Item = PfnRange> + use<'m> {
        let online = self.online();
        let mut from = Pfn::ZERO;
        core::iter::from_fn(move || {
            let rest = online.clone().filter_map(Run::range);
            let next = rest
                .filter(|range| range.start() >= from)
                .min_by_key(PfnRange::start)?;
            from = next.end();
            Some(next)
        })
    }

    pub(crate) fn nr_frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    /// The largest of the runs. Chosen once, so that all handles agree; it is never taken out.
    pub(crate) fn largest(&self) -> Option<(PfnRange, &'m [Page], &'m [Pageblock])> {
        if self.main.load(Ordering::Relaxed) == 0 {
            let len = |at: &usize| self.runs[*at].range().map_or(0, |range| range.len());
            let used = self.used.load(Ordering::Acquire) as usize;
            let at = (0..used).max_by_key(len)?;
            self.main.store(at as u8 + 1, Ordering::Relaxed);
        }
        let run = &self.runs[usize::from(self.main.load(Ordering::Relaxed)) - 1];
        let range = run.range()?;
        let pages = NonNull::new(run.pages.load(Ordering::Relaxed))?;
        let blocks = NonNull::new(run.blocks.load(Ordering::Relaxed))?;
        let pages = NonNull::slice_from_raw_parts(pages, range.len() as usize);
        let blocks = NonNull::slice_from_raw_parts(blocks, pageblocks(range) as usize);
        // SAFETY: the run is online: by its invariant that many descriptors are there, zeroed or
        // written as atomics since.
        let pages = unsafe { pages.as_ref() };
        // SAFETY: as above.
        let blocks = unsafe { blocks.as_ref() };
        Some((range, pages, blocks))
    }
}
