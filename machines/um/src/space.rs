//! One host address space: the record of what is installed, and what is still to be done.

use crate::stub::STUB_BASE;
use crate::stub::mailbox::{HostCall, Slot};
use crate::tlb::{Record, Run, Target};
use std::ops::Range;
use vellum_types::{PAGE_SHIFT, PAGE_SIZE, Prot, VirtRange};

/// Number under which a service process has the RAM open.
const RAM_FD: u64 = 0;

/// Operations whose installations are not evicted.
const SPARED_OPERATIONS: u32 = 8;

/// The last pages of a program's stack. What is loaded there is never evicted, so that the host can
/// read whatever the program just wrote there, without asking us first.
pub(crate) const RESIDENT_STACK: Range<u64> =
    STUB_BASE - PAGE_SIZE - (128 << 10)..STUB_BASE - PAGE_SIZE;

/// A change of host mappings. Pages are page numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HostOp {
    /// Install.
    Map {
        /// The first page.
        page: u64,
        /// How many.
        pages: u64,
        /// What is behind the first.
        target: Target,
        /// What is allowed.
        prot: Prot,
    },
    /// Remove.
    Unmap {
        /// The first page.
        page: u64,
        /// How many.
        pages: u64,
    },
    /// Change what is allowed.
    Protect {
        /// The first page.
        page: u64,
        /// How many.
        pages: u64,
        /// What is allowed from now on.
        prot: Prot,
    },
}

impl HostOp {
    /// The host's call for it.
    pub(crate) fn call(&self) -> HostCall {
        let flags = |f: i32| f as u64;
        match *self {
            Self::Map {
                page,
                pages,
                target: Target::Frame(frame),
                prot,
            } => {
                let how = flags(libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_POPULATE);
                let prot = u64::from(prot.bits());
                let offset = u64::from(frame) << PAGE_SHIFT;
                let (at, len) = (page << PAGE_SHIFT, pages << PAGE_SHIFT);
                HostCall::new(libc::SYS_mmap, [at, len, prot, how, RAM_FD, offset])
            }
            Self::Map {
                page,
                pages,
                target: Target::Zero,
                prot,
            } => {
                let how = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
                let how = flags(how | libc::MAP_NORESERVE);
                let prot = u64::from(prot.bits());
                let (at, len) = (page << PAGE_SHIFT, pages << PAGE_SHIFT);
                HostCall::new(libc::SYS_mmap, [at, len, prot, how, u64::MAX, 0])
            }
            Self::Unmap { page, pages } => {
                HostCall::new(libc::SYS_munmap, [page << PAGE_SHIFT, pages << PAGE_SHIFT])
            }
            Self::Protect { page, pages, prot } => {
                let prot = u64::from(prot.bits());
                let (at, len) = (page << PAGE_SHIFT, pages << PAGE_SHIFT);
                HostCall::new(libc::SYS_mprotect, [at, len, prot])
            }
        }
    }

    /// The pages it is about.
    pub(crate) fn pages(&self) -> Range<u64> {
        match *self {
            Self::Map { page, pages, .. }
            | Self::Unmap { page, pages }
            | Self::Protect { page, pages, .. } => page..page + pages,
        }
    }
}

/// The process that works for a space.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Service {
    /// Its process id on the host.
    pub pid: i32,
    /// The guest process whose child it is, for the host.
    pub parent: i32,
    /// Its slot of the mailbox.
    pub slot: Slot,
}

/// A host address space.
#[derive(Default, Debug)]
pub(crate) struct Space {
    /// Who works here; `None` while the host has no such space yet.
    pub service: Option<Service>,
    /// The service has not yet answered its first request.
    pub starting: bool,
    /// What is installed once `queue` is done.
    pub record: Record,
    /// What is still to be done, in order.
    pub queue: Vec<HostOp>,
    /// Guest tasks that run at this moment or sleep in the host kernel.
    pub running: u32,
    /// Guest tasks altogether.
    pub users: u32,
    /// Memory that the host kernel may touch: by which task, where.
    pub pins: Vec<(i32, VirtRange)>,
    /// Pages of the host's own that must stay: the vdso and its data.
    pub special: Vec<Range<u64>>,
    /// Flushes from the time before there was a host space.
    pub early_flushes: Vec<Range<u64>>,
    /// Where the search for a victim goes on.
    hand: u64,
}

