//! An address-ordered tree of disjoint runs, which knows the longest below each node.

use crate::node::{Link, VmapNode, join, longest, rebalance};
use core::ops::ControlFlow;
use vellum_object::KBox;
use vellum_types::PAGE_SIZE;

/// Runs in order of address, in an AVL tree: every operation takes time in the logarithm of their
/// number. Allocates nothing; nodes come and go as values.
#[derive(Default)]
pub(crate) struct Tree<'m> {
    root: Link<'m>,
    len: usize,
}

/// What became of a request for room.
pub(crate) enum Carved<'m> {
    /// There is none.
    Full,
    /// It begins at this address. A run that was used up left its node.
    At(u64, Link<'m>),
}

impl<'m> Tree<'m> {
    pub(crate) const fn new() -> Self {
        Self { root: None, len: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The longest run, in bytes.
    pub(crate) fn longest(&self) -> u64 {
        longest(&self.root)
    }

    /// Puts a node in whose range touches no other.
    pub(crate) fn insert(&mut self, mut node: KBox<'m, VmapNode<'m>>) {
        let (start, end) = (node.start, node.end);
        node.set_range(start, end);
        insert_below(&mut self.root, node);
        self.len += 1;
    }

    /// Takes out the node that starts at `start`.
    pub(crate) fn remove(&mut self, start: u64) -> Link<'m> {
        let node = remove_below(&mut self.root, start);
        self.len -= usize::from(node.is_some());
        node
    }

    /// The node that contains `addr`.
    pub(crate) fn find(&self, addr: u64) -> Option<&VmapNode<'m>> {
        let mut link = self.root.as_deref();
        while let Some(node) = link {
            if addr < node.start {
                link = node.left.as_deref();
            } else if addr >= node.end {
                link = node.right.as_deref();
            } else {
                return Some(node);
            }
        }
        None
    }

    /// Takes `size` bytes at a multiple of `align` from the lowest run in which they fit for certain,
    /// that is, one of at least `size + align - PAGE_SIZE` bytes: looking at each run for one that
    /// happens to be aligned would not be logarithmic. `spare` is used if a run is cut in two.
    pub(crate) fn carve(&mut self, size: u64, align: u64, spare: &mut Link<'m>) -> Carved<'m> {
        let Some(need) = size.checked_add(align - PAGE_SIZE) else {
            return Carved::Full;
        };
        if longest(&self.root) < need {
            return Carved::Full;
        }
        let had_spare = spare.is_some();
        let mut emptied = None;
        let at = carve_below(&mut self.root, need, size, align, spare, &mut emptied);
        self.len += usize::from(had_spare && spare.is_none());
        self.len -= usize::from(emptied.is_some());
        at.map_or(Carved::Full, |at| Carved::At(at, emptied))
    }

    /// Adds the addresses of `node`, one with the runs that they touch. Returns the nodes that are
    /// not needed any more: two, one or none.
    pub(crate) fn give(&mut self, mut node: KBox<'m, VmapNode<'m>>) -> [Link<'m>; 2] {
        let (start, end) = (node.start, node.end);
        match self.touching(start, end) {
            (None, None) => {
                node.set_range(start, end);
                self.insert(node);
                [None, None]
            }
            (Some(key), None) => {
                update_below(&mut self.root, key, |run| run.end = end);
                [Some(node), None]
            }
            (None, Some((key, _))) => {
                update_below(&mut self.root, key, |run| run.start = start);
                [Some(node), None]
            }
            (Some(key), Some((above, end))) => {
                let emptied = self.remove(above);
                update_below(&mut self.root, key, |run| run.end = end);
                [Some(node), emptied]
            }
        }
    }

    /// The start of the run that ends at `start`, and the bounds of the one that starts at `end`.
    fn touching(&self, start: u64, end: u64) -> (Option<u64>, Option<(u64, u64)>) {
        let (mut below, mut above) = (None, None);
        let mut link = self.root.as_deref();
        while let Some(node) = link {
            if node.end <= start {
                below = Some(node);
                link = node.right.as_deref();
            } else {
                above = Some(node);
                link = node.left.as_deref();
            }
        }
        (
            below
                .filter(|node| node.end == start)
                .map(|node| node.start),
            above
                .filter(|node| node.start == end)
                .map(|node| (node.start, node.end)),
        )
    }

    /// Calls `f` with each node in order of address, until it breaks.
    pub(crate) fn for_each<E>(
        &self,
        f: &mut dyn FnMut(&VmapNode<'m>) -> ControlFlow<E>,
    ) -> ControlFlow<E> {
        visit(&self.root, f)
    }

    /// Empties the tree: the nodes in no order.
    pub(crate) fn clear(&mut self) {
        self.root = None;
        self.len = 0;
    }

    /// Checks order, balance and summaries.
    pub(crate) fn validate(&self, low: u64, high: u64) -> Result<(), &'static str> {
        let nodes = match &self.root {
            Some(root) => root.validate(low, high)?,
            None => 0,
        };
        if nodes == self.len {
            Ok(())
        } else {
            Err("vmalloc: wrong number of nodes in a tree")
        }
    }
}

fn insert_below<'m>(link: &mut Link<'m>, node: KBox<'m, VmapNode<'m>>) {
    match link.as_deref_mut() {
        None => {
            *link = Some(node);
            return;
        }
        Some(top) if node.start < top.start => insert_below(&mut top.left, node),
        Some(top) => insert_below(&mut top.right, node),
    }
    rebalance(link);
}

