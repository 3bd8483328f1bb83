//! Finding room for a new area.

use crate::node::Node;
use crate::{Inner, Leaf, Vma, VmaSet};
use core::ops::ControlFlow;
use vellum_types::{PAGE_SIZE, VirtAddr, VmFlags};

/// What kind of room is wanted. Linux: `struct vm_unmapped_area_info`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GapRequest {
    /// How many bytes; a multiple of the page size.
    pub len: u64,
    /// The lowest address that may be used.
    pub low: VirtAddr,
    /// One past the highest address that may be used.
    pub high: VirtAddr,
    /// A power of two that the address must be a multiple of; at least a page in any case.
    pub align: u64,
    /// Take the highest address, not the lowest.
    pub top_down: bool,
    /// How many bytes to leave free below an area that grows down, Linux's `stack_guard_gap`.
    pub guard_gap: u64,
}

impl<B> VmaSet<'_, B> {
    /// The lowest, or highest, address where an area of `request.len` bytes fits. Linux:
    /// `vm_unmapped_area`.
    ///
    /// As in Linux the first gap counts that holds the length wherever it is aligned. Only if there is
    /// none, a gap is taken that happens to be aligned well, at the cost of looking at each that is
    /// long enough.
    /// `None` if there is no room, the length is not a number of pages, or the alignment is not a
    /// power of two.
    pub fn unmapped_area(&self, request: GapRequest) -> Option<VirtAddr> {
        let align = request.align.max(PAGE_SIZE);
        if request.len == 0 || !request.len.is_multiple_of(PAGE_SIZE) || !align.is_power_of_two() {
            return None;
        }
        let search = |slack: u64| {
            let need = request.len.checked_add(slack)?;
            let search = Search {
                request,
                align,
                need,
            };
            match search.all(self.root.as_ref()) {
                ControlFlow::Break(found) => Some(VirtAddr::new(found)),
                ControlFlow::Continue(()) => None,
            }
        };
        let slack = align - PAGE_SIZE;
        let found = search(slack);
        if slack == 0 {
            found
        } else {
            found.or_else(|| search(0))
        }
    }
}

/// Broken with the address once that is found.
type Flow = ControlFlow<u64>;

struct Search {
    request: GapRequest,
    align: u64,
    /// How long a gap must be, in bytes.
    need: u64,
}

impl Search {
    /// The gap below all areas, those between them, and the one above, in the order wanted.
    fn all<B>(&self, root: Option<&Node<'_, B>>) -> Flow {
        let Some(root) = root else {
            return self.gap(0, u64::MAX, || None::<&Vma<B>>);
        };
        let bounds = root.summary();
        if self.request.top_down {
            self.gap(bounds.end, u64::MAX, || None::<&Vma<B>>)?;
            self.inside(root)?;
            self.gap(0, bounds.start, || root.first())
        } else {
            self.gap(0, bounds.start, || root.first())?;
            self.inside(root)?;
            self.gap(bounds.end, u64::MAX, || None::<&Vma<B>>)
        }
    }

    fn inside<B>(&self, node: &Node<'_, B>) -> Flow {
        match node {
            Node::Leaf(leaf) => self.inside_leaf(leaf),
            Node::Inner(inner) => self.inside_inner(inner),
        }
    }

    /// The slots that can matter, in the order wanted: those that reach above the lower bound and
    /// begin below the upper bound.
    fn slots(&self, starts: &[u64], ends: &[u64]) -> impl Iterator<Item = usize> + use<> {
        let first = ends.partition_point(|end| *end <= self.request.low.as_u64());
        let after = starts.partition_point(|start| *start < self.request.high.as_u64());
        let top_down = self.request.top_down;
        // The gap below the slot `after` may begin below the upper bound.
        let after = (after + 1).min(starts.len()).max(first);
        (0..after - first).map(move |n| if top_down { after - 1 - n } else { first + n })
    }

    fn inside_leaf<B>(&self, leaf: &Leaf<'_, B>) -> Flow {
        let (starts, ends) = (leaf.starts(), leaf.ends());
        for at in self.slots(starts, ends).filter(|at| *at > 0) {
            self.gap(ends[at - 1], starts[at], || leaf.area(at))?;
        }
        Flow::Continue(())
    }

    fn inside_inner<B>(&self, inner: &Inner<'_, B>) -> Flow {
        let (starts, ends) = (inner.starts(), inner.ends());
        for at in self.slots(starts, ends) {
            let Some(child) = inner.child(at) else {
                continue;
            };
            let below = |search: &Self| match at.checked_sub(1) {
                Some(prev) => search.gap(ends[prev], starts[at], || child.first()),
                None => Flow::Continue(()),
            };
            if !self.request.top_down {
                below(self)?;
            }
            if inner.gaps()[at] >= self.need && starts[at] < self.request.high.as_u64() {
                self.inside(child)?;
            }
            if self.request.top_down {
                below(self)?;
            }
        }
        Flow::Continue(())
    }

    /// Tries the gap `start..end`; `next` is the area above it.
    fn gap<'t, B: 't>(
        &self,
        start: u64,
        end: u64,
        next: impl FnOnce() -> Option<&'t Vma<B>>,
    ) -> Flow {
        let low = start.max(self.request.low.as_u64());
        let mut high = end.min(self.request.high.as_u64());
        if high.saturating_sub(low) < self.need {
            return Flow::Continue(());
        }
        // Looked up only here, where the search is about to end: it may take a descent.
        if self.request.guard_gap > 0
            && next().is_some_and(|area| area.flags.contains(VmFlags::GROWSDOWN))
        {
            high = high.min(end.saturating_sub(self.request.guard_gap));
            if high.saturating_sub(low) < self.need {
                return Flow::Continue(());
            }
        }
        let mask = self.align - 1;
        let found = if self.request.top_down {
            (high - self.request.len) & !mask
        } else {
            match low.checked_add(mask) {
                Some(raised) => raised & !mask,
                None => return Flow::Continue(()),
            }
        };
        if found >= low && found <= high - self.request.len {
            Flow::Break(found)
        } else {
            Flow::Continue(())
        }
    }
}
