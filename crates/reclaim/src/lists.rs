//! The lists of one node, linked through the pages' own words.

use crate::marks::ListId;
use vellum_machine::{VmItem, VmStat};
use vellum_page::{Memmap, Page, PageFlags};
use vellum_types::Pfn;

/// A list: new pages at the head, the oldest at the tail.
#[derive(Clone, Copy, Debug)]
struct List {
    head: Pfn,
    tail: Pfn,
    /// Pages, not blocks.
    pages: u64,
    /// Under which name its pages are counted.
    item: VmItem,
}

/// Heads and lengths of a node's lists. Linux: `struct lruvec`.
///
/// # Invariants
/// * A page is on a list if and only if its flag LRU is set; its flags say which.
/// * `pages` is the sum of the sizes of the blocks on a list, and part of the list's `item`.
#[derive(Debug)]
pub(crate) struct Lists {
    lists: [List; ListId::COUNT],
}

impl Lists {
    /// All empty; `items` says how the policy's lists are counted.
    pub(crate) fn new(items: [VmItem; 8]) -> Self {
        let list = |item| List {
            head: Pfn::NONE,
            tail: Pfn::NONE,
            pages: 0,
            item,
        };
        Self {
            lists: core::array::from_fn(|at| {
                list(items.get(at).copied().unwrap_or(VmItem::NrUnevictable))
            }),
        }
    }

    /// Pages on a list.
    #[inline]
    pub(crate) fn pages(&self, list: ListId) -> u64 {
        self.lists[list.index()].pages
    }
}

/// A node's lists together with the pages they link: what a policy works on, under the node's lock.
pub(crate) struct Lru<'a> {
    pub(crate) lists: &'a mut Lists,
    pub(crate) memmap: Memmap<'a>,
    pub(crate) vmstat: &'a VmStat,
}

