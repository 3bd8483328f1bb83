//! Recounting what is counted, and looking things up for reports.

use crate::backing::is_shmem;
use crate::context::{MmContext, has_frame, is_zero_entry};
use crate::mm::{Area, Mm, Rss};
use vellum_machine::Machine;
use vellum_page::{PageFlags, PageState};
use vellum_page_table::{Pte, PteFlags};
use vellum_types::{VirtAddr, VirtRange, VmFlags};

/// What a range holds, for smaps: pages by property.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AreaUsage {
    /// Pages with a frame.
    pub rss: u64,
    /// Of these, anonymous.
    pub anonymous: u64,
    /// Mapped more than once, clean.
    pub shared_clean: u64,
    /// Mapped more than once, dirty.
    pub shared_dirty: u64,
    /// Mapped once, clean.
    pub private_clean: u64,
    /// Mapped once, dirty.
    pub private_dirty: u64,
    /// Accessed lately.
    pub referenced: u64,
    /// Proportional share, in 1/4096 of a page.
    pub pss_parts: u64,
    /// In swap.
    pub swap: u64,
}

impl AreaUsage {
    /// Adds another range's numbers.
    pub fn add(&mut self, other: &Self) {
        self.rss += other.rss;
        self.anonymous += other.anonymous;
        self.shared_clean += other.shared_clean;
        self.shared_dirty += other.shared_dirty;
        self.private_clean += other.private_clean;
        self.private_dirty += other.private_dirty;
        self.referenced += other.referenced;
        self.pss_parts += other.pss_parts;
        self.swap += other.swap;
    }
}

impl<'m, M: Machine> MmContext<'m, M> {
    /// Checks an address space against its own records and the memmap. No reclaim may run meanwhile, for
    /// it takes pages off their lists.
    ///
    /// # Errors
    /// What is wrong.
    pub fn validate(&self, mm: &Mm<'m>) -> Result<(), &'static str> {
        let inner = mm.lock();
        inner.areas.validate()?;
        inner.table.validate()?;
        let mut rss = Rss::default();
        let mut swapped = 0;
        for (leaf, part) in inner.table.leaves(inner.user_range()) {
            for va in part.pages() {
                let pte = leaf.get(va);
                if pte.is_none() {
                    continue;
                }
                let Some(area) = inner.areas.find_containing(va) else {
                    return Err("an entry outside every area");
                };
                if let Some(entry) = pte.swap_entry() {
                    swapped += 1;
                    if self.swap.count(entry) == 0 || area.backing.anon.is_none() {
                        return Err("an entry for a slot of swap that it has no right to");
                    }
                    continue;
                }
                self.validate_entry(area.flags, pte)?;
                if is_zero_entry(pte) {
                    continue;
                }
                self.validate_reverse(area, va, pte)?;
                let shmem = area.backing.mapping().is_some_and(|m| is_shmem(m.file()));
                match self.page(pte.pfn()).state() {
                    PageState::Anon => rss.anon += 1,
                    PageState::File if shmem => rss.shmem += 1,
                    PageState::File => rss.file += 1,
                    _ => return Err("an entry for a frame that is neither anonymous nor a file's"),
                }
            }
        }
        if swapped != inner.swap_entries {
            return Err("entries in swap are miscounted");
        }
        if rss == inner.rss {
            Ok(())
        } else {
            Err("rss differs from the entries")
        }
    }

    /// From its page, an entry must be found again.
    fn validate_reverse(
        &self,
        area: &Area<'m>,
        va: VirtAddr,
        pte: Pte,
    ) -> Result<(), &'static str> {
        let page = self.page(pte.pfn());
        let index = crate::fault::index_in(area, va);
        let bias = va.page_number().wrapping_sub(index);
        if page.index() != index && page.owner() != 0 {
            return Err("a page is mapped at another index than it has");
        }
        let found = match (page.state(), &area.backing) {
            (PageState::Anon, backing) => backing
                .anon
                .as_ref()
                .is_some_and(|chain| chain.finds(page.owner(), index, bias)),
            (_, backing) => backing
                .shown
                .as_ref()
                .is_some_and(|place| place.mapper().bias == bias && place.covers(index, index)),
        };
        if found {
            Ok(())
        } else {
            Err("an entry that is not found from its page")
        }
    }

