//! The whole.

use core::ops::Deref;
use core::sync::atomic::{AtomicU64, Ordering};
use vellum_machine::Machine;
use vellum_mm::{Mm, MmContext};
use vellum_page_alloc::PageAllocator;
use vellum_page_cache::{MappingRef, Wanted};
use vellum_slab::SlabAllocator;
use vellum_types::{FileId, NodeId};

/// Nodes of the largest machine.
const MAX_NODES: u8 = 8;

/// A virtual-memory system on machine `M`.
pub struct System<'m, M: Machine> {
    context: MmContext<'m, M>,
    pages: &'m PageAllocator<'m>,
    slab: &'m SlabAllocator<'m>,
    /// Free pages before the first address space: what must be free again at the end.
    free_at_boot: AtomicU64,
}

/// The operations on address spaces are the context's; a system adds to them.
impl<'m, M: Machine> Deref for System<'m, M> {
    type Target = MmContext<'m, M>;

    fn deref(&self) -> &Self::Target {
        &self.context
    }
}

impl<'m, M: Machine> System<'m, M> {
    pub(crate) fn assemble(
        context: MmContext<'m, M>,
        pages: &'m PageAllocator<'m>,
        slab: &'m SlabAllocator<'m>,
        free_at_boot: u64,
    ) -> Self {
        Self {
            context,
            pages,
            slab,
            free_at_boot: AtomicU64::new(free_at_boot),
        }
    }

    /// The frames.
    pub const fn pages(&self) -> &'m PageAllocator<'m> {
        self.pages
    }

    /// The objects.
    pub const fn slab(&self) -> &'m SlabAllocator<'m> {
        self.slab
    }

    pub(crate) fn free_at_boot(&self) -> u64 {
        // Relaxed: a number for the account at the end.
        self.free_at_boot.load(Ordering::Relaxed)
    }

    /// So many more frames will not come back before the machine ends.
    pub(crate) fn note_kept(&self, frames: u64) {
        self.free_at_boot.fetch_sub(frames, Ordering::Relaxed);
    }

    /// Does what Linux has kernel threads for: kswapd's work, if an allocation found less than the low
    /// mark of a zone free, and writing dirty pages, if there are many. To be called by the machine where
    /// no lock is held, after a call or a fault, or by a thread of its own.
    pub fn housekeeping(&self) {
        let mut wanted = false;
        for node in (0..MAX_NODES).map(NodeId) {
            if self.pages.kswapd_wanted(node).is_some() {
                self.pages.kswapd_served(node);
                wanted = true;
            }
        }
        if wanted {
            self.context.balance();
        }
        self.context.balance_dirty(Wanted::Background);
    }

    pub(crate) fn into_context(self) -> MmContext<'m, M> {
        self.context
    }

    /// The pages of a file, if they are known.
    pub fn find_mapping(&self, file: FileId) -> Option<MappingRef<'m>> {
        self.context.cache().find(file)
    }

    /// Checks every structure of the system, and each address space.
    ///
    /// # Errors
    /// What is wrong.
    pub fn validate_all(&self) -> Result<(), &'static str> {
        self.pages.validate()?;
        self.slab.validate()?;
        self.context.vmalloc().validate()?;
        self.context.cache().validate()?;
        self.context.swap().validate()?;
        self.context
            .reclaim()
            .validate()
            .map_err(|(what, _)| what)?;
        let mut result = Ok(());
        self.context.for_each_mm(&mut |mm| {
            result = self.validate_mm(mm);
            result.is_ok()
        });
        result
    }

    fn validate_mm(&self, mm: &Mm<'m>) -> Result<(), &'static str> {
        self.context.validate(mm)
    }
}
