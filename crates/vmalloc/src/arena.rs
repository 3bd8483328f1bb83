//! The window of kernel addresses: who has which.

use crate::area::{Area, VmallocError};
use crate::node::{Link, VmapNode};
use crate::tree::{Carved, Tree};
use core::ops::ControlFlow;
use vellum_object::{KBox, ObjectCache};
use vellum_types::{OutOfMemory, PAGE_SIZE, VirtRange};

/// Nodes that are kept for the next area rather than given back.
const MAX_SPARE: usize = 512;

/// Addresses that are free, in use, or wait for a flush.
///
/// ```text
///   free ──reserve──▶ busy ──retire──▶ lazy ──take_lazy──▶ (unmap, flush) ──give_back──▶ free
/// ```
///
/// # Invariants
/// Every address of the window is in exactly one node, and no two free nodes touch. While a purge
/// runs, the nodes it took are with it.
pub(crate) struct Arena<'m> {
    window: VirtRange,
    nodes: ObjectCache<'m, VmapNode<'m>>,
    pub(crate) free: Tree<'m>,
    pub(crate) busy: Tree<'m>,
    /// A list, newest first.
    lazy: Link<'m>,
    /// Pages of `lazy`, guards included.
    lazy_pages: u64,
    spare: Link<'m>,
    nr_spare: usize,
}

impl<'m> Arena<'m> {
    /// All of `window` free.
    pub(crate) fn new(
        window: VirtRange,
        nodes: ObjectCache<'m, VmapNode<'m>>,
    ) -> Result<Self, OutOfMemory> {
        let mut all = nodes.boxed(VmapNode::vacant())?;
        all.set_range(window.start().as_u64(), window.end().as_u64());
        let mut free = Tree::new();
        free.insert(all);
        Ok(Self {
            window,
            nodes,
            free,
            busy: Tree::new(),
            lazy: None,
            lazy_pages: 0,
            spare: None,
            nr_spare: 0,
        })
    }

    /// The whole.
    pub(crate) const fn window(&self) -> VirtRange {
        self.window
    }

    /// Pages that wait for a flush.
    pub(crate) const fn lazy_pages(&self) -> u64 {
        self.lazy_pages
    }

    /// Takes addresses for `area` and the guard page behind it. Returns the first.
    pub(crate) fn reserve(&mut self, align: u64, area: Area) -> Result<u64, VmallocError> {
        let size = (u64::from(area.pages) + 1) * PAGE_SIZE;
        // Reserved before anything changes: one for the area, one for a run that is cut in two.
        let mut node = self.take_node()?;
        let mut second = if align > PAGE_SIZE {
            match self.take_node() {
                Ok(second) => Some(second),
                Err(error) => {
                    self.keep(node);
                    return Err(error.into());
                }
            }
        } else {
            None
        };
        let carved = self.free.carve(size, align, &mut second);
        self.keep_link(second);
        let Carved::At(start, emptied) = carved else {
            self.keep(node);
            return Err(VmallocError::NoSpace);
        };
        self.keep_link(emptied);
        node.set_range(start, start + size);
        node.area = area;
        self.busy.insert(node);
        Ok(start)
    }

    /// The area that starts at `start` and that `which` accepts is no longer in use. False if there
    /// is none.
    pub(crate) fn retire(&mut self, start: u64, which: impl FnOnce(&Area) -> bool) -> bool {
        let Some(mut node) = self.busy.remove(start) else {
            return false;
        };
        if !which(&node.area) {
            self.busy.insert(node);
            return false;
        }
        self.lazy_pages += node.len() / PAGE_SIZE;
        node.right = self.lazy.take();
        self.lazy = Some(node);
        true
    }

