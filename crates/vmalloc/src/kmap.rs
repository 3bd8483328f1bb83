//! Mappings of high frames that stay until they are given up, by anybody: `kmap` and `kunmap`.

use crate::Vmalloc;
use crate::tables::PAGE_KERNEL;
use crate::window::KernelWindow;
use core::fmt;
use vellum_machine::{DirectMap, LockRank, Machine, SpinLock};
use vellum_page::Memmap;
use vellum_page_table::{Format, Pte};
use vellum_types::{OutOfMemory, PAGE_SIZE, Pfn, VirtAddr, VirtRange};

/// Why a frame has no address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KmapError {
    /// All slots are in use. Linux's `kmap` sleeps until one is not: whoever can wait, tries again
    /// after another's `kunmap`.
    Exhausted,
    /// Not a frame of RAM.
    Invalid,
}

impl fmt::Display for KmapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exhausted => "no slot is free",
            Self::Invalid => "not a frame of RAM",
        })
    }
}

impl core::error::Error for KmapError {}

/// No slot.
const NONE: u16 = u16::MAX;

/// One page of the window; the memory is the caller's.
#[derive(Clone, Copy, Debug)]
pub struct KmapSlot {
    pfn: Pfn,
    /// 0: free. 1: not in use, but still mapped. More: users and one.
    count: u32,
    /// The next slot whose frame has the same hash.
    next: u16,
    /// The first slot of the frames whose hash is this slot's number.
    bucket: u16,
}

impl KmapSlot {
    /// A free one.
    pub const FREE: Self = Self {
        pfn: Pfn::NONE,
        count: 0,
        next: NONE,
        bucket: NONE,
    };
}

/// Linux's `pkmap_count`, `last_pkmap_nr` and `page_address_htable`.
struct Slots<'m> {
    slots: &'m mut [KmapSlot],
    last: usize,
    flushes: u64,
}

/// The window for high frames. Linux: `mm/highmem.c`.
///
/// A slot that nobody uses any more stays mapped: whoever wants the same frame again finds it. When
/// the search for a free slot comes around to the first, all such slots are unmapped with one flush.
///
/// # Invariants
/// A frame has at most one slot. A slot is mapped exactly if its count is not 0, and only then found
/// by its frame.
pub struct Kmap<'m, M: Machine, F: Format> {
    machine: &'m M,
    ram: DirectMap<'m>,
    memmap: Memmap<'m>,
    direct_map: VirtAddr,
    window: KernelWindow<'m, F>,
    slots: SpinLock<Slots<'m>>,
}

impl<'m, M: Machine, F: Format> Kmap<'m, M, F> {
    /// The window of `vmalloc`'s layout, with as many slots as are lent, or as fit. Where the layout
    /// has none, every frame must be in the direct map.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(
        vmalloc: &Vmalloc<'m, M, F>,
        slots: &'m mut [KmapSlot],
    ) -> Result<Self, OutOfMemory> {
        let layout = vmalloc.layout();
        let range = layout.pkmap.unwrap_or(layout.fixmap);
        let pages = if layout.pkmap.is_some() {
            (range.nr_pages() as usize).min(usize::from(NONE))
        } else {
            0
        };
        let count = slots.len().min(pages);
        let slots = &mut slots[..count];
        slots.fill(KmapSlot::FREE);
        Ok(Self {
            machine: vmalloc.machine,
            ram: vmalloc.source.ram(),
            memmap: vmalloc.source.memmap(),
            direct_map: layout.direct_map,
            window: vmalloc.window(range)?,
            slots: SpinLock::new(
                LockRank::Vmalloc,
                Slots {
                    slots,
                    // So that the first slot taken is 0, without coming around.
                    last: usize::MAX,
                    flushes: 0,
                },
            ),
        })
    }

    /// An address for `pfn`, until the handle is dropped: that of the direct map if it has one.
    ///
    /// # Errors
    /// Invalid; Exhausted at once, without waiting.
    pub fn kmap(&self, pfn: Pfn) -> Result<KmapPage<'_, 'm, M, F>, KmapError> {
        if self.memmap.try_page(pfn).is_none() {
            return Err(KmapError::Invalid);
        }
        let high = !self.ram.covers(pfn);
        let addr = if high {
            self.window.addr(self.get(pfn)? as u64)
        } else {
            self.direct_map + pfn.addr().as_u64()
        };
        Ok(KmapPage {
            kmap: self,
            pfn,
            addr,
            high,
        })
    }

    /// The slot of `pfn`, with one more user.
    fn get(&self, pfn: Pfn) -> Result<usize, KmapError> {
        let mut state = self.slots.lock();
        let slot = match state.find(pfn) {
            Some(slot) => slot,
            None => self.map_new(&mut state, pfn)?,
        };
        state.slots[slot].count += 1;
        Ok(slot)
    }

    /// Linux's `map_new_virtual`, without the sleep.
    fn map_new(&self, state: &mut Slots<'m>, pfn: Pfn) -> Result<usize, KmapError> {
        let len = state.slots.len();
        // Twice around: what became free when it came by the first slot may lie before its start.
        for _ in 0..2 * len {
            let wrapped = state.last == len - 1;
            state.last = if wrapped {
                0
            } else {
                state.last.wrapping_add(1)
            };
            if wrapped {
                self.flush_unused(state);
            }
            let slot = state.last;
            if state.slots[slot].count == 0 {
                self.window.set(slot as u64, Pte::new(pfn, PAGE_KERNEL));
                state.slots[slot].count = 1;
                state.link(slot, pfn);
                return Ok(slot);
            }
        }
        Err(KmapError::Exhausted)
    }

    /// Unmaps the slots that nobody uses. Linux's `flush_all_zero_pkmaps`.
    fn flush_unused(&self, state: &mut Slots<'m>) {
        let mut found = None;
        for slot in 0..state.slots.len() {
            if state.slots[slot].count != 1 {
                continue;
            }
            self.window.set(slot as u64, Pte::NONE);
            state.unlink(slot);
            state.slots[slot].count = 0;
            let (low, _) = found.unwrap_or((slot, slot));
            found = Some((low, slot));
        }
        let Some((low, high)) = found else {
            return;
        };
        let pages = (high - low + 1) as u64;
        let start = self.window.addr(low as u64);
        if let Some(range) = VirtRange::from_len(start, pages * PAGE_SIZE) {
            self.machine.flush_tlb_kernel_range(range);
        }
        state.flushes += 1;
    }

    /// Slots: in use, and mapped in all.
    pub fn used(&self) -> (usize, usize) {
        let state = self.slots.lock();
        let count = |least| state.slots.iter().filter(|slot| slot.count > least).count();
        (count(1), count(0))
    }

    /// How many flushes there were.
    pub fn flushes(&self) -> u64 {
        self.slots.lock().flushes
    }

    /// Checks the slots against the page table.
    ///
    /// # Errors
    /// What is wrong.
    pub fn validate(&self) -> Result<(), &'static str> {
        let state = self.slots.lock();
        for (i, slot) in state.slots.iter().enumerate() {
            let pte = self.window.get(i as u64);
            if slot.count == 0 {
                if !pte.is_none() {
                    return Err("kmap: a free slot is mapped");
                }
                continue;
            }
            if pte.pfn() != slot.pfn || !pte.is_present() {
                return Err("kmap: a slot maps another frame");
            }
            if state.find(slot.pfn) != Some(i) {
                return Err("kmap: a frame does not lead to its slot");
            }
        }
        Ok(())
    }
}