impl<'a> Lru<'a> {
    /// The descriptor of `pfn`.
    #[inline]
    pub(crate) fn page(&self, pfn: Pfn) -> &'a Page {
        self.memmap.page(pfn)
    }

    /// Pages on a list.
    #[inline]
    pub(crate) fn pages(&self, list: ListId) -> u64 {
        self.lists.pages(list)
    }

    /// The page that was put on the list first; `NONE` if the list is empty.
    #[inline]
    pub(crate) fn tail(&self, list: ListId) -> Pfn {
        self.lists.lists[list.index()].tail
    }

    /// Puts a page that is on no list, or was lifted from one, on `list`, as its youngest.
    #[inline]
    pub(crate) fn add(&mut self, pfn: Pfn, list: ListId) {
        let page = self.page(pfn);
        page.replace_flags(ListId::FLAGS, list.flags() | PageFlags::LRU);
        let at = &mut self.lists.lists[list.index()];
        let head = at.head;
        page.set_prev(Pfn::NONE);
        page.set_next(head);
        at.head = pfn;
        if head == Pfn::NONE {
            at.tail = pfn;
        } else {
            self.memmap.page(head).set_prev(pfn);
        }
        let n = u64::from(page.order().pages());
        at.pages += n;
        self.vmstat.add(at.item, n);
    }

    /// Puts a page that is on no list, or was lifted from one, on `list`, as its oldest.
    pub(crate) fn add_tail(&mut self, pfn: Pfn, list: ListId) {
        let page = self.page(pfn);
        page.replace_flags(ListId::FLAGS, list.flags() | PageFlags::LRU);
        let at = &mut self.lists.lists[list.index()];
        let tail = at.tail;
        page.set_next(Pfn::NONE);
        page.set_prev(tail);
        at.tail = pfn;
        if tail == Pfn::NONE {
            at.head = pfn;
        } else {
            self.memmap.page(tail).set_next(pfn);
        }
        let n = u64::from(page.order().pages());
        at.pages += n;
        self.vmstat.add(at.item, n);
    }

    /// Takes a page off its list. The list's mark stays in the flags until it is put on another. Only
    /// for pages that somebody holds a reference to, or that are being freed by the caller: whoever
    /// drops the last reference looks at the flag without the lock.
    #[inline]
    pub(crate) fn del(&mut self, pfn: Pfn) {
        self.lift(pfn);
        self.page(pfn).clear_flags(PageFlags::LRU);
    }

    /// Takes a page off its list that the caller puts on another before it drops the lock. The flag
    /// LRU stays, so that whoever frees the page meanwhile waits for the lock.
    #[inline]
    pub(crate) fn lift(&mut self, pfn: Pfn) {
        let page = self.page(pfn);
        let old = page.flags();
        debug_assert!(old.contains(PageFlags::LRU), "{pfn:?} is on no list");
        let at = &mut self.lists.lists[ListId::of(old).index()];
        let (next, prev) = (page.next(), page.prev());
        if prev == Pfn::NONE {
            at.head = next;
        } else {
            self.memmap.page(prev).set_next(next);
        }
        if next == Pfn::NONE {
            at.tail = prev;
        } else {
            self.memmap.page(next).set_prev(prev);
        }
        let n = u64::from(page.order().pages());
        at.pages -= n;
        self.vmstat.sub(at.item, n);
    }

    /// Moves a page to the head of `list`.
    #[inline]
    pub(crate) fn move_to(&mut self, pfn: Pfn, list: ListId) {
        self.lift(pfn);
        self.add(pfn, list);
    }

    /// Takes up to `most` of the oldest pages of `list` off it, with a reference each, and gives them to
    /// `each`. A page whose last reference is gone is being freed by somebody who waits for the lock:
    /// it goes to the head, out of the way, and counts as one of the pages.
    #[inline]
    pub(crate) fn isolate_tail(&mut self, list: ListId, most: u64, mut each: impl FnMut(Pfn)) {
        let (mut pfn, mut n) = (self.tail(list), 0);
        for _ in 0..most {
            if pfn == Pfn::NONE {
                break;
            }
            let page = self.page(pfn);
            if page.try_get() {
                page.clear_flags(PageFlags::LRU);
                n += u64::from(page.order().pages());
                each(pfn);
                pfn = page.prev();
            } else {
                self.cut_behind(list, pfn, core::mem::take(&mut n));
                self.move_to(pfn, list);
                pfn = self.tail(list);
            }
        }
        self.cut_behind(list, pfn, n);
    }

    /// Makes `last` the tail: what was behind it, `n` pages, has been taken off.
    #[inline]
    fn cut_behind(&mut self, list: ListId, last: Pfn, n: u64) {
        if n == 0 {
            return;
        }
        let at = &mut self.lists.lists[list.index()];
        at.tail = last;
        at.pages -= n;
        self.vmstat.sub(at.item, n);
        if last == Pfn::NONE {
            at.head = Pfn::NONE;
        } else {
            self.memmap.page(last).set_next(Pfn::NONE);
        }
    }

    /// Counts the pages of `list` under another name from now on.
    pub(crate) fn set_item(&mut self, list: ListId, item: VmItem) {
        let at = &mut self.lists.lists[list.index()];
        self.vmstat.sub(at.item, at.pages);
        self.vmstat.add(item, at.pages);
        at.item = item;
    }

    /// Links all of `from` behind the youngest end of the tail of `to`: they become its oldest pages,
    /// in their order. Costs one step a page, as each is marked anew.
    pub(crate) fn append_older(&mut self, from: ListId, to: ListId) {
        loop {
            let pfn = self.lists.lists[from.index()].head;
            if pfn == Pfn::NONE {
                return;
            }
            self.lift(pfn);
            self.add_tail(pfn, to);
        }
    }

    /// Checks one node's lists; returns how many blocks are on them.
    ///
    /// # Errors
    /// What is wrong, and with which page.
    pub(crate) fn validate(&self) -> Result<u64, (&'static str, Pfn)> {
        let mut blocks = 0;
        for (at, list) in self.lists.lists.iter().enumerate() {
            let (mut pages, mut prev, mut pfn) = (0, Pfn::NONE, list.head);
            while pfn != Pfn::NONE {
                let Some(page) = self.memmap.try_page(pfn) else {
                    return Err(("a link to no page", pfn));
                };
                let flags = page.flags();
                if !flags.contains(PageFlags::LRU) {
                    return Err(("on a list without the flag", pfn));
                }
                if ListId::of(flags).index() != at {
                    return Err(("on another list than its flags say", pfn));
                }
                if page.prev() != prev {
                    return Err(("a broken link back", pfn));
                }
                pages += u64::from(page.order().pages());
                if pages > list.pages {
                    return Err(("more pages than counted", pfn));
                }
                blocks += 1;
                (prev, pfn) = (pfn, page.next());
            }
            if list.tail != prev {
                return Err(("a wrong tail", list.tail));
            }
            if pages != list.pages {
                return Err(("fewer pages than counted", list.head));
            }
        }
        Ok(blocks)
    }
}
