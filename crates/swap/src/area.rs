//! One swap area.

use crate::cluster::{Clusters, Words};
use crate::word::SlotWord;
use crate::{SwapDevice, SwapError};
use vellum_page::PageSource;
use vellum_types::SwapEntry;

/// How an area is put into use.
#[derive(Clone, Copy, Debug, Default)]
pub struct SwapOn<'a> {
    /// Areas of a higher priority are filled first; equal ones in turn. `None` takes one below all
    /// that were chosen so before: -2, -3, … as in Linux.
    pub priority: Option<i16>,
    /// Slots that are not to be used, besides slot 0.
    pub bad: &'a [u32],
}

/// An area at this moment: a line of `/proc/swaps` and more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AreaInfo {
    /// Its number, as in entries.
    pub area: u8,
    /// See [`SwapOn::priority`].
    pub priority: i16,
    /// Slots that can be used.
    pub usable: u32,
    /// Slots in use.
    pub used: u32,
    /// Slots that were taken out of use because writing them failed, or will be as soon as they are
    /// free.
    pub retired: u32,
    /// No new slots are given out: swapoff is under way.
    pub draining: bool,
}

/// A slot that is still in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UsedSlot {
    /// Which.
    pub entry: SwapEntry,
    /// Table entries that refer to it.
    pub count: u32,
    /// The page is in memory.
    pub cached: bool,
}

/// What the area's lock protects: everything.
pub(crate) struct Area<'m> {
    pub(crate) device: &'m dyn SwapDevice,
    pub(crate) words: Words<'m>,
    clusters: Clusters<'m>,
    pub(crate) priority: i16,
    pub(crate) draining: bool,
    /// The device wants to be told of slots that are not in use any more.
    pub(crate) discards: bool,
    pub(crate) usable: u32,
    pub(crate) used: u32,
    pub(crate) retired: u32,
}

impl<'m> Area<'m> {
    pub(crate) fn new(
        source: &'m dyn PageSource,
        device: &'m dyn SwapDevice,
        priority: i16,
        bad: &[u32],
    ) -> Result<Self, SwapError> {
        let nr_slots = device.nr_slots().min(SwapEntry::SLOTS);
        if nr_slots < 2 {
            return Err(SwapError::TooSmall);
        }
        let words = Words::new(source, nr_slots)?;
        let mut usable = nr_slots - 1;
        words.set(0, SlotWord::BAD.raw());
        for &slot in bad {
            if slot >= nr_slots {
                return Err(SwapError::BadSlot(slot));
            }
            if words.get(slot) != SlotWord::BAD.raw() {
                words.set(slot, SlotWord::BAD.raw());
                usable -= 1;
            }
        }
        if usable == 0 {
            return Err(SwapError::TooSmall);
        }
        Ok(Self {
            device,
            clusters: Clusters::new(source, &words)?,
            words,
            priority,
            draining: false,
            discards: device.wants_discard(),
            usable,
            used: 0,
            retired: 0,
        })
    }

    #[inline]
    pub(crate) fn word(&self, slot: u32) -> SlotWord {
        SlotWord::from_raw(self.words.get(slot))
    }

    #[inline]
    pub(crate) fn set_word(&self, slot: u32, word: SlotWord) {
        self.words.set(slot, word.raw());
    }

    /// Takes a slot and makes `word` its word. Also tells whether it is the first of a cluster.
    #[inline]
    pub(crate) fn take(&mut self, word: SlotWord) -> Option<(u32, bool)> {
        if self.draining || !self.device.has_room() {
            return None;
        }
        let (slot, first) = self.clusters.take(&self.words)?;
        self.set_word(slot, word);
        self.used += 1;
        Some((slot, first))
    }

    /// Gives a slot back. True if it can be used again.
    #[inline]
    pub(crate) fn give_back(&mut self, slot: u32) -> bool {
        let retire = self.word(slot).is_retired();
        self.clusters.give_back(&self.words, slot, retire);
        self.used -= 1;
        self.usable -= u32::from(retire);
        !retire
    }

    /// The first slot of `from..stop` that is in use.
    pub(crate) fn next_used(&self, from: u32, stop: u32) -> Option<(u32, SlotWord)> {
        (from..stop)
            .map(|slot| (slot, self.word(slot)))
            .find(|(_, word)| word.in_use())
    }

    pub(crate) fn info(&self, area: u8) -> AreaInfo {
        AreaInfo {
            area,
            priority: self.priority,
            usable: self.usable,
            used: self.used,
            retired: self.retired,
            draining: self.draining,
        }
    }

    /// Compares clusters, numbers and words. Says what is wrong.
    pub(crate) fn validate(&self) -> Result<(), &'static str> {
        self.clusters.validate(&self.words)?;
        let (mut used, mut bad, mut retiring) = (0, 0, 0);
        for slot in 0..self.words.len() {
            let word = self.word(slot);
            match word.kind() {
                crate::word::Kind::Free => {}
                crate::word::Kind::Bad => bad += 1,
                _ => {
                    used += 1;
                    retiring += u32::from(word.is_retired());
                    if word.count() == 0 && word.in_use() && word.cached().is_none() {
                        return Err("a slot is in use by nobody");
                    }
                }
            }
        }
        if used != self.used {
            return Err("an area miscounts its used slots");
        }
        if self.words.len() - bad != self.usable || retiring > self.retired {
            return Err("an area miscounts its bad slots");
        }
        Ok(())
    }
}
