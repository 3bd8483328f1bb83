//! The invariants of a cache, checked.

use crate::KmemCache;
use crate::cache::{FreeWord, all_free};
use crate::memory::{END, LIVE, Slab};
use vellum_page::PageState;
use vellum_types::Pfn;

impl KmemCache<'_> {
    /// Checks every slab: its list, its owner, its free objects and the counts.
    ///
    /// # Errors
    /// Which invariant is broken.
    pub fn validate(&self) -> Result<(), &'static str> {
        let lists = self.lists.lock();
        let objects = u64::from(self.geometry.objects);
        let mut live = 0;
        for slab in lists.full.iter(self.memmap) {
            if self.check_slab(slab?)? != objects {
                return Err("a slab on the full list has free objects");
            }
            live += objects;
        }
        for slab in lists.partial.iter(self.memmap) {
            let here = self.check_slab(slab?)?;
            if here == 0 || here == objects {
                return Err("a slab on the partial list is empty or full");
            }
            live += here;
        }
        if lists.empty != Pfn::NONE && self.check_slab(lists.empty)? != 0 {
            return Err("the empty slab has live objects");
        }
        if live != lists.live {
            return Err("the count of live objects is wrong");
        }
        if lists.dead && (live != 0 || lists.empty != Pfn::NONE) {
            return Err("a destroyed cache has slabs");
        }
        Ok(())
    }

    /// Checks one slab; returns its live objects.
    fn check_slab(&self, head: Pfn) -> Result<u64, &'static str> {
        let Some(page) = self.memmap.try_page(head) else {
            return Err("a slab lies outside RAM");
        };
        if page.state() != PageState::Slab || page.order() != self.geometry.order {
            return Err("a slab's frame has another use");
        }
        if page.owner() != self.id {
            return Err("a slab belongs to another cache");
        }
        let objects = self.geometry.objects;
        if self.geometry.bitmap {
            let free = page.mapcount();
            if free & !all_free(objects) != 0 {
                return Err("a bitmap has bits for objects that do not exist");
            }
            return Ok(u64::from(objects) - u64::from(free.count_ones()));
        }
        let slab = Slab::at(self.ram, head, &self.geometry);
        let marked = (0..objects)
            .filter(|index| slab.link(*index) == LIVE)
            .count() as u16;
        let word = FreeWord::of(page);
        if word.live != marked {
            return Err("a slab's count differs from its marks");
        }
        let mut free = 0;
        let mut at = word.first;
        while at != END {
            free += 1;
            if at >= objects || free > objects {
                return Err("an index list is damaged");
            }
            at = slab.link(at);
        }
        if free + marked != objects {
            return Err("a slab lost objects");
        }
        Ok(u64::from(marked))
    }
}
