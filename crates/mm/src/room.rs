//! What happens when frames run out, or a page is in swap.
//!
//! Nothing is reclaimed under a lock. An operation that finds no frame undoes what cannot stay, and
//! returns [`MmError::NoFrames`] through all its levels to the method that a machine called. That one
//! holds nothing: it reclaims, and does the whole operation again. So each operation is written to be
//! repeated: it checks, takes what can fail, then commits; and what it did for good before the frames
//! ended it finds done the next time, or has noted outside of the attempt. A page that is in swap is read
//! in the same way, between two attempts.

use crate::MmError;
use crate::context::MmContext;
use vellum_machine::{Machine, VmItem};
use vellum_reclaim::ReclaimRequest;
use vellum_types::{GfpFlags, Order};

/// Pages reclaimed at once, Linux's `SWAP_CLUSTER_MAX` doubled.
const RECLAIM_BATCH: u64 = 64;

/// Where swap is absent or full, this part of all frames is left to pages of files.
const WORKING_SET_SHARE: u64 = 32;

impl<M: Machine> MmContext<'_, M> {
    /// Runs `attempt` until it ends otherwise than for want of a frame, or nothing more can be
    /// reclaimed. No lock is held by the caller. An attempt may read again what was dropped for it,
    /// so the rounds are counted: as many as it takes to reclaim every frame once.
    ///
    /// # Errors
    /// NoMem in the end for want of frames; else the attempt's.
    #[inline]
    pub(crate) fn with_room<T>(
        &self,
        attempt: impl FnMut() -> Result<T, MmError>,
    ) -> Result<T, MmError> {
        self.retry(attempt).map_err(|error| match error {
            MmError::NoFrames => MmError::NoMem,
            other => other,
        })
    }

    /// [`MmContext::with_room`] for callers to whom the two reasons for ENOMEM are not the same.
    #[inline]
    pub(crate) fn retry<T>(
        &self,
        mut attempt: impl FnMut() -> Result<T, MmError>,
    ) -> Result<T, MmError> {
        match attempt() {
            Err(error @ (MmError::NoFrames | MmError::Swapped(_))) => {
                self.retry_slowly(error, attempt)
            }
            result => result,
        }
    }

    #[cold]
    fn retry_slowly<T>(
        &self,
        mut error: MmError,
        mut attempt: impl FnMut() -> Result<T, MmError>,
    ) -> Result<T, MmError> {
        let mut rounds = self.memmap.nr_frames() / RECLAIM_BATCH + 1;
        loop {
            match error {
                MmError::NoFrames if rounds == 0 => return Err(error),
                MmError::NoFrames => {
                    rounds -= 1;
                    self.reclaim_or_fail()?;
                }
                MmError::Swapped(entry) => match self.swap_in_around(entry) {
                    Err(MmError::NoFrames) => {
                        error = MmError::NoFrames;
                        continue;
                    }
                    result => result?,
                },
                other => return Err(other),
            }
            match attempt() {
                Err(again @ (MmError::NoFrames | MmError::Swapped(_))) => error = again,
                result => return result,
            }
        }
    }

    /// Kswapd's work: brings free pages up to the high marks. No lock is held. Returns pages freed.
    pub fn balance(&self) -> u64 {
        if self.only_working_set_left() {
            return 0;
        }
        self.reclaim.balance(self)
    }

    /// True if all that could be reclaimed is the last few pages of files, most of them the code that
    /// programs are running: they would be read in again at once, and nobody would get anywhere. Linux
    /// has `lru_gen_min_ttl` for this.
    fn only_working_set_left(&self) -> bool {
        if self.swap.free_slots() > 0 {
            return false;
        }
        let items = [VmItem::NrActiveFile, VmItem::NrInactiveFile];
        let files: u64 = items.map(|item| self.vmstat.item(item)).iter().sum();
        files < self.memmap.nr_frames() / WORKING_SET_SHARE
    }

    /// Makes frames free. No lock is held.
    ///
    /// # Errors
    /// NoFrames: there is nothing left that could go.
    fn reclaim_or_fail(&self) -> Result<(), MmError> {
        // Frames of vmalloc that only wait for a flush cost nobody anything.
        if self.vmalloc.purge() > 0 {
            return Ok(());
        }
        if self.only_working_set_left() {
            return Err(MmError::NoFrames);
        }
        let request = ReclaimRequest {
            order: Order::ZERO,
            gfp: GfpFlags::HIGHUSER_MOVABLE,
            target: RECLAIM_BATCH,
        };
        match self.reclaim.try_to_free_pages(self, request) {
            0 => Err(MmError::NoFrames),
            _ => Ok(()),
        }
    }
}
