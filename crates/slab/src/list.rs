//! Lists of slabs, through the `next` and `prev` words of their first `Page`.

use vellum_page::Memmap;
use vellum_types::Pfn;

/// A list of slabs, newest first. The lock of the cache protects the words.
#[derive(Debug)]
pub(crate) struct SlabList {
    first: Pfn,
    len: u64,
}

impl SlabList {
    pub(crate) const fn new() -> Self {
        Self {
            first: Pfn::NONE,
            len: 0,
        }
    }
    /// The first slab; `Pfn::NONE` if there is none.
    #[inline]
    pub(crate) const fn first(&self) -> Pfn {
        self.first
    }
    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn push(&mut self, memmap: Memmap<'_>, slab: Pfn) {
        let page = memmap.page(slab);
        page.set_prev(Pfn::NONE);
        page.set_next(self.first);
        if self.first != Pfn::NONE {
            memmap.page(self.first).set_prev(slab);
        }
        self.first = slab;
        self.len += 1;
    }

    /// Takes `slab`, which is on this list, off it.
    pub(crate) fn unlink(&mut self, memmap: Memmap<'_>, slab: Pfn) {
        let page = memmap.page(slab);
        let (prev, next) = (page.prev(), page.next());
        if prev == Pfn::NONE {
            self.first = next;
        } else {
            memmap.page(prev).set_next(next);
        }
        if next != Pfn::NONE {
            memmap.page(next).set_prev(prev);
        }
        self.len -= 1;
    }

    /// The slabs, and an error if a link does not lead back.
    pub(crate) fn iter<'a>(
        &self,
        memmap: Memmap<'a>,
    ) -> impl Iterator<Item = Result<Pfn, &'static str>> + use<'a> {
        let mut prev = Pfn::NONE;
        let mut at = self.first;
        let mut left = self.len;
        core::iter::from_fn(move || {
            if at == Pfn::NONE {
                return (left != 0).then(|| {
                    left = 0;
                    Err("a list of slabs is shorter than its count")
                });
            }
            if left == 0 || memmap.page(at).prev() != prev {
                at = Pfn::NONE;
                left = 0;
                return Some(Err("a list of slabs is damaged"));
            }
            left -= 1;
            prev = at;
            at = memmap.page(at).next();
            Some(Ok(prev))
        })
    }
}
