//! Memory that comes and goes while the machine runs. Linux: `mm/memory_hotplug.c`.
//!
//! ```text
//!   add_memory      ├ descriptors ┤├────────── free ──────────┤      a region brings its own memmap
//!   remove_memory   block by block: all free? out of the lists.     else: put back, say what is there
//! ```

use crate::allocator::PageAllocator;
use crate::boot;
use crate::free_area::ListEnd;
use crate::place::Storage;
use crate::zone::Zone;
use crate::zonelist::ZoneId;
use core::sync::atomic::Ordering;
use vellum_machine::VmItem;
use vellum_page::{PAGEBLOCK_ORDER, PageState, RunTable};
use vellum_types::{MigrateType, NodeId, Order, PAGE_SIZE, Pfn, PfnRange, PhysRange, ZoneType};

/// What added memory may be used for. Linux's `online_kernel` and `online_movable`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Online {
    /// Anything: the zone that its addresses say.
    Kernel,
    /// Only what can be moved, so that it may be removed again: ZONE_MOVABLE.
    Movable,
}

/// Why memory could not be added or removed. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HotplugError {
    /// The range does not begin and end at blocks of the largest order.
    Unaligned,
    /// There is no such node; see [`crate::ZoneProfile::possible`].
    NoSuchNode,
    /// Some of it has no address in the direct map.
    OutsideDirectMap,
    /// Some of it is memory already, or none of it was.
    Present,
    /// The table of descriptors has no slot for one more run.
    Full,
    /// Somebody else adds or removes memory at this moment.
    Busy,
    /// The first frame that is not free, and what it is used for: its owner must give it up or move.
    InTheWay(Pfn, PageState),
}

impl core::fmt::Display for HotplugError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Unaligned => f.write_str("not in whole blocks"),
            Self::NoSuchNode => f.write_str("no such node"),
            Self::OutsideDirectMap => f.write_str("outside the direct map"),
            Self::Present => f.write_str("it is memory already, or is none"),
            Self::Full => f.write_str("too many pieces of memory"),
            Self::Busy => f.write_str("memory is being added or removed"),
            Self::InTheWay(pfn, state) => write!(f, "{pfn:?} is in use: {state:?}"),
        }
    }
}

impl core::error::Error for HotplugError {}

/// The right to change what memory there is.
struct Plugging<'a>(&'a core::sync::atomic::AtomicBool);

impl Drop for Plugging<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// The blocks of the largest order of an aligned range.
fn units(range: PfnRange) -> impl DoubleEndedIterator<Item = Pfn> + Clone {
    let pages = Order::MAX.pages();
    (0..range.len() / pages).map(move |at| range.start() + at * pages)
}

/// The frames of a new region that hold its descriptors.
fn own_frames(range: PfnRange) -> u32 {
    (RunTable::bytes_for(range) / PAGE_SIZE) as u32
}