    fn validate_entry(&self, flags: VmFlags, pte: Pte) -> Result<(), &'static str> {
        if !has_frame(pte) {
            return Err("an entry that is neither empty nor holds a frame");
        }
        let writable = pte.flags().contains(PteFlags::WRITE);
        if writable && !flags.contains(VmFlags::WRITE) && pte.is_present() {
            return Err("a writable entry in a read-only area");
        }
        let page = self.page(pte.pfn());
        let listed = page.flags().contains(PageFlags::LRU);
        if is_zero_entry(pte) {
            return match (writable, listed) {
                (true, _) => Err("a writable zero page"),
                (_, true) => Err("the zero page is on a list of reclaim"),
                _ => Ok(()),
            };
        }
        if !listed {
            return Err("a mapped page is on no list of reclaim");
        }
        if page.mapcount() == 0 || page.refcount() < page.mapcount() {
            return Err("counts of a mapped frame are too low");
        }
        if writable && page.state() == PageState::Anon && page.mapcount() > 1 {
            return Err("a writable private page with two mappers");
        }
        Ok(())
    }

    /// What `range` of an address space holds.
    pub fn usage(&self, mm: &Mm<'m>, range: VirtRange) -> AreaUsage {
        let inner = mm.lock();
        let mut usage = AreaUsage::default();
        for (leaf, part) in inner.table.leaves(range) {
            for va in part.pages() {
                let pte = leaf.get(va);
                if pte.swap_entry().is_some() {
                    usage.swap += 1;
                } else if has_frame(pte) && !is_zero_entry(pte) {
                    self.add_usage(&mut usage, pte);
                }
            }
        }
        usage
    }

    fn add_usage(&self, usage: &mut AreaUsage, pte: Pte) {
        let page = self.page(pte.pfn());
        let anon = page.state() == PageState::Anon;
        let dirty =
            pte.flags().contains(PteFlags::DIRTY) || page.flags().contains(PageFlags::DIRTY);
        let mappers = u64::from(page.mapcount().max(1));
        usage.rss += 1;
        usage.anonymous += u64::from(anon);
        usage.referenced += u64::from(pte.flags().contains(PteFlags::ACCESSED));
        usage.pss_parts += 4096 / mappers;
        let slot = match (mappers > 1, dirty) {
            (true, false) => &mut usage.shared_clean,
            (true, true) => &mut usage.shared_dirty,
            (false, false) => &mut usage.private_clean,
            (false, true) => &mut usage.private_dirty,
        };
        *slot += 1;
    }

    /// One word of `/proc/PID/pagemap`: frame number, bit 61 for file or shared, bit 56 for
    /// exclusively mapped, bit 63 for present; or area and slot with bit 62, for swap. Source: `Documentation/admin-guide/mm/pagemap.rst`.
    pub fn pagemap_entry(&self, mm: &Mm<'m>, page_number: u64) -> u64 {
        let inner = mm.lock();
        let va = VirtAddr::from_page_number(page_number);
        let pte = inner.table.leaf(va).map_or(Pte::NONE, |leaf| leaf.get(va));
        if let Some(entry) = pte.swap_entry() {
            return u64::from(entry.area()) | u64::from(entry.slot()) << 5 | 1 << 62;
        }
        if !has_frame(pte) {
            return 0;
        }
        let page = self.page(pte.pfn());
        let file = page.state() == PageState::File;
        let exclusive = page.mapcount() == 1 && !is_zero_entry(pte);
        u64::from(pte.pfn().as_u32()) | u64::from(exclusive) << 56 | u64::from(file) << 61 | 1 << 63
    }
}
