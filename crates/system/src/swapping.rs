//! Swap areas of a system.

use crate::System;
use vellum_machine::{Machine, PerCpuSlot};
use vellum_page::{place, place_slice};
use vellum_swap::{
    AreaInfo, Checked, Compressor, SameFilled, Stream, Streams, SwapDevice, SwapError, SwapOn, Zram,
};
use vellum_types::{OutOfMemory, PAGE_SIZE, SwapEntry};

/// How an area is put into use.
#[derive(Clone, Copy, Debug, Default)]
pub struct SwapArea<'a> {
    /// Priority and bad slots.
    pub on: SwapOn<'a>,
    /// A checksum for each slot finds those that were torn or flipped.
    pub check: bool,
}

impl<'m, M: Machine> System<'m, M> {
    /// Swaps to `device` from now on. Pages that are one word all over go nowhere.
    ///
    /// # Errors
    /// See [`SwapError`].
    pub fn swapon(&self, device: &'m dyn SwapDevice, area: SwapArea<'_>) -> Result<u8, SwapError> {
        if self.has_high_memory() {
            return Err(SwapError::HighMemory);
        }
        let device = self.keep_for_good(|| {
            let source = self.pages();
            let device: &'m dyn SwapDevice = if area.check {
                place(source, Checked::new(source, device)?)?
            } else {
                device
            };
            let device: &'m dyn SwapDevice = place(source, SameFilled::new(source, device)?)?;
            Ok(device)
        })?;
        self.swap().swapon(device, area.on)
    }

    /// Swaps to compressed memory of the machine itself: room for `bytes` of pages, which may take up to
    /// `limit` bytes of frames.
    ///
    /// # Errors
    /// See [`SwapError`].
    pub fn swapon_zram(
        &self,
        compressor: &'m dyn Compressor,
        bytes: u64,
        limit: u64,
        on: SwapOn<'_>,
    ) -> Result<u8, SwapError> {
        if self.has_high_memory() {
            return Err(SwapError::HighMemory);
        }
        let slots = u32::try_from(bytes / PAGE_SIZE).unwrap_or(u32::MAX);
        let device = self.keep_for_good(|| {
            let source = self.pages();
            let cpus = self.machine().cpus();
            let streams =
                place_slice(
                    source,
                    cpus.len().into(),
                    |_| PerCpuSlot::new(Stream::new()),
                )?;
            let streams = place(source, Streams::new(cpus, streams))?;
            let slots = slots.min(SwapEntry::SLOTS);
            place(
                source,
                Zram::new(source, compressor, streams, slots, limit)?,
            )
        })?;
        self.swap().swapon(device, on)
    }

    /// Calls `each` for every area: a line of `/proc/swaps`.
    pub fn swaps(&self, each: &mut dyn FnMut(AreaInfo, &'m dyn SwapDevice)) {
        self.swap().areas(each);
    }

    /// Puts all areas out of use, when nothing is in them any more.
    pub(crate) fn swapoff_all(&self) {
        let mut numbers = 0_u32;
        self.swaps(&mut |info, _| numbers |= 1 << info.area);
        for area in (0..SwapEntry::AREAS).filter(|area| numbers & 1 << area != 0) {
            // What is left in an area counts as leaked, and is named by its frames.
            let _ = self
                .swap()
                .swapoff_begin(area)
                .and_then(|_| self.swap().swapoff_end(area));
        }
    }

    /// Runs `make`, whose frames are the machine's until its end and count as boot memory.
    fn keep_for_good<T>(
        &self,
        make: impl FnOnce() -> Result<T, OutOfMemory>,
    ) -> Result<T, OutOfMemory> {
        let before = self.pages().nr_free_pages();
        let made = make();
        self.note_kept(before.saturating_sub(self.pages().nr_free_pages()));
        made
    }
}
