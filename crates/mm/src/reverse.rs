//! How areas become known to reverse mapping: `anon_vma_prepare`, and an area's place among those who map a
//! file. Linux: `mm/rmap.c`, `vma_link`.

use crate::backing::{Object, VmBacking};
use crate::context::MmContext;
use crate::mm::{Area, MmInner};
use vellum_machine::Machine;
use vellum_rmap::{AnonLink, Mapper, Registration};
use vellum_types::{OutOfMemory, SpaceId, VirtAddr, VirtRange, VmFlags};

/// The mapper and the indices of an area of `range` whose first page has index `pgoff`.
pub(crate) fn place_of(space: SpaceId, range: VirtRange, pgoff: u64) -> (Mapper, (u64, u64)) {
    let mapper = Mapper::new(space, range.start().page_number(), pgoff);
    (mapper, (pgoff, pgoff.saturating_add(range.nr_pages() - 1)))
}

impl<'m, M: Machine> MmContext<'m, M> {
    /// The backing of a new area of `range` that shows `object` from index `pgoff`.
    pub(crate) fn new_backing(
        &self,
        space: SpaceId,
        object: Object<'m>,
        range: VirtRange,
        pgoff: u64,
    ) -> Result<VmBacking<'m>, OutOfMemory> {
        let mut backing = VmBacking::new(object);
        if let Object::File(mapping) = &backing.object {
            let (mapper, (first, last)) = place_of(space, range, pgoff);
            let nodes = self.caches.rmap.mappers;
            let place = Registration::new(mapping.clone(), mapper, first, last, nodes)?;
            backing.shown = Some(self.caches.file_maps.shared(place)?);
        }
        Ok(backing)
    }

    /// The backing of a new area that takes over the pages of one with `old`, at another place.
    pub(crate) fn moved_backing(
        &self,
        space: SpaceId,
        old: &VmBacking<'m>,
        range: VirtRange,
        pgoff: u64,
    ) -> Result<VmBacking<'m>, OutOfMemory> {
        let mut backing = self.new_backing(space, old.object.clone(), range, pgoff)?;
        if let Some(chain) = &old.anon {
            let (mapper, interval) = place_of(space, range, pgoff);
            backing.anon = Some(chain.moved(&self.caches.rmap, mapper, interval)?);
        }
        backing.stream = old.stream;
        Ok(backing)
    }

    /// The backing of the child's copy of an area.
    pub(crate) fn forked_backing(
        &self,
        child: SpaceId,
        area: &Area<'m>,
    ) -> Result<VmBacking<'m>, OutOfMemory> {
        let (range, pgoff) = (area.range(), area.pgoff());
        let old = &area.backing;
        let mut backing = self.new_backing(child, old.object.clone(), range, pgoff)?;
        if let Some(chain) = &old.anon
            && !area.flags.contains(VmFlags::WIPEONFORK)
        {
            let (mapper, interval) = place_of(child, range, pgoff);
            let caches = &self.caches.rmap;
            backing.anon = Some(chain.fork(self.anon_table, caches, mapper, interval)?);
        }
        backing.stream = old.stream;
        Ok(backing)
    }

    /// The number that new private pages of the area at `at` carry: its own `anon_vma`'s, made or
    /// borrowed from a neighbour that it could merge with, so that the two still can. Pages of the
    /// whole area will be found from now on. Linux: `anon_vma_prepare`.
    pub(crate) fn anon_vma_prepare(
        &self,
        space: SpaceId,
        inner: &mut MmInner<'m>,
        at: VirtAddr,
    ) -> Result<u32, OutOfMemory> {
        let Some(area) = inner.areas.find_containing(at) else {
            unreachable!("the caller found the area under the same lock")
        };
        let (mapper, interval) = place_of(space, area.range(), area.pgoff());
        if let Some(chain) = &area.backing.anon {
            chain.cover(interval.0, interval.1);
            return Ok(chain.anon_vma().id());
        }
        let (prev, _) = inner.areas.find_prev(area.start());
        let next = inner.areas.find_containing(area.end());
        // anon_vma_compatible: permissions may differ, for mprotect may make them equal again.
        let fits = |low: &Area<'m>, high: &Area<'m>| {
            (low.flags ^ high.flags) - VmFlags::PERMISSIONS == VmFlags::empty()
                && low.end() == high.start()
                && low.page_index(high.start()) == high.pgoff()
                && low.backing.same_object(&high.backing)
        };
        let chain_of = |area: &Area<'m>| {
            let chain = area.backing.anon.as_ref();
            chain.filter(|chain| chain.is_singular()).cloned()
        };
        let near = next
            .filter(|next| fits(area, next))
            .and_then(chain_of)
            .or_else(|| prev.filter(|prev| fits(prev, area)).and_then(chain_of));
        let chain = match near {
            Some(chain) => {
                chain.cover(interval.0, interval.1);
                chain
            }
            None => AnonLink::prepare(self.anon_table, &self.caches.rmap, mapper, interval)?,
        };
        let id = chain.anon_vma().id();
        if let Some(area) = inner.areas.find_mut(at) {
            area.backing.anon = Some(chain);
        }
        Ok(id)
    }
}
