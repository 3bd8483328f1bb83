//! Which slots of an area are free.

use crate::array::FrameArray;
use crate::word::{Kind, SlotWord};
use vellum_page::PageSource;
use vellum_types::OutOfMemory;

/// Slots of a cluster, Linux's `SWAPFILE_CLUSTER` on machines without huge pages.
pub(crate) const CLUSTER: u32 = 256;
/// End of a chain or list.
const NONE: u16 = u16::MAX;

/// The words of an area's slots.
pub(crate) type Words<'m> = FrameArray<'m, u64>;

/// One cluster: 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Info {
    /// Slots in use.
    used: u16,
    /// Slots that are never to be used.
    bad: u16,
    /// Slots from here on were not given out since the cluster was last empty.
    fresh: u16,
    /// The first of the chain of slots below `fresh` that are free again.
    chain: u16,
}

impl Info {
    const EMPTY: Self = Self {
        used: 0,
        bad: 0,
        fresh: 0,
        chain: NONE,
    };

    fn unpack(raw: u64) -> Self {
        Self {
            used: raw as u16,
            bad: (raw >> 16) as u16,
            fresh: (raw >> 32) as u16,
            chain: (raw >> 48) as u16,
        }
    }
    fn pack(self) -> u64 {
        u64::from(self.used)
            | u64::from(self.bad) << 16
            | u64::from(self.fresh) << 32
            | u64::from(self.chain) << 48
    }
}

/// Where a cluster is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// No slot in use.
    Free,
    /// Some in use, some not.
    Partial,
    /// All in use or bad, or the cluster that slots are being taken from: on no list.
    Nowhere,
}

/// A list of clusters, by number plus one; 0 ends it.
#[derive(Clone, Copy, Default)]
struct List {
    head: u32,
    tail: u32,
}

/// The free slots of an area, in clusters of 256: one cluster is filled after the other, so that pages
/// that go out together lie together, and taking or giving back a slot costs the same in an area of
/// any size.
pub(crate) struct Clusters<'m> {
    info: FrameArray<'m, u64>,
    /// Next and previous of the list that the cluster is on, numbers plus one.
    links: FrameArray<'m, u64>,
    free: List,
    partial: List,
    /// The cluster that slots are taken from.
    current: Option<u32>,
    nr_slots: u32,
}

impl<'m> Clusters<'m> {
    /// All of `words` that are not bad are free.
    pub(crate) fn new(source: &'m dyn PageSource, words: &Words<'m>) -> Result<Self, OutOfMemory> {
        let nr_slots = words.len();
        let count = nr_slots.div_ceil(CLUSTER);
        let mut clusters = Self {
            info: FrameArray::new(source, count)?,
            links: FrameArray::new(source, count)?,
            free: List::default(),
            partial: List::default(),
            current: None,
            nr_slots,
        };
        for cluster in 0..count {
            let slots = cluster * CLUSTER..(cluster * CLUSTER + clusters.len_of(cluster));
            let bad = slots.filter(|slot| SlotWord::from_raw(words.get(*slot)) == SlotWord::BAD);
            let info = Info {
                bad: bad.count() as u16,
                ..Info::EMPTY
            };
            clusters.info.set(cluster, info.pack());
            clusters.insert(cluster, clusters.place(cluster, info));
        }
        Ok(clusters)
    }

    fn len_of(&self, cluster: u32) -> u32 {
        (self.nr_slots - cluster * CLUSTER).min(CLUSTER)
    }

    fn is_full(&self, cluster: u32, info: Info) -> bool {
        u32::from(info.used) + u32::from(info.bad) == self.len_of(cluster)
    }

    fn place(&self, cluster: u32, info: Info) -> Place {
        if self.current == Some(cluster) || self.is_full(cluster, info) {
            Place::Nowhere
        } else if info.used == 0 {
            Place::Free
        } else {
            Place::Partial
        }
    }

    /// Takes a free slot: its number, and whether it is the first of a cluster. The caller sets its
    /// word.
    pub(crate) fn take(&mut self, words: &Words<'m>) -> Option<(u32, bool)> {
        let (cluster, first) = match self.current {
            Some(cluster) => (cluster, false),
            None => {
                let list = if self.free.head != 0 {
                    self.free
                } else {
                    self.partial
                };
                let cluster = list.head.checked_sub(1)?;
                let info = Info::unpack(self.info.get(cluster));
                self.remove(cluster, self.place(cluster, info));
                self.current = Some(cluster);
                (cluster, true)
            }
        };
        let mut info = Info::unpack(self.info.get(cluster));
        let base = cluster * CLUSTER;
        let slot = loop {
            if u32::from(info.fresh) < self.len_of(cluster) {
                let slot = base + u32::from(info.fresh);
                info.fresh += 1;
                if SlotWord::from_raw(words.get(slot)).kind() == Kind::Free {
                    break slot;
                }
            } else {
                assert!(info.chain != NONE, "swap cluster {cluster} is damaged");
                let slot = base + u32::from(info.chain);
                info.chain = SlotWord::from_raw(words.get(slot)).payload() as u16;
                break slot;
            }
        };
        info.used += 1;
        self.info.set(cluster, info.pack());
        if self.is_full(cluster, info) {
            self.current = None;
        }
        Some((slot, first))
    }

