//! Compressed memory in front of another device. Linux: `mm/zswap.c`.

use crate::array::FrameArray;
use crate::packed::{Compressor, Content, Packed, PackedStat, Squeezed, Streams, squeeze, unpack};
use crate::{SwapDevice, WriteError};
use vellum_machine::{DirectMap, LockRank, SpinLock, VmEvent, VmStat};
use vellum_page::{AllocRequest, PageSource};
use vellum_types::{IoError, Order, OutOfMemory, Pfn};

/// How many pages a write may move to the device behind to make room for one.
const EVICT_TRIES: u32 = 16;

/// Keeps pages compressed in memory up to a limit, and moves the oldest to the device behind when it
/// is reached. What does not compress goes to the device behind at once.
pub struct Zswap<'m> {
    compressor: &'m dyn Compressor,
    streams: &'m Streams<'m>,
    behind: &'m dyn SwapDevice,
    source: &'m dyn PageSource,
    vmstat: &'m VmStat,
    /// The frame that a page is written to the device behind from: of whoever set `evicting`.
    bounce: Pfn,
    slots: u32,
    state: SpinLock<State<'m>>,
}

struct State<'m> {
    packed: Packed<'m>,
    /// Compressed pages by age.
    lru: Lru<'m>,
    /// The slot being moved to the device behind; 0 for none. It is on no list.
    evicting: u32,
    /// What is being moved is still what the slot holds.
    evicting_valid: bool,
    written_back: u64,
}

/// A list of slots. Slot 0 is never used, so 0 ends it.
struct Lru<'m> {
    links: FrameArray<'m, u64>,
    oldest: u32,
    newest: u32,
}

impl Lru<'_> {
    fn link(&self, slot: u32) -> (u32, u32) {
        let raw = self.links.get(slot);
        (raw as u32, (raw >> 32) as u32)
    }
    fn set_link(&self, slot: u32, newer: u32, older: u32) {
        self.links
            .set(slot, u64::from(newer) | u64::from(older) << 32);
    }
    fn push(&mut self, slot: u32) {
        let old = core::mem::replace(&mut self.newest, slot);
        if old == 0 {
            self.oldest = slot;
        } else {
            let (_, older) = self.link(old);
            self.set_link(old, slot, older);
        }
        self.set_link(slot, 0, old);
    }
    fn remove(&mut self, slot: u32) {
        let (newer, older) = self.link(slot);
        if newer == 0 {
            self.newest = older;
        } else {
            let (next, _) = self.link(newer);
            self.set_link(newer, next, older);
        }
        if older == 0 {
            self.oldest = newer;
        } else {
            let (_, prev) = self.link(older);
            self.set_link(older, newer, prev);
        }
    }
}

impl State<'_> {
    /// Empties a slot; true if the device behind has its page.
    fn remove(&mut self, slot: u32) -> bool {
        let moving = self.evicting == slot && self.evicting_valid;
        let content = self.packed.remove(slot);
        if moving {
            self.evicting_valid = false;
        } else if matches!(content, Content::Small(..)) {
            self.lru.remove(slot);
        }
        content == Content::Behind
    }
}

impl<'m> Zswap<'m> {
    /// Up to `limit` bytes of frames in front of `behind`, besides 20 bytes for each slot.
    ///
    /// # Errors
    /// No memory for these.
    pub fn new(
        source: &'m dyn PageSource,
        vmstat: &'m VmStat,
        compressor: &'m dyn Compressor,
        streams: &'m Streams<'m>,
        behind: &'m dyn SwapDevice,
        limit: u64,
    ) -> Result<Self, OutOfMemory> {
        let slots = behind.nr_slots();
        let state = State {
            packed: Packed::new(source, slots, limit)?,
            lru: Lru {
                links: FrameArray::new(source, slots)?,
                oldest: 0,
                newest: 0,
            },
            evicting: 0,
            evicting_valid: false,
            written_back: 0,
        };
        Ok(Self {
            compressor,
            streams,
            behind,
            source,
            vmstat,
            bounce: source.alloc_pages(AllocRequest::kernel(Order::ZERO))?,
            slots,
            state: SpinLock::new(LockRank::Swap, state),
        })
    }

    /// What its memory holds.
    pub fn stat(&self) -> PackedStat {
        self.state.lock().packed.stat()
    }

    /// Pages moved to the device behind so far.
    pub fn written_back(&self) -> u64 {
        self.state.lock().written_back
    }