impl Space {
    /// Is the page a target of running I/O?
    pub(crate) fn is_pinned(&self, page: u64) -> bool {
        let at = page << PAGE_SHIFT;
        let hit = |r: &VirtRange| r.start().as_u64() <= at && at < r.end().as_u64();
        self.pins.iter().any(|(_, range)| hit(range))
    }

    fn any_pinned(&self, pages: Range<u64>) -> bool {
        let overlaps = |r: &VirtRange| {
            r.start().page_number() < pages.end && pages.start << PAGE_SHIFT < r.end().as_u64()
        };
        self.pins.iter().any(|(_, range)| overlaps(range))
    }

    /// Installs a run. Pages that are installed just so are left out, but for `force`: the page
    /// of a host fault, which proves that it is not installed whatever the record says.
    pub(crate) fn install(&mut self, page: u64, run: Run, force: Option<u64>) {
        let wanted = |record: &Record, p: u64| {
            Some(p) == force || record.get(p) != Some((run.target.ahead(p - page), run.prot))
        };
        let mut at = page;
        let end = page + run.pages;
        while at < end {
            if !wanted(&self.record, at) {
                self.record.touch(at, run.epoch);
                at += 1;
                continue;
            }
            let first = at;
            while at < end && wanted(&self.record, at) {
                at += 1;
            }
            let piece = Run {
                pages: at - first,
                target: run.target.ahead(first - page),
                ..run
            };
            self.record.insert(first, piece);
            self.push_map(first, piece);
        }
    }

    fn push_map(&mut self, page: u64, run: Run) {
        // A copy-on-write flushes the page it installs anew: the second alone will do.
        while let Some(HostOp::Unmap { page: old, pages }) = self.queue.last().copied()
            && page <= old
            && old + pages <= page + run.pages
        {
            self.queue.pop();
        }
        if let Some(HostOp::Map {
            page: old,
            pages,
            target,
            prot,
        }) = self.queue.last_mut()
            && *old + *pages == page
            && *prot == run.prot
            && target.ahead(*pages) == run.target
        {
            *pages += run.pages;
            return;
        }
        let Run {
            pages,
            target,
            prot,
            ..
        } = run;
        self.queue.push(HostOp::Map {
            page,
            pages,
            target,
            prot,
        });
    }

    /// Drops what is installed in `pages`.
    pub(crate) fn flush(&mut self, pages: Range<u64>) {
        let mut spans: Vec<Range<u64>> = Vec::new();
        for (at, run) in self.record.clipped(pages.start, pages.end) {
            let end = at + run.pages;
            match spans.last_mut() {
                // One call for both, if nothing of the host's own lies between.
                Some(last)
                    if !self
                        .special
                        .iter()
                        .any(|s| last.end <= s.start && s.start < at) =>
                {
                    last.end = end;
                }
                _ => spans.push(at..end),
            }
        }
        if spans.is_empty() {
            return;
        }
        self.record.remove(pages.start, pages.end);
        for span in spans {
            self.queue.push(HostOp::Unmap {
                page: span.start,
                pages: span.end - span.start,
            });
        }
    }

    /// Takes the write permission from `pages`.
    pub(crate) fn wrprotect(&mut self, pages: Range<u64>) {
        let Self { record, queue, .. } = self;
        record.wrprotect(pages.start, pages.end, |page, pages, prot| {
            if let Some(HostOp::Protect {
                page: old,
                pages: n,
                prot: p,
            }) = queue.last_mut()
                && *old + *n == page
                && *p == prot
            {
                *n += pages;
            } else {
                queue.push(HostOp::Protect { page, pages, prot });
            }
        });
    }

