//! Bytes of frames that may be high. Linux: `clear_highpage`, `copy_highpage` and `memcpy_to_page`.

use crate::KmapLocal;
use vellum_machine::Machine;
use vellum_page_table::Format;
use vellum_types::{PAGE_SIZE, Pfn, PhysAddr};

/// Bytes that go through the stack at a time.
const PIECE: usize = 256;

/// What the panics say.
const NESTED: &str = "a slot of this CPU, for a frame of RAM";

/// Each call takes at most two slots of this CPU and gives them up. Where the direct map reaches,
/// the bytes are touched there.
///
/// # Panics
/// All panic if a frame is not RAM, or if [`crate::KM_MAX`] slots are nested already: that many
/// callers are not under one another.
impl<M: Machine, F: Format> KmapLocal<'_, M, F> {
    /// Zeroes a frame.
    pub fn zero_page(&self, pfn: Pfn) {
        if self.ram.covers(pfn) {
            return self.ram.fill_pages(pfn, 1, 0);
        }
        let page = self.map(pfn).expect(NESTED);
        for at in (0..PAGE_SIZE).step_by(PIECE) {
            page.write(at, &[0; PIECE]);
        }
    }

    /// Copies a frame.
    pub fn copy_page(&self, to: Pfn, from: Pfn) {
        self.copy_bytes(to.addr(), from.addr(), PAGE_SIZE);
    }

    /// Copies `len` bytes, which cross no page boundary on either side and do not overlap.
    pub fn copy_bytes(&self, to: PhysAddr, from: PhysAddr, len: u64) {
        let (Some(to_pfn), Some(from_pfn)) = (Pfn::containing(to), Pfn::containing(from)) else {
            panic!("{NESTED}");
        };
        if self.ram.covers(to_pfn) && self.ram.covers(from_pfn) {
            return self.ram.copy_bytes(to, from, len);
        }
        let source = self.map(from_pfn).expect(NESTED);
        let target = self.map(to_pfn).expect(NESTED);
        let mut piece = [0; PIECE];
        let mut done = 0;
        while done < len {
            let piece = &mut piece[..PIECE.min((len - done) as usize)];
            source.read(from.page_offset() + done, piece);
            target.write(to.page_offset() + done, piece);
            done += piece.len() as u64;
        }
        // In the opposite order.
        drop(target);
        drop(source);
    }

    /// Loads bytes from `phys` on, from any number of pages.
    pub fn read_bytes(&self, phys: PhysAddr, out: &mut [u8]) {
        let mut rest = out;
        each_page(phys, rest.len(), |pfn, offset, len| {
            let (now, later) = core::mem::take(&mut rest).split_at_mut(len);
            self.map(pfn).expect(NESTED).read(offset, now);
            rest = later;
        });
    }

    /// Stores bytes from `phys` on, to any number of pages.
    pub fn write_bytes(&self, phys: PhysAddr, bytes: &[u8]) {
        let mut rest = bytes;
        each_page(phys, rest.len(), |pfn, offset, len| {
            let (now, later) = rest.split_at(len);
            self.map(pfn).expect(NESTED).write(offset, now);
            rest = later;
        });
    }
}

/// Calls `f` with the frame, offset and length of each part.
fn each_page(phys: PhysAddr, len: usize, mut f: impl FnMut(Pfn, u64, usize)) {
    let mut at = phys;
    let mut left = len as u64;
    while left > 0 {
        let part = left.min(PAGE_SIZE - at.page_offset());
        f(
            Pfn::containing(at).expect(NESTED),
            at.page_offset(),
            part as usize,
        );
        at = at + part;
        left -= part;
    }
}
