//! The account at the end.

use crate::System;
use vellum_machine::Machine;
use vellum_page::{PageSource, PageState};
use vellum_types::Pfn;

/// How many leaked frames are named.
const NAMED: usize = 16;

/// Frames that did not come back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaks {
    /// How many; zero when all is well.
    pub frames: u64,
    /// The first of them that are in use by something that should be gone.
    pub first: [Option<(Pfn, PageState)>; NAMED],
    /// Objects that live in slab caches although everybody is gone.
    pub objects: u64,
    /// The cache with the most of them.
    pub worst_cache: Option<&'static str>,
    /// Areas of vmalloc that are still in use, and keep their frames.
    pub areas: usize,
}

impl<'m, M: Machine> System<'m, M> {
    /// Ends the system: drops the page cache and empty slabs, and counts. Address spaces must have
    /// been put and dirty pages written back before; what is left counts as leaked.
    pub fn shutdown(self) -> Leaks {
        let (pages, slab, before) = (self.pages(), self.slab(), self.free_at_boot());
        self.cache().drop_all();
        self.swapoff_all();
        let (cache, areas) = self.into_context().shutdown();
        drop(cache);
        slab.shrink();
        let mut leaks = Leaks {
            frames: before.saturating_sub(pages.nr_free_pages()),
            first: [None; NAMED],
            objects: 0,
            worst_cache: None,
            areas,
        };
        let mut most = 0;
        // The caches themselves are objects of the cache of caches, and stay.
        for info in slab.slabinfo().filter(|info| info.name != "kmem_cache") {
            leaks.objects += info.active_objs;
            if info.active_objs > most {
                most = info.active_objs;
                leaks.worst_cache = Some(info.name);
            }
        }
        if leaks.frames > 0 {
            name_frames(pages.memmap(), &mut leaks.first);
        }
        leaks
    }
}

fn name_frames(memmap: vellum_page::Memmap<'_>, first: &mut [Option<(Pfn, PageState)>; NAMED]) {
    let frames = memmap.runs().flat_map(|run| run.iter());
    let used = frames.filter_map(|pfn| {
        let state = memmap.page(pfn).state();
        matches!(
            state,
            PageState::Allocated | PageState::PageTable | PageState::Anon | PageState::File
        )
        .then_some((pfn, state))
    });
    for (slot, frame) in first.iter_mut().zip(used) {
        *slot = Some(frame);
    }
}