    /// Removes runs until no more than `capacity` are left: never pinned ones, never those at the end
    /// of the stack, and never those that the last few operations up to `epoch` installed. One instruction
    /// needs several pages at once; if each evicted another, it would never end.
    pub(crate) fn evict(&mut self, capacity: usize, epoch: u32) {
        let mut tries = self.record.len();
        while self.record.len() > capacity && tries > 0 {
            tries -= 1;
            let Some((at, run)) = self.record.next_run(self.hand) else {
                return;
            };
            self.hand = at + run.pages;
            let pages = at..self.hand;
            let resident = RESIDENT_STACK.start >> PAGE_SHIFT < pages.end
                && pages.start < RESIDENT_STACK.end >> PAGE_SHIFT;
            let spared = epoch.wrapping_sub(run.epoch) < SPARED_OPERATIONS;
            if !resident && !spared && !self.any_pinned(pages.clone()) {
                self.flush(pages);
            }
        }
    }

    /// The record of a copy of this space, as the host's fork makes it. Pinned pages got frames of
    /// their own in the copy, so what is inherited there is wrong.
    pub(crate) fn fork_into(&self, child: &mut Self) {
        child.record = self.record.clone();
        child.special = self.special.clone();
        for (_, range) in &self.pins {
            child
                .flush(range.start().page_number()..range.end().as_u64().div_ceil(1 << PAGE_SHIFT));
        }
        for range in std::mem::take(&mut child.early_flushes) {
            child.flush(range);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vellum_types::VirtAddr;

    fn run(pages: u64, frame: u32, prot: Prot) -> Run {
        Run {
            pages,
            target: Target::Frame(frame),
            prot,
            epoch: 1,
        }
    }

    #[test]
    fn neighbours_become_one_call() {
        let mut space = Space::default();
        space.install(10, run(2, 100, Prot::READ), None);
        space.install(12, run(2, 102, Prot::READ), None);
        assert_eq!(space.queue.len(), 1);
        assert_eq!(space.queue[0].pages(), 10..14);
        space.install(11, run(1, 101, Prot::READ), None);
        assert_eq!(space.queue.len(), 1, "already there");
        space.install(11, run(1, 101, Prot::READ), Some(11));
        assert_eq!(space.queue.len(), 2, "a fault forces it");
    }

    #[test]
    fn copy_on_write_is_one_call() {
        let mut space = Space::default();
        space.install(10, run(1, 100, Prot::READ), None);
        space.queue.clear();
        space.flush(10..11);
        space.install(10, run(1, 7, Prot::READ | Prot::WRITE), None);
        assert_eq!(space.queue.len(), 1);
        assert!(matches!(
            space.queue[0],
            HostOp::Map {
                target: Target::Frame(7),
                ..
            }
        ));
    }

    #[test]
    fn flush_spares_the_vdso() {
        let mut space = Space {
            special: std::iter::once(20..22).collect(),
            ..Space::default()
        };
        space.install(10, run(2, 100, Prot::READ), None);
        space.install(30, run(2, 200, Prot::READ), None);
        space.queue.clear();
        space.flush(0..100);
        let ranges: Vec<_> = space.queue.iter().map(HostOp::pages).collect();
        assert_eq!(ranges, [10..12, 30..32]);
        assert_eq!(space.record.len(), 0);
    }

    #[test]
    fn eviction_spares_pins_and_the_present_operation() {
        let mut space = Space::default();
        for i in 0..20 {
            let epoch = if i == 3 { 20 } else { 1 };
            let frame = Target::Frame(1000 - i as u32 * 5);
            space.install(
                i * 2,
                Run {
                    pages: 1,
                    target: frame,
                    prot: Prot::READ,
                    epoch,
                },
                None,
            );
        }
        let page = VirtRange::from_len(VirtAddr::from_page_number(8), 1).expect("not empty");
        space.pins.push((1, page));
        space.evict(2, 20);
        assert_eq!(space.record.len(), 2);
        assert!(space.record.get(6).is_some() && space.record.get(8).is_some());
        assert!(space.is_pinned(8) && !space.is_pinned(9));
    }
}
