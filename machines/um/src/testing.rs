//! RAM for tests of single parts.

use std::ptr::NonNull;
use vellum_machine::DirectMap;
use vellum_types::{PhysAddr, PhysRange};

/// So many pages from frame 0, zeroed, for as long as the test process lives.
pub(crate) fn ram(pages: usize) -> DirectMap<'static> {
    let memory: &'static mut [u8] = Box::leak(vec![0u8; (pages + 1) * 4096].into_boxed_slice());
    let skip = memory.as_ptr().align_offset(4096);
    let memory = &mut memory[skip..skip + pages * 4096];
    let end = PhysAddr::new(memory.len() as u64);
    let span = PhysRange::new(PhysAddr::ZERO, end).expect("not empty");
    let base = NonNull::new(memory.as_mut_ptr()).expect("not null");
    // SAFETY: leaked memory, used by nobody else, page aligned.
    unsafe { DirectMap::new(base, span) }
}