impl<'m> PageAllocator<'m> {
    fn plug(&self, range: PfnRange) -> Result<Plugging<'_>, HotplugError> {
        if !Order::MAX.is_aligned(range.start()) || !Order::MAX.is_aligned(range.end()) {
            return Err(HotplugError::Unaligned);
        }
        if self.plugging.swap(true, Ordering::Acquire) {
            return Err(HotplugError::Busy);
        }
        Ok(Plugging(&self.plugging))
    }

    /// Gives the allocator a region that was no memory until now, or that was
    /// [removed](PageAllocator::remove_memory). A new region's descriptors are laid into its own first
    /// frames: 8 KiB for each MiB. Watermarks, reserves and zonelists are worked out anew.
    ///
    /// Takes time in proportion to the region; a zone's lock is held for one block at a time.
    ///
    /// # Errors
    /// See [`HotplugError`].
    ///
    /// # Safety
    /// Nobody uses any byte of `range`, and nobody will but through this allocator.
    #[expect(unsafe_code, reason = "the caller vouches for the memory")]
    pub unsafe fn add_memory(
        &self,
        range: PfnRange,
        node: NodeId,
        online: Online,
    ) -> Result<(), HotplugError> {
        let _plugging = self.plug(range)?;
        let home = self.nodes.get(node).ok_or(HotplugError::NoSuchNode)?;
        let was_removed = units(range).all(|at| self.frames.zone_id(at) == Some(ZoneId::NONE));
        let mut free = Some(range);
        if !was_removed {
            let own = own_frames(range);
            free = PfnRange::new(range.start() + own, range.end());
            // SAFETY: nobody uses the region, by this function's contract.
            let storage = unsafe { Storage::adopt(self.ram, range.to_phys()) };
            let storage = storage.ok_or(HotplugError::OutsideDirectMap)?;
            storage
                .into_run(self.runs, range)
                .map_err(|error| match error {
                    vellum_page::RunError::Full => HotplugError::Full,
                    vellum_page::RunError::Misplaced => HotplugError::Present,
                })?;
        }
        for piece in boot::pieces(range) {
            let pfn = piece.start();
            let zone_type = match online {
                Online::Movable => ZoneType::Movable,
                Online::Kernel if pfn >= home.movable_start => ZoneType::Movable,
                Online::Kernel => self.profile.zone_type_of(pfn),
            };
            let id = ZoneId::new(node, zone_type);
            self.frames.set_zone_id(pfn, id);
            self.frames
                .set_migrate_type(pfn, PAGEBLOCK_ORDER, MigrateType::Movable);
            if let Some(zone) = self.nodes.zone(id) {
                zone.add_present(piece);
            }
        }
        if let Some(free) = free {
            // Before they can be taken, so that the counter never drops below zero.
            self.vmstat.add(VmItem::NrFreePages, u64::from(free.len()));
            boot::free_range(&self.nodes, self.frames, free);
        }
        self.memory_changed();
        Ok(())
    }

    /// Takes a region out of use, all of which must be free; returns its bytes. Nothing is allocated
    /// from it while it is looked at: each block is taken off the free lists at once, and put back if
    /// something is in the way.
    ///
    /// The descriptors of a region that was [added](PageAllocator::add_memory) go with it. Those that
    /// boot made stay, for when the memory comes back. Who walks over all frames must not do so at
    /// the same time.
    ///
    /// Takes time in proportion to the region; a zone's lock is held for one block at a time.
    ///
    /// # Errors
    /// See [`HotplugError`].
    pub fn remove_memory(&self, range: PfnRange) -> Result<PhysRange, HotplugError> {
        let _plugging = self.plug(range)?;
        self.drain_all();
        if !units(range).all(|at| self.zone_at(at).is_some()) {
            return Err(HotplugError::Present);
        }
        // A region that was added as a whole holds its own descriptors, which are in nobody's way.
        let own = if self.holds_its_descriptors(range) {
            own_frames(range)
        } else {
            0
        };
        for (done, at) in units(range).enumerate() {
            let keep = if done == 0 { own } else { 0 };
            if let Err(error) = self.take_out(at, keep) {
                for at in units(range).take(done) {
                    let keep = if at == range.start() { own } else { 0 };
                    self.put_back(at, keep);
                }
                return Err(error);
            }
        }
        for piece in boot::pieces(range) {
            if let Some(zone) = self.zone_at(piece.start()) {
                let kept = if piece.start() == range.start() {
                    own
                } else {
                    0
                };
                zone.remove_managed(u64::from(piece.len() - kept));
                zone.remove_present(piece);
            }
            self.frames.set_zone_id(piece.start(), ZoneId::NONE);
        }
        if own > 0 {
            self.runs.remove(range);
        }
        self.memory_changed();
        Ok(range.to_phys())
    }

    /// True if `range` is a run whose descriptors begin where it does.
    fn holds_its_descriptors(&self, range: PfnRange) -> bool {
        let first = core::ptr::NonNull::from(self.frames.page(range.start()));
        self.frames.memmap.run_around(range.start()) == Some(range)
            && self.ram.phys_of(first.cast()) == Some(range.start().addr())
    }

    fn zone_of_unit(&self, at: Pfn) -> Result<&'m Zone, HotplugError> {
        self.zone_at(at).ok_or(HotplugError::Present)
    }

    /// Takes the free blocks of one block of the largest order off the lists, if that is all of it but
    /// for the first `keep` frames.
    fn take_out(&self, at: Pfn, keep: u32) -> Result<(), HotplugError> {
        let frames = self.frames;
        let zone = self.zone_of_unit(at)?;
        let mut state = zone.lock();
        let end = at + Order::MAX.pages();
        let mut here = at + keep;
        while here < end {
            let Some(order) = frames.free_block(here) else {
                return Err(HotplugError::InTheWay(here, frames.page(here).state()));
            };
            here = here + order.pages();
        }
        let mut here = at + keep;
        while here < end {
            let order = frames.free_block(here).unwrap_or(Order::ZERO);
            state.areas.unlink(frames, here, order);
            state.areas.count_taken(order);
            for pfn in 0..order.pages() {
                let page = frames.page(here + pfn);
                page.set_owner(0);
                page.set_index(0);
                page.set_state(PageState::Reserved);
            }
            here = here + order.pages();
        }
        drop(state);
        let pages = u64::from(Order::MAX.pages() - keep);
        self.vmstat.sub(VmItem::NrFreePages, pages);
        Ok(())
    }

    /// Undoes `take_out`.
    fn put_back(&self, at: Pfn, keep: u32) {
        let Ok(zone) = self.zone_of_unit(at) else {
            return;
        };
        let pages = Order::MAX.pages() - keep;
        self.vmstat.add(VmItem::NrFreePages, u64::from(pages));
        let Some(range) = PfnRange::new(at + keep, at + Order::MAX.pages()) else {
            return;
        };
        for pfn in range.iter() {
            self.frames.page(pfn).set_state(PageState::Tail);
        }
        for (pfn, order) in boot::blocks(range) {
            let mut state = zone.lock();
            state.areas.give(self.frames, pfn, order, ListEnd::Tail);
        }
    }
}
