//! Several objects out of slabs and back: what holds for all of a slab is looked up once.

use crate::KmemCache;
use crate::list::SlabList;
use crate::memory::{END, LIVE, Slab};
use crate::node::Lists;
use crate::sheaf::Sheaf;
use crate::words::FreeWord;
use core::panic::Location;
use core::ptr::NonNull;
use vellum_page::Page;
use vellum_types::Pfn;

/// A slab in work. Its free word is here, and in the `Page` only when it is closed.
struct Open<'c> {
    head: Pfn,
    page: &'c Page,
    slab: Slab<'c>,
    word: FreeWord,
}

/// Free objects, slab by slab. Caches with debugging aids have no sheaves, and do not come here.
pub(crate) struct Taking<'c, 'm> {
    cache: &'c KmemCache<'m>,
    lists: &'c mut Lists,
    open: Option<Open<'c>>,
}

impl<'m> KmemCache<'m> {
    /// Free objects of the slabs of `lists`; the slabs are right again when it is dropped.
    pub(crate) fn taking<'c>(&'c self, lists: &'c mut Lists) -> Taking<'c, 'm> {
        Taking {
            cache: self,
            lists,
            open: None,
        }
    }

    /// Gives the objects of `sheaf` back to their slabs.
    ///
    /// # Panics
    /// If one of them is not a live object of this cache.
    pub(crate) fn empty_into(&self, lists: &mut Lists, sheaf: &mut Sheaf, surplus: &mut SlabList) {
        let site = Location::caller();
        let bitmap = self.geometry.bitmap;
        let mut open: Option<Open<'_>> = None;
        while let Some(object) = sheaf.pop() {
            let known = open.as_ref().and_then(|open| open.slab.offset_in(object));
            let into = known.unwrap_or_else(|| {
                if let Some(done) = open.take() {
                    done.word.set(done.page);
                }
                let Some((head, page, into)) = self.slab_of(object) else {
                    self.foreign(object, site)
                };
                let word = FreeWord::of(page);
                let slab = Slab::at(self.ram, head, word.colour, &self.geometry);
                open = Some(Open {
                    head,
                    page,
                    slab,
                    word,
                });
                into
            });
            let Some(Open {
                head,
                page,
                slab,
                word,
            }) = open.as_mut()
            else {
                return;
            };
            let Some(index) = self.geometry.index_of(into, word.colour) else {
                self.foreign(object, site)
            };
            let bit = 1u32.checked_shl(u32::from(index)).unwrap_or(0);
            let is_free = if bitmap {
                page.mapcount() & bit != 0
            } else {
                slab.link(index) != LIVE
            };
            if is_free {
                self.corrupt("double free", object, Some(slab.users(index)), site);
            }
            let was_full = if bitmap {
                page.set_mapcount(page.mapcount() | bit);
                page.mapcount() == bit
            } else {
                slab.set_link(index, word.first);
                core::mem::replace(&mut word.first, index) == END
            };
            word.live -= 1;
            lists.live -= 1;
            let is_empty = word.live == 0;
            if was_full || is_empty {
                word.set(page);
                self.relist(lists, *head, was_full, is_empty, surplus);
                if is_empty {
                    open = None;
                }
            }
        }
        if let Some(done) = open {
            done.word.set(done.page);
        }
    }
}

impl Taking<'_, '_> {
    /// One more; `None` if there is no slab with a free one.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<NonNull<u8>> {
        if self.open.is_none() {
            let head = self.cache.first_with_free(self.lists)?;
            let page = self.cache.memmap.page(head);
            let word = FreeWord::of(page);
            let geometry = &self.cache.geometry;
            self.open = Some(Open {
                head,
                page,
                slab: Slab::at(self.cache.ram, head, word.colour, geometry),
                word,
            });
        }
        let open = self.open.as_mut()?;
        let (index, is_full) = if self.cache.geometry.bitmap {
            let free = open.page.mapcount();
            open.page.set_mapcount(free & (free - 1));
            (free.trailing_zeros() as u16, free & (free - 1) == 0)
        } else {
            let index = open.word.first;
            open.word.first = open.slab.link(index);
            open.slab.set_link(index, LIVE);
            (index, open.word.first == END)
        };
        open.word.live += 1;
        self.lists.live += 1;
        let object = open.slab.object(index);
        if is_full {
            open.word.set(open.page);
            self.lists.partial.unlink(self.cache.memmap, open.head);
            self.lists.full.push(self.cache.memmap, open.head);
            self.open = None;
        }
        Some(object)
    }
}

impl Drop for Taking<'_, '_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(open) = &self.open {
            open.word.set(open.page);
        }
    }
}
