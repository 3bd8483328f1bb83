//! read(2) and write(2) of regular files, through the page cache. Linux: `filemap_read`,
//! `generic_perform_write`.

use crate::MmError;
use crate::context::MmContext;
use crate::mm::Mm;
use vellum_machine::Machine;
use vellum_page_cache::{CacheError, MappingRef, Readahead, Wanted};
use vellum_types::{Access, PAGE_SHIFT, PAGE_SIZE, PhysAddr, VirtAddr};

impl<'m, M: Machine> MmContext<'m, M> {
    /// Copies up to `len` bytes of a file, from `offset`, to a program's memory. Returns the bytes
    /// copied: fewer at the end of the file or at a bad address, after the first byte.
    ///
    /// # Errors
    /// Fault, Io or NoMem, if nothing could be copied.
    pub fn file_read(
        &self,
        mapping: &MappingRef<'m>,
        offset: u64,
        mm: &Mm<'m>,
        to: VirtAddr,
        len: u64,
    ) -> Result<u64, MmError> {
        self.for_each_page(mapping, offset, len, |phys, done, piece| {
            self.copy_phys(mm, to, done, phys, piece, Access::Write)
        })
    }

    /// Copies bytes of a file to the core's own memory. Returns how many, short at the end.
    ///
    /// # Errors
    /// Io or NoMem, if nothing could be read.
    pub fn kernel_read(
        &self,
        mapping: &MappingRef<'m>,
        offset: u64,
        to: &mut [u8],
    ) -> Result<usize, MmError> {
        let len = to.len() as u64;
        let read = self.for_each_page(mapping, offset, len, |phys, done, piece| {
            self.read_bytes(phys, &mut to[done as usize..(done + piece) as usize]);
            Ok(piece)
        })?;
        Ok(read as usize)
    }

    /// Visits the cached pages of a range of a file, read in as needed: `each` gets where the bytes
    /// lie, how many came before, and how many there are, and says how many it took.
    fn for_each_page(
        &self,
        mapping: &MappingRef<'m>,
        offset: u64,
        len: u64,
        mut each: impl FnMut(PhysAddr, u64, u64) -> Result<u64, MmError>,
    ) -> Result<u64, MmError> {
        let len = len.min(mapping.size().saturating_sub(offset));
        let mut done = 0;
        while done < len {
            let at = offset + done;
            let within = at % PAGE_SIZE;
            let piece = (PAGE_SIZE - within).min(len - done);
            let index = at >> PAGE_SHIFT;
            let page =
                self.with_room(
                    || match mapping.read_page(&self.cache, index, Readahead::Normal) {
                        Ok((pfn, _)) => Ok(Some(pfn)),
                        Err(CacheError::BeyondEof) => Ok(None),
                        Err(error) => Err(error.into()),
                    },
                );
            let pfn = match page {
                Ok(Some(pfn)) => pfn,
                Ok(None) => break,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            };
            self.source.mark_accessed(pfn);
            let taken = each(pfn.addr() + within, done, piece);
            self.put_page(pfn);
            match taken {
                Ok(taken) => done += taken,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
            if taken != Ok(piece) {
                break;
            }
        }
        Ok(done)
    }

    /// Copies between a frame and a program's memory at `user + skip`; `access` is what is done to
    /// the program's side. Returns the bytes copied.
    fn copy_phys(
        &self,
        mm: &Mm<'m>,
        user: VirtAddr,
        skip: u64,
        phys: PhysAddr,
        len: u64,
        access: Access,
    ) -> Result<u64, MmError> {
        let user = user.checked_add(skip).ok_or(MmError::Fault)?;
        let mut done = 0;
        let copied = self.user_segments(mm, user, len, access, &mut |page, piece| {
            let (from, to) = match access {
                Access::Write => (phys + done, page),
                _ => (page, phys + done),
            };
            self.copy_bytes(to, from, piece);
            done += piece;
        })?;
        if copied == 0 && len > 0 {
            Err(MmError::Fault)
        } else {
            Ok(copied)
        }
    }

    /// Copies `len` bytes of a program's memory into a file's pages, which become dirty; the file
    /// grows if it must. Returns the bytes copied.
    ///
    /// # Errors
    /// Fault, Io or NoMem, if nothing could be copied.
    pub fn file_write(
        &self,
        mapping: &MappingRef<'m>,
        offset: u64,
        mm: &Mm<'m>,
        from: VirtAddr,
        len: u64,
    ) -> Result<u64, MmError> {
        self.zero_past_end(mapping, offset);
        let mut done = 0;
        while done < len {
            let at = offset + done;
            let (index, within) = (at >> PAGE_SHIFT, at % PAGE_SIZE);
            let piece = (PAGE_SIZE - within).min(len - done);
            let step = self.write_page(mapping, index, within, mm, from, done, piece);
            match step {
                Ok(copied) => {
                    done += copied;
                    // After a short copy another try: the source may be a mapping of this very
                    // file, which has just grown.
                    mapping.extend_size(offset + done);
                }
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
            // Between two pages, as Linux; nothing is locked.
            self.balance_dirty(Wanted::Now);
        }
        Ok(done)
    }

    /// A write past the end makes a hole up to its start: what a shared mapping left behind the old
    /// end must read as zero. The size grows only with the bytes that arrive.
    fn zero_past_end(&self, mapping: &MappingRef<'m>, offset: u64) {
        if offset > mapping.size() {
            self.truncate(mapping, mapping.size());
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "a piece of a file and a piece of a program"
    )]
    fn write_page(
        &self,
        mapping: &MappingRef<'m>,
        index: u64,
        within: u64,
        mm: &Mm<'m>,
        from: VirtAddr,
        skip: u64,
        piece: u64,
    ) -> Result<u64, MmError> {
        let whole = piece == PAGE_SIZE;
        // A page that is about to be overwritten need not be read, unless the program's side turns
        // out to be bad half-way: so only if that side is known to be good.
        let source = from.checked_add(skip).ok_or(MmError::Fault)?;
        let good = self.user_segments(mm, source, piece, Access::Read, &mut |_, _| {})?;
        if good == 0 {
            return Err(MmError::Fault);
        }
        let pfn = self.with_room(|| {
            Ok(mapping.get_for_write(&self.cache, index, whole && good == piece)?)
        })?;
        let copied = self.copy_phys(mm, from, skip, pfn.addr() + within, good, Access::Read);
        mapping.mark_dirty(&self.cache, index);
        self.source.mark_accessed(pfn);
        self.put_page(pfn);
        copied
    }

    /// The store already has these bytes of a program's memory: brings the cached pages up to date.
    ///
    /// # Errors
    /// Fault if the program's memory went away meanwhile.
    pub fn file_written(
        &self,
        mapping: &MappingRef<'m>,
        offset: u64,
        mm: &Mm<'m>,
        from: VirtAddr,
        len: u64,
    ) -> Result<(), MmError> {
        self.zero_past_end(mapping, offset);
        mapping.extend_size(offset + len);
        let mut done = 0;
        while done < len {
            let at = offset + done;
            let within = at % PAGE_SIZE;
            let piece = (PAGE_SIZE - within).min(len - done);
            if let Some(pfn) = mapping.find_get(at >> PAGE_SHIFT) {
                let copied =
                    self.copy_phys(mm, from, done, pfn.addr() + within, piece, Access::Read);
                self.put_page(pfn);
                if copied? < piece {
                    return Err(MmError::Fault);
                }
            }
            done += piece;
        }
        Ok(())
    }
}
