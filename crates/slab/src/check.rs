//! The invariants of a cache, checked.

use crate::KmemCache;
use crate::list::SlabList;
use crate::memory::{END, LIVE, Slab};
use crate::node::Lists;
use crate::sheaf::CAPACITY;
use crate::words::{self, FreeWord, all_free};
use vellum_page::PageState;
use vellum_types::Pfn;

impl KmemCache<'_> {
    /// Checks every slab: its list, its owner, its free objects and the counts. Others may use the
    /// cache meanwhile.
    ///
    /// # Errors
    /// Which invariant is broken.
    pub fn validate(&self) -> Result<(), &'static str> {
        for (node, lists) in self.nodes.iter().enumerate() {
            self.check_node(node, &lists.lock())?;
        }
        if self.cached_by_cpus() > 2 * u64::from(CAPACITY) * self.publics.len() as u64 {
            return Err("a sheaf is longer than it can be");
        }
        Ok(())
    }

    fn check_node(&self, node: usize, lists: &Lists) -> Result<(), &'static str> {
        let objects = u64::from(self.geometry.objects);
        let full = self.check_list(node, &lists.full, |live| live == objects)?;
        let partial = self.check_list(node, &lists.partial, |live| live != 0 && live != objects)?;
        self.check_list(node, &lists.deferred, |live| live == 0)?;
        if lists.empty != Pfn::NONE && self.check_slab(node, lists.empty)? != 0 {
            return Err("the empty slab has live objects");
        }
        if full + partial != lists.live {
            return Err("the count of live objects is wrong");
        }
        if lists.in_barn > lists.live {
            return Err("the barn has more objects than left their slabs");
        }
        let barn = u64::from(lists.full_sheaves.len());
        if lists.in_barn > barn * u64::from(CAPACITY) || lists.in_barn < barn {
            return Err("the count of objects in the barn is wrong");
        }
        if self.is_dead() && lists.empty != Pfn::NONE {
            return Err("a destroyed cache keeps an empty slab");
        }
        Ok(())
    }

    /// Checks the slabs of one list; returns their live objects.
    fn check_list(
        &self,
        node: usize,
        list: &SlabList,
        fits: impl Fn(u64) -> bool,
    ) -> Result<u64, &'static str> {
        let mut sum = 0;
        for slab in list.iter(self.memmap) {
            let live = self.check_slab(node, slab?)?;
            if !fits(live) {
                return Err("a slab is on a list that its live objects do not fit");
            }
            sum += live;
        }
        Ok(sum)
    }

    /// Checks one slab; returns its live objects.
    fn check_slab(&self, node: usize, head: Pfn) -> Result<u64, &'static str> {
        let Some(page) = self.memmap.try_page(head) else {
            return Err("a slab lies outside RAM");
        };
        if page.state() != PageState::Slab || page.order() != self.geometry.order {
            return Err("a slab's frame has another use");
        }
        let owner = words::on_node(self.owner, node);
        if (0..page.order().pages()).any(|at| self.memmap.page(head + at).owner() != owner) {
            return Err("a slab belongs to another cache");
        }
        let objects = self.geometry.objects;
        let word = FreeWord::of(page);
        if u16::from(word.colour) >= self.geometry.colours {
            return Err("a slab has a colour that its cache has not");
        }
        if self.geometry.bitmap {
            let free = page.mapcount();
            if free & !all_free(objects) != 0 {
                return Err("a bitmap has bits for objects that do not exist");
            }
            if u32::from(objects) - free.count_ones() != u32::from(word.live) {
                return Err("a slab's count differs from its bitmap");
            }
            return Ok(u64::from(word.live));
        }
        let slab = Slab::at(self.ram, head, word.colour, &self.geometry);
        let marked = (0..objects)
            .filter(|index| slab.link(*index) == LIVE)
            .count() as u16;
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
