//! fork(2): a copy of an address space that shares its pages. Linux: `dup_mmap`,
//! `copy_page_range`.

use crate::MmError;
use crate::backing::is_shmem;
use crate::context::{MmContext, is_zero_entry};
use crate::mm::{Area, Areas, Limits, Mm, MmInner, MmLayout, MmRef, Rss, RssKind};
use vellum_machine::Machine;
use vellum_object::KArc;
use vellum_page::{AllocRequest, OwnedPages, PageState};
use vellum_page_table::{Pte, PteFlags};
use vellum_types::{Order, OutOfMemory, PAGE_SIZE, SpaceId, VirtAddr, VirtRange, VmFlags};

impl<'m, M: Machine> MmContext<'m, M> {
    /// An empty address space that nobody knows yet.
    pub(crate) fn new_mm(&self, space: SpaceId) -> Result<MmRef<'m>, OutOfMemory> {
        let mm = Mm::new(space, self.empty_inner(space)?);
        self.caches.mm.try_shared(mm).map_err(|(mm, oom)| {
            self.exit_mmap(&mm);
            oom
        })
    }

    fn empty_inner(&self, space: SpaceId) -> Result<MmInner<'m>, OutOfMemory> {
        Ok(MmInner {
            areas: Areas::new(self.caches.areas),
            table: self.vmalloc.new_table(space.0)?,
            rss: Rss::default(),
            hiwater_rss: 0,
            hiwater_vm: 0,
            locked_vm: 0,
            swap_entries: 0,
            layout: MmLayout::default(),
            limits: Limits::default(),
            brk: MmLayout::default().start_brk,
            def_flags: VmFlags::empty(),
        })
    }

    /// Fills the new `child` with a copy of `parent`. On an error the child is partly filled, and
    /// some private entries of the parent are read-only that were not.
    pub(crate) fn dup_mmap(&self, parent: &Mm<'m>, child: &mut MmRef<'m>) -> Result<(), MmError> {
        let mut from = parent.lock();
        match KArc::get_mut(child) {
            Some(child) => {
                let space = child.space();
                self.copy_into(parent, &mut from, space, child.inner_mut())
            }
            None => unreachable!("nobody else knows the child yet"),
        }
    }

    fn copy_into(
        &self,
        parent: &Mm<'m>,
        from: &mut MmInner<'m>,
        child: SpaceId,
        to: &mut MmInner<'m>,
    ) -> Result<(), MmError> {
        to.layout = from.layout;
        to.limits = from.limits;
        to.brk = from.brk;
        let mut at = VirtAddr::ZERO;
        let result = loop {
            let Some(area) = from.areas.find(at) else {
                break Ok(());
            };
            at = area.end();
            if area.flags.contains(VmFlags::DONTCOPY) {
                continue;
            }
            let range = area.range();
            if let Err(error) = self.copy_area(parent, from, child, to, range) {
                break Err(error);
            }
        };
        self.machine.flush_wait(parent.space());
        to.hiwater_rss = to.rss.total();
        to.note_total();
        result
    }

    fn copy_area(
        &self,
        parent: &Mm<'m>,
        from: &mut MmInner<'m>,
        child: SpaceId,
        to: &mut MmInner<'m>,
        range: VirtRange,
    ) -> Result<(), MmError> {
        let Some(area) = from.areas.find_containing(range.start()) else {
            return Ok(());
        };
        let flags = area.flags;
        let wipe = flags.contains(VmFlags::WIPEONFORK);
        let cow = flags.is_cow();
        let backing = self.forked_backing(child, area)?;
        let anon_vma = backing.anon.as_ref().map_or(0, |own| own.anon_vma().id());
        // mlock is not inherited: fork(2).
        let inherited = flags - (VmFlags::LOCKED | VmFlags::LOCKONFAULT);
        let shmem = area.backing.mapping().is_some_and(|m| is_shmem(m.file()));
        to.areas
            .insert(Area::new(range, inherited, area.pgoff(), backing))?;
        if wipe || flags.contains(VmFlags::PFNMAP) {
            return Ok(());
        }
        let mut protected = None;
        let mut result = Ok(());
        'tables: for (leaf, part) in from.table.leaves(range) {
            let mut target = None;
            for va in part.pages() {
                let pte = leaf.get(va);
                if pte.is_none() {
                    continue;
                }
                let slot = match target {
                    Some(slot) => slot,
                    None => match to.table.leaf_or_alloc(va) {
                        Ok(slot) => *target.insert(slot),
                        Err(oom) => {
                            result = Err(oom.into());
                            break 'tables;
                        }
                    },
                };
                if let Some(entry) = pte.swap_entry() {
                    if self.swap.dup(entry).is_err() {
                        result = Err(MmError::NoMem);
                        break 'tables;
                    }
                    slot.set(va, pte);
                    to.swap_entries += 1;
                    continue;
                }
                if is_zero_entry(pte) {
                    slot.set(va, pte);
                    continue;
                }
                let mut copied = pte;
                if cow && pte.flags().contains(PteFlags::WRITE) {
                    if self.machine.is_pinned(parent.space(), va) {
                        match self.copy_pinned(pte, anon_vma) {
                            Ok(pte) => slot.set(va, pte),
                            Err(oom) => {
                                result = Err(oom.into());
                                break 'tables;
                            }
                        }
                        to.rss_add(RssKind::Anon);
                        continue;
                    }
                    copied = pte.without(PteFlags::WRITE);
                    leaf.set(va, copied);
                    protected = self.protect_run(parent.space(), protected, va);
                }
                let page = self.page(pte.pfn());
                page.get();
                self.rmap_add(pte.pfn());
                slot.set(va, copied);
                to.rss_add(RssKind::of(page.state(), shmem));
            }
        }
        if let Some(run) = protected {
            self.machine.wrprotect_range(parent.space(), run);
        }
        result
    }

    /// Gathers write-protected pages into runs, so that the machine hears of each run once.
    fn protect_run(
        &self,
        space: SpaceId,
        run: Option<VirtRange>,
        va: VirtAddr,
    ) -> Option<VirtRange> {
        match run {
            Some(run) if run.end() == va => VirtRange::new(run.start(), va + PAGE_SIZE),
            Some(run) => {
                self.machine.wrprotect_range(space, run);
                VirtRange::from_len(va, PAGE_SIZE)
            }
            None => VirtRange::from_len(va, PAGE_SIZE),
        }
    }

    /// The child's own copy of a page that the parent's I/O holds. Linux: `copy_present_page`.
    fn copy_pinned(&self, pte: Pte, anon_vma: u32) -> Result<Pte, OutOfMemory> {
        let copy = OwnedPages::alloc(self.source, AllocRequest::user_movable(Order::ZERO))?;
        self.copy_page(copy.pfn(), pte.pfn());
        let original = self.page(pte.pfn());
        debug_assert_eq!(
            original.state(),
            PageState::Anon,
            "a writable private page is anonymous"
        );
        let pfn = copy.into_pfn();
        self.adopt_anon(pfn, anon_vma, original.index());
        self.source.lru_add(pfn);
        Ok(Pte::new(pfn, pte.flags()))
    }
}