    /// All that waits for a flush.
    pub(crate) fn take_lazy(&mut self) -> Link<'m> {
        self.lazy_pages = 0;
        self.lazy.take()
    }

    /// The addresses of a list from [`Arena::take_lazy`] may be used again.
    pub(crate) fn give_back(&mut self, mut list: Link<'m>) {
        while let Some(mut node) = list {
            list = node.right.take();
            // Neighbours that were freed one after the other go together.
            while let Some(next) = list.as_deref_mut() {
                if next.end == node.start {
                    node.start = next.start;
                } else if next.start == node.end {
                    node.end = next.end;
                } else {
                    break;
                }
                let rest = next.right.take();
                self.keep_link(core::mem::replace(&mut list, rest));
            }
            for emptied in self.free.give(node) {
                self.keep_link(emptied);
            }
        }
    }

    fn take_node(&mut self) -> Result<KBox<'m, VmapNode<'m>>, OutOfMemory> {
        match self.spare.take() {
            Some(mut node) => {
                self.spare = node.right.take();
                self.nr_spare -= 1;
                Ok(node)
            }
            None => self.nodes.boxed(VmapNode::vacant()),
        }
    }

    fn keep_link(&mut self, link: Link<'m>) {
        if let Some(node) = link {
            self.keep(node);
        }
    }

    /// A node that is in no tree or list; beyond some, they are freed.
    fn keep(&mut self, mut node: KBox<'m, VmapNode<'m>>) {
        if self.nr_spare == MAX_SPARE {
            return;
        }
        node.right = self.spare.take();
        self.spare = Some(node);
        self.nr_spare += 1;
    }

    /// Gives all nodes back. Nothing may be in use.
    pub(crate) fn clear(&mut self) {
        self.free.clear();
        self.busy.clear();
        free_list(&mut self.lazy);
        free_list(&mut self.spare);
        (self.lazy_pages, self.nr_spare) = (0, 0);
    }

    /// Calls `f` with each area that waits, newest first, until it breaks.
    pub(crate) fn for_each_lazy<E>(
        &self,
        f: &mut dyn FnMut(&VmapNode<'m>) -> ControlFlow<E>,
    ) -> ControlFlow<E> {
        let mut link = self.lazy.as_deref();
        while let Some(node) = link {
            f(node)?;
            link = node.right.as_deref();
        }
        ControlFlow::Continue(())
    }

    /// Checks the trees and, unless a purge has some nodes, that they fill the window.
    pub(crate) fn validate(&self, purging: bool) -> Result<(), &'static str> {
        let (low, high) = (self.window.start().as_u64(), self.window.end().as_u64());
        self.free.validate(low, high)?;
        self.busy.validate(low, high)?;
        let mut bytes = 0;
        let mut before = None;
        let mut overlap = false;
        let mut touching = false;
        let _ = self.free.for_each::<()>(&mut |node| {
            touching |= before == Some(node.start);
            before = Some(node.end);
            bytes += node.len();
            ControlFlow::Continue(())
        });
        let _ = self.busy.for_each::<()>(&mut |node| {
            overlap |= self.free.find(node.start).is_some();
            bytes += node.len();
            ControlFlow::Continue(())
        });
        let mut lazy = 0;
        let _ = self.for_each_lazy::<()>(&mut |node| {
            overlap |= self.free.find(node.start).is_some();
            overlap |= self.busy.find(node.start).is_some();
            lazy += node.len();
            ControlFlow::Continue(())
        });
        if touching {
            return Err("vmalloc: free runs that touch are not one");
        }
        if overlap {
            return Err("vmalloc: addresses that are in two places");
        }
        if lazy != self.lazy_pages * PAGE_SIZE {
            return Err("vmalloc: wrong number of lazy pages");
        }
        if !purging && bytes + lazy != self.window.len() {
            return Err("vmalloc: addresses are lost");
        }
        Ok(())
    }
}

/// Frees a list one by one: dropping its head would recurse as deep as it is long.
fn free_list(list: &mut Link<'_>) {
    while let Some(mut node) = list.take() {
        *list = node.right.take();
    }
}

impl Drop for Arena<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}
