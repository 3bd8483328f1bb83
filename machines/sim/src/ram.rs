//! The machine's memory.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use vellum_machine::DirectMap;
use vellum_types::{PAGE_SIZE, PhysRange};

/// A zeroed, page-aligned buffer that stands for physical memory. Large ones cost nothing until
/// they are touched, because the host gives zeroed memory lazily.
#[derive(Debug)]
pub(crate) struct Ram {
    base: NonNull<u8>,
    layout: Layout,
    span: PhysRange,
}

// SAFETY: the buffer is owned, and all access goes through DirectMap, which any thread may use.
unsafe impl Send for Ram {}
// SAFETY: as for Send.
unsafe impl Sync for Ram {}

impl Ram {
    /// Memory for the physical addresses `span`, which starts on a page boundary.
    pub(crate) fn new(span: PhysRange) -> Self {
        assert!(
            span.start().is_page_aligned(),
            "RAM must start on a page boundary"
        );
        let bytes = usize::try_from(span.len()).expect("RAM is larger than the host's memory");
        let layout =
            Layout::from_size_align(bytes, PAGE_SIZE as usize).expect("a page-aligned layout");
        // SAFETY: the layout is not of size zero, because ranges are never empty.
        let memory = unsafe { alloc_zeroed(layout) };
        let base = NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout));
        Self { base, layout, span }
    }

    /// The core's view of it.
    pub(crate) fn direct_map(&self) -> DirectMap<'_> {
        // SAFETY: 1. the buffer has span.len() bytes and lives as long as self; 2. both the base and
        // the start of the span are page aligned; 3. the buffer is never handed out in another way.
        unsafe { DirectMap::new(self.base, self.span) }
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and freed once.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}
