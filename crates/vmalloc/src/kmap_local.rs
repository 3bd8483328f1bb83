//! Mappings of high frames for a few instructions: `kmap_local_page`, once `kmap_atomic`.

use crate::kmap::inside;
use crate::layout::FIX_SLOTS;
use crate::tables::PAGE_KERNEL;
use crate::window::KernelWindow;
use crate::{KM_MAX, KmapError, Vmalloc};
use vellum_machine::{CpuPin, DirectMap, Machine, PerCpu, PerCpuSlot};
use vellum_page::Memmap;
use vellum_page_table::{Format, Pte};
use vellum_types::{OutOfMemory, PAGE_SIZE, Pfn, VirtAddr, VirtRange};

/// How many slots of a CPU are in use; the memory is the caller's.
#[derive(Clone, Copy, Debug, Default)]
pub struct KmapDepth(u16);

impl KmapDepth {
    /// No slot.
    pub const NONE: Self = Self(0);
}

/// Slots in the fixmap that belong to one CPU each, so that no lock is needed and only that CPU has
/// to forget a translation. Linux: `kmap_local` of `mm/highmem.c`.
pub struct KmapLocal<'m, M: Machine, F: Format> {
    machine: &'m M,
    pub(crate) ram: DirectMap<'m>,
    memmap: Memmap<'m>,
    direct_map: VirtAddr,
    window: KernelWindow<'m, F>,
    depth: PerCpu<'m, KmapDepth>,
}

impl<'m, M: Machine, F: Format> KmapLocal<'m, M, F> {
    /// [`KM_MAX`] slots for each CPU of the machine.
    ///
    /// # Errors
    /// Out of memory.
    ///
    /// # Panics
    /// If the layout has slots for fewer CPUs, or `depths` is shorter.
    pub fn new(
        vmalloc: &Vmalloc<'m, M, F>,
        depths: &'m mut [PerCpuSlot<KmapDepth>],
    ) -> Result<Self, OutOfMemory> {
        let (layout, cpus) = (vmalloc.layout(), vmalloc.machine.cpus());
        let slots = u64::from(FIX_SLOTS) + u64::from(cpus.len()) * u64::from(KM_MAX);
        assert!(layout.fixmap.nr_pages() >= slots, "a layout for fewer CPUs");
        Ok(Self {
            machine: vmalloc.machine,
            ram: vmalloc.source.ram(),
            memmap: vmalloc.source.memmap(),
            direct_map: layout.direct_map,
            window: vmalloc.window(layout.fixmap)?,
            depth: PerCpu::new(cpus, depths),
        })
    }

    /// An address for `pfn` on this CPU, until the handle is dropped; it stays on this CPU as long.
    /// Handles of high frames must be dropped in the opposite order. A frame of the direct map has its
    /// address there and takes no slot.
    ///
    /// # Errors
    /// Invalid; Exhausted if [`KM_MAX`] are nested.
    pub fn map(&self, pfn: Pfn) -> Result<LocalPage<'_, 'm, M, F>, KmapError> {
        if self.memmap.try_page(pfn).is_none() {
            return Err(KmapError::Invalid);
        }
        let pin = self.depth.cpus().pin();
        if self.ram.covers(pfn) {
            return Ok(LocalPage {
                local: self,
                pfn,
                addr: self.direct_map + pfn.addr().as_u64(),
                slot: None,
                _pin: pin,
            });
        }
        let taken = self.depth.with(|depth| {
            let mine = depth.0;
            depth.0 += u16::from(mine < KM_MAX);
            mine
        });
        let mine = taken
            .filter(|mine| *mine < KM_MAX)
            .ok_or(KmapError::Exhausted)?;
        let index = self.index(&pin, mine);
        debug_assert!(self.window.get(index).is_none(), "a slot in use");
        self.window.set(index, Pte::new(pfn, PAGE_KERNEL));
        Ok(LocalPage {
            local: self,
            pfn,
            addr: self.window.addr(index),
            slot: Some(mine),
            _pin: pin,
        })
    }

    /// How many slots this CPU uses.
    pub fn depth(&self) -> u16 {
        self.depth.with(|depth| depth.0).unwrap_or(0)
    }

    /// The page of the fixmap that is slot `slot` of the pinned CPU: they grow down from those for
    /// other uses.
    fn index(&self, pin: &CpuPin<'_>, slot: u16) -> u64 {
        u64::from(pin.cpu().0) * u64::from(KM_MAX) + u64::from(slot)
    }
}

/// A frame that has an address on this CPU.
#[must_use]
pub struct LocalPage<'a, 'm, M: Machine, F: Format> {
    local: &'a KmapLocal<'m, M, F>,
    pfn: Pfn,
    addr: VirtAddr,
    slot: Option<u16>,
    _pin: CpuPin<'m>,
}

impl<M: Machine, F: Format> LocalPage<'_, '_, M, F> {
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
        self.local
            .machine
            .read_kernel(self.addr + offset, phys, out);
    }
    /// Stores bytes from `offset` on.
    ///
    /// # Panics
    /// If they are not all in the page.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        inside(offset, bytes.len());
        let phys = self.pfn.addr() + offset;
        self.local
            .machine
            .write_kernel(self.addr + offset, phys, bytes);
    }
}

impl<M: Machine, F: Format> Drop for LocalPage<'_, '_, M, F> {
    /// # Panics
    /// If a later one of this CPU is still there. Linux: `kunmap_local` out of order is a bug too.
    fn drop(&mut self) {
        let Some(slot) = self.slot else {
            return;
        };
        let local = self.local;
        let last = local.depth.with(|depth| depth.0 == slot + 1);
        assert!(
            last == Some(true),
            "kunmap_local: not the mapping that was made last"
        );
        local.window.set(local.index(&self._pin, slot), Pte::NONE);
        if let Some(range) = VirtRange::from_len(self.addr, PAGE_SIZE) {
            local.machine.flush_tlb_kernel_local(range);
        }
        local.depth.with(|depth| depth.0 = slot);
    }
}