    /// Compares numbers with slots. Slow.
    ///
    /// # Errors
    /// What is wrong.
    pub fn validate(&self) -> Result<(), &'static str> {
        let state = self.state.lock();
        state.packed.validate()?;
        let (mut slot, mut listed, mut small) = (state.lru.oldest, 0, 0);
        while slot != 0 {
            if !matches!(state.packed.get(slot), Content::Small(..)) {
                return Err("a page that is not in memory is on the list");
            }
            listed += 1;
            if listed > self.slots {
                return Err("the list of compressed pages has a loop");
            }
            slot = state.lru.link(slot).0;
        }
        for slot in 0..self.slots {
            small += u32::from(matches!(state.packed.get(slot), Content::Small(..)));
        }
        let moving = u32::from(state.evicting != 0 && state.evicting_valid);
        if listed + moving != small {
            return Err("a compressed page is on no list");
        }
        Ok(())
    }

    /// Moves the oldest page to the device behind. False if that cannot be done now.
    fn evict(&self, ram: DirectMap<'_>) -> bool {
        let started = self.streams.with(|stream| {
            let mut state = self.state.lock();
            let slot = state.lru.oldest;
            if state.evicting != 0 || slot == 0 {
                return None;
            }
            state.lru.remove(slot);
            state.evicting = slot;
            state.evicting_valid = true;
            let content = state.packed.copy_out(slot, self.bounce, &mut stream.data);
            drop(state);
            let page = unpack(self.compressor, content, stream, self.bounce, ram);
            Some((slot, page == Ok(true)))
        });
        let Some((slot, readable)) = started.flatten() else {
            return false;
        };
        let moved = readable && self.behind.write(slot, &[self.bounce], ram).is_ok();
        let mut state = self.state.lock();
        let valid = state.evicting_valid;
        if moved && !valid && self.behind.wants_discard() {
            drop(state);
            // Nobody writes the slot there while it is `evicting`.
            self.behind.discard(slot);
            state = self.state.lock();
        }
        state.evicting = 0;
        state.evicting_valid = false;
        if valid && moved {
            state.packed.remove(slot);
            state.packed.set_behind(slot);
            state.written_back += 1;
            drop(state);
            self.vmstat.count(VmEvent::ZswpWb);
        } else if valid {
            // The newest, so that others are tried first.
            state.lru.push(slot);
        }
        moved
    }

    /// Keeps a page of an empty slot in memory, if possible.
    fn keep(&self, slot: u32, frame: Pfn, ram: DirectMap<'_>) -> Kept {
        let kept = self.streams.with(|stream| {
            let squeezed = squeeze(self.compressor, stream, frame, ram);
            if let Squeezed::Huge(_) = squeezed {
                return Kept::Refused;
            }
            let mut state = self.state.lock();
            if state.packed.insert(slot, squeezed).is_err() {
                return Kept::Full;
            }
            if let Squeezed::Small(_) = squeezed {
                state.lru.push(slot);
            }
            Kept::Here
        });
        kept.unwrap_or(Kept::Refused)
    }

    /// Keeps a page of an empty slot, in memory if possible.
    fn store(&self, slot: u32, frame: Pfn, ram: DirectMap<'_>) -> Result<(), IoError> {
        for _ in 0..EVICT_TRIES {
            match self.keep(slot, frame, ram) {
                Kept::Here => {
                    self.vmstat.count(VmEvent::ZswpOut);
                    return Ok(());
                }
                Kept::Full if self.evict(ram) => {}
                Kept::Full | Kept::Refused => break,
            }
        }
        if self.state.lock().evicting == slot {
            // An older page of this slot is on its way to the device behind, and might arrive later.
            return Err(IoError::ENOSPC);
        }
        let result = self.behind.write(slot, &[frame], ram);
        result.map_err(|failure| failure.error)?;
        self.state.lock().packed.set_behind(slot);
        Ok(())
    }
}

/// How it went to keep a page in memory.
enum Kept {
    Here,
    Full,
    /// It does not get smaller.
    Refused,
}

impl SwapDevice for Zswap<'_> {
    fn name(&self) -> &str {
        self.behind.name()
    }

    fn nr_slots(&self) -> u32 {
        self.slots
    }

    fn read(&self, slot: u32, frame: Pfn, ram: DirectMap<'_>) -> Result<(), IoError> {
        let here = self.streams.with(|stream| {
            let content = (self.state.lock().packed).copy_out(slot, frame, &mut stream.data);
            unpack(self.compressor, content, stream, frame, ram)
        });
        if here.unwrap_or(Err(IoError::EIO))? {
            self.vmstat.count(VmEvent::ZswpIn);
            return Ok(());
        }
        self.behind.read(slot, frame, ram)
    }

    fn write(&self, slot: u32, frames: &[Pfn], ram: DirectMap<'_>) -> Result<(), WriteError> {
        for (done, (frame, slot)) in frames.iter().zip(slot..).enumerate() {
            self.discard(slot);
            self.store(slot, *frame, ram)
                .map_err(|error| WriteError { done, error })?;
        }
        Ok(())
    }

    fn discard(&self, slot: u32) {
        if self.state.lock().remove(slot) && self.behind.wants_discard() {
            self.behind.discard(slot);
        }
    }

    fn wants_discard(&self) -> bool {
        true
    }

    fn has_room(&self) -> bool {
        self.behind.has_room()
    }
}

impl Drop for Zswap<'_> {
    fn drop(&mut self) {
        self.state.get_mut().packed.clear();
        self.source.free_pages(self.bounce);
    }
}
