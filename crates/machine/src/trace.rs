//! Typed trace events, with the names of Linux's tracepoints.

use vellum_types::{
    Access, FileId, GfpFlags, MigrateType, Order, Pfn, SpaceId, VirtAddr, VirtRange,
};

/// Something that happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TraceEvent {
    /// Frames were taken from the allocator.
    MmPageAlloc {
        /// The first frame.
        pfn: Pfn,
        /// How many, as an order.
        order: Order,
        /// For what.
        gfp: GfpFlags,
        /// From which kind of block.
        migrate_type: MigrateType,
    },
    /// Frames went back.
    MmPageFree {
        /// The first frame.
        pfn: Pfn,
        /// How many, as an order.
        order: Order,
    },
    /// A program faulted.
    PageFaultUser {
        /// Whose address space.
        space: SpaceId,
        /// Where.
        address: VirtAddr,
        /// By doing what, as far as the machine can tell.
        access: Access,
    },
    /// A page entered the page cache.
    MmFilemapAddToPageCache {
        /// Of which file.
        file: FileId,
        /// At which page of it.
        index: u64,
        /// In which frame.
        pfn: Pfn,
    },
    /// A page left the page cache.
    MmFilemapDeleteFromPageCache {
        /// Of which file.
        file: FileId,
        /// At which page of it.
        index: u64,
        /// From which frame.
        pfn: Pfn,
    },
    /// Translations were dropped.
    TlbFlush {
        /// Whose address space.
        space: SpaceId,
        /// Where.
        range: VirtRange,
    },
    /// The OOM killer chose this address space.
    MarkVictim {
        /// Whose address space.
        space: SpaceId,
        /// Its resident pages.
        rss_pages: u64,
    },
}

impl TraceEvent {
    /// The names of all events.
    pub const NAMES: [&'static str; 7] = [
        "mm_page_alloc",
        "mm_page_free",
        "page_fault_user",
        "mm_filemap_add_to_page_cache",
        "mm_filemap_delete_from_page_cache",
        "tlb_flush",
        "mark_victim",
    ];

    /// The position of this event's name in [`TraceEvent::NAMES`].
    pub const fn kind(&self) -> usize {
        match self {
            Self::MmPageAlloc { .. } => 0,
            Self::MmPageFree { .. } => 1,
            Self::PageFaultUser { .. } => 2,
            Self::MmFilemapAddToPageCache { .. } => 3,
            Self::MmFilemapDeleteFromPageCache { .. } => 4,
            Self::TlbFlush { .. } => 5,
            Self::MarkVictim { .. } => 6,
        }
    }

    /// Linux's tracepoint name.
    pub const fn name(&self) -> &'static str {
        Self::NAMES[self.kind()]
    }
}

/// Where events go. Must be quick and must not call back into the core.
pub trait TraceSink: Sync {
    /// Takes one event.
    fn event(&self, event: &TraceEvent);
}

/// A sink, perhaps, and which events it wants.
#[derive(Clone, Copy, Default)]
pub struct Trace<'m> {
    sink: Option<&'m dyn TraceSink>,
    mask: u32,
}

impl<'m> Trace<'m> {
    /// Nobody listens.
    pub const OFF: Self = Self {
        sink: None,
        mask: 0,
    };

    /// Sends the events whose [`TraceEvent::kind`] bit is set in `mask` to `sink`.
    pub const fn new(sink: &'m dyn TraceSink, mask: u32) -> Self {
        Self {
            sink: Some(sink),
            mask,
        }
    }

    /// True if anybody listens to anything.
    #[inline]
    pub const fn is_on(&self) -> bool {
        self.mask != 0
    }

    /// Reports an event. Costs one test when nobody listens.
    #[inline]
    pub fn emit(&self, event: TraceEvent) {
        if self.mask != 0 {
            self.emit_slow(&event);
        }
    }

    #[cold]
    fn emit_slow(&self, event: &TraceEvent) {
        if let Some(sink) = self.sink
            && self.mask & (1 << event.kind()) != 0
        {
            sink.event(event);
        }
    }
}

impl core::fmt::Debug for Trace<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Trace({:#x})", self.mask)
    }
}