impl Slots<'_> {
    fn bucket(&self, pfn: Pfn) -> usize {
        // Fibonacci hashing: frames of one file lie side by side.
        let hash = pfn.as_u32().wrapping_mul(0x9e37_79b9);
        ((u64::from(hash) * self.slots.len() as u64) >> 32) as usize
    }

    fn find(&self, pfn: Pfn) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let mut at = self.slots[self.bucket(pfn)].bucket;
        while at != NONE {
            let slot = &self.slots[usize::from(at)];
            if slot.pfn == pfn {
                return Some(usize::from(at));
            }
            at = slot.next;
        }
        None
    }

    fn link(&mut self, slot: usize, pfn: Pfn) {
        let bucket = self.bucket(pfn);
        let first = core::mem::replace(&mut self.slots[bucket].bucket, slot as u16);
        (self.slots[slot].pfn, self.slots[slot].next) = (pfn, first);
    }

    fn unlink(&mut self, slot: usize) {
        let next = self.slots[slot].next;
        let bucket = self.bucket(self.slots[slot].pfn);
        if usize::from(self.slots[bucket].bucket) == slot {
            self.slots[bucket].bucket = next;
        } else {
            let mut at = self.slots[bucket].bucket;
            while at != NONE && usize::from(self.slots[usize::from(at)].next) != slot {
                at = self.slots[usize::from(at)].next;
            }
            if at != NONE {
                self.slots[usize::from(at)].next = next;
            }
        }
        (self.slots[slot].pfn, self.slots[slot].next) = (Pfn::NONE, NONE);
    }
}

/// A frame that has an address; `kunmap` when it is dropped.
#[must_use]
pub struct KmapPage<'a, 'm, M: Machine, F: Format> {
    kmap: &'a Kmap<'m, M, F>,
    pfn: Pfn,
    addr: VirtAddr,
    high: bool,
}

impl<M: Machine, F: Format> KmapPage<'_, '_, M, F> {
    /// The address, canonical.
    pub const fn addr(&self) -> VirtAddr {
        self.addr
    }
    /// The frame.
    pub const fn pfn(&self) -> Pfn {
        self.pfn
    }
    /// Loads bytes from `offset` on.
    ///
    /// # Panics
    /// If they are not all in the page.
    pub fn read(&self, offset: u64, out: &mut [u8]) {
        inside(offset, out.len());
        let phys = self.pfn.addr() + offset;
        self.kmap.machine.read_kernel(self.addr + offset, phys, out);
    }
    /// Stores bytes from `offset` on.
    ///
    /// # Panics
    /// If they are not all in the page.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        inside(offset, bytes.len());
        let phys = self.pfn.addr() + offset;
        self.kmap
            .machine
            .write_kernel(self.addr + offset, phys, bytes);
    }
}

/// Stops who leaves the page.
pub(crate) fn inside(offset: u64, len: usize) {
    assert!(
        offset <= PAGE_SIZE && len as u64 <= PAGE_SIZE - offset,
        "{len} bytes at {offset} are not all in a page"
    );
}

impl<M: Machine, F: Format> Drop for KmapPage<'_, '_, M, F> {
    fn drop(&mut self) {
        if !self.high {
            return;
        }
        let mut state = self.kmap.slots.lock();
        if let Some(slot) = state.find(self.pfn) {
            // Not to 0: the entry stays until the next flush.
            state.slots[slot].count -= 1;
        }
    }
}
