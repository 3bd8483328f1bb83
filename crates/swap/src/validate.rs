//! Checks everything.

use crate::Swap;
use vellum_page::PageFlags;
use vellum_types::SwapEntry;

impl Swap<'_> {
    /// Compares the words of all slots, their clusters, the cache and the numbers. Slow, and exact only
    /// while nothing else runs.
    ///
    /// # Errors
    /// What is wrong.
    pub fn validate(&self) -> Result<(), &'static str> {
        let (mut cached, mut free) = (0, 0);
        for number in 0..SwapEntry::AREAS {
            let Some(place) = self.area(number) else {
                continue;
            };
            let Some(area) = place.as_ref() else { continue };
            area.validate()?;
            if !area.draining {
                free += u64::from(area.usable - area.used);
            }
            for slot in 1..area.words.len() {
                let Some(pfn) = area.word(slot).cached() else {
                    continue;
                };
                cached += 1;
                if SwapEntry::new(number, slot) != Some(self.side(pfn)) {
                    return Err("a cached page does not know its slot");
                }
                let page = self.page(pfn);
                if page.refcount() == 0 {
                    return Err("a cached page is free");
                }
                if !page.flags().contains(PageFlags::SWAPCACHE) {
                    return Err("a cached page has no flag for it");
                }
            }
        }
        let sides = self.frames().filter(|pfn| !self.side(*pfn).is_none());
        if sides.count() != cached {
            return Err("a page believes itself to be cached");
        }
        if free != self.free_slots() {
            return Err("free slots are miscounted");
        }
        Ok(())
    }
}