fn remove_below<'m>(link: &mut Link<'m>, start: u64) -> Link<'m> {
    let top = link.as_deref_mut()?;
    let removed = if start < top.start {
        remove_below(&mut top.left, start)
    } else if start > top.start {
        remove_below(&mut top.right, start)
    } else {
        return take_top(link);
    };
    rebalance(link);
    removed
}

/// Takes the top node out of its subtree.
fn take_top<'m>(link: &mut Link<'m>) -> Link<'m> {
    let mut node = link.take()?;
    *link = match (node.left.take(), node.right.take()) {
        (None, None) => None,
        (Some(only), None) | (None, Some(only)) => Some(only),
        (left, right) => join(left, right),
    };
    Some(node)
}

fn update_below<'m>(link: &mut Link<'m>, start: u64, change: impl FnOnce(&mut VmapNode<'m>)) {
    let Some(top) = link.as_deref_mut() else {
        return;
    };
    if start < top.start {
        update_below(&mut top.left, start, change);
    } else if start > top.start {
        update_below(&mut top.right, start, change);
    } else {
        change(top);
    }
    rebalance(link);
}

fn carve_below<'m>(
    link: &mut Link<'m>,
    need: u64,
    size: u64,
    align: u64,
    spare: &mut Link<'m>,
    emptied: &mut Link<'m>,
) -> Option<u64> {
    let top = link.as_deref_mut()?;
    let at = if longest(&top.left) >= need {
        carve_below(&mut top.left, need, size, align, spare, emptied)
    } else if top.len() >= need {
        let at = top.start.next_multiple_of(align);
        let (start, end) = (top.start, top.end);
        match (at == start, at + size == end) {
            (true, true) => {
                *emptied = take_top(link);
                return Some(at);
            }
            (true, false) => {
                top.start = at + size;
                top.shrunk();
                return Some(at);
            }
            (false, true) => {
                top.end = at;
                top.shrunk();
                return Some(at);
            }
            (false, false) => {
                let mut rest = spare.take()?;
                rest.set_range(at + size, end);
                top.end = at;
                insert_below(&mut top.right, rest);
            }
        }
        Some(at)
    } else {
        carve_below(&mut top.right, need, size, align, spare, emptied)
    };
    rebalance(link);
    at
}

fn visit<'m, E>(
    link: &Link<'m>,
    f: &mut dyn FnMut(&VmapNode<'m>) -> ControlFlow<E>,
) -> ControlFlow<E> {
    let Some(node) = link.as_deref() else {
        return ControlFlow::Continue(());
    };
    visit(&node.left, f)?;
    f(node)?;
    visit(&node.right, f)
}