    /// A slot that was taken is not in use any more. Sets its word: free, or bad if `retire`.
    pub(crate) fn give_back(&mut self, words: &Words<'m>, slot: u32, retire: bool) {
        let (cluster, offset) = (slot / CLUSTER, (slot % CLUSTER) as u16);
        let mut info = Info::unpack(self.info.get(cluster));
        let before = self.place(cluster, info);
        assert!(info.used > 0, "swap cluster {cluster} is damaged");
        info.used -= 1;
        if retire {
            info.bad += 1;
            words.set(slot, SlotWord::BAD.raw());
        } else {
            words.set(slot, SlotWord::free(u32::from(info.chain)).raw());
            info.chain = offset;
        }
        if info.used == 0 {
            // All free ones are reached from the start again, in order.
            info.fresh = 0;
            info.chain = NONE;
        }
        if self.current == Some(cluster) && self.is_full(cluster, info) {
            self.current = None;
        }
        self.info.set(cluster, info.pack());
        let after = self.place(cluster, info);
        if before != after {
            self.remove(cluster, before);
            self.insert(cluster, after);
        }
    }

    fn list(&mut self, place: Place) -> Option<&mut List> {
        match place {
            Place::Free => Some(&mut self.free),
            Place::Partial => Some(&mut self.partial),
            Place::Nowhere => None,
        }
    }

    fn link(&self, cluster: u32) -> (u32, u32) {
        let raw = self.links.get(cluster);
        (raw as u32, (raw >> 32) as u32)
    }

    fn set_link(&self, cluster: u32, next: u32, prev: u32) {
        self.links
            .set(cluster, u64::from(next) | u64::from(prev) << 32);
    }

    /// At the tail, so that what is freed rests longest.
    fn insert(&mut self, cluster: u32, place: Place) {
        let Some(list) = self.list(place) else { return };
        let tail = core::mem::replace(&mut list.tail, cluster + 1);
        if tail == 0 {
            list.head = cluster + 1;
        } else {
            let (_, prev) = self.link(tail - 1);
            self.set_link(tail - 1, cluster + 1, prev);
        }
        self.set_link(cluster, 0, tail);
    }

    fn remove(&mut self, cluster: u32, place: Place) {
        let (next, prev) = self.link(cluster);
        let Some(list) = self.list(place) else { return };
        if prev == 0 {
            list.head = next;
        }
        if next == 0 {
            list.tail = prev;
        }
        if prev != 0 {
            let (_, before) = self.link(prev - 1);
            self.set_link(prev - 1, next, before);
        }
        if next != 0 {
            let (after, _) = self.link(next - 1);
            self.set_link(next - 1, after, prev);
        }
    }

    /// Compares lists and numbers with the words. Says what is wrong.
    pub(crate) fn validate(&self, words: &Words<'m>) -> Result<(), &'static str> {
        let count = self.nr_slots.div_ceil(CLUSTER);
        let mut listed = [0u32; 2];
        for cluster in 0..count {
            let info = Info::unpack(self.info.get(cluster));
            let base = cluster * CLUSTER;
            let (mut used, mut bad, mut reachable) = (0, 0, 0);
            for offset in 0..self.len_of(cluster) {
                match SlotWord::from_raw(words.get(base + offset)).kind() {
                    Kind::Free if offset >= u32::from(info.fresh) => reachable += 1,
                    Kind::Free => {}
                    Kind::Bad => bad += 1,
                    _ => used += 1,
                }
            }
            let mut chain = info.chain;
            while chain != NONE {
                let word = SlotWord::from_raw(words.get(base + u32::from(chain)));
                if word.kind() != Kind::Free || chain >= info.fresh || reachable > CLUSTER {
                    return Err("a slot in use is on the chain of free ones");
                }
                reachable += 1;
                chain = word.payload() as u16;
            }
            if (used, bad) != (u32::from(info.used), u32::from(info.bad)) {
                return Err("a cluster miscounts its slots");
            }
            if used + bad + reachable != self.len_of(cluster) {
                return Err("a free slot cannot be reached");
            }
            match self.place(cluster, info) {
                Place::Free => listed[0] += 1,
                Place::Partial => listed[1] += 1,
                Place::Nowhere => {}
            }
        }
        for (list, place, expected) in [
            (self.free, Place::Free, listed[0]),
            (self.partial, Place::Partial, listed[1]),
        ] {
            let (mut at, mut prev, mut length) = (list.head, 0, 0);
            while at != 0 {
                let info = Info::unpack(self.info.get(at - 1));
                if self.place(at - 1, info) != place || self.link(at - 1).1 != prev {
                    return Err("a cluster is on the wrong list");
                }
                length += 1;
                if length > count {
                    return Err("a list of clusters has a loop");
                }
                prev = at;
                at = self.link(at - 1).0;
            }
            if length != expected || list.tail != prev {
                return Err("a cluster is on no list");
            }
        }
        Ok(())
    }
}
