//! One list. A page that was used since it was last looked at gets a second chance.

use super::{ReclaimPolicy, Scan, Step, count_refault, isolate};
use crate::batch::{Batch, Fate};
use crate::lists::Lru;
use crate::marks::ListId;
use crate::shadow::Shadow;
use vellum_machine::VmItem;
use vellum_page::Page;
use vellum_types::{NodeId, Pfn};

const ALL: ListId = ListId::new(0);

/// The plain policy: the clock algorithm.
#[derive(Debug)]
pub(crate) struct PlainLru {
    evictions: u32,
}

impl PlainLru {
    pub(crate) const fn new() -> Self {
        Self { evictions: 0 }
    }
}

impl ReclaimPolicy for PlainLru {
    fn items(&self) -> [VmItem; 8] {
        [VmItem::NrInactiveAnon; 8]
    }

    fn add(&mut self, lru: &mut Lru<'_>, pfn: Pfn) {
        lru.add(pfn, ALL);
    }

    fn accessed(&mut self, lru: &mut Lru<'_>, pfn: Pfn) {
        lru.move_to(pfn, ALL);
    }

    fn select(&mut self, lru: &mut Lru<'_>, scan: &Scan, batch: &mut Batch) -> Step {
        isolate(lru, ALL, batch, scan.batch);
        if lru.pages(ALL) == 0 && batch.len() == 0 {
            Step::Nothing
        } else {
            Step::Evict
        }
    }

    fn put_back(&mut self, lru: &mut Lru<'_>, pfn: Pfn, _: Step, _: Fate) {
        lru.add(pfn, ALL);
    }

    fn shadow(&mut self, _: &Lru<'_>, _: &Page, node: NodeId) -> Shadow {
        self.evictions = self.evictions.wrapping_add(1);
        Shadow::new(node, false, self.evictions)
    }

    fn refault(&mut self, lru: &Lru<'_>, page: &Page, _: Shadow) {
        count_refault(lru, page, false, false);
    }
}
