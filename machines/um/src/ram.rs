//! The machine's RAM: one memory file of the host, mapped once in the supervisor.

use crate::host::memory::{SharedMap, memfd};
use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use vellum_machine::DirectMap;
use vellum_types::{PAGE_SIZE, PfnRange, PhysAddr, PhysRange};

/// Frames that the host is asked to give memory to at once.
const CHUNK_FRAMES: u32 = 64;

/// RAM. Frame n is page n of the file.
#[derive(Debug)]
pub(crate) struct Ram {
    fd: OwnedFd,
    map: SharedMap,
    span: PhysRange,
    /// Chunks that the host has given memory to; one bit each.
    populated: RefCell<Vec<u64>>,
}

impl Ram {
    /// `bytes` of RAM, a multiple of the page size and not zero.
    pub(crate) fn new(bytes: u64) -> io::Result<Self> {
        let span = PhysRange::from_len(PhysAddr::ZERO, bytes)
            .filter(|_| bytes.is_multiple_of(PAGE_SIZE))
            .ok_or(io::ErrorKind::InvalidInput)?;
        let fd = memfd(c"vellum-ram", bytes)?;
        let map = SharedMap::new(&fd, bytes)?;
        let chunks = (bytes / PAGE_SIZE).div_ceil(u64::from(CHUNK_FRAMES));
        let populated = RefCell::new(vec![0; chunks.div_ceil(64) as usize]);
        Ok(Self {
            fd,
            map,
            span,
            populated,
        })
    }

    /// The file.
    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// All of it.
    pub(crate) fn span(&self) -> PhysRange {
        self.span
    }

    /// As the core sees it.
    pub(crate) fn direct_map(&self) -> DirectMap<'_> {
        // SAFETY: 1. the mapping has span.len() bytes and lives as long as self; 2. both are page
        // aligned; 3. nobody makes references into it: this module only gives the host advice.
        unsafe { DirectMap::new(self.map.base(), self.span) }
    }

    /// Zeroes frames. Asks the host for memory a chunk at a time first: one call in place of a page
    /// fault per frame.
    pub(crate) fn zero(&self, frames: PfnRange) {
        let (first, last) = (frames.start().as_u32(), frames.end().as_u32() - 1);
        for chunk in first / CHUNK_FRAMES..=last / CHUNK_FRAMES {
            let (word, bit) = (chunk as usize / 64, 1_u64 << (chunk % 64));
            let known = {
                let mut populated = self.populated.borrow_mut();
                let known = populated[word] & bit != 0;
                populated[word] |= bit;
                known
            };
            if !known {
                let bytes = CHUNK_FRAMES as usize * PAGE_SIZE as usize;
                let offset = chunk as usize * bytes;
                self.map
                    .populate(offset, bytes.min(self.map.len() - offset));
            }
        }
        self.direct_map()
            .fill_pages(frames.start(), frames.len(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vellum_types::Pfn;

    #[test]
    fn zeroes_what_was_written() {
        let ram = Ram::new(1 << 20).expect("memory file");
        let map = ram.direct_map();
        map.fill_pages(Pfn::new(3), 2, 0xaa);
        ram.zero(PfnRange::from_len(Pfn::new(2), 3).expect("not empty"));
        assert_eq!(map.read_u64(Pfn::new(4).addr()), 0);
        // the last chunk may be partial
        ram.zero(PfnRange::from_len(Pfn::new(255), 1).expect("not empty"));
    }
}
